"""Words beside an object that only announce it or end the reply: "Sure! Here you go:", "Let me know!"."""

from __future__ import annotations

import re

from promptgrad._patterns import late_pattern

_SAID_BESIDE = late_pattern(
    r"[\W_]*(?:sure|certainly|of course|absolutely|definitely|gladly|ok|okay|alright|all right|yes|great|good|perfect|"
    r"understood|got it|no problem|hello|hi|thanks|thank you|"
    r"(?:here|below) (?:you go|you are|it is|is|are|'s)|here's|as (?:requested|asked)|done|"
    r"(?:my|the|your) (?:final )?(?:answer|reply|response|result|output|json)(?: is| follows| below)?|"
    r"i hope|hope (?:this|that|it)|let me know|feel free|please let|happy to|glad to|is there anything|anything else|"
    r"do you (?:need|want)|need anything|enjoy|best regards|good luck)\b",
    re.IGNORECASE,
)
_MOST = 300
_FENCE_BEFORE = late_pattern(r"```\w*[ \t]*\n\s*\Z")
_FENCE_AFTER = late_pattern(r"\A\s*```(?!\w)")
_NEXT = late_pattern(r"(?<=[.!?:])\s+|\n")


def is_frame(text: str, ends: tuple[str, ...]) -> bool:
    """Whether text beside an object only announces or frames it."""
    text = text.strip()
    return not text or (text.endswith(ends) and len(text) < 200)


def is_courtesy(text: str) -> bool:
    """Whether a short text beside an answer says nothing of its own: "Sure!", "Here you go.", "Let me know!"."""
    text = text.strip()
    if len(text) > _MOST:
        return False
    said = (sentence for sentence in _NEXT.split(text) if sentence.strip(" *_#>-"))
    return all(_SAID_BESIDE.match(sentence) and len(sentence) < 120 for sentence in said)


def without_fence(before: str, after: str) -> tuple[str, str]:
    """The texts before and after an object, without the fence around it."""
    inside = _FENCE_BEFORE.sub("", before[-_MOST:])
    if len(inside) == len(before[-_MOST:]):
        return before, after
    return before[:-_MOST] + inside, _FENCE_AFTER.sub("", after)
