"""`side_by_side`: the rows that a writer sees, chosen so that what separates right from wrong stands beside it."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress, zip_longest
from typing import Any

from promptgrad._patterns import late_pattern
from promptgrad.search._row import Row
from promptgrad.search._sight import seen

LEAST = 125
"""Size of a row below which it is not shortened to make room for more rows: 24 of them fit into 3,000."""

CONTRAST = 0.05
"""How much more alike, of 1, a success with another answer counts than one with the expected answer."""

AS_IN_ROW = "as in row "
"""What stands in place of a critique that an earlier row has."""

_CUT = " [...] "
_WIDE = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"  # Chinese, Japanese and Korean, which are written without blanks
_UNIT = late_pattern(rf"[{_WIDE}]|[^\W{_WIDE}]{{1,24}}|[^\w\s]+")
_LONG, _LETTERS = 12, 6
"""Letters of the longest word that counts as one token, and those of each token of a longer one."""

MOST_LETTERS = 12
"""Letters of a text for each token that all rows may have: a longer one loses its middle before they are counted."""

_Shown = tuple[Row, dict[str, Any], int]  # a row, what a writer sees of it, and its size


def side_by_side(rows: Iterable[Row], tokens: int = 3000, media: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """The rows in the form that a writer reads: failures first, then the successes nearest to them.

    As many as fit. Where there are too many failures, each kind of mistake (what was answered where what was expected)
    has its turn; for two failures there is room for one success, the one most like a failure that is shown, another
    answer before an equal one. What is unlike is rarely of use: it differs in too many ways to show which one matters.
    Critiques that are about no run come after the failures, examples that were not run after all others. Long rows are
    shortened, the longest first, and in them the longest texts, in their middles. Rows are numbered. A critique that is
    about several of them stands in one and is counted once. What the program was given and the step was not is shown
    where the rows leave room for it, in the order in which they were chosen.

    Cost: no LM call. Time grows with failures times successes.

    Args:
        rows: The rows.
        tokens: About how many tokens all rows have together, as JSON: words, more than one where they are long, marks
            that follow one another, and each Chinese, Japanese or Korean character.
        media: Kinds of images, sounds and files that the writer sees; it has the captions of others.

    >>> wrong = Row("1", {"text": "two users cannot log in"}, {"code": "P4"}, 0.0, feedback="should be P1")
    >>> right = Row("2", {"text": "one user cannot log in"}, {"code": "P4"}, 1.0)
    >>> [row["score"] for row in side_by_side([right, wrong])]
    [0.0, 1.0]
    """
    everything = list(rows)
    rows = [row for row in everything if not row.unrun]
    failures = _turns([row for row in rows if not row.right and row.inputs], _mistake)
    successes = _nearest(failures, [row for row in rows if row.right])
    failures += [row for row in rows if not row.right and not row.inputs]
    shown: list[_Shown] = []
    left, said = tokens, set[str]()
    for row in chain(_merged(failures, successes), (row for row in everything if row.unrun)):
        plain = {"row": 0, **_bounded(row.shown(), MOST_LETTERS * tokens)}
        if row.critique and row.critique in said:
            plain["critique"] = AS_IN_ROW
        size = _size(plain)
        if min(size, LEAST) > left:
            break
        left -= min(size, LEAST)
        said.add(row.critique)
        shown.append((row, plain, size))
    shown = list(_beside(shown, tokens))
    cap = _level([size for _, _, size in shown], tokens)
    ordered = sorted(shown, key=lambda entry: (entry[0].unrun, entry[0].right))
    where = {row.critique: n for n, (row, plain, _) in enumerate(ordered, 1) if plain.get("critique") == row.critique}
    found = []
    for number, (row, plain, size) in enumerate(ordered, 1):
        plain["row"] = number
        if plain.get("critique") == AS_IN_ROW:
            plain["critique"] += f"{where[row.critique]}"
        found.append(plain if size <= cap else _shortened(plain, cap))
    return seen(found, media)


def in_order(rows: Iterable[Row], tokens: int = 3000, media: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """The rows as they come, in the form that a writer reads, the longest shortened as by `side_by_side`."""
    shown = [(row, plain, _size(plain)) for row in rows for plain in [_bounded(row.shown(), MOST_LETTERS * tokens)]]
    return seen(fitted([plain for _, plain, _ in _beside(shown, tokens)], tokens), media)


def fitted(items: Sequence[Mapping[str, Any]], most: int) -> list[dict[str, Any]]:
    """Records whose longest texts are shortened, so that all together have about `most` tokens."""
    items = [_bounded(item, MOST_LETTERS * most) for item in items]
    sizes = [_size(item) for item in items]
    cap = _level(sizes, most)
    return [dict(item) if size <= cap else _shortened(item, cap) for item, size in zip(items, sizes, strict=True)]


def _turns(rows: Sequence[Row], kind: Callable[[Row], str]) -> list[Row]:
    """The rows in an order in which each kind has its turn, the frequent kinds first, and in each kind the newest."""
    kinds: dict[str, list[Row]] = {}
    for row in reversed(rows):
        kinds.setdefault(kind(row), []).append(row)
    frequent = sorted(kinds.values(), key=lambda alike: -len(alike))
    return [row for turn in zip_longest(*frequent) for row in turn if row is not None]


def _mistake(row: Row) -> str:
    return _text([row.outputs, row.expected or row.feedback, bool(row.error)])


def _nearest(failures: Sequence[Row], successes: Sequence[Row]) -> Iterator[Row]:
    """The successes: by turns the one most like each failure; without a failure, each answer has its turn."""
    if not failures:
        yield from _turns(successes, lambda row: _text(row.outputs))
        return
    words = {row.example: frozenset(_words(row)) for row in (*failures, *successes)}
    often = Counter(chain.from_iterable(words.values()))
    weight = {word: round(1000 * math.log(1 + len(words) / count)) for word, count in often.items()}
    total = {example: sum(weight[word] for word in own) for example, own in words.items()}

    def likeness(one: Row, two: Row) -> float:
        shared = sum(weight[word] for word in words[one.example] & words[two.example])  # whole numbers: in any order
        every = total[one.example] + total[two.example] - shared
        return (shared / every if every else 0.0) + (CONTRAST if one.expected != two.outputs else 0.0)

    left = list(successes)
    while left:
        for failure in failures[: len(left)]:
            best = max(left, key=lambda row: likeness(failure, row))
            left.remove(best)
            yield best


def _words(row: Row) -> Iterator[str]:
    text = _text(_bounded(row.inputs, MOST_LETTERS * 3000))
    return (unit.casefold() for unit in _UNIT.findall(text) if unit.isalnum())


def _merged(failures: Iterable[Row], successes: Iterable[Row]) -> Iterator[Row]:
    """Two failures, then a success, as long as there are any."""
    first, second = iter(failures), iter(successes)
    while turn := [row for row in (next(first, None), next(first, None), next(second, None)) if row is not None]:
        yield from turn


def _beside(shown: Sequence[_Shown], tokens: int) -> Iterator[_Shown]:
    """The rows with what the program was given and the step was not, where there is room left for it."""
    left = tokens - sum(size for _, _, size in shown)
    for row, plain, size in shown:
        more = {"program_inputs": _bounded(row.program_inputs, MOST_LETTERS * tokens)}
        extra = _size(more)
        if row.program_inputs and extra <= left:
            left -= extra
            plain, size = {**plain, **more}, size + extra
        yield row, plain, size


def _bounded(value: Any, letters: int) -> Any:
    """A value whose texts have at most so many letters each, without their middles, so that none takes long to read."""
    if isinstance(value, str):
        return value if len(value) <= letters else value[: letters - letters // 3] + _CUT + value[-(letters // 3) :]
    if isinstance(value, Mapping):
        return {name: _bounded(item, letters) for name, item in value.items()}
    return [_bounded(item, letters) for item in value] if isinstance(value, list) else value


def _level(sizes: Sequence[int], total: int) -> int:
    """The largest size to which the larger ones are cut so that all together have at most `total`."""
    left, count = total, len(sizes)
    for size in sorted(sizes):
        if size * count > left:
            return left // count
        left, count = left - size, count - 1
    return max(sizes, default=0)


def _shortened(value: Any, most: int) -> Any:
    """A value whose longest texts lost their middles, so that it has about `most` tokens."""
    if isinstance(value, str):
        return _cut(value, most)
    if not isinstance(value, (Mapping, list)) or _size(value) <= most:
        return value
    items = list(value.values()) if isinstance(value, Mapping) else value
    sizes = [_size(item) for item in items]
    cap = _level(sizes, max(most - (_size(value) - sum(sizes)), len(items)))
    short = [item if size <= cap else _shortened(item, cap) for item, size in zip(items, sizes, strict=True)]
    if isinstance(value, Mapping):
        return dict(zip(value, short, strict=True))
    return short[: max(1, most)]


def _cut(text: str, most: int) -> str:
    """A text of at most about `most` tokens: its beginning and its end."""
    units = _UNIT.findall(text)
    if _count(units) <= most:
        return text
    kept = max(3, most - _tokens(_CUT))
    tail = kept // 3
    head, start = 0, len(text)
    left = kept - tail
    for unit in units:
        left -= _weight(unit)
        if left < 0:
            break
        head = text.index(unit, head) + len(unit)  # only blanks lie between
    for unit in reversed(units):
        tail -= _weight(unit)
        if tail < 0:
            break
        start = text.rindex(unit, 0, start)
    return text[:head] + _CUT + text[start:]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)  # of an image its caption


def _size(value: Any) -> int:
    return _tokens(_text(value))


def _tokens(text: str) -> int:
    """About how many tokens a language model reads: marks that follow one another, as those of JSON, are one."""
    return _count(_UNIT.findall(text))


def _count(units: Sequence[str]) -> int:
    longer = compress(units, map(_LONG.__lt__, map(len, units)))
    return len(units) + sum(_weight(unit) - 1 for unit in longer)


def _weight(unit: str) -> int:
    long = len(unit) > _LONG and (unit[0].isalnum() or unit[0] == "_")
    return -(-len(unit) // _LETTERS) if long else 1
