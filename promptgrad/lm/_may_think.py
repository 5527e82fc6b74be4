"""`may_think`: whether a text may hold thoughts; `turn_at_start`: whether it begins with the signs of a turn."""

SPOKEN = "assistantfinal"
"""Channels where a server drops the special tokens and leaves the words between them."""
_SIGN_END = "\N{WHITE LEFT-POINTING TRIANGLE}/"
_STARTS = (
    *("<", "\N{WHITE LEFT-POINTING TRIANGLE}", "[THINK", "[REASONING]", "analysis", "Here is my thought"),
    *("```think", "```thought", "```reason", "Thinking...", "assistant", "Here's my thought", "&lt;think", "/think"),
    *("Here are my reasoning", "\\<think", "\N{FULLWIDTH LESS-THAN SIGN}think"),
)
_bare = [""]
"""The last text that holds none: a transport looks at a reply, and at once an adapter at the same one."""


def may_think(text: str) -> bool:
    """Whether a text may hold thoughts; most texts do not, which is found out in 0.3 microseconds."""
    if text is _bare[0]:
        return False
    ends = "</" in text or "|>" in text or "[/" in text or _SIGN_END in text or "95>" in text
    if ends or SPOKEN in text or "[BEGIN FINAL RESPONSE]" in text or text.lstrip().startswith(_STARTS):
        return True
    _bare[0] = text
    return False


TURN_STARTS = (
    *("<|im_start|>assistant", "<|start_header_id|>assistant<|end_header_id|>", "<start_of_turn>model"),
    *("<|assistant|>", "<\N{FULLWIDTH VERTICAL LINE}Assistant\N{FULLWIDTH VERTICAL LINE}>"),
)


def turn_at_start(text: str) -> int:
    """How many signs of a text begin a turn, and are no part of a sentence about it; 0 where none do."""
    size = next((len(start) for start in TURN_STARTS if text.startswith(start)), 0)
    return size if text[size : size + 1] not in (" ", "") else 0
