"""`Amend`: what a writing program is asked that answers with hunks."""

from promptgrad.search._hunks import Hunk
from promptgrad.search._writing import Improve, Writing
from promptgrad.signature import Output

_, _ROWS, _ANALYSE, _ = Improve().instruction.split("\n\n")


class Amend(Writing):
    __doc__ = f"""You improve one instruction of a program made of language-model calls, by a few edits.

{_ROWS}

{_ANALYSE}

Then edit the instruction so that it states these rules, with the names, values and limits that the rows show, and
leave what the right rows depend on. Invent nothing for which there is no evidence, and do not list single rows with
their answers. Keep every {{placeholder}} exactly as it is.

Each edit quotes its anchor: a piece of the instruction, exactly as it stands there, long enough to occur only
once. "insert" puts its text directly after the anchor, blanks and line breaks included; with an empty anchor,
at the start. "replace" puts its text in the anchor's place. "delete" takes the anchor away and has no text.
Anchors must not overlap. If one edit does not apply exactly, all are rejected.
"""

    hunks: list[Hunk] = Output(desc="the edits")
