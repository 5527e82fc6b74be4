"""Choices in words: booleans, literals, members of enums, and the words for nothing."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from promptgrad._patterns import late_pattern
from promptgrad.adapters._labels import names_other
from promptgrad.adapters._taken_back import NOT_MEANT, takes_back

BOOLEANS: Mapping[str, Any] = {
    "true": True, "yes": True, "y": True, "t": True, "on": True, "1": True,
    "false": False, "no": False, "n": False, "f": False, "off": False, "0": False,
}  # fmt: skip
BOOLEAN_WORDS: Mapping[str, Any] = {word: BOOLEANS[word] for word in ("true", "yes", "false", "no")}
_DECORATION = "*_`\"'“”\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}«» \t\r\n"
_QUOTED = late_pattern(r"[*`\"“”«»]|(?<!\w)['\N{LEFT SINGLE QUOTATION MARK}]|['\N{RIGHT SINGLE QUOTATION MARK}](?!\w)")
_STATED = late_pattern(r"(?:\b(?:is|are|be|was)|[:=→]|->)\s*$", re.IGNORECASE)
_TURNS = late_pattern(
    r"\b(?:not|no|none|never|nor|neither|cannot|unless|except|if|whether|or|but|between|either|without|instead|rather|"
    r"maybe|perhaps|unclear|unsure|unknown|what|which|however|although|though|could|might|would|hardly|barely|far from|"
    r"else|otherwise|default|fallback|i guess|doubt\w*|den(?:y|ies|ied)|fail\w*|lacks?|wrong|incorrect|less|false|"
    r"formerly|previously|sometimes|"
    r"used to|too \w+ to|once (?:was|were))\b"
    r"|n['\N{RIGHT SINGLE QUOTATION MARK}]t\b|\?",
    re.IGNORECASE,
)
_UNLIKE = late_pattern(
    r"\b(?:nothing|nobody|half|some|few|opposite|converse|contrary|reverse|inverse|at first|"
    r"unlikely|improbable|impossible|implausible|dubious|questionable|supposed|alleged\w*|claim(?:s|ed)|rumou?red|believed|"
    r"said to|pretend\w*|hop(?:e|es|ed|ing)|wish\w*)\b|\Ahad\b",
    re.IGNORECASE,
)
"""Words of the sentence before a choice by which it is not stated: "the opposite is true"."""
_SENTENCE = late_pattern(r".*(?:[.!?;\n]\s|,? (?:so|thus|hence|therefore)\b)\s*", re.DOTALL)
_MAY = late_pattern(r"\b(?:may|will|can(?! be \w+ (?:from|by|in)\b))\b", re.IGNORECASE)
_SAYS = late_pattern(
    r".*(?:\b(?:say|said|see|seen|conclude\w*|confirm\w*|state\w*|infer\w*|tell) that\b|(?<! be):)", re.DOTALL
)
"""What leads to a statement, of which "may" and "can" say nothing: "I can say that it is", "users can lose data:"."""
_NONE = r"none|null|nil|n/?a|not available|not applicable"
_UNSTATED = r"not (?:mentioned|specified|stated|given|provided|listed|disclosed|reported)\b"
_NOTHING = late_pattern(
    rf"(?:{_NONE}|{_UNSTATED}(?: in (?:the|this) (?:[^\W\d]+ )?[^\W\d]+)?)(?:\.|\s*[(,;:.\N{{EN DASH}}—-][^\d]*)?",
    re.IGNORECASE,
)
_NO_VALUE = late_pattern(rf"\A(?:{_NONE}|{_UNSTATED})", re.IGNORECASE)
_MAY_BE_FALSE = late_pattern(rf"\W*{_UNSTATED}", re.IGNORECASE)
_NOT_AVAILABLE = late_pattern(r"n/a\b.{0,300}", re.IGNORECASE | re.DOTALL)
_YET = late_pattern(
    r"\A\W*(?:(?:about|approx\w*|around|roughly|circa|some)\W*)?\d|\A\W*no\b\W*\Z|\b(?:but|yes|true|false|likely|probably|perhaps|maybe|actually|wait)\b"
    r"|\b(?:is|was|be|are) (?:about )?[-$€£]?\d",
    re.IGNORECASE,
)
"""What is said after all behind the words for nothing."""
_JOINS = late_pattern(r"(?<=[^\W\d])[_-](?=\w)")
_NUMBERED = late_pattern(r"no\.\s*\d")
"""The abbreviation of "number"."""
_SHORT = 600
_RATED = late_pattern(r"\s*(?:[:=]\s*[-+]?\.?\d|\(?\s*(?:0?\.[0-4]|[0-4]?\d(?:\.\d+)? ?%))")
"""One of several options with its share or score, or one that is less likely than not: "true (0.3)"."""
_AFFIRMS = (
    r"(?:\A|[.!;])\s*(?:i|you|we|they|he|she|it|this|that|there) "
    r"(?:is|are|am|was|were|do|does|did|has|have|can|will)[.!]*\s*\Z"
)
"""What a "no" is followed by where it answers the contrary: "No, it is"."""
_COMPARED = late_pattern(r"(?:[<>!]=|[<≤≥≠~])\s*\S+\s*\Z|\A>\S")
_STARRED = late_pattern(r"\w\*\s*\Z")
"""A grade, or a note at the foot."""
_ONLY_A_DRAFT = late_pattern(rf"[\s,(\u2013\u2014-]*(?:drafts?|examples?|{NOT_MEANT})\b")
_UNSAYS = late_pattern(
    r"\b(?:but|however|maybe|perhaps|actually|wait|although|though|unless|except|unclear|unsure|depends|part(?:ly|ially)|"
    r"mostly|largely|somewhat|hardly|barely|rarely|(?:not|un) ?(?:entirely |quite |so |too |really )?(?:sure|certain)|"
    r"sort of|kind of|i guess|theor(?:y|etically)|in (?:most|many|some|certain|part)\b|assuming|provided|depending|"
    rf"{NOT_MEANT}|n/a|not (?:applicable|available)|as long as|only (?:if|when|in)|"
    r"(?:not enough|insufficient) (?:information|data|context|evidence|details?))\b"
    r"|^\s*if\b"
)
_UNSAYS_ONE = {
    False: late_pattern(
        rf"\b(?:yes|true|yeah|yep|yup)\b|{_AFFIRMS}|"
        r"(?:\bnot|n['\N{RIGHT SINGLE QUOTATION MARK}]t) (?:false|untrue|incorrect|wrong)\b"
    ),
    True: late_pattern(r"\b(?:no|not|false|never)\b|n['\N{RIGHT SINGLE QUOTATION MARK}]t\b"),
}


def is_nothing(text: str, *, or_truth: bool = False) -> bool:
    """Whether a text says that there is no value: "None", "null", "N/A (see page 3)", "Not mentioned in the text".

    Args:
        text: The text.
        or_truth: Whether it may also be true or false, as "not mentioned" is false of what is mentioned.
    """
    if or_truth and _MAY_BE_FALSE.match(text):
        return False
    bare = text.strip(_DECORATION)
    found = _NOTHING.fullmatch(bare) or _NOT_AVAILABLE.fullmatch(bare) if len(bare) <= _SHORT else None
    if found is None:
        return False
    rest = _NO_VALUE.sub("", bare, count=1)
    return _YET.search(rest) is None and not takes_back(rest)


def spellings(annotation: Any) -> dict[str, Any] | None:
    """The JSON values by text of a `Literal` or an `Enum`: by value, and by name where no other has it as its value."""
    if get_origin(annotation) is Literal:
        return {_spelled(value): _plain(value) for value in get_args(annotation)}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        members = list(annotation)
        if not all(isinstance(member.value, (str, int, float)) for member in members):
            return None
        found = {_spelled(member.value): member.value for member in members}
        for name, member in annotation.__members__.items():
            found.setdefault(name, member.value)
        return found
    return None


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _spelled(value: Any) -> str:
    value = _plain(value)
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)


def read_choice(text: str, options: Mapping[str, Any], title: str = "") -> tuple[Any, ...]:
    """The values among `options` that a text may mean: one, if it has a single reading.

    It may be decorated, in another case, the end of a short sentence ("The mood is good."), or before an explanation
    ("Good: ..."). Nothing is read from a text in which several options occur, or that turns the sense of one.

    Args:
        text: The text.
        options: The values by text.
        title: The name of the enum, which may stand before the name of a member: "Mood.GOOD".
    """
    if text in options or text.strip() in options:
        return (options.get(text, options.get(text.strip())),)
    if len(text) > _SHORT or not options or (text.count("*") == 1 and _STARRED.search(text)):
        return ()
    for attempt in (text.strip(_DECORATION), text.strip(_DECORATION).rstrip(".!")):
        if attempt in options:
            return (options[attempt],)
    by_key: dict[str, list[Any]] = {}
    for option, value in options.items():
        found = by_key.setdefault(_key(option), [])
        if not any(value is other or (value == other and type(value) is type(other)) for other in found):
            found.append(value)
    bare = _key(_QUOTED.sub(" ", text)).rstrip(".!").strip()
    if title and bare.startswith(f"{title.casefold()}."):
        bare = bare[len(title) + 1 :]
    if bare in by_key:
        return tuple(by_key[bare])
    keys = sorted((key for key in by_key if key), key=len, reverse=True)
    if not keys:
        return ()
    pattern = re.compile(rf"(?<![\w.,-])({'|'.join(map(re.escape, keys))})(?![\w]|[.,]\d)")
    said = list(pattern.finditer(bare))
    values = {_identity(value): value for match in said for value in by_key[match[1]]}
    if len(values) != 1:
        return tuple(values.values())
    if _COMPARED.search(bare):
        return ()
    first, last = said[0], said[-1]
    before, after = bare[: first.start()], bare[last.end() :]
    between = bare[first.end() : last.start()] if len(said) > 1 else ""
    if (
        _NUMBERED.match(bare, first.start())
        or between.strip(" ()=:-\N{EN DASH}—,.")
        or _TURNS.search(before)
        or _is_unlike(before)
        or names_other(before)
        or before.count(" ") > 12
    ):
        return ()
    explained = re.match(r"\s*(?:$|[,.;:!](?!\w)|[\n()\N{EN DASH}—]|[-=]\s|\)\s*$)", after)
    if (before.strip(" ([#-") and not _STATED.search(before)) or explained is None:
        return ()
    if first[1] in BOOLEAN_WORDS and not before.strip(" ([#-"):
        turned = _is_unsaid(BOOLEAN_WORDS[first[1]], after.lstrip(" ,.;:!\n(-\N{EN DASH}—"))
    else:
        turned = _TURNS.search(after) is not None
    if turned or _RATED.match(after) or _ONLY_A_DRAFT.match(after) or takes_back(after):
        return ()
    return tuple(values.values())


def _is_unsaid(value: bool, rest: str) -> bool:  # noqa: FBT001
    """Whether the words behind a yes or no unsay it."""
    return bool(_UNSAYS.search(rest) or _UNSAYS_ONE[value].search(rest))


def _is_unlike(before: str) -> bool:
    """Whether the words before a choice do not state it: those of its own sentence, as others are of other things."""
    sentence = before[_end(_SENTENCE, before) :]
    return bool(_UNLIKE.search(sentence) or _MAY.search(sentence[_end(_SAYS, sentence) :]))


def _end(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.match(text)
    return 0 if found is None else found.end()


def mentions(text: str, options: Mapping[str, Any]) -> bool:
    """Whether a text has the word of one of the options in it."""
    words = "|".join(re.escape(_key(option)) for option in options if _key(option) and not is_nothing(option))
    return bool(words) and re.search(rf"(?<!\w)(?:{words})(?!\w)", _key(text)) is not None


def read_boolean(text: str) -> tuple[bool, ...]:
    """The values that a text may mean in which true or false was asked for; digits count only alone."""
    bare = text.strip(_DECORATION).rstrip(".!").casefold()
    if bare in BOOLEANS:
        return (BOOLEANS[bare],)
    if len(text) > _SHORT:
        return ()
    first = re.match(
        r"(yes|no|true|false)\s*(?:[,.;:!\n(\N{EN DASH}—]|-\s)(.*)", _QUOTED.sub("", text).strip().casefold(), re.DOTALL
    )
    if first is not None and _NUMBERED.match(first[0]):
        return ()
    if first is not None:
        value, rest = BOOLEAN_WORDS[first[1]], first[2]
        unsaid = _is_unsaid(value, rest) or _RATED.match(first[0], first.end(1)) or takes_back(rest)
        return () if unsaid else (value,)
    return read_choice(text, BOOLEAN_WORDS)


def _key(text: str) -> str:
    """Text without the differences of writing; its lines stay apart."""
    lines = (" ".join(line.split()) for line in _JOINS.sub(" ", text.casefold()).splitlines())
    return "\n".join(line for line in lines if line)


def _identity(value: Any) -> tuple[str, str]:
    return type(value).__name__, repr(value)
