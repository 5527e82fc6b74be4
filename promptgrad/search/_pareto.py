"""`Pareto`: a pool of candidates, each the best at something, and merges of two of them."""

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

from promptgrad.data import Example
from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._session import Session
from promptgrad.search._steps import Step

Fronts = Literal["example", "part", "both"]
"""How candidates are compared: by their score on each example, their mean in each part of a score, or both."""

_DIGITS = 9
"""Scores that agree to this many digits are equal."""


def check_fronts(given: Any) -> Fronts:
    """Check how candidates are to be compared, and return it.

    Raises:
        ValueError: It is none of these three.
    """
    if given not in get_args(Fronts):
        raise ValueError(f'fronts are by "example", by "part" or by "both", not {given!r}')
    return given  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Merge:
    """A candidate that combines the changes of two others since their common ancestor.

    Attributes:
        candidate: The merged candidate; its parents are the two.
        sides: The two, as they were measured.
        ancestor: What they have in common.
    """

    candidate: Candidate
    sides: tuple[Measured, Measured]
    ancestor: Measured

    def sample(self, examples: Sequence[Example], count: int, rng: random.Random) -> list[Example]:
        """Examples to try it on, in equal shares: where one side is better, where the other is, and where neither is.

        Args:
            examples: Those that the sides were measured on.
            count: How many; all, if there are fewer.
            rng: Draws them.
        """
        first, second = (side.by_id() for side in self.sides)
        shared = [key for key in first if key in second]
        groups = [
            [key for key in shared if first[key] > second[key]],
            [key for key in shared if first[key] < second[key]],
            [key for key in shared if first[key] == second[key]],
        ]
        share = -(-count // len(groups))
        drawn = [key for group in groups for key in rng.sample(group, min(share, len(group)))][:count]
        rest = [key for key in shared if key not in drawn]
        drawn += rng.sample(rest, min(count - len(drawn), len(rest)))
        return [example for example in examples if example.id in drawn]

    def holds(self, measured: Measured, step: Step) -> bool:
        """True if the merge does as well as the better side on the examples of a sample; the journal has the sums."""
        known = measured.by_id()
        sums = [sum(score for key, score in side.by_id().items() if key in known) for side in self.sides]
        holds = round(measured.total - max(sums), _DIGITS) >= 0
        step.session.decide(
            "merge",
            step=step.number,
            candidate=self.candidate.key,
            sides=[side.candidate.key for side in self.sides],
            ancestor=self.ancestor.candidate.key,
            before=sums,
            after=measured.total,
            holds=holds,
        )
        return holds


class Pareto:
    """A pool of candidates, each kept for what it is best at, whatever its mean.

    A *front* is one thing to be best at, with all candidates that reach the best score there. A candidate is
    *dominated*, and not drawn, if others that are not dominated are on all of its fronts.

    Source: Agrawal et al. 2025, arXiv 2507.19457, algorithms 2 to 4. Differs: scores that agree to nine digits are
    equal; fronts may be parts of the score.

    Args:
        start: The first member.
        value: The value of a parameter in a candidate, by path: `session.value`.
        by: What there is a front for: each "example", each "part" of the scores, or "both".
        goals: What a member achieves on each objective beside the score, higher is better, by name: there is a front
            for each of these besides. `of` takes the objectives of the session.

    Raises:
        ValueError: `by` is none of these three.
    """

    def __init__(
        self,
        start: Measured,
        value: Callable[[str, Candidate], Any],
        by: Fronts = "example",
        goals: Callable[[Measured], Mapping[str, float]] | None = None,
    ) -> None:
        self.by = check_fronts(by)
        self._goals = goals
        self._value = value
        self._members: dict[str, Measured] = {start.candidate.key: start}
        self._merged: set[tuple[Any, ...]] = set()

    @classmethod
    async def of(cls, session: Session, by: Fronts = "example") -> "Pareto":
        """The pool that a search begins with: the base, measured on the validation data.

        Raises:
            BudgetExceeded: The base is not measured yet, and measuring it does not fit what the budget leaves for the
                search.
        """
        start = session.baseline or await session.evaluate(session.base, session.val, scope="baseline")
        return cls(start, session.value, by, session.goals)

    def add(self, measured: Measured) -> bool:
        """Add a candidate to the pool, whatever its mean; False if one with the same content is there already."""
        key = measured.candidate.key
        return key not in self._members and self._members.setdefault(key, measured) is measured

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Measured]:
        """The members, oldest first."""
        return iter(self._members.values())

    @property
    def best(self) -> Measured:
        """The member with the best mean; the oldest among equals."""
        return max(self, key=lambda member: round(member.mean, _DIGITS))

    def fronts(self) -> dict[str, tuple[Measured, ...]]:
        """Each front by name, with the members that are best there."""
        scores: dict[str, list[tuple[Measured, float]]] = {}
        for member in self:
            for what, score in self._scores(member):
                scores.setdefault(what, []).append((member, round(score, _DIGITS)))
        tops = {what: max(score for _, score in found) for what, found in scores.items()}
        return {what: tuple(m for m, score in found if score == tops[what]) for what, found in scores.items()}

    def _scores(self, member: Measured) -> Iterator[tuple[str, float]]:
        if self.by != "part":
            yield from ((f"example {key}", score) for key, score in member.by_id().items())
        if self.by != "example":
            for name, scores in member.parts.items():
                known = [score for score in scores if score is not None]
                if known:
                    yield f"part {name}", sum(known) / len(known)
        if self._goals is not None:
            yield from ((f"objective {name}", value) for name, value in self._goals(member).items())

    def survivors(self) -> dict[str, int]:
        """The members that are not dominated, by key, with the number of fronts that each is on.

        From the worst mean upwards, a member is left out if others are on all of its fronts; of equals the older stays.
        """
        fronts = [{member.candidate.key for member in front} for front in self.fronts().values()]
        left = {key for front in fronts for key in front}
        age = {key: -number for number, key in enumerate(self._members)}
        for member in sorted(self, key=lambda member: (member.mean, age[member.candidate.key])):
            key = member.candidate.key
            if all((front & left) - {key} for front in fronts if key in front):
                left.discard(key)
        return {key: sum(key in front for front in fronts) for key in self._members if key in left}

    def draw(self, rng: random.Random) -> Candidate:
        """A member that is not dominated, drawn by the number of its fronts; the best where there are no fronts."""
        survivors = self.survivors()
        if not survivors:
            return self.best.candidate
        key = rng.choices(list(survivors), weights=list(survivors.values()))[0]
        return self._members[key].candidate

    def merge(self, rng: random.Random, paths: Sequence[str], name: str) -> Merge | None:
        """Put together what two members changed since their common ancestor; None where nothing new can be made.

        The two are drawn among those that are not dominated. Neither descends from the other, the ancestor is no better
        than either, and at least one text was changed by one side only. Where both changed a text, the merge has that
        of the better side, or of either among equals. No merge is made twice, and none whose content is in the pool
        already.

        Args:
            rng: Draws the two, the ancestor (the better the likelier), and between equals.
            paths: Paths of the texts that may differ.
            name: Name of the step, for the merged candidate's origin.
        """
        pairs = [self._sides(*pair, paths) for pair in combinations(self.survivors(), 2)]
        order = [ancestors for ancestors in pairs if ancestors]
        for ancestors in rng.sample(order, len(order)):
            weights = [ancestor.mean for _, _, ancestor in ancestors]
            one, other, ancestor = rng.choices(ancestors, weights if any(weights) else None)[0]
            texts = [self._of_two(path, one, other, ancestor, rng) for path in paths]
            known = {tuple(self._value(path, member.candidate) for path in paths) for member in self}
            if (content := tuple(texts)) in known | self._merged:
                continue
            self._merged.add(content)
            values = {
                path: text for path, text in zip(paths, texts, strict=True) if text != self._value(path, one.candidate)
            }
            return Merge(one.candidate.child(values, f"{name}, merge", other.candidate), (one, other), ancestor)
        return None

    def _sides(self, one: str, other: str, paths: Sequence[str]) -> list[tuple[Measured, Measured, Measured]]:
        """Pairs of members, with each common ancestor from which their merge would be new."""
        older, younger = self._ancestors(one), self._ancestors(other)
        if one in younger or other in older:
            return []
        first, second = self._members[one], self._members[other]
        common = [self._members[key] for key in older if key in younger]
        return [
            (first, second, ancestor)
            for ancestor in common
            if ancestor.mean <= min(first.mean, second.mean) and self._is_disjoint(first, second, ancestor, paths)
        ]

    def _is_disjoint(self, one: Measured, other: Measured, ancestor: Measured, paths: Collection[str]) -> bool:
        for path in paths:
            first, second, old = (self._value(path, each.candidate) for each in (one, other, ancestor))
            if first != second and old in (first, second):
                return True
        return False

    def _of_two(self, path: str, one: Measured, other: Measured, ancestor: Measured, rng: random.Random) -> Any:
        """The value in a merge: that of the side that changed it, or of the better side where both did."""
        first, second, old = (self._value(path, each.candidate) for each in (one, other, ancestor))
        if old in (first, second):
            return second if first == old else first
        if one.mean == other.mean:
            return rng.choice([first, second])
        return first if one.mean > other.mean else second

    def _ancestors(self, key: str) -> list[str]:
        """The ancestors of a member in the pool, the nearest first."""
        found: dict[str, None] = {}
        ahead = list(self._members[key].candidate.parents)
        while ahead:
            candidate = ahead.pop(0)
            if candidate.key in self._members and candidate.key not in found:
                found[candidate.key] = None
                ahead += candidate.parents
        return list(found)

    def __repr__(self) -> str:
        fronts = self.fronts()
        return f"Pareto({len(self)} candidates, {len(self.survivors())} not dominated on {len(fronts)} fronts)"
