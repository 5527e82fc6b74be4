"""The reader of replies: a typed value from the text of one field, or from a part of a JSON object.

One rule: a text is repaired only where it has a single reading. Where it has none, or several, it is a `ParseError`,
and the model is asked again with the reason. A value that nobody meant is worse than an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from promptgrad._patterns import late_pattern
from promptgrad.adapters._fit import fitter
from promptgrad.adapters._fit_object import Misfit
from promptgrad.adapters._kinds import is_moment, is_structure, members
from promptgrad.adapters._labels import names_other, own_label
from promptgrad.adapters._nearly_json import Odd, TooLong, has_torn_numbers, in_fence, loads, loads_nearly, values_in
from promptgrad.adapters._taken_back import leaves_out, takes_back
from promptgrad.adapters._values import choices
from promptgrad.adapters._words import is_nothing
from promptgrad.content import Language, language_of
from promptgrad.errors import ParseError
from promptgrad.signature import Field

_BULLET = late_pattern(r"([ \t]*)([-*•]|\d{1,4}[.)])[ \t]+(\S.*)")
_NEXT_ITEM = late_pattern(r"\s(?:2[.)]|[*•])\s")
_NO_ITEM = late_pattern(
    r"\(?(?:empty|nothing|none|no (?:\w+ ){0,4}(?:items?|results?|matches|found|identified|detected|mentioned|given|"
    r"listed|provided|available|present|applicable))(?: (?:found|identified|listed|here|to report))?\)?\.?",
    re.IGNORECASE,
)
_BESIDE = (
    r"sources?|references?|citations?|bibliograph\w*|footnotes?|links?|urls?|evidence|documents?",
    r"steps?|plans?|instructions?|actions?|procedures?|tasks?|process",
    r"reasoning|thoughts?|thinking|rationales?|analys[ei]s|reasons?|explanations?|notes?|caveats?|assumptions?",
    r"drafts?|attempts?|examples?|samples?",
)
"""Names of what stands beside answers; a field that is called one of a line may be given under each of that line."""
_HEAD_OF_OTHER = late_pattern(
    r"[\s*_#>]*(?:(?:the|my|all) )?(source|reference|citation|bibliograph|footnote|note|step|reasoning|thought|"
    r"thinking|rationale|analys[ei]s|draft|attempt|example|caveat|assumption)\w{0,3}\s*:",
    re.IGNORECASE,
)
_STRUCK = late_pattern(r"~~.+~~")
_DECORATION = "*_`\"' \t\n"
_MANY_LINES = 2_000
_FIRST = 100


class Reader:
    """Reads the values of one typed field.

    Args:
        field: The field, whose type is not a plain `str`.
    """

    def __init__(self, field: Field) -> None:
        kinds = members(field.annotation)
        self.field = field
        self._kinds = kinds
        self._fit = fitter(field.annotation)
        self._options = choices(field)
        self._label = own_label(field.name)
        self._takes_text = str in kinds
        self._takes_nothing = type(None) in kinds
        self._structures = [kind for kind in kinds if is_structure(kind)]
        self._known = self._fit is not None and not self._structures and not any(map(is_moment, kinds))

    def __call__(self, text: str) -> Any:
        """The value in a text.

        Raises:
            ParseError: It has no single reading.
        """
        if not self._takes_text and text.strip() not in (self._options or ()):
            text = self._label.sub("", text, count=1)
        if self._options is not None and self._fit is not None:
            return self._read_words(text)
        text = text.strip()
        if self._structures and has_torn_numbers(text):
            self._refuse("has commas that may stand within its numbers: write numbers without them", text)
        try:
            found = loads(text)
        except Odd:
            blame: ParseError | None = None
        else:
            try:
                return self.value(found)
            except ParseError as error:
                if self._structures and not self._takes_text and isinstance(found, (list, dict)):
                    raise  # nothing else is in it
                blame = error
        if self._takes_text:
            if self._takes_nothing and text in ("None", "none", "null"):
                return self.field.validate(None)
            return self.field.validate(text)
        if self._structures:
            return self._read_structure(text, blame)
        return self._read_words(text)

    def part(self, value: Any) -> Any:
        """The value that a part of a JSON object stands for; one that does not fit, but is a text, is read as a text.

        Raises:
            ParseError: It does not fit, or has no single reading.
        """
        try:
            return self.value(value)
        except ParseError:
            if not isinstance(value, str):
                raise
        return self(value)

    def value(self, value: Any) -> Any:
        """The value that a part of a JSON object stands for.

        Raises:
            ParseError: It does not fit, or has no single reading.
        """
        try:
            fitted = value if self._fit is None else self._fit(value)
            text = json.dumps(fitted)
        except Misfit as misfit:
            return self._only(misfit, value)
        except RecursionError:
            self._refuse("is nested too deeply", value)
        if isinstance(fitted, list) and len(fitted) > _FIRST:
            self._check_first(fitted)
        try:
            return self.field.validate_json(text)
        except ParseError:
            if _has_other_keys(fitted):
                return self.field.validate(fitted)  # its keys are no texts, and those of JSON are
            raise

    def _check_first(self, items: list[Any]) -> None:
        """Refuse a long list for its first items, as pydantic describes each item that does not fit."""
        try:
            self.field.validate_json(json.dumps(items[:_FIRST]))
        except ParseError as error:
            errors: Any = getattr(error.__cause__, "errors", None)  # those of an item have its number in their place
            if errors is not None and all(any(isinstance(part, int) for part in found["loc"]) for found in errors()):
                raise

    def _only(self, misfit: Misfit, value: Any) -> Any:
        """The only one of several readings that the constraints of the field allow."""
        found = []
        for choice in misfit.choices:
            try:
                found.append(self.field.validate_json(json.dumps(choice)))
            except ParseError:
                continue
        if len(found) == 1 and len(misfit.choices) > 1:
            return found[0]
        self._refuse(str(misfit), value)

    def _read_words(self, text: str) -> Any:
        """A value that is not a structure: a number, a boolean, a choice, a date, nothing."""
        edges = _DECORATION if bytes not in self._kinds else "`\"' \t\n"  # "*" and "_" are signs of base64
        bare = text.strip(edges)
        if self._known:
            return self.value(text)
        if self._takes_nothing and is_nothing(text, or_truth=bool in self._kinds):
            return self.field.validate(None)
        blame: ParseError | None = None
        for attempt in dict.fromkeys((text, bare, bare.rstrip(".").strip(edges))):
            if not attempt and text:
                continue
            try:
                return self.value(attempt)
            except ParseError as error:
                blame = blame or error
        raise blame or ParseError(f"nothing can be read from {text!r}")

    def _read_structure(self, text: str, blame: ParseError | None) -> Any:
        """A list or an object: the whole text, or the only one in it that fits."""
        if self._takes_nothing and is_nothing(text, or_truth=bool in self._kinds):
            return self.field.validate(None)
        whole, too_long = in_fence(text), False
        why = "holds no value"
        try:
            return self.value(loads_nearly(whole) if whole is text else _loads_either(whole))
        except Odd as odd:
            too_long = isinstance(odd, TooLong)
            why = str(odd) if whole.startswith(("[", "{")) else why
        except ParseError as error:
            blame = blame or error
        found: list[Any] = []
        items = bullets(whole)
        if items is not None and self._is_beside(whole):
            items, why = None, "stands below the name of something else: give the value alone"
        said, last = True, len(text)
        try:
            made = values_in(text, too_long=too_long) if items is None else [(0, len(text), items)]
        except Odd as odd:
            made, blame = [], blame or self._error(str(odd), text)
        for start, end, value in made:
            try:
                read = self.value(value)
            except ParseError as error:
                blame = error
                continue
            said, last = said and is_said(text, start, end), end
            if not any(read == other and type(read) is type(other) for other in found):
                found.append(read)
        if len(found) == 1 and said and not takes_back(text[last:]):
            return found[0]
        if len(found) == 1:
            self._refuse("stands in a sentence that may mean something else: give the value alone", text)
        if found:
            self._refuse(f"holds {len(found)} different values that fit: give one", text)
        if blame is None:
            self.field.validate_json(text)
        raise blame or self._error(why, text)

    def _is_beside(self, text: str) -> bool:
        """Whether a list stands below the name of what stands beside answers: "Sources:", "Steps:"."""
        head, name = _HEAD_OF_OTHER.match(text), self.field.name.lower()
        if head is None or head[1].lower() in name:
            return False
        own = [kinds for kinds in _BESIDE if any(re.fullmatch(kinds, word) for word in name.split("_"))]
        return not any(re.match(kinds, head[1], re.IGNORECASE) for kinds in own)

    def _refuse(self, reason: str, value: Any) -> NoReturn:
        raise self._error(reason, value)

    def _error(self, reason: str, value: Any) -> ParseError:
        reason = reason if reason.startswith("must be") else f"does not fit: {reason}"
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return ParseError(
            f"output {self.field.name!r} ({self.field.type_name}): {reason}; got {shown}",
            reply=value if isinstance(value, str) else "",
            reason=f"`{self.field.name}` {reason}",
        )


def _has_other_keys(value: Any) -> bool:
    """Whether an object in a value has keys that are no texts."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if not all(isinstance(key, str) for key in part):
                return True
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return False


def reader(field: Field) -> Callable[[str], Any] | None:
    """The function that reads a value from text; None for a plain text, which needs no reading."""
    if field.is_plain:
        return None
    language = language_of(field.annotation)
    if language is not None:
        return partial(read_code, field, language)
    return field.validate if field.is_text else Reader(field)


def read_code(field: Field, language: Language, text: str) -> Any:
    """The code in a text, without a fence around it.

    Raises:
        ParseError: There are several blocks of code.
    """
    try:
        return field.validate(language.unwrap(text))
    except ValueError as error:
        if isinstance(error, ParseError):
            raise
        reason = f"`{field.name}` does not fit: {error}"
        raise ParseError(f"output {field.name!r}: {error}", reply=text, reason=reason) from None


_LED = late_pattern(
    r"(?:^|[:=>→!-]|\b(?:is|are|be|was|were|now|here|returns?|answer|list|array|object|json|output|result|values?|items?|"
    r"gets?|got|gives?|so|therefore|thus|ok|okay|sure|yes))[\s*_`\"'(]*$",
    re.IGNORECASE,
)
_UNSAID = late_pattern(
    r"\b(?:not|no|never|neither|nor|cannot|without|instead|rather|except|unless|if|or|wrong|incorrect|invalid|example|"
    r"e\.g|such as|like|format|draft|could|might|would|should|unsure|maybe|perhaps|doubt\w*|false|"
    r"formerly|previously|but|may|reject\w*|exclud\w*|omit\w*|discard\w*|dropped|avoid\w*|remov\w*|ruled out|"
    r"irrelevant|schema|template|skeleton|hypothetical\w*|placeholder\w*|dummy)\b"
    r"|n['\N{RIGHT SINGLE QUOTATION MARK}]t\b|\?",
    re.IGNORECASE,
)
_AS_ASKED = late_pattern(
    r"\b(?:in|with|by|per|follow\w*|match\w*|fit\w*|to) (?:\w+ ){0,3}(?:format|schema|template)\b", re.IGNORECASE
)
_TAKEN_BACK = late_pattern(
    r"\b(?:wrong|incorrect|incomplete|wait|actually|sorry|draft|disregard|ignore|(?:an|the|my|only|just) example|"
    r"not (?:right|correct|true|quite|what|sure|the|my|an?)|"
    r"isn['\N{RIGHT SINGLE QUOTATION MARK}]t (?:right|correct|true))\b",
    re.IGNORECASE,
)
_GOES_ON = late_pattern(
    r"[\[(]|\.\w|:\s*\w+://|[*+/^] ?[\w\[(]| ?[-+*/%] ?[\d\[(]"
    r"|,? \(?(?:in )?(?:revers\w+|backwards|sorted|shuffled|rotated|transposed|doubled|repeated|plus|minus|times|"
    r"followed by|preceded by|as well as|along with|together with|and also|and then)\b",
    re.IGNORECASE,
)
"""Code or a link, of which a value is a part: "[1, 2][0]", "[1]*3", "[1](https://...)"; in words "[1, 2] reversed"."""
_SENTENCE = late_pattern(r"(?<!e\.g)(?<!i\.e)(?<!\bcf)(?<!\bex)\. ", re.IGNORECASE)
_CHANGES = late_pattern(
    r"\w\.(?:append|extend|insert|remove|pop|push|sort|reverse|update|splice|concat|add)\(|\w ?[-+|]= ?\S"
)
"""Code below a value that makes another of it."""
_OR = late_pattern(r"\W*or\b", re.IGNORECASE)
_FENCE_BEFORE = late_pattern(r"```\w*\s*\Z")
_FENCE_AFTER = late_pattern(r"\A\s*```")


def is_said(text: str, start: int, end: int) -> bool:
    """Whether a text says the value at a place: not one of its citations, examples or denials."""
    line = _SENTENCE.split(text[max(0, start - 300) : start].rpartition("\n")[2])[-1]
    if names_other(line) or _UNSAID.search(line):
        return False
    return bool(_LED.search(line)) and not is_unsaid(text, start, end)


def is_unsaid(text: str, start: int, end: int) -> bool:
    """Whether the words around a value in a text make it an example, a draft or a denial.

    They are the rest of its sentence, the line above it where that announces something, and what is said below it.
    """
    if _GOES_ON.match(text, end):
        return True
    before = _FENCE_BEFORE.sub("", text[max(0, start - 300) : start])
    line = before.rpartition("\n")[2]
    if not line.strip():
        line = before.rstrip().rpartition("\n")[2]
        line = "" if line.rstrip(" *_").endswith((".", "!")) else line
    line = _SENTENCE.split(re.split(r"[\]}]", line)[-1])[-1]
    if _UNSAID.search(_AS_ASKED.sub("", line)):
        return True
    after = _FENCE_AFTER.sub("", text[end : end + 300])
    same, _, below = after.partition("\n")
    taken_back = _TAKEN_BACK.search(same) or _TAKEN_BACK.search(below) or _CHANGES.search(below) or _OR.match(below)
    return bool(_UNSAID.search(same.partition(". ")[0]) or taken_back)


def _loads_either(text: str) -> Any:
    try:
        return loads(text)
    except Odd:
        return loads_nearly(text)


def bullets(text: str) -> list[str] | None:
    """The items of a text that is a list with bullets or numbers, after at most one line that announces it."""
    lines = [line for line in text.split("\n", _MANY_LINES) if line.strip()]
    matches = [_BULLET.fullmatch(line.rstrip()) for line in lines]
    if len(lines) > 1 and matches[0] is None and lines[0].rstrip(" *_").endswith(":"):
        if _UNSAID.search(_AS_ASKED.sub("", lines[0])):
            return None
        matches = matches[1:]
    found = [match for match in matches if match is not None]
    if not found or len(found) != len(matches) or len({match[1] for match in found}) != 1:
        return None
    signs = [match[2].rstrip(".)") for match in found]
    if signs[0].isdigit():
        if signs[0] not in ("0", "1") or signs != [str(int(signs[0]) + number) for number in range(len(signs))]:
            return None
    elif len(set(signs)) != 1:
        return None
    items = [match[3].strip() for match in found]
    if any(leaves_out(item) or _STRUCK.fullmatch(item) for item in items):
        return None
    if len(items) > 1 and all(item[-1] in ",;" for item in items[:-1]):
        return None  # signs between items, and perhaps one behind the last
    if len(items) == 1 and (is_nothing(items[0]) or _NO_ITEM.fullmatch(items[0]) or _NEXT_ITEM.search(items[0])):
        return None  # no item, or several in one line
    return _unquoted(items)


def _unquoted(items: Sequence[str]) -> list[str]:
    """Items without quotes, or without signs of bold, where all of them have them."""
    for quote in ("**", '"', "'", "`"):
        size = len(quote)
        inner = [item[size:-size] for item in items]
        if all(i and item == f"{quote}{i}{quote}" and quote not in i for i, item in zip(inner, items, strict=True)):
            return inner
    return list(items)
