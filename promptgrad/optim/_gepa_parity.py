"""The search of `GEPA(parity=True)`: every draw, accept and count as in the package gepa, version 0.1.4.

One generator of random numbers, seeded by the run's seed, serves all draws in the package's order: the parent, the
order of an epoch, the sides and the ancestor of a merge, its examples. Candidates and examples are numbered as there.
Where the package iterates over a set of numbers, so does this file, since the order decides what is drawn; it is the
same in every process.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptgrad import lm
from promptgrad.autograd import CriticLike
from promptgrad.data import Example
from promptgrad.search import Candidate, Fronts, Measured, Place, Rewriter, Session, Step

if TYPE_CHECKING:
    from promptgrad.optim._gepa import GEPA

TRIES = 10
"""Tries to find a pair to merge, and tries for each to find one with an ancestor in common."""


class Batches:
    """The minibatches: all examples in a new order each epoch, padded with the rarest ones; a window for each step."""

    def __init__(self, examples: Sequence[Example], size: int, rng: random.Random) -> None:
        self._examples, self._size, self._rng = examples, size, rng
        self._order: list[int] = []
        self._epoch = -1

    def at(self, number: int) -> list[int]:
        """The minibatch of a step. A step that merges takes none, and its window is passed over."""
        first = number * self._size
        epoch = 0 if self._epoch == -1 else first // len(self._order)
        if epoch > self._epoch:
            self._epoch = epoch
            self._order = list(range(len(self._examples)))
            self._rng.shuffle(self._order)
            known = Counter(self._order)
            while len(self._order) % self._size:
                rarest = known.most_common()[::-1][0][0]
                self._order.append(rarest)
                known[rarest] += 1
        return self._order[first % len(self._order) :][: self._size]


@dataclass(frozen=True)
class Combined:
    """A merge of two members: the candidate, their numbers, and that of the ancestor."""

    candidate: Candidate
    sides: tuple[int, int]
    ancestor: int


class Pool:
    """The candidates by number, the fronts that they are on, their parents, and whose turn it is in each."""

    def __init__(self, session: Session, places: Sequence[Place], by: Fronts, rng: random.Random) -> None:
        self.members: list[Measured] = []
        self._session, self._paths, self._by, self._rng = session, [place.path for place in places], by, rng
        self._parents: list[tuple[int, ...]] = []
        self._turns: list[int] = []
        self._best: dict[str, float] = {}
        self._fronts: dict[str, set[int]] = {}
        self._triples: set[tuple[int, int, int]] = set()
        self._contents: set[tuple[int, int, tuple[int, ...]]] = set()

    def add(self, measured: Measured, parents: Sequence[int] = ()) -> int:
        """Add a candidate, whatever its mean and whether or not its texts are known already; return its number."""
        number = len(self.members)
        self.members.append(measured)
        self._parents.append(tuple(parents))
        self._turns.append(max((self._turns[parent] for parent in parents), default=0))
        for what, score in self._scores(measured).items():
            if score > self._best.get(what, -math.inf):
                self._best[what], self._fronts[what] = score, {number}
            elif score == self._best[what]:
                self._fronts[what].add(number)
        return number

    def _scores(self, measured: Measured) -> dict[str, float]:
        rows = {f"example {key}": score for key, score in _known(measured).items()}
        parts = {}
        for name, scores in measured.parts.items():
            known = [score for score in scores if score is not None]
            if known:
                parts[f"part {name}"] = sum(known) / len(known)
        return {**(rows if self._by != "part" else {}), **(parts if self._by != "example" else {})}

    def mean(self, number: int) -> float:
        """The mean score of a member, without rounding."""
        scores = _known(self.members[number])
        return sum(scores.values()) / len(scores)

    def turn(self, number: int) -> str:
        """The path of the text whose turn it is in a member."""
        return self._paths[self._turns[number]]

    def advance(self, number: int) -> None:
        """Pass the turn on, which a child then inherits."""
        self._turns[number] = (self._turns[number] + 1) % len(self._paths)

    # -- drawing a parent ---------------------------------------------------------------------------------------

    def draw(self) -> int:
        """A member that is not dominated, drawn by the number of its fronts."""
        counts: dict[int, int] = {}
        for front in self._undominated().values():
            for number in front:
                counts[number] = counts.get(number, 0) + 1
        return self._rng.choice([number for number, count in counts.items() for _ in range(count)])

    def _undominated(self) -> dict[str, set[int]]:
        """The fronts without the members that others make superfluous, from the worst mean upwards."""
        fronts = {what: set(front) for what, front in self._fronts.items()}
        numbers = dict.fromkeys(number for front in fronts.values() for number in front)
        ordered, dominated = sorted(numbers, key=self.mean), set[int]()
        again = True
        while again:
            again = False
            for number in ordered:
                if number in dominated:
                    continue
                others = set(ordered) - {number} - dominated
                if all(front & others for front in fronts.values() if number in front):
                    dominated.add(number)
                    again = True
                    break
        left = [number for number in ordered if number not in dominated]
        return {what: {number for number in front if number in left} for what, front in fronts.items()}

    # -- merging ------------------------------------------------------------------------------------------------

    def merge(self, least: int, name: str) -> Combined | None:
        """A merge of two members that are not dominated, as new as any merge so far; None where none is found."""
        survivors: list[int] = []
        for front in self._undominated().values():
            survivors.extend(front)
        candidates = list(set(survivors))
        if len(candidates) < 2 or len(self.members) < 3:
            return None
        for _ in range(TRIES):
            found = self._triple(candidates)
            if found is None:
                continue
            one, other, ancestor = found
            texts, sources = self._of_two(one, other, ancestor)
            shared = _known(self.members[one]).keys() & _known(self.members[other]).keys()
            if (one, other, sources) in self._contents or len(shared) < least:
                continue
            self._contents.add((one, other, sources))
            self._triples.add(found)
            base, second = self.members[one].candidate, self.members[other].candidate
            values = {path: text for path, text in texts.items() if text != self._session.value(path, base)}
            return Combined(base.child(values, f"{name}, merge", second), (one, other), ancestor)
        return None

    def _triple(self, candidates: Sequence[int]) -> tuple[int, int, int] | None:
        for _ in range(TRIES):
            one, other = sorted(self._rng.sample(candidates, 2))
            older, younger = self._ancestors(one), self._ancestors(other)
            if other in older or one in younger:
                continue
            common = [a for a in set(older) & set(younger) if self._fits(one, other, a)]
            if common:
                weights = [self.mean(ancestor) for ancestor in common]
                return one, other, self._rng.choices(common, weights if any(weights) else None)[0]
        return None

    def _ancestors(self, number: int) -> list[int]:
        found: set[int] = set()

        def visit(child: int) -> None:
            for parent in self._parents[child]:
                if parent not in found:
                    found.add(parent)
                    visit(parent)

        visit(number)
        return list(found)

    def _fits(self, one: int, other: int, ancestor: int) -> bool:
        """True if an ancestor is no better than either side, and a text was changed by one side only."""
        if (one, other, ancestor) in self._triples or self.mean(ancestor) > min(self.mean(one), self.mean(other)):
            return False
        texts = [(self._text(path, one), self._text(path, other), self._text(path, ancestor)) for path in self._paths]
        return any(first != second and old in (first, second) for first, second, old in texts)

    def _of_two(self, one: int, other: int, ancestor: int) -> tuple[dict[str, str], tuple[int, ...]]:
        """The texts of a merge by path, and from which side each is."""
        texts, sources = {}, []
        for path in self._paths:
            first, second, old = (self._text(path, number) for number in (one, other, ancestor))
            if old in (first, second):  # unchanged in both, or changed by one
                source = other if first == old != second else one
            elif self.mean(one) != self.mean(other):
                source = one if self.mean(one) > self.mean(other) else other
            else:  # also where both have the same text, which decides what is drawn next
                source = self._rng.choice([one, other])
            texts[path] = self._text(path, source)
            sources.append(source)
        return texts, tuple(sources)

    def _text(self, path: str, number: int) -> str:
        return str(self._session.value(path, self.members[number].candidate))

    def sample(self, merge: Combined, ids: Sequence[str], count: int) -> list[str]:
        """The examples that a merge is tried on: in equal shares where one side is better, the other is, or neither."""
        first, second = (_known(self.members[side]) for side in merge.sides)
        shared = [key for key in ids if key in first and key in second]
        groups = [
            [key for key in shared if first[key] > second[key]],
            [key for key in shared if second[key] > first[key]],
            [key for key in shared if first[key] == second[key]],
        ]
        chosen: list[str] = []
        for group in groups:
            take = min(len(group), max(1, math.ceil(count / 3)), count - len(chosen))
            chosen += self._rng.sample(group, k=take) if take > 0 else []
        rest = [key for key in shared if key not in chosen]
        return chosen + (self._rng.sample(rest, k=count - len(chosen)) if len(chosen) < count else [])


def _known(measured: Measured) -> Mapping[str, float]:
    """The scores by example; one without an answer counts as 0, as a run that failed does."""
    return {key: score or 0.0 for key, score in zip(measured.ids, measured.scores, strict=True)}


class Evolution:
    """The search. Each step is in the journal, an event "gepa" with the numbers of the package's own trace.

    Args:
        gepa: The settings.
        session: The session.
        places: The texts, in the order in which they take turns.
        rewriter: Writes the new texts.
        critic: The critic.
    """

    def __init__(
        self, gepa: "GEPA", session: Session, places: Sequence[Place], rewriter: Rewriter, critic: CriticLike | None
    ) -> None:
        self._gepa, self._session, self._places, self._rewriter, self._critic = gepa, session, places, rewriter, critic
        rng = random.Random(session.seed)
        self._pool = Pool(session, places, gepa.fronts, rng)
        self._batches = Batches(session.train, gepa.minibatch_size, rng)
        self._paid = 0  # runs of the program, as the package counts its metric calls
        self._blocks = 0
        self._due = self._merged = 0
        self._fresh = False

    async def run(self) -> None:
        """Make all steps."""
        session, count = self._session, self._gepa.length(self._session)
        start = session.baseline or await session.evaluate(session.base, session.val, scope="baseline")
        self._paid += len(session.val)
        self._pool.add(start)
        loop = session.steps(count, "GEPA")
        with session.bar(count, "GEPA") as bar:
            for number in range(count):
                step = Step(loop, number)
                if not await self._merge(step):
                    await self._reflect(step)
                bar.advance(note=f"{len(self._pool.members)} candidates")

    async def _merge(self, step: Step) -> bool:
        """Try a merge, if the step before has found a candidate; False where there is none to try."""
        pool, gepa = self._pool, self._gepa
        merge = pool.merge(gepa.merge_examples, step.name) if gepa.max_merges and self._due and self._fresh else None
        self._fresh = False
        if merge is None:
            return False
        examples = {example.id: example for example in self._session.val}
        ids = pool.sample(merge, list(examples), gepa.merge_examples)
        tried = _known(await self._evaluate(step, "merge", merge.candidate, [examples[key] for key in ids]))
        before = [sum(_known(pool.members[side])[key] for key in ids) for side in merge.sides]
        after = sum(tried[key] for key in ids)
        holds = after >= max(before)
        if holds:
            self._due, self._merged = self._due - 1, self._merged + 1
            await self._join(step, merge.candidate, merge.sides)
        else:
            self._session.refuse("a merge was worse than one of its sides")
        triple = [*merge.sides, merge.ancestor]
        self._decide(step, merge=triple, examples=ids, before=before, after=after, accepted=holds)
        return True

    async def _reflect(self, step: Step) -> None:
        """Draw a parent and a minibatch, rewrite, and compare parent and child on the minibatch."""
        pool, session = self._pool, self._session
        parent, batch = pool.draw(), self._batches.at(step.number)
        candidate, rows = pool.members[parent].candidate, [session.train[index] for index in batch]
        turn = [place for place in self._places if self._gepa.components == "all" or place.path == pool.turn(parent)]
        self._paid, self._blocks = self._paid + len(rows), self._blocks + 1
        loss, _ = await step.gradients(candidate, rows, turn, critic=self._critic, replicate=self._blocks)
        scores = _known(step.measured(candidate, loss))
        before = sum(scores.get(row.id, 0.0) for row in rows)
        seen = {"parent": parent, "minibatch": batch, "before": before}
        if all(scores.get(row.id, 0.0) >= session.best_score for row in rows):
            return self._decide(step, **seen, accepted=False)
        pool.advance(parent)
        with lm.context(replicate=self._blocks):  # another sample, also where the prompt is an earlier one
            edits = [edit for place in turn for edit in await self._rewriter(step, candidate, place)]
        values = {path: text for edit in edits for path, text in edit.values.items()}
        seen["components"] = [place.path for place in turn]
        if not values:
            return self._decide(step, **seen, accepted=False)
        child = candidate.child(values, step.name)
        tried = _known(await self._evaluate(step, "child", child, rows))
        after = sum(tried[row.id] for row in rows)
        if after > before:
            self._fresh = True
            self._due += self._merged < self._gepa.max_merges
            await self._join(step, child, [parent])
        else:
            session.refuse("it was no better on the examples of its step")
        return self._decide(step, **seen, after=after, accepted=self._fresh)

    async def _join(self, step: Step, candidate: Candidate, parents: Sequence[int]) -> None:
        measured = await self._evaluate(step, "val", candidate, self._session.val)
        self._session.trial(measured, "joins the pool")
        self._session.consider(measured)
        self._pool.add(measured, parents)

    async def _evaluate(self, step: Step, what: str, candidate: Candidate, rows: Sequence[Example]) -> Measured:
        """Run a candidate, also where the scores are known already: the package runs and counts every block."""
        self._paid, self._blocks = self._paid + len(rows), self._blocks + 1
        return await self._session.evaluate(candidate, rows, scope=step.scope(what), replicate=self._blocks)

    def _decide(self, step: Step, **fields: Any) -> None:
        self._session.decide("gepa", step=step.number, **fields, metric_calls=self._paid)
