"""The cost of one call of a program's modules, estimated without any LM call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptgrad.data import Example
from promptgrad.errors import NoLMError, PromptgradError
from promptgrad.lm import Transport, resolve_lm
from promptgrad.nn import Module, Predict

REPLY_TOKENS = 40
"""Tokens of an output whose length is not known from any example."""


@dataclass(frozen=True)
class Price:
    """An average over the modules of a program.

    Attributes:
        modules: Modules that call a language model.
        tokens: Tokens of one call, read and written.
        usd: Its price; None if it is unknown.
    """

    modules: int
    tokens: float
    usd: float | None


def price_of_program(model: Module, examples: Sequence[Example]) -> Price:
    """Estimate from rendered prompts (a quarter of the characters) and the labels in the examples."""
    modules = [module for module in model.modules() if isinstance(module, Predict)]
    if not modules or not examples:
        return Price(max(1, len(modules)), 0.0, 0.0)
    tokens = 0.0
    usd: float | None = 0.0
    for module in modules:
        read, written = _sizes(module, examples[0])
        tokens += read + written
        prices = _prices(module)
        usd = None if usd is None or prices is None else usd + (prices[0] * read + prices[1] * written) / 1e6
    return Price(len(modules), tokens / len(modules), None if usd is None else usd / len(modules))


def _sizes(module: Predict, example: Example) -> tuple[float, float]:
    texts = [str(value) for value in example.values()]
    typical = max(texts, key=len) if texts else ""
    inputs = {
        name: example.get(name, typical if field.is_text else None) for name, field in module.signature.inputs.items()
    }
    try:
        read = sum(len(message["content"]) for message in module.render(**inputs)) / 4
    except PromptgradError:
        read = (len(module.signature.instruction) + sum(map(len, texts))) / 4
    written = sum(
        len(str(example[name])) / 4 + 4 if name in example else REPLY_TOKENS for name in module.signature.outputs
    )
    return read, written


def _prices(module: Predict) -> Any:
    try:
        transport = resolve_lm(None, module._lm).transport
    except NoLMError:
        return None
    return transport.prices if isinstance(transport, Transport) else None
