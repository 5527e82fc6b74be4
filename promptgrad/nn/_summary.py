"""`summary`: the modules of a program, with what their prompts and calls cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptgrad.autograd import Selector
from promptgrad.errors import NoLMError
from promptgrad.lm import Usage, expected_tokens, resolve_lm, usage
from promptgrad.nn._module import Module
from promptgrad.nn._predict import Predict


@dataclass(frozen=True, slots=True)
class ModuleSummary:
    """One `Predict` of a program.

    Attributes:
        path: Its path.
        fields: Its signature, in short.
        trained: How many of its parameters require a gradient.
        demos: How many demos it shows; -1 where they are chosen for each call.
        prompt: About how many tokens its prompt has, without the inputs of a call and demos that they choose.
        lm: Name of its language model; "" where none is set.
        spent: What its calls cost in the forward of `summary`; None where none was made.
    """

    path: str
    fields: str
    trained: int
    demos: int
    prompt: int
    lm: str
    spent: Usage | None = None


@dataclass(frozen=True, slots=True)
class ProgramSummary:
    """What `summary` returns; `print` it to read it.

    Attributes:
        program: Name of the program's class.
        modules: A line for each `Predict`.
        spent: What the forward cost in all; None where none was made.
    """

    program: str
    modules: tuple[ModuleSummary, ...]
    spent: Usage | None = None

    def __repr__(self) -> str:
        head = ["module", "fields", "trained", "demos", "prompt", "lm"]
        lines = [head + (["calls", "tokens in", "out", "usd"] if self.spent is not None else [])]
        for one in self.modules:
            shown = ["chosen" if one.demos < 0 else f"{one.demos}", f"~{one.prompt:,}"]
            line = [one.path or f"({self.program})", one.fields, f"{one.trained}", *shown, one.lm or "(none)"]
            lines.append(line + ([] if self.spent is None else _cost(one.spent or Usage())))
        if self.spent is not None:
            lines.append([self.program, "", "", "", "", "", *_cost(self.spent)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        left = (0, 1, 5)
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place in left else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def _cost(spent: Usage) -> list[str]:
    usd = "?" if spent.usd is None else f"{spent.usd:.4f}"
    return [f"{spent.calls + spent.cached}", f"{spent.input_tokens:,}", f"{spent.output_tokens:,}", usd]


def summary(program: Module, /, *args: Any, **inputs: Any) -> ProgramSummary:
    """The modules of a program: fields, what is trained, demos, tokens of the prompt; with inputs, calls and cost too.

    As `summary` of torchinfo. `pg.summary(model)` sends nothing. `pg.summary(model, question="...")` calls the program
    once with these inputs, and says what each module cost.

    Cost: no LM call without inputs, else those of one forward.

    Raises:
        TypeError: It is no module.
        Exception: With inputs, what the program raises.
    """
    if not isinstance(program, Module):
        raise TypeError(f"summary takes a program, an nn.Module, not {type(program).__name__}")
    spent: Mapping[str, Usage] = {}
    total: Usage | None = None
    if args or inputs:
        with usage() as used:
            program(*args, **inputs)
        spent, total = used.by_module, used.total
    found = tuple(
        _line(path, module, spent.get(path or f"({type(module).__name__})") if spent else None)
        for path, module in program.named_modules()
        if isinstance(module, Predict)
    )
    return ProgramSummary(type(program).__name__, found, total)


def _line(path: str, module: Predict, spent: Usage | None) -> ModuleSummary:
    demos = module.demos.data
    chosen = isinstance(demos, Selector)
    shown = () if isinstance(demos, Selector) else demos
    compiled = module._adapter_here().compile(module._described(), module.instruction.data, shown)
    lm = module.lm
    if lm is None:
        try:
            lm = resolve_lm(None)
        except NoLMError:
            lm = None
    size = sum(expected_tokens(message.content) for message in compiled.prefix.messages)
    size += sum(
        parameter.data.count for parameter in module._parameters.values() if parameter and parameter.kind.is_weights
    )
    return ModuleSummary(
        path,
        repr(module.signature),
        sum(parameter.requires_grad for parameter in module.parameters()),
        -1 if chosen else len(shown),
        size,
        "" if lm is None else lm.name,
        spent,
    )
