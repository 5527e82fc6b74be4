"""The second step of a call in two: an extractor finds the outputs in what the first model said."""

from collections.abc import Callable
from typing import Any

from promptgrad.nn._module import Module
from promptgrad.nn._prediction import Prediction
from promptgrad.signature import Signature


def make_extractor(make: Callable[..., Any], adapter: Any, signature: Signature, retries: int) -> Any:
    """The module that makes the second call; `make` is `Predict`."""
    made = make(adapter.second_step(signature), adapter=adapter.extract_with, retries=retries)
    return made if adapter.extractor_lm is None else made.to(adapter.extractor_lm, pin=True)


async def extract(extractor: Module | None, make: Callable[[], Any], said: Prediction, lm: Any) -> Prediction:
    """The outputs in the reply of the first step.

    Args:
        extractor: The module of the second call, where its `Predict` was made with the adapter, so that it can be
            trained; None where the adapter comes from the context.
        make: Function that makes one for this call.
        said: The first reply.
        lm: The LM of the first call, which is asked again where the extractor has none of its own.
    """
    if extractor is None:
        extractor = make().requires_grad_(requires_grad=False)
    more = {} if extractor.lm is not None else {"lm": lm}
    found: Prediction = await extractor.acall(**{name: said[name] for name in extractor.input_names() or ()}, **more)
    return found
