"""The trials of `MIPRO`: combinations of choices, scored on minibatches, and the best of each round in full."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from promptgrad.autograd import Kind
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded
from promptgrad.search import TPE, Candidate, Measured, Point, Session, Study

Key = tuple[int, ...]


@dataclass(frozen=True)
class Dimension:
    """One categorical dimension of the search: the possible values of a parameter; choice 0 is the present one."""

    path: str
    kind: Kind
    choices: tuple[Any, ...]


class Trials:
    """The combinations that were tried, and the sampler that proposes the next.

    Args:
        session: The session.
        dimensions: What is searched.
        count: Most trials.
        examples: The validation examples, in the order in which minibatches take them.
        size: Examples in a minibatch.
        every: Trials in a round.
    """

    def __init__(
        self,
        session: Session,
        dimensions: Sequence[Dimension],
        count: int,
        examples: Sequence[Example],
        size: int,
        every: int,
    ) -> None:
        self.session, self.dimensions, self.count = session, list(dimensions), count
        self.study: Study | None = None
        self._order, self._size, self._every = list(examples), min(size, len(examples)), every
        self._everything = {example.id for example in examples}
        self._known: dict[Key, Measured] = {}
        self._full: set[Key] = set()
        start = tuple(0 for _ in dimensions)
        if session.baseline is not None:
            self._known[start] = session.baseline
            self._full.add(start)
        self._search = self._sampler(0)
        self._search.enqueue(dict.fromkeys(self._search.space, 0))
        self._enqueue_together()

    def _enqueue_together(self) -> None:
        """Try first new instructions of all modules together: one alone may gain nothing before another fits to it.

        The first of them have the present demos, the next ones another set each.
        """
        texts = [dimension for dimension in self.dimensions if dimension.kind.is_text]
        if len(texts) > 1:
            for number in range(1, min(len(dimension.choices) for dimension in texts)):
                self._search.enqueue(
                    {d.path: number if d in texts else (number - 1) % len(d.choices) for d in self.dimensions}
                )

    def _sampler(self, number: int) -> TPE:
        space = {dimension.path: len(dimension.choices) for dimension in self.dimensions}
        return TPE(space, seed=self.session.spawn("tpe", number), startup=max(3, self.count // 3))

    async def run(self, write: Callable[[int, Candidate], Any]) -> None:
        """Make the trials, round by round.

        Args:
            write: Called between two rounds with the number of the round and the best combination so far: a coroutine
                that gives new choices by path.

        Raises:
            BudgetExceeded: The budget ended; the best combination so far was offered.
        """
        try:
            with self.session.bar(self.count, "MIPRO") as bar:
                for first in range(0, self.count, self._every):
                    more = await self._round(first, min(first + self._every, self.count), bar)
                    if self.session.perfect():
                        self.session.decide("stop", reason="every validation example is right")
                        return
                    if first + self._every < self.count:
                        grown = self._grow(first // self._every + 1, await write(first // self._every, self.best()))
                        if not more and not grown:
                            self.session.decide("stop", reason=f"all {self._search.size} combinations are known")
                            return
        except BudgetExceeded:
            best = self._best(self._known) if self._known else None
            if best is not None and best not in self._full and self.session.gain(self._known[best]) > 0:
                self.session.offer(self._known[best])  # without an event: a resumed run expects the end here
            raise

    def best(self) -> Candidate:
        """The best combination so far, the base where none is better."""
        return self._known[self._best(self._known)].candidate if self._known else self.session.base

    async def _round(self, first: int, end: int, bar: Any) -> bool:
        """Some trials on one minibatch, and the best of those that were not scored in full; False if all are known."""
        start = first // self._every * self._size % len(self._order)
        minibatch = [self._order[(start + offset) % len(self._order)] for offset in range(self._size)]
        more = True
        for number in range(first, end):
            point = self._next(minibatch, number)
            if point is None:
                more = False
                break
            await self._try(point, minibatch, number)
            bar.advance(note=f"best {self._known[self._best(self._known)].mean:.3f}")
        await self._validate(first, end)
        return more

    async def _try(self, point: Point, minibatch: Sequence[Example], number: int) -> None:
        session = self.session
        candidate = self._candidate(point.choices, f"trial {number}")
        session.admit(len(minibatch) + self._lacking())
        measured = await session.evaluate(candidate, minibatch, scope=f"trial/{number}/minibatch")
        self._search.tell(point, shrunken(session, measured))
        if point.key not in self._full:
            old = self._known.get(point.key)
            self._known[point.key] = measured if old is None else old + measured.without(old.ids)
        session.trial(measured, "minibatch", choices=dict(point.choices))
        self._mirror(str(number), point.choices, measured, "minibatch")
        if point.key not in self._full and self._everything <= set(self._known[point.key].ids):
            self._full.add(point.key)
            session.consider(self._known[point.key])

    async def _validate(self, first: int, end: int) -> None:
        """Score in full the best of the combinations that have only been scored on minibatches."""
        session = self.session
        open_points = {key: measured for key, measured in self._known.items() if key not in self._full}
        if not open_points:
            return
        key = self._best(open_points)
        choices = dict(zip((dimension.path for dimension in self.dimensions), key, strict=True))
        candidate = self._candidate(choices, self._known[key].candidate.origin)
        rows = [example for example in session.val if example.id in self._everything]
        measured = await session.evaluate(candidate, rows, scope=f"trial/{end - 1}/full")
        self._known[key] = measured
        self._full.add(key)
        self._search.add(choices, shrunken(session, measured))
        session.trial(measured, "full", choices=choices)
        self._mirror(f"{first}-{end - 1} full", choices, measured, "full")
        session.consider(measured)

    def _grow(self, number: int, written: Mapping[str, Sequence[Any]]) -> bool:
        """Add choices, each to be tried next with the other choices of the best combination; True if there are any.

        The choices of a sampler are fixed, so a new one is told everything that is known.
        """
        best = self._best(self._known) if self._known else tuple(0 for _ in self.dimensions)
        choices = dict(zip((dimension.path for dimension in self.dimensions), best, strict=True))
        ahead = []
        for place, dimension in enumerate(self.dimensions):
            fresh = written.get(dimension.path, ())
            ahead += [{**choices, dimension.path: len(dimension.choices) + index} for index in range(len(fresh))]
            self.dimensions[place] = replace(dimension, choices=(*dimension.choices, *fresh))
        if not ahead:
            return False
        self._search = self._sampler(number)
        for key, measured in self._known.items():
            point = dict(zip(self._search.space, key, strict=True))
            self._search.add(point, shrunken(self.session, measured))
        for point in ahead:
            self._search.enqueue(point)
        self.session.decide("space", dimensions=dict(self._search.space))
        self.describe()
        return True

    def describe(self) -> None:
        """Say in the mirror what the choices are."""
        if self.study is not None:
            self.study.describe({dimension.path: dimension.choices for dimension in self.dimensions})

    def _mirror(self, number: str, choices: Mapping[str, int], measured: Measured, stage: str) -> None:
        if self.study is not None:
            self.study.add(number, choices, shrunken(self.session, measured), measured, stage)

    def _next(self, minibatch: Sequence[Example], number: int) -> Point | None:
        """The next point whose score on the minibatch is not known yet; None if there is none.

        In a small space the sampler repeats points. The known score of a repeated point is reported once more, which
        costs nothing, and another point is drawn; in the end any point that was never tried.
        """
        search, ids = self._search, {example.id for example in minibatch}
        for _ in range(10):
            point = search.ask()
            measured = self._known.get(point.key)
            if measured is None or (point.key not in self._full and not ids <= set(measured.ids)):
                return point
            search.tell(point, shrunken(self.session, measured))
        rng = self.session.rng("unseen", number)
        for _ in range(100):
            choices = {path: rng.randrange(size) for path, size in search.space.items()}
            if tuple(choices.values()) not in self._known:
                search.enqueue(choices)
                return search.ask()
        return None

    def _lacking(self) -> int:
        """Runs that the best combination so far needs to be scored in full."""
        if not self._known or (best := self._best(self._known)) in self._full:
            return 0
        return len(self._everything.difference(self._known[best].ids))

    def _candidate(self, choices: Mapping[str, int], origin: str) -> Candidate:
        values = {
            dimension.path: dimension.choices[choices[dimension.path]]
            for dimension in self.dimensions
            if choices[dimension.path]
        }
        return self.session.base.child(values, origin) if values else self.session.base

    def _best(self, known: Mapping[Key, Measured]) -> Key:
        return max(known, key=lambda key: (self.session.gain(known[key]), -known[key].candidate.size))


def shrunken(session: Session, measured: Measured) -> float:
    """The start's mean plus the expected gain: comparable between minibatches of any difficulty."""
    return (0.0 if session.baseline is None else session.baseline.mean) + session.gain(measured)
