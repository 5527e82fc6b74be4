"""The rule language: conditions on tickets, ordered rules, and reading them in any text and in any order of words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from worlds._tickets import CHANNELS, PRODUCTS, REGIONS, TONES, Ticket

CODES = ("P1", "P2", "P3", "P4", "P5")
CODE = re.compile(r"\bP[1-5]\b")


@dataclass(frozen=True, order=True)
class Condition:
    """A property that a ticket has or has not.

    Attributes:
        kind: "product", "channel", "tone", "region", "people", "money" (at least) or "less" (than).
        value: The name; for people "several" or "one"; for money the number as text.
        negated: Whether it holds where the property is missing.
    """

    kind: str
    value: str
    negated: bool = False

    def holds(self, ticket: Ticket) -> bool:
        """Whether the ticket has it; a ticket that does not say is one that has not."""
        known = getattr(ticket, "money" if self.kind == "less" else self.kind)
        if known is None:
            return False
        if self.kind == "people":
            has = (known > 1) == (self.value == "several")
        elif self.kind == "money":
            has = known >= int(self.value)
        elif self.kind == "less":
            has = known < int(self.value)
        else:
            has = known == self.value
        return has != self.negated

    def __str__(self) -> str:
        no = "not " if self.negated else ""
        if self.kind == "product":
            return f"the ticket is {no}about {self.value}"
        if self.kind == "people":
            return f"{no}several people are affected" if self.value == "several" else f"{no}only one person is affected"
        if self.kind == "money":
            return f"the sum is {no}at least {self.value} dollars"
        if self.kind == "less":
            return f"the sum is {no}less than {self.value} dollars"
        if self.kind == "channel":
            return f"it did {no}come by {self.value}" if no else f"it came by {self.value}"
        return f"the tone is {no}{self.value}" if self.kind == "tone" else f"the customer is {no}in the {self.value}"


@dataclass(frozen=True)
class Rule:
    """A code and when it is the answer: conditions of one kind are alternatives, kinds must all hold.

    Attributes:
        conditions: None for what applies otherwise.
        code: The answer.
    """

    conditions: tuple[Condition, ...]
    code: str

    def applies(self, ticket: Ticket) -> bool:
        """Whether the ticket meets it."""
        if len(self.conditions) == 1:
            return self.conditions[0].holds(ticket)
        kinds = {(c.kind, c.negated) for c in self.conditions}
        return all(
            (all if negated else any)(
                c.holds(ticket) for c in self.conditions if (c.kind, c.negated) == (kind, negated)
            )
            for kind, negated in kinds
        )

    def __str__(self) -> str:
        if not self.conditions:
            return f"Otherwise answer {self.code}."
        return f"If {' and '.join(map(str, self.conditions))}, answer {self.code}."


def decide(rules: Sequence[Rule], ticket: Ticket) -> str | None:
    """The code of the first rule that applies; that of a rule without conditions only where no other does."""
    otherwise = None
    for rule in rules:
        if not rule.conditions:
            otherwise = otherwise or rule.code
        elif rule.applies(ticket):
            return rule.code
    return otherwise


_PIECES = re.compile(r"(?<=[.;!?])\s+|\n+")
_OTHERWISE = re.compile(
    r"\b(?:otherwise|else|default|(?:all|any|every)\s*(?:thing|one)?\s*(?:other|else)s?|remaining|the rest)\b",
    re.IGNORECASE,
)
_NO = re.compile(r"\b(?:not|isn't|never|unless|except|other than|without)\b[^,;]{0,24}$", re.IGNORECASE)
_NAMES = {"product": PRODUCTS, "channel": CHANNELS, "tone": TONES, "region": REGIONS}
_NAME = re.compile(r"\b(" + "|".join(name for names in _NAMES.values() for name in names) + r")\b", re.IGNORECASE)
_KIND = {name.lower(): (kind, name) for kind, names in _NAMES.items() for name in names}
_SEVERAL = re.compile(
    r"\b(?:several|multiple|many|more than (?:one|1)\b(?! ?\d)|(?:at least |)(?:two|2) or more|at least (?:two|2)\b"
    r"|two or more|a group|teams?)",
    re.IGNORECASE,
)
_ONE = re.compile(r"\b(?:only one|(?:one|1|single|a single) (?:person|colleague|user)|alone|single)\b", re.IGNORECASE)
_MONEY = re.compile(
    r"(?P<before>at least|>=|≥|from|no less than|over|above|more than|greater than|>|exceed(?:s|ing)?|less than|"
    r"below|under|<=|≤|<|fewer than|up to|at most)\s*\$?(?P<number>\d{2,6})\b"
    r"|\$?\b(?P<digits>\d{2,6})(?:\s*(?:dollars|usd))?\s*(?P<after>or more|and more|or above|and above|and up|\+|"
    r"or less|or below)",
    re.IGNORECASE,
)
_STRICT = ("over", "above", "more than", "greater than", ">")
_UP_TO = ("<=", "≤", "up to", "at most", "or less", "or below")
_LESS = ("less than", "below", "under", "<", "fewer than", *_UP_TO)


def conditions(text: str) -> tuple[Condition, ...]:
    """The conditions that a piece of text names, in its order."""
    found: list[tuple[int, Condition]] = []

    def add(start: int, kind: str, value: str) -> None:
        found.append((start, Condition(kind, value, _NO.search(text, 0, start) is not None)))

    for match in _NAME.finditer(text):
        add(match.start(), *_KIND[match[1].lower()])
    money = list(_MONEY.finditer(text))
    for match in money:
        word = (match["before"] or match["after"]).lower()
        number = int(match["number"] or match["digits"]) + (word in _STRICT or word in _UP_TO)
        add(match.start(), "less" if word in _LESS else "money", str(number))
    several = [m for m in _SEVERAL.finditer(text) if not _within(m, money)]
    for match in several:
        add(match.start(), "people", "several")
    for match in _ONE.finditer(text):
        if not _within(match, several):
            add(match.start(), "people", "one")
    return tuple(dict.fromkeys(condition for _, condition in sorted(found, key=lambda each: each[0])))


def _within(match: re.Match[str], others: Sequence[re.Match[str]]) -> bool:
    return any(other.start() <= match.start() < other.end() for other in others)


@lru_cache(maxsize=1024)
def read(text: str) -> tuple[Rule, ...]:
    """The rules that a text states, in its order; what names no code, or no condition, states none."""
    rules: list[Rule] = []
    for piece in _PIECES.split(text):
        if len(CODE.findall(piece)) > 1:
            held = ""
            for part in re.split(r"[,;]", piece):
                held = f"{held},{part}" if held else part
                if CODE.search(part):
                    _add(rules, held)
                    held = ""
        else:
            _add(rules, piece)
    return tuple(rules)


def read_last(text: str) -> tuple[Rule, ...]:
    """The rules of the last list that a text states, where each list ends with what applies otherwise."""
    rules = read(text)
    ends = [number for number, rule in enumerate(rules[:-1], 1) if not rule.conditions]
    return rules[ends[-1] :] if ends else rules


def _add(rules: list[Rule], piece: str) -> None:
    codes = set(CODE.findall(piece))
    if len(codes) != 1:
        return
    named = conditions(piece)
    if named or _OTHERWISE.search(piece):
        rules.append(Rule(named, codes.pop()))
