"""`Amend`: what a writing program is asked that answers with hunks."""

from typing import Any

from promptgrad.search._hunks import Hunk
from promptgrad.signature import Input, Output, Signature


class Amend(Signature):
    """You improve one instruction of a program made of language-model calls, by a few edits.

    Critics looked at examples on which the program failed and said what this instruction should do differently.
    Edit it so that these failures no longer happen and everything it already gets right stays right. Change what
    the critiques ask for and keep the rest. Write general rules: do not mention single examples or their answers,
    unless a critique says that a value is fixed. Keep every {placeholder} exactly as it is.

    Each edit quotes its anchor: a piece of the instruction, exactly as it stands there, long enough to occur only
    once. "insert" puts its text directly after the anchor, blanks and line breaks included; with an empty anchor,
    at the start. "replace" puts its text in the anchor's place. "delete" takes the anchor away and has no text.
    Anchors must not overlap. If one edit does not apply exactly, all are rejected.
    """

    role: str = Input(desc="where the instruction is used")
    instruction: str = Input(desc="the instruction as it is, in full")
    critiques: list[str] = Input(desc="what is wrong with it, most frequent first")
    failures: list[dict[str, Any]] = Input(desc="some of the failed calls that the critiques are about")
    rules: list[str] = Input(desc="what the edited instruction must satisfy")
    rejected: list[str] = Input(desc="versions that were tried, each with its effect; do not come back to them")
    hunks: list[Hunk] = Output(desc="the edits")
