"""The cost of one call of a program's modules, estimated without any LM call."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptgrad.autograd import Parameter, demos_in
from promptgrad.content import IMAGE_TOKENS, media_in
from promptgrad.data import Example
from promptgrad.errors import NoLMError, PromptgradError
from promptgrad.lm import Transport, resolve_lm, weigh
from promptgrad.nn import Module, Predict

REPLY_TOKENS = 40
"""Tokens of an output whose length is not known from any example."""

WRITER_TOKENS = 800
"""Tokens of a writer's or critic's prompt beside the texts of the program and the rows that it is shown."""

WRITTEN_TOKENS = 200
"""Tokens of its reply: an analysis, and the text."""

ROW_TOKENS = 15
"""Tokens of a row beside what is in the example."""

SHOWN, BATCH = 8, 5
"""Examples that a writer of examples is shown, and that it writes in one call."""

EVIDENCE_TOKENS = 3000
"""Tokens of the rows that a writer is shown at most, where its optimizer does not say."""


@dataclass(frozen=True)
class Price:
    """An average over the modules of a program.

    Attributes:
        modules: Modules that call a language model.
        tokens: Tokens of one call, read and written.
        usd: Its price; None if it is unknown.
        demo_tokens: Tokens of the demos that a candidate adds to one call.
        demo_usd: Their price; None if it is unknown.
    """

    modules: int
    tokens: float
    usd: float | None
    demo_tokens: float = 0.0
    demo_usd: float | None = 0.0


def price_of_program(
    model: Module,
    examples: Sequence[Example],
    demos: tuple[int, int] = (0, 0),
    trained: Collection[Parameter] = (),
) -> Price:
    """Estimate from rendered prompts (a quarter of the characters) and the labels in the examples.

    Args:
        model: The program.
        examples: Its training data.
        demos: The most traces, and the most demos, that a candidate shows in one call.
        trained: The parameters that candidates change.
    """
    modules = [module for module in model.modules() if isinstance(module, Predict)]
    if not modules or not examples:
        return Price(max(1, len(modules)), 0.0, 0.0)
    tokens = 0.0
    usd: float | None = 0.0
    more = 0.0
    more_usd: float | None = 0.0
    for module in modules:
        read, written = _sizes(module, examples[0])
        tokens += read + written
        prices = _prices(module)
        usd = None if usd is None or prices is None else usd + (prices[0] * read + prices[1] * written) / 1e6
        shown = _demos_shown(module, examples, demos) if module.demos in trained else 0
        added = shown * _demo_size(module, examples[0]) if shown else 0.0
        more += added
        more_usd = None if more_usd is None or prices is None else more_usd + prices[0] * added / 1e6
    count = len(modules)
    return Price(
        count,
        tokens / count,
        None if usd is None else usd / count,
        more / count,
        None if more_usd is None else more_usd / count,
    )


def price_of_writing(model: Module, optimizer: Any, examples: Sequence[Example]) -> tuple[float, float | None]:
    """Tokens of one call of a writer, who sees rows of the training data side by side, and its price.

    Args:
        model: The program; its language model writes where the optimizer has none.
        optimizer: Its language model and `max_evidence` count, where it has them.
        examples: The training data.
    """
    modules = [module for module in model.modules() if isinstance(module, Predict)]
    row = sum(len(str(value)) for value in examples[0].values()) / 4 + ROW_TOKENS if examples else 0.0
    shown = min(float(getattr(optimizer, "max_evidence", EVIDENCE_TOKENS)), row * len(examples))
    texts = sum(len(module.signature.instruction) for module in modules) / 4
    read = WRITER_TOKENS + texts + 1.2 * shown  # rows are counted in words there
    prices = _prices_of(_writer_of(optimizer), modules[0]._lm if modules else None)
    usd = None if prices is None else (prices[0] * read + prices[1] * WRITTEN_TOKENS) / 1e6
    return read + WRITTEN_TOKENS, usd


def price_of_examples(model: Module, teacher: Any, examples: Sequence[Example]) -> tuple[float, float | None]:
    """Tokens of one call of a writer of examples (`nn.Synthesizer`), and its price.

    Args:
        model: The program; its language model writes where the teacher is not an LM.
        teacher: The teacher of the trainer.
        examples: The training data, of which a call shows some.
    """
    row = sum(len(str(value)) for value in examples[0].values()) / 4 + ROW_TOKENS
    modules = [module for module in model.modules() if isinstance(module, Predict)]
    read, written = WRITER_TOKENS + 2 * SHOWN * row, BATCH * row
    named = None if isinstance(teacher, Module) else teacher
    prices = _prices_of(named, modules[0]._lm if modules else None)
    return read + written, None if prices is None else (prices[0] * read + prices[1] * written) / 1e6


def _writer_of(optimizer: Any) -> Any:
    """The LM that an optimizer, or the first one in it that has one, writes with; None for the program's."""
    for each in (optimizer, *getattr(optimizer, "optimizers", {}).values()):
        named = [getattr(each, "lm", None), *(group.get("lm") for group in each.param_groups)]
        if any(lm is not None for lm in named):
            return next(lm for lm in named if lm is not None)
    return None


def _demos_shown(module: Predict, examples: Sequence[Example], demos: tuple[int, int]) -> int:
    """Demos that a candidate shows beyond those of the start; labelled ones only where the examples have the fields."""
    first, signature = examples[0], module.signature
    labelled = all(name in first for name in signature.inputs) and any(name in first for name in signature.outputs)
    here = module.demos.read().value
    return max(0, min(demos[1] if labelled else demos[0], len(examples)) - len(demos_in(here)))


def _demo_size(module: Predict, example: Example) -> float:
    """Tokens of one demo: by how much another one makes a prompt longer."""
    inputs = _inputs(module, example)
    filler = "x" * (4 * REPLY_TOKENS)
    outputs = {
        name: example.get(name, filler)
        for name, field in module.signature.outputs.items()
        if name in example or field.is_text
    }
    demo = Example({name: value for name, value in {**inputs, **outputs}.items() if value is not None})
    try:
        with module.candidate({"demos": [demo]}):  # the first one may replace a reminder of the format
            first = _rendered(module, inputs)
        with module.candidate({"demos": [demo, demo]}):
            return (_rendered(module, inputs) - first) / 4
    except PromptgradError:
        return sum(len(str(value)) for value in demo.values()) / 4


def _rendered(module: Predict, inputs: Mapping[str, Any]) -> int:
    """Characters of a prompt, an image as many as its tokens are of text."""
    try:
        model = resolve_lm(None, module._lm).name
    except NoLMError:
        model = ""
    return sum(weigh(message.content, model) for message in module.messages(**inputs))


def guessed(examples: Sequence[Example]) -> str:
    """The remark that the tokens of an image or a file are a guess; empty where they are known."""
    for value in examples[0].values() if examples else ():
        media = media_in(value)
        if media is not None and media.tokens() is None:
            return (
                f"nothing is known of the size of {media!r}, so {IMAGE_TOKENS:,} tokens are assumed for each such "
                f"{media.kind}: pass bytes for a better estimate"
            )
    return ""


def _inputs(module: Predict, example: Example) -> dict[str, Any]:
    """Inputs of a module: those in the example, and for another text the longest value in it."""
    typical = max(map(str, example.values()), key=len, default="")
    return {
        name: example.get(name, typical if field.is_text else None) for name, field in module.signature.inputs.items()
    }


def _sizes(module: Predict, example: Example) -> tuple[float, float]:
    try:
        read = _rendered(module, _inputs(module, example)) / 4
    except PromptgradError:
        read = (len(module.signature.instruction) + sum(len(str(value)) for value in example.values())) / 4
    written = sum(
        len(str(example[name])) / 4 + 4 if name in example else REPLY_TOKENS for name in module.signature.outputs
    )
    return read, written


def _prices(module: Predict) -> Any:
    return _prices_of(None, module._lm)


def _prices_of(named: Any, own: Any) -> Any:
    try:
        transport = resolve_lm(named, own).transport
    except NoLMError:
        return None
    return transport.prices if isinstance(transport, Transport) else None
