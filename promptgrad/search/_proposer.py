"""The programs that write new instructions: ordinary `Predict` modules, whose prompts are visible parameters."""

from collections.abc import Mapping
from typing import Any

from promptgrad.adapters import Compiled, get_adapter
from promptgrad.autograd import no_grad
from promptgrad.errors import HunkError, ParseError, SignatureError
from promptgrad.lm import LM, Completion, current, resolve
from promptgrad.nn import Predict
from promptgrad.search._hunks import Hunk, apply_hunks
from promptgrad.search._numbers import is_number
from promptgrad.signature import Input, Output, Signature

TIPS = (
    "",
    "Keep it short: one or two sentences.",
    "Be precise about what the answer must look like.",
    "Say how to work out the answer, step by step.",
    "Name the mistakes that are easy to make here.",
    "Describe the task as you would to a colleague who has never seen it.",
)
"""Styles that keep the candidates apart; the first leaves the writer free."""


_NO_HUNKS = (
    'edits="hunks" needs a language model that can quote a text, and this one cannot be asked for it ({}): use '
    'edits="rewrite", or another lm'
)


class Improve(Signature):
    """You improve one instruction of a program made of language-model calls.

    Critics looked at examples on which the program failed and said what this instruction should do differently.
    Rewrite it so that these failures no longer happen and everything it already gets right stays right. Change what
    the critiques ask for and keep the rest. Write general rules: do not mention single examples or their answers,
    unless a critique says that a value is fixed. Keep every {placeholder} exactly as it is. Reply with the whole
    new instruction and nothing about it.
    """

    role: str = Input(desc="where the instruction is used")
    instruction: str = Input(desc="the instruction as it is, in full")
    critiques: list[str] = Input(desc="what is wrong with it, most frequent first")
    failures: list[dict[str, Any]] = Input(desc="some of the failed calls that the critiques are about")
    rules: list[str] = Input(desc="what the new instruction must satisfy")
    rejected: list[str] = Input(desc="versions that were tried, each with its effect; do not come back to them")
    new_instruction: str = Output(desc="the rewritten instruction, in full")


class ImproveSolution(Signature):
    """You improve one text: the solution of a problem.

    The solution was checked, and the critiques say what is wrong with it. Rewrite it so that none of them holds any
    more, and what is right already stays right. Use what the critiques and checks say of this very problem. Reply with
    the whole new solution and nothing about it: no explanation, no quotation marks or code fences around it.
    """

    role: str = Input(desc="what the solution is")
    solution: str = Input(desc="the solution as it is, in full")
    critiques: list[str] = Input(desc="what is wrong with it, most frequent first")
    failures: list[dict[str, Any]] = Input(desc="some of the failed checks: the problem, and what was said")
    rules: list[str] = Input(desc="what the new solution must satisfy")
    rejected: list[str] = Input(desc="versions that were tried, each with its effect; do not come back to them")
    new_solution: str = Output(desc="the improved solution, in full")


class ProposeInstruction(Signature):
    """You write the instruction for one module of a program made of language-model calls.

    Study the examples of what the module is given and what it should answer, and find the rule behind them. Then
    write the instruction that makes a language model answer so on new inputs: say what to do, and what the answer
    looks like. Write general rules: do not mention single examples. Keep every {placeholder} of the present
    instruction. Reply with the instruction and nothing about it.
    """

    program: str = Input(desc="the program that the module is part of")
    role: str = Input(desc="the module: its inputs and outputs")
    instruction: str = Input(desc="its present instruction")
    examples: list[dict[str, Any]] = Input(desc="inputs and right outputs of the module")
    tip: str = Input(desc="a style to follow, if any")
    new_instruction: str = Output(desc="the instruction")


class Writer(Predict, in_place=True):
    """A `Predict` that accepts a reply only if it names the field that was asked for.

    With one output, adapters accept a reply without any marker as that output. That serves an answer, but a text that
    is going to be installed might then be an error page or a remark; this module asks again instead.
    """

    def _parse(self, compiled: Compiled, completion: Completion) -> dict[str, Any]:
        prompt = _letters("".join(message.text for message in compiled.prefix.messages))
        reply = completion.text
        for name in compiled.signature.outputs:
            if _letters(name) in prompt and _letters(name) not in _letters(reply):
                reason = f"it does not name the field `{name}`, so what it holds may be anything"
                raise ParseError(f"{reason}: {reply[:200]}", reply=reply, reason=reason)
        return super()._parse(compiled, completion)


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text.casefold()))


def make_proposer(signature: type[Signature], lm: LM | str | None) -> Predict:
    """A `Predict` on the given signature, on an LM of its own or on that of the context."""
    return Writer(signature, lm=lm)


def make_writers(edits: str) -> tuple[Predict, Predict]:
    """The program that writes instructions, in whole or by hunks, and the one that writes solutions.

    Raises:
        ValueError: `edits` is neither "rewrite" nor "hunks".
    """
    if edits not in ("rewrite", "hunks"):
        raise ValueError(f'edits is "rewrite" or "hunks", not {edits!r}')
    signature: type[Signature] = Improve
    if edits == "hunks":
        from promptgrad.search._amend import Amend as signature  # its type of output takes pydantic, half of an import
    return make_proposer(signature, None), make_proposer(ImproveSolution, None)


def check_writer(lm: Any, temperature: Any = None) -> None:
    """Check the argument for the language model that writes, and its sampling temperature.

    Raises:
        TypeError: `lm` is not a language model, its name, a function or None.
        ValueError: `temperature` is not a number of at least 0 or None.
    """
    if lm is not None and not (isinstance(lm, (str, LM)) or callable(lm)):
        raise TypeError(f"lm is a language model, its name, or a function of the messages, not {lm!r}")
    if temperature is not None and not (is_number(temperature) and temperature >= 0):
        raise ValueError(f"temperature is at least 0, or None for that of the LM, not {temperature!r}")


def check_amends(proposer: Predict, lm: Any) -> None:
    """Check that a language model can be asked for hunks, if it is known already: an LM, or the embedded model.

    Raises:
        SignatureError: Its adapter has no form for them; that of the embedded model has none.
    """
    if lm != "pocket" and not isinstance(lm, LM):
        return
    form = proposer.adapter or get_adapter(current().adapter or resolve(lm).adapter)
    try:
        form.make_format(proposer.signature)
    except SignatureError as error:
        raise SignatureError(_NO_HUNKS.format(error)) from error


async def write(
    proposer: Predict, inputs: Mapping[str, Any], *, lm: LM | None = None, config: Mapping[str, Any] | None = None
) -> tuple[str | None, str]:
    """Ask for one new text: (text, "") or (None, why there is none).

    The present text is the input `instruction`, also for a solution.

    Cost: one LM call, one more for each re-ask of a reply that does not parse.

    Raises:
        LMError: The LM gave no answer. A reply without an instruction is not an error: it returns a reason.
    """
    text = "solution" if "solution" in proposer.input_names() else "instruction"
    named = {text if name == "instruction" else name: value for name, value in inputs.items()}
    try:
        with no_grad():  # a step inside a forward is not part of the program
            reply = await proposer.acall(**named, lm=lm, config=dict(config or {}))
    except ParseError as error:
        return None, f"the reply holds no {text}: {error.reason}"
    written = str.__str__(reply[f"new_{text}"])
    return (_indented(written, reply.reply) if text == "solution" else written.strip()), ""


def _indented(text: str, reply: str) -> str:
    """A solution with the blanks that its first line had in the reply, which adapters strip."""
    text = text.rstrip().lstrip("\n")
    start = reply.find(text)
    before = reply[reply.rfind("\n", 0, start) + 1 : start] if text and start > 0 else ""
    return before + text if before.isspace() else text


async def amend(
    proposer: Predict, inputs: Mapping[str, Any], *, lm: LM | None = None, config: Mapping[str, Any] | None = None
) -> tuple[str | None, tuple[Hunk, ...], str]:
    """Ask for hunks and apply them: (text, hunks, "") or (None, hunks, why there is no text).

    Cost: as `write`.

    Raises:
        LMError: The LM gave no answer. Hunks that do not apply are not an error: they return a reason.
        SignatureError: The LM cannot be asked for hunks.
    """
    try:
        with no_grad():
            reply = await proposer.acall(**inputs, lm=lm, config=dict(config or {}))
    except SignatureError as error:
        raise SignatureError(_NO_HUNKS.format(error)) from error
    except ParseError as error:
        return None, (), f"the reply holds no hunks: {error.reason}"
    hunks = tuple(reply.hunks)
    try:
        return apply_hunks(str.__str__(inputs["instruction"]), hunks), hunks, ""
    except HunkError as error:
        return None, hunks, str(error)
