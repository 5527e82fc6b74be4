"""What the programs that write new texts are asked: their prompts, word for word."""

from typing import Any

from promptgrad.signature import Input, Output, Signature

TIPS = (
    "",
    "Keep it short: say each rule once, in few words.",
    "Be precise about what the answer must look like.",
    "Say how to work out the answer, step by step.",
    "Name the mistakes that are easy to make here.",
    "Describe the task as you would to a colleague who has never seen it.",
)
"""Styles that keep the candidates apart; the first leaves the writer free."""

ANALYSIS = "analysis"
"""The output in which a writer thinks before it writes."""


class Writing(Signature):
    """What the prompts of all writers of instructions show; each adds what it asks for."""

    program: str = Input(desc="the program, a line for each step")
    role: str = Input(desc="where the instruction is used")
    interface: str = Input(desc="what the step is given, and what it must answer")
    instruction: str = Input(desc="the present instruction, in full")
    rules: list[str] = Input(desc="what the new instruction must satisfy")
    tip: str = Input(desc="a style to follow, if any; it may cost no rule that the rows show")
    attempts: list[dict[str, Any]] = Input(desc="versions that were tried, with mean score and number of other rows")
    worse: list[dict[str, Any]] = Input(desc="versions that are worse or break a rule; do not come back to them")
    rows: list[dict[str, Any]] = Input(
        desc="what happened with the present instruction; the best score is 1 or `best`; [...] marks what was cut out"
    )
    analysis: str = Output(desc="what decides the right answer, as far as the rows show it")


class Improve(Writing):
    """You improve one instruction of a program made of language-model calls.

    The model that follows the instruction sees nothing but it and the inputs of one call, so everything that it has to
    know must stand there. `rows` are runs with the present instruction: the wrong ones first, then right ones that are
    like them. Score and feedback are about what the whole program returned. `program_inputs` is what the program was
    given and this step was not. Where only that separates the right answers, state the rule too: it will hold once an
    earlier step passes on what it needs.

    First write the `analysis`. Which property of the inputs separates the right answers from the wrong ones? Find the
    fewest rules that explain every row, the right ones too, and which of them goes first where several apply. Check
    each rule against all rows, and say which rows speak against it. Rows are facts and critiques are opinions: where
    they disagree, trust the rows.

    Then write the `new_instruction`, in full and ready to use. State the rules with the names, values and limits that
    the rows show, in their order, and what holds where none applies; say what the answer looks like. Keep what the
    right rows depend on. Invent nothing for which there is no evidence, and do not list single rows with their answers.
    Keep every {placeholder} exactly as it is. Build on the attempts that scored best.
    """

    new_instruction: str = Output(desc="the new instruction, in full")


class ImproveSolution(Signature):
    """You improve one text: the solution of a problem.

    `rows` are the checks of the present solution, those that it failed first. In the `analysis`, find the cause of each
    failure, and what the checks that it passed depend on. Then write the `new_solution`: it passes every check, and
    what is right already stays right. Use what the rows say of this very problem; where a critique and a row disagree,
    trust the row. Build on the attempts that scored best. Write the solution in full and nothing else: no explanation,
    no quotation marks or code fences around it.
    """

    role: str = Input(desc="what the solution is")
    solution: str = Input(desc="the present solution, in full")
    rules: list[str] = Input(desc="what the new solution must satisfy")
    tip: str = Input(desc="a style to follow, if any")
    attempts: list[dict[str, Any]] = Input(desc="versions that were tried, with mean score and number of checks")
    worse: list[dict[str, Any]] = Input(desc="versions that are worse or break a rule; do not come back to them")
    rows: list[dict[str, Any]] = Input(
        desc="the checks: the problem, the score, and what was said; [...] marks what was cut out"
    )
    analysis: str = Output(desc="what is wrong, and what must stay")
    new_solution: str = Output(desc="the improved solution, in full")


class ProposeInstruction(Writing):
    """You write the instruction for one step of a program made of language-model calls.

    The model that follows the instruction sees nothing but it and the inputs of one call, so everything that it has to
    know must stand there. `rows` show what the step is given, what it should answer, and what it answers at present.
    `program_inputs` is what the program was given and this step was not. Where only that decides the answer, state the
    rule too: it will hold once an earlier step passes on what it needs.

    First write the `analysis`: which property of the inputs decides the answer? Find the fewest rules that explain
    every row and which of them goes first where several apply, check each rule against all rows, and say which rows
    speak against it.

    Then write the `new_instruction`, in full and ready to use. State the rules with the names, values and limits that
    the rows show, in their order, and what holds where none applies; say what the answer looks like. Invent nothing for
    which there is no evidence, and do not list single rows with their answers. Keep every {placeholder} of the present
    instruction. Build on the attempts that scored best.
    """

    rows: list[dict[str, Any]] = Input(
        desc="inputs of the step, with what is known of the right answers; [...] marks what was cut out"
    )
    new_instruction: str = Output(desc="the instruction, in full")
