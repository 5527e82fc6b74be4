"""The arguments of `Predict` beside its signature: sampling options and demos."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from promptgrad.autograd import Selector
from promptgrad.data import Example
from promptgrad.lm import Request

_SAMPLING = ("temperature", "max_tokens", "top_p", "stop", "seed", "response_format", "replicate", "extra", "grammar")
_ARGUMENTS = ("instruction", "demos", "adapter", "types", "retries", "allow_cut", *_SAMPLING)


def check_spelling(options: Mapping[str, Any]) -> None:
    """Refuse misspelt known names; any other name is an option of the provider and is sent as it is.

    Raises:
        TypeError: A name is close to that of an argument or of a sampling option.
    """
    for name in options:
        near = difflib.get_close_matches(name, _ARGUMENTS, 1, 0.85)
        if near and near[0] != name:
            raise TypeError(f"Predict has no argument {name!r}: did you mean {near[0]!r}?")
        if name == "model":
            raise TypeError(f"Predict has no argument {name!r}: write lm=..., or .to(lm)")
        if name == "n":  # it would pay for n replies, and read one
            raise TypeError(
                "Predict has no argument 'n', it returns one answer: write predict.map(examples, n=5), or "
                "nn.SelfConsistency(predict, 5) for the answer of most"
            )


def sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling options, checked, as `Request` takes them."""
    return Request.of("", **options).options() if options else {}


def as_demos(demos: Iterable[Any] | Selector) -> tuple[Any, ...] | Selector:
    """Demos as a parameter of `Predict` holds them.

    Raises:
        TypeError: It is one example.
    """
    if isinstance(demos, Selector):
        return demos
    if isinstance(demos, (str, Mapping, Example)):
        raise TypeError(f"demos is a list of examples, not one {type(demos).__name__}")
    return tuple(Example(demo) if isinstance(demo, Mapping) else demo for demo in demos)
