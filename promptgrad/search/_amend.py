"""`Amend`: what a writing program is asked that answers with hunks."""

from promptgrad.search._hunks import Hunk
from promptgrad.search._writing import Writing
from promptgrad.signature import Output


class Amend(Writing):
    """You improve one instruction of a program made of language-model calls, by a few edits.

    The model that follows the instruction sees nothing but it and the inputs of one call, so everything that it has to
    know must stand there. `rows` are runs with the present instruction: the wrong ones first, then right ones that are
    like them. Score and feedback are about what the whole program returned.

    First write the `analysis`. Which property of the inputs separates the right answers from the wrong ones? Find the
    fewest rules that explain every row, the right ones too, and which of them goes first where several apply. Check
    each rule against all rows, and say which rows speak against it. Rows are facts and critiques are opinions: where
    they disagree, trust the rows.

    Then edit the instruction so that it states these rules, with the names, values and limits that the rows show, and
    leave what the right rows depend on. Invent nothing for which there is no evidence, and do not list single rows with
    their answers. Keep every {placeholder} exactly as it is.

    Each edit quotes its anchor: a piece of the instruction, exactly as it stands there, long enough to occur only
    once. "insert" puts its text directly after the anchor, blanks and line breaks included; with an empty anchor,
    at the start. "replace" puts its text in the anchor's place. "delete" takes the anchor away and has no text.
    Anchors must not overlap. If one edit does not apply exactly, all are rejected.
    """

    hunks: list[Hunk] = Output(desc="the edits")
