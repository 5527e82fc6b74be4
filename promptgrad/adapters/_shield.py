"""What a text must not begin or end with where it is written, lest it be taken for another: a sign keeps it apart.

A reply is stripped when it is read, thoughts at the beginning of a text are split off, tokens that end a turn are taken
off, and the form of the prompt in place of a value is refused.
"""

from __future__ import annotations

import re

from promptgrad._patterns import late_pattern
from promptgrad.adapters._debris import TURN_ENDS

EDGE = "␣"
"""The sign that stands before or behind what it keeps apart."""
THOUGHTS = ("<think", "[THINK", "\N{WHITE LEFT-POINTING TRIANGLE}think", "<|channel|>", "<|START_THINK")
"""How a text begins that may be a thought."""
_FORM = r"\{(?!\s*[\"}])[\s\S]*\}\Z"  # "{text}", and no JSON object
_THOUGHT_OR_FORM = late_pattern(rf"{EDGE}*(?:{'|'.join(map(re.escape, THOUGHTS))}|{_FORM})")
_ENDS = "|".join(map(re.escape, TURN_ENDS))
_TO_GUARD_START = late_pattern(rf"{EDGE}*\s")
_TO_GUARD_END = late_pattern(rf"(?:\s|{_ENDS}){EDGE}*\Z")
_GUARDED_START = late_pattern(rf"{EDGE}+\s")
_GUARDED_END = late_pattern(rf"(?:\s|{_ENDS}){EDGE}+\Z")


def guard(value: str) -> str:
    """A value that survives being stripped; `unguard` gives it back."""
    if not value or (value[0] not in EDGE and value[-1] not in f"{EDGE}>]" and value == value.strip()):
        return value
    if _TO_GUARD_START.match(value):
        value = EDGE + value
    return value + EDGE if _TO_GUARD_END.search(value) else value


def unguard(value: str) -> str:
    """The value that `guard` was given."""
    if EDGE not in value:
        return value
    if _GUARDED_END.search(value):
        value = value[:-1]
    return value[1:] if _GUARDED_START.match(value) else value


def unguard_start(value: str) -> str:
    """The beginning of the value that `guard` was given, from one that ends in neither a blank nor the sign."""
    value = value.lstrip()
    return value[1:] if _GUARDED_START.match(value) else value


def shield(value: str) -> str:
    """A text that is neither taken for a thought nor for the form of the prompt; `unshield` gives it back."""
    return EDGE + value if _THOUGHT_OR_FORM.match(value) else value


def unshield(value: str) -> str:
    """The text that `shield` was given."""
    return value[1:] if value[:1] == EDGE and _THOUGHT_OR_FORM.match(value) else value


def may_be_shielded(start: str) -> bool:
    """Whether a text that goes on after this beginning, which has the sign, may have been given by `shield`."""
    bare = start.lstrip(EDGE)
    return start[:1] == EDGE and (bare[:1] in ("", "{") or bare.startswith(THOUGHTS) or is_beginning(bare))


def is_beginning(start: str, signs: tuple[str, ...] = THOUGHTS) -> bool:
    """Whether a text is the beginning of one of some signs."""
    return any(sign.startswith(start) for sign in signs)
