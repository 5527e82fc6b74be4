"""The operations of the pocket world: how each draws its text, is solved, and is worded.

Operations that share a kind of text ("list", "num", "obj", "pair", "rev") are rivals: a wrong one is always a
plausible mistake, so that an instruction has work to do.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, ParamSpec

from promptgrad.data.pocket._ontology import (
    ATTR,
    ATTRIBUTES,
    CLASSES,
    COLORS,
    DIGITS,
    KINDS,
    LABELS,
    NAMES,
    NEGATIVE,
    OBJECTS,
    OF_KIND,
    PLURAL,
    POSITIVE,
    SENTIMENT,
    TOPIC,
    TOPICS,
)

P = ParamSpec("P")

Fields = dict[str, list[str]]
"""Input fields as words: always "text", for pair texts also "question"."""


class Solution(NamedTuple):
    """The intermediate result, in words, and the answer."""

    reasoning: list[str]
    answer: list[str]


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: Unique name, e.g. "color-of-last".
        family: The group of operations that are taught and held out together, e.g. "attr-of-pick".
        texts: The kind of text it reads; ops with equal `texts` are rivals.
        group: Key of the partial instructions that fit it.
        sample: Draws input fields.
        worked: Reasoning and the only right answer, as words or as a text of words.
        wordings: A function that draws a wording of the answer, e.g. "the color of the last word"; or all wordings.
        hops: 1, or 2 where an intermediate result helps.
        neutral: It can be applied to any text of its kind.
    """

    name: str
    family: str
    texts: str
    group: str
    sample: Callable[[Random], Fields]
    worked: Callable[[Fields], tuple[str | list[str], str | list[str]]]
    wordings: Callable[[Random], str] | tuple[str, ...]
    hops: int = 1
    neutral: bool = True

    def solve(self, fields: Fields) -> Solution:
        """The intermediate result and the only right answer."""
        return Solution(*(part.split() if isinstance(part, str) else list(part) for part in self.worked(fields)))

    def phrase(self, r: Random) -> str:
        """A wording of the answer, e.g. "the color of the last word"."""
        return r.choice(self.wordings) if isinstance(self.wordings, tuple) else self.wordings(r)

    def draw(self, r: Random, part: str = "train") -> Fields:
        """Draw a text of one part ("train", "test" or "any") of the text space."""
        while True:
            fields = self.sample(r)
            if part == "any" or is_test_text(fields) == (part == "test"):
                return fields


def is_test_text(fields: Fields) -> bool:
    """Whether a text belongs to the fifth of the text space that no training ever sees.

    Texts of one word (there are only 80) are always training texts.
    """
    words = [word for value in fields.values() for word in value]
    return len(words) > 1 and zlib.crc32(" ".join(words).encode()) % 5 == 0


FIRST = ("first", "initial", "opening")
LAST = ("last", "final", "closing")
ORDINALS = {"first": FIRST, "second": ("second",), "third": ("third",), "last": LAST}
INDEX = {"first": 0, "second": 1, "third": 2, "last": -1}
ATTRIBUTE_WORDS = {
    "kind": ("kind", "type", "category"),
    "color": ("color", "shade"),
    "size": ("size",),
    "place": ("place", "location"),
}
_ODD_WORDS = ("the odd one out", "the word that does not fit", "the item that is different from the others")
_WHERE = ("of the text", "in the text", "of the input", "in the list", "of the list")

OPS: dict[str, Operation] = {}
"""Every operation by name; label maps are made by `make_map`."""
FAMILIES: dict[str, list[str]] = {}
"""Names of the operations of each family."""
HELD_OUT_COMPOSITIONS = ("color-of-second", "kind-of-last", "place-of-first")
"""Never trained in any form, although each of their halves is."""
HELD_OUT_FAMILIES = ("find-kind", "attr-lookup")
"""Trained as tasks, but never in critiques, improvements or induction."""


# --- texts ---


def _list_text(r: Random) -> Fields:
    return {"text": r.sample(OBJECTS, r.randint(3, 7))}


def _number_text(r: Random) -> Fields:
    return {"text": [r.choice(DIGITS) for _ in range(r.randint(3, 7))]}


def _one_text(attribute: str, value: str) -> Callable[[Random], Fields]:
    members = [word for word in OBJECTS if ATTR[word][attribute] == value]
    others = [word for word in OBJECTS if ATTR[word][attribute] != value]

    def draw(r: Random) -> Fields:
        n = r.randint(2, 6)
        words = r.sample(others, n)
        words.insert(r.randint(0, n), r.choice(members))
        return {"text": words}

    return draw


def _some_text(attribute: str, value: str) -> Callable[[Random], Fields]:
    members = [word for word in OBJECTS if ATTR[word][attribute] == value]
    others = [word for word in OBJECTS if ATTR[word][attribute] != value]

    def draw(r: Random) -> Fields:
        n = r.randint(3, 7)
        m = min(r.randint(0, n), len(members))
        words = r.sample(members, m) + r.sample(others, n - m)
        r.shuffle(words)
        return {"text": words}

    return draw


def _odd_text(r: Random) -> Fields:
    one, other = r.sample(KINDS, 2)
    n = r.randint(2, 6)
    words = r.sample(OF_KIND[one], n)
    words.insert(r.randint(0, n), r.choice(OF_KIND[other]))
    return {"text": words}


def _mention(r: Random, word: str) -> Fields:
    if r.random() < 0.4:
        return {"text": [word]}
    start = r.choice(("the", "a", "here is a", "it is the", *[f"{r.choice(NAMES)} {v}" for v in _HAVING]))
    return {"text": [*start.split(), word]}


_HAVING = ("has a", "has the", "found a", "found the", "wants a", "wants the")


def _object_text(r: Random) -> Fields:
    return _mention(r, r.choice(OBJECTS))


def _review(r: Random, sentiment: str | None = None, topic: str | None = None) -> Fields:
    adjectives = POSITIVE if (sentiment or r.choice(CLASSES["sentiment"])) == "positive" else NEGATIVE
    n1, n2 = r.sample(TOPICS[topic or r.choice(CLASSES["topic"])], 2)
    a1, a2 = r.sample(adjectives, 2)
    text = r.choice(
        (
            f"the {n1} was {a1}",
            f"a {a1} {n1} and a {a2} {n2}",
            f"{r.choice(NAMES)} found a {a1} {n1}",
            f"the {n1} and the {n2} were {a1}",
            f"it was a {a1} {n1}",
        )
    )
    return {"text": text.split()}


def _pair_text(r: Random) -> Fields:
    n = r.randint(3, 5)
    names = r.sample(NAMES, n)
    things = r.sample(OBJECTS, n)
    return {"text": [w for pair in zip(names, things, strict=True) for w in pair], "question": [r.choice(names)]}


# --- solving ---


def _owned(f: Fields) -> str:
    return f["text"][f["text"].index(f["question"][0]) + 1]


def _the_one(f: Fields, attribute: str, value: str) -> str:
    return next(word for word in f["text"] if ATTR[word][attribute] == value)


def _odd(f: Fields) -> Solution:
    kinds = [ATTR[word]["kind"] for word in f["text"]]
    return Solution(kinds, [next(w for w, k in zip(f["text"], kinds, strict=True) if kinds.count(k) == 1)])


def _running_sum(f: Fields) -> list[str]:
    total, steps = 0, []
    for digit in f["text"]:
        total += int(digit)
        steps.append(str(total))
    return steps


def _class_of(words: list[str], feature: str) -> str:
    if feature == "sentiment":
        return next(SENTIMENT[word] for word in words if word in SENTIMENT)
    if feature == "topic":
        return next(TOPIC[word] for word in words if word in TOPIC)
    return ATTR[words[-1]][feature]


def _adding(make: Callable[P, Operation]) -> Callable[P, None]:
    """Keep what `make` makes in the tables."""

    def add(*args: P.args, **kwargs: P.kwargs) -> None:
        made = make(*args, **kwargs)
        OPS[made.name] = made
        FAMILIES.setdefault(made.family, []).append(made.name)

    return add


_add = _adding(Operation)


def _add_pick(p: str) -> None:
    _add(
        p,
        "pick",
        "list",
        "pick",
        _list_text,
        lambda f: (f"the {p} word is needed", f["text"][INDEX[p]]),
        lambda r: f"the {r.choice(ORDINALS[p])} {r.choice(('word', 'item'))} {r.choice(_WHERE)}",
    )


def _add_attribute_of_pick(a: str, p: str) -> None:
    _add(
        f"{a}-of-{p}",
        "attr-of-pick",
        "list",
        "two",
        _list_text,
        lambda f: (f"the {p} word is {f['text'][INDEX[p]]}", ATTR[f["text"][INDEX[p]]][a]),
        lambda r: f"the {r.choice(ATTRIBUTE_WORDS[a])} of the {r.choice(ORDINALS[p])} {r.choice(('word', 'item'))}",
        hops=2,
    )


def _add_find(family: str, attribute: str, v: str) -> None:
    nouns = (v, f"{v} thing") if attribute == "kind" else (f"{v} thing",)
    _add(
        f"find-{v}",
        family,
        "list",
        "pick",
        _one_text(attribute, v),
        lambda f: (f"look for the {v}", _the_one(f, attribute, v)),
        lambda r: f"the {r.choice(nouns)} {r.choice(_WHERE)}",
        neutral=False,
    )


def _add_attribute_of_kind(a: str, k: str) -> None:
    _add(
        f"{a}-of-{k}",
        "attr-of-kind",
        "list",
        "two",
        _one_text("kind", k),
        lambda f: (f"the {k} is {_the_one(f, 'kind', k)}", ATTR[_the_one(f, "kind", k)][a]),
        lambda r: f"the {r.choice(ATTRIBUTE_WORDS[a])} of the {k}",
        hops=2,
        neutral=False,
    )


def _add_attribute_of_odd(a: str) -> None:
    _add(
        f"{a}-of-odd",
        "attr-of-odd",
        "list",
        "two",
        _odd_text,
        lambda f: ([*_odd(f)[0], "so", "it", "is", *_odd(f)[1]], ATTR[_odd(f)[1][0]][a]),
        lambda r: f"the {r.choice(ATTRIBUTE_WORDS[a])} of {r.choice(_ODD_WORDS)}",
        hops=2,
        neutral=False,
    )


def _add_list_ops() -> None:
    for p in INDEX:
        _add_pick(p)
        for a in ATTRIBUTES:
            _add_attribute_of_pick(a, p)
    _add(
        "reverse",
        "list",
        "list",
        "list",
        _list_text,
        lambda f: ("turn the list around", f["text"][::-1]),
        ("the list in reverse order", "the words backwards", "the text in reverse order", "the reversed list"),
    )
    _add(
        "rest",
        "list",
        "list",
        "list",
        _list_text,
        lambda f: ("drop the first word", f["text"][1:]),
        ("the list without the first word", "all words but the first", "everything after the first word"),
    )
    _add(
        "count",
        "count",
        "list",
        "num",
        _list_text,
        lambda f: ("count the words", str(len(f["text"]))),
        ("the number of words", "how many words there are", "the number of items", "the length of the list"),
    )
    for k in KINDS:
        _add_find("find-kind", "kind", k)
        for a in ATTRIBUTES[1:]:
            _add_attribute_of_kind(a, k)
        _add_count(
            "count-kind",
            "kind",
            k,
            f"the {PLURAL[k]}",
            (f"how many {PLURAL[k]} there are", f"the number of {PLURAL[k]}"),
        )
    for attribute in ("color", "size", "place"):
        for value in sorted({ATTR[word][attribute] for word in OBJECTS}):
            _add_find("find-value", attribute, value)
    for c in COLORS:
        _add_count(
            "count-color",
            "color",
            c,
            f"the {c} things",
            (f"how many {c} things there are", f"the number of {c} things"),
        )
    _add("odd", "odd", "list", "pick", _odd_text, _odd, _ODD_WORDS, hops=2, neutral=False)
    for a in ATTRIBUTES[1:]:
        _add_attribute_of_odd(a)


def _add_count(family: str, attribute: str, value: str, plural: str, phrases: tuple[str, ...]) -> None:
    def solve(f: Fields) -> tuple[list[str], str]:
        found = [word for word in f["text"] if ATTR[word][attribute] == value]
        return [*plural.split(), "are", *(found or ["none"])], str(len(found))

    _add(f"count-{value}", family, "list", "num", _some_text(attribute, value), solve, phrases, hops=2, neutral=False)


def _add_number_ops() -> None:
    def add(
        name: str,
        group: str,
        solve: Callable[[Fields], tuple[str | list[str], str | list[str]]],
        phrases: tuple[str, ...],
        family: str | None = None,
        hops: int = 1,
    ) -> None:
        _add(name, family or name, "num", group, _number_text, solve, phrases, hops=hops)

    def largest(f: Fields) -> str:
        return max(f["text"])

    def smallest(f: Fields) -> str:
        return min(f["text"])

    add(
        "first-number",
        "pick",
        lambda f: ("the first number is needed", f["text"][0]),
        tuple(f"the {w} number" for w in FIRST),
        "pick-number",
    )
    add(
        "last-number",
        "pick",
        lambda f: ("the last number is needed", f["text"][-1]),
        tuple(f"the {w} number" for w in LAST),
        "pick-number",
    )
    add(
        "largest",
        "num",
        lambda f: ("look for the largest", largest(f)),
        ("the largest number", "the highest number", "the maximum number"),
        "extreme",
    )
    add(
        "smallest",
        "num",
        lambda f: ("look for the smallest", smallest(f)),
        ("the smallest number", "the lowest number", "the minimum number"),
        "extreme",
    )
    add(
        "sort",
        "list",
        lambda f: ("order from small to large", sorted(f["text"])),
        ("the numbers in sorted order", "the numbers from small to large", "the sorted list"),
    )
    add(
        "count-numbers",
        "num",
        lambda f: ("count the numbers", str(len(f["text"]))),
        ("how many numbers there are", "the number of numbers", "the count of the numbers"),
        "count",
    )
    add(
        "sum",
        "num",
        lambda f: (_running_sum(f), _running_sum(f)[-1]),
        ("the sum of the numbers", "the total of all numbers", "what you get if you add the numbers"),
        hops=2,
    )
    add(
        "sum-parity",
        "cls",
        lambda f: (_running_sum(f), "even" if int(_running_sum(f)[-1]) % 2 == 0 else "odd"),
        ("if the sum is even or odd", "even or odd for the sum of the numbers"),
        hops=2,
    )
    add(
        "second-largest",
        "num",
        lambda f: (sorted(f["text"]), sorted(f["text"])[-2]),
        ("the second largest number", "the second highest number"),
        hops=2,
    )
    add(
        "range",
        "num",
        lambda f: (
            f"the largest is {largest(f)} and the smallest is {smallest(f)}",
            str(int(largest(f)) - int(smallest(f))),
        ),
        ("the difference of the largest and the smallest number", "the range of the numbers"),
        hops=2,
    )

    def even(f: Fields) -> tuple[list[str], str]:
        found = [d for d in f["text"] if int(d) % 2 == 0]
        return ["the", "even", "numbers", "are", *(found or ["none"])], str(len(found))

    add("count-even", "num", even, ("how many even numbers there are", "the number of even numbers"), hops=2)


def _add_attribute(a: str) -> None:
    _add(
        a,
        "attr",
        "obj",
        "attr",
        _object_text,
        lambda f: (f"think of the {a}", ATTR[f["text"][-1]][a]),
        lambda r: f"the {r.choice(ATTRIBUTE_WORDS[a])} of the {r.choice(('thing', 'object', 'text', 'word'))}",
    )
    _add(
        f"{a}-lookup",
        "attr-lookup",
        "pair",
        "look",
        _pair_text,
        lambda f: (f"{f['question'][0]} has {_owned(f)}", ATTR[_owned(f)][a]),
        lambda r: f"the {r.choice(ATTRIBUTE_WORDS[a])} of what the {r.choice(('person', 'owner'))} has",
        hops=2,
    )


def _add_name(p: str) -> None:
    _add(
        f"{p}-name",
        "pick-name",
        "pair",
        "look",
        _pair_text,
        lambda f: (f"the {p} name is needed", f["text"][0 if p == "first" else -2]),
        lambda r: f"the {r.choice(ORDINALS[p])} {r.choice(('name', 'person'))} {r.choice(_WHERE)}",
    )


def _add_thing_of(p: str) -> None:
    def thing(f: Fields) -> str:
        return f["text"][1 if p == "first" else -1]

    _add(
        f"{p}-thing",
        "thing-of-name",
        "pair",
        "look",
        _pair_text,
        lambda f: (f"the {p} person is needed", thing(f)),
        (f"what the {p} person has", f"the thing that the {p} person has", f"the thing of the {p} owner"),
    )
    for a in ATTRIBUTES:
        _add_attribute_of_thing(a, p, thing)


def _add_attribute_of_thing(a: str, p: str, thing: Callable[[Fields], str]) -> None:
    _add(
        f"{a}-of-{p}-thing",
        "attr-of-name",
        "pair",
        "look",
        _pair_text,
        lambda f: (f"the {p} person has {thing(f)}", ATTR[thing(f)][a]),
        lambda r: f"the {r.choice(ATTRIBUTE_WORDS[a])} of what the {p} {r.choice(('person', 'owner'))} has",
        hops=2,
    )


def _add_other_ops() -> None:
    for a in ATTRIBUTES:
        _add_attribute(a)
    _add(
        "lookup",
        "lookup",
        "pair",
        "look",
        _pair_text,
        lambda f: ("look up the name", _owned(f)),
        ("what the person has", "the thing that the person has", "the thing of the owner"),
    )
    for p in ("first", "last"):
        _add_name(p)
        _add_thing_of(p)
    _add(
        "count-names",
        "count",
        "pair",
        "look",
        _pair_text,
        lambda f: ("count the names", str(len(f["text"]) // 2)),
        ("how many people there are", "the number of people", "the number of names"),
    )
    _add(
        "sentiment",
        "sentiment",
        "rev",
        "cls",
        _review,
        lambda f: ("judge the feeling", _class_of(f["text"], "sentiment")),
        ("the sentiment of the text", "the mood of the text", "if the text is positive or negative"),
    )
    _add(
        "topic",
        "topic",
        "rev",
        "cls",
        _review,
        lambda f: ("judge the topic", _class_of(f["text"], "topic")),
        ("the topic of the text", "the subject of the text", "what the text is about"),
    )


_add_list_ops()
_add_number_ops()
_add_other_ops()


@dataclass(frozen=True)
class LabelMap(Operation):
    """Classes of one feature mapped to label words that mean nothing.

    Attributes:
        feature: "sentiment", "topic", "kind", "color" or "size".
        labels: Label word by class.
    """

    feature: str = ""
    labels: tuple[tuple[str, str], ...] = ()


def say_rule(r: Random, pairs: list[tuple[str, str]]) -> str:
    """Word a label map, e.g. "dax for animal and wug for fruit"; every form is trained."""
    form = r.choice(("{1} for {0}", "{1} for {0}", "{1} if it is {0}", "{0} is {1}"))
    return " and ".join(form.format(*pair) for pair in pairs)


def make_map(r: Random, feature: str | None = None) -> LabelMap:
    """Draw a fresh label map: two or three classes of one feature, each with its own label word."""
    feature = feature or r.choice(("sentiment", "topic", "kind", "kind", "color", "size"))
    n = 2 if feature == "sentiment" else r.choice((2, 2, 3))
    classes = r.sample(CLASSES[feature], n)
    labels = dict(zip(classes, r.sample(LABELS, n), strict=True))

    def sample(r: Random) -> Fields:
        value = r.choice(classes)
        if feature == "sentiment":
            return _review(r, sentiment=value)
        if feature == "topic":
            return _review(r, topic=value)
        return _mention(r, r.choice([word for word in OBJECTS if ATTR[word][feature] == value]))

    def worked(f: Fields) -> tuple[list[str], str]:
        value = _class_of(f["text"], feature)
        return ["it", "is", value], labels[value]

    return LabelMap(
        name=f"label-map-{feature}",
        family="label-map",
        texts="rev" if feature in ("sentiment", "topic") else "obj",
        group="cls",
        hops=2,
        sample=sample,
        worked=worked,
        wordings=lambda r: say_rule(r, r.sample(sorted(labels.items()), n)),
        neutral=False,
        feature=feature,
        labels=tuple(sorted(labels.items())),
    )
