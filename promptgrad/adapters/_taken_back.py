"""Words after a value by which the model takes it back: "Wait, this is wrong", "Scratch that", "Correction: 43"."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain

from promptgrad._patterns import late_pattern

_LONGEST_NAME = 200
_EDGE = 2_000
"""Most characters that are looked at on either side of a long text."""
_SENTENCE = late_pattern(r"(?<=[.!?;\n])\s+|\n")
_COURTESY = late_pattern(r"\b(?:let me know|tell me|feel free|(?:happy|glad) to)\b", re.IGNORECASE)
_WRONG = (
    r"(?:wrong|incorrect|mistaken|false|invalid|inaccurate|outdated|off by \w+|made[- ]up|"
    r"an? (?:\w+ )?(?:mistake|error|typo|draft|slip|placeholder|guess|dummy))"
)
_IT = r"(?:this|that|it|which|what i (?:said|wrote)|(?:the|my|these|those) [\w ]{0,30}|above|answer)"
_TAKEN_BACK = late_pattern(
    r"\b(?:"
    r"wait(?:\s*[,.!:;\N{EN DASH}—-]|\s*$|\s+(?:no|that|this|it|i|a)\b)"
    r"|(?:scratch|strike|cancel|forget|undo) (?:that|this|it)\b|never ?mind\b|take (?:that|this|it) back\b"
    r"|(?:disregard|ignore|discard) (?:that|this|it|the|my|what|everything)\b"
    r"|(?:up)?on (?:second|further|closer|more careful) (?:thoughts?|reflection|inspection|consideration|look)\b"
    r"|(?:up)?on reflection\b"
    r"|corrections?\b|corrigend|errat(?:um|a)\b|rectification\b"
    r"|(?:edit|update|revision|amendment)s?(?: \d+)?\s*:"
    r"|oops\b|whoops\b|my (?:bad|mistake|error|apologies)\b|apologies\b|i apologi[sz]e\b|sorry\b|pardon\b"
    r"|i(?:'ve| have)? (?:\w+ )?(?:made|see|found|spotted|noticed) (?:an?|my|the|some) (?:\w+ )?"
    r"(?:mistake|error|slip|typo)s?\b"
    r"|i (?:was|am|stand) (?:wrong|mistaken|incorrect|corrected)\b"
    r"|i (?:meant|mis(?:read|count|calculat|spoke|underst|took|interpret|quot|wrote|spelt|spelled|plac)\w*)\b"
    r"|let me (?:re(?!member|mind|assure|state|peat)\w+|correct|fix|change|amend|try (?:that |this |it )?again|"
    r"start over|think again)\b"
    rf"|{_IT} (?:\w+ )?(?:is|was|are|were|be|looks?|seems?)(?: \w+)? {_WRONG}\b|that's {_WRONG}\b|it's {_WRONG}\b"
    rf"|{_IT} (?:is|was|are|were)(?: not|n't) (?:quite |really |actually )?(?:right|correct|true|accurate)\b"
    r"|(?:that|it)'s not (?:quite |really |actually )?(?:right|correct|true|accurate)\b"
    r"|should (?:have been|(?:actually |really |instead |rather )(?:be|read|say)|read|say)\b"
    r"|should be (?:about |around |exactly )?[-+$€£]?\d"
    r"|(?:it|that|this|answer|value|result|number) should be (?!not(?:ed|ic)|clear|helpful|correct|right|fine|enough)"
    r"|(?:korrektur|berichtigung|moment|correcci[oó]n|correzione|corre[cç][aã]o|rectificatif|erreur|fehler)\s*[:,]"
    r")"
    r"|(?:\A|[.!?\n]\s*)[*_> ]*(?:actually|no|rather|instead|hmm)\b[,.:\N{EN DASH}—-]"
    r"|更正|纠正|訂正|修正|исправл|поправк",
    re.IGNORECASE,
)
_STATED_AGAIN = late_pattern(
    r"\b(?:correct|right|true|actual|real|better|final|new|revised|updated|proper)(?: \w+)?"
    r" (?:answer|value|result|number|one|list|version|reply|response|label|choice)\b(?: \w+){0,2}?"
    r"(?: (?:is|are|was|would|should)\b|\s*[:=])",
    re.IGNORECASE,
)

_VERSION = r"(?:corrected|revised|updated|amended|fixed|(?:re)?checked|recomputed|recalculated|verified|final|new)"
_OTHER_VERSION = late_pattern(
    r"\s*(?:corrections?|corrected|revisions?|revised|amended|erratum|errata"
    rf"|(?:{_VERSION}|correct|actual) (?P<of>.+?)"
    rf"|(?P<earlier>.+?) ?\(?(?:{_VERSION}|v?[1-9])\)?)\s*",
    re.IGNORECASE,
)
_OTHER_LABEL = late_pattern(
    rf"^[ \t>*#_`~-]*(?:{_VERSION}|correct|actual)[ _-](\w[\w -]{{0,60}}?)[*_` \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_LEFT_OUT = late_pattern(
    r"(?:\.{3}|…|etc\.?|and so (?:on|forth)|\((?:\.{3}|…|more|etc\.?)\)|"
    r"(?:\.{3}|…)? ?(?:and|plus) (?:\w+ )?(?:more|others)(?: \w+)?)\.?",
    re.IGNORECASE,
)
_ANSWERS = ("answer", "value", "result", "output", "version", "reply", "response")
_THOUGHTS = late_pattern(r"reason|rationale|thought|think|analysis|steps|scratch|work", re.IGNORECASE)
"""Names of texts in which a model changes its mind before it answers."""


NOT_MEANT = (
    r"placeholders?|guess(?:es|ed|work)?|dummy|to-?do|hypothetical\w*|made[- ]up|invented|sarcas\w*|ironic\w*|"
    r"jok(?:e|es|ing)|kidding|tentative\w*|provisional\w*|unverified|unconfirmed|disputed|retracted"
)
"""Words beside a value by which nobody stands by it, for a pattern."""


def takes_back(text: str) -> bool:
    """Whether a text that follows a value says that it is not, or no longer, what is meant."""
    return any(_TAKEN_BACK.search(sentence) for sentence in _sentences(text))


def states_another(text: str, values: Sequence[str]) -> bool:
    """Whether a text that follows an answer says that the right answer is another one than `values`."""
    for sentence in _sentences(text):
        said = _STATED_AGAIN.search(sentence)
        if said is not None and not sentence[said.end() :].lstrip(" \t*_`\"':=(").startswith(
            tuple(filter(None, values))
        ):
            return True
    return False


def takes_back_by_name(name: str, value: object, fields: Iterable[str], answers: Sequence[str] = _ANSWERS) -> bool:
    """Whether what stands beside the fields that were asked for, under its own name, is another version of them."""
    if isinstance(value, bool):
        return False  # whether it was checked or revised
    words = re.sub(r"[_-]", " ", name[:100])
    other = _OTHER_VERSION.fullmatch(words)
    of = (other["of"] or other["earlier"] or "").lower() if other is not None else None
    if of == "" or of in answers or of in [field.lower().replace("_", " ") for field in fields]:
        return True
    return isinstance(value, str) and not _THOUGHTS.search(words) and takes_back(value)


def stands_for(given: Mapping[str, object], fields: Collection[str]) -> str:
    """Why a key that is none of the fields may be another value of one, or the value of one that lacks; else empty."""
    for key in given:
        if key in fields or not isinstance(key, str):  # a dict in Python may have others
            continue
        if takes_back_by_name(key, given[key], fields, ()):
            return f"has {key!r} beside its fields, which may be another value of one: give each once"
        for name in fields:
            if name not in given and words_of(name) <= words_of(key):
                return f"has no {name!r}, and {key!r}, which may stand for it"
    return ""


def words_of(name: str) -> set[str]:
    """The words of which a name is made, in the singular; a long text is no name, and one word."""
    if len(name) > _LONGEST_NAME:
        return {name}
    words = re.sub(r"(?<=[a-z\d])(?=[A-Z])", "_", name)
    return {word.removesuffix("s") for word in re.split(r"[\W_]+", words.casefold())}


def leaves_out(item: object) -> bool:
    """Whether an item of a list stands for others: "...", "etc.", "and 3 more"."""
    return isinstance(item, str) and len(item) < 60 and _LEFT_OUT.fullmatch(item.strip()) is not None


def has_other_version(body: str, name: str) -> bool:
    """Whether another version of a field begins below it: "Final answer: ..." below "Answer: ..."."""
    return any(re.sub(r"[ -]", "_", match[1]).lower() == name.lower() for match in _OTHER_LABEL.finditer(body))


def _sentences(text: str) -> list[str]:
    """The sentences of a text, or of its beginning and its end, without those that only offer help."""
    ends = (text,) if len(text) <= 2 * _EDGE else (text[:_EDGE], text[-_EDGE:])
    plain = (end.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'") for end in ends)
    return [sentence for sentence in chain.from_iterable(map(_SENTENCE.split, plain)) if not _COURTESY.search(sentence)]
