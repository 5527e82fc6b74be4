"""The programs that write new instructions: ordinary `Predict` modules, their prompts visible parameters."""

from collections.abc import Mapping
from typing import Any

from promptgrad.errors import ParseError
from promptgrad.lm import LM
from promptgrad.nn import Predict
from promptgrad.nn._prediction import fields_of
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
    rejected: list[str] = Input(desc="rewrites that were tried and did not help")
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
    rejected: list[str] = Input(desc="solutions that were tried and did not help")
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


def make_proposer(signature: type[Signature], lm: LM | str | None) -> Predict:
    """A `Predict` on the given signature, on an LM of its own or on that of the context."""
    return Predict(signature, lm=lm)


async def write(
    proposer: Predict, inputs: Mapping[str, Any], *, lm: LM | None = None, config: Mapping[str, Any] | None = None
) -> tuple[str | None, str]:
    """Ask for one new text: (text, "") or (None, why there is none). The present text is `instruction` in any case.

    Cost: one LM call, one more for each re-ask of a reply that does not parse.

    Raises:
        LMError: The LM gave no answer; a reply that is no instruction is not an error but a reason.
    """
    text = "solution" if "solution" in proposer.input_names() else "instruction"
    named = {text if name == "instruction" else name: value for name, value in inputs.items()}
    try:
        reply = await proposer.acall(**named, lm=lm, config=dict(config or {}))
    except ParseError as error:
        return None, f"the reply holds no {text}: {error.reason}"
    return str.__str__(fields_of(reply)[f"new_{text}"]).strip(), ""
