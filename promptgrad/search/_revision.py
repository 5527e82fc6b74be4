"""`Revise`: what a writing program is asked that finds the texts to blame and rewrites them."""

from dataclasses import dataclass
from typing import Any

from promptgrad.signature import Input, Output, Signature


@dataclass
class Revision:
    """The new text of one parameter that is to blame."""

    parameter: str = ""
    new_text: str = ""


class Revise(Signature):
    """You improve the instructions of a program made of language-model calls.

    The model that follows an instruction sees nothing but it and the inputs of one call, so everything that it has to
    know must stand there. `runs` shows the program from beginning to end, the wrong runs first, then right ones that
    are like them: the inputs, the calls in their order with what each was given and what it answered, and what the
    program returned. "= facts of extract" stands for a text that is further up in the same run: the field `facts` of
    the call `extract`. Score and feedback are about what the program returned.

    First write the `analysis`. Which property of the inputs separates the right answers from the wrong ones? Find the
    fewest rules that explain every run, the right ones too, and which of them goes first where several apply; check
    each rule against all runs. Then find the calls at fault. A call that did what it was told, with an input that
    already lacks what the rules need, is not the cause: look for the call that wrote that input.

    Then write the `revisions`: for each parameter that is to blame its name and its `new_text`, in full and ready to
    use. Leave out every parameter that is right: a change of it can only do harm. A text states the rules that its call
    has to follow, with the names, values and limits that the runs show, in their order, and what holds where none
    applies; and it asks for all that later calls need. Keep what the right runs depend on. Invent nothing for which
    there is no evidence, and do not list single runs with their answers. Keep every {placeholder} exactly as it is.
    Build on the attempts that scored best.
    """

    program: str = Input(desc="the program, a line for each step")
    interfaces: dict[str, str] = Input(desc="what the step of each parameter is given, and what it must answer")
    parameters: dict[str, str] = Input(desc="the present texts by name, in full")
    rules: dict[str, list[str]] = Input(desc="what each new text must satisfy")
    tip: str = Input(desc="a style to follow, if any; it may cost no rule that the runs show")
    attempts: list[dict[str, Any]] = Input(desc="changes that were tried, with mean score and number of other rows")
    worse: list[dict[str, Any]] = Input(desc="changes that are worse or break a rule; do not come back to them")
    runs: list[dict[str, Any]] = Input(
        desc="runs of the present program; the best score is 1 or `best`; [...] marks what was cut out"
    )
    analysis: str = Output(desc="what decides the right answer, and which calls are at fault, as far as the runs show")
    revisions: list[Revision] = Output(desc="one for each parameter that is to blame")
