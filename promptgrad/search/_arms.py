"""Arms: the ways in which a search makes candidates from one, each with what it has paid so far."""

from collections.abc import Sequence
from typing import Any

from promptgrad.data import Example
from promptgrad.nn import Predict
from promptgrad.run import value_digest
from promptgrad.search._candidate import Candidate
from promptgrad.search._demos import labeled_demos
from promptgrad.search._places import Place, answers
from promptgrad.search._race import BLOCK
from promptgrad.search._revise import revise
from promptgrad.search._rewriter import Rewriter, children, varied
from promptgrad.search._session import Session
from promptgrad.search._steps import Step

KEPT = 0.7
"""Weight that what an arm brought and cost keeps with each further pull of it."""

APART = 4
"""Most texts for which, beside the proposals that divide the blame, each is also rewritten by itself."""


class Arm:
    """A way of making candidates from one, with what it has paid so far.

    Args:
        name: Its name in the journal and in the origin of its candidates.
        gain: The gain that is expected of it before it was ever pulled.
        calls: The cost at which that gain is expected.

    Attributes:
        pulls: How often it was pulled.
    """

    def __init__(self, name: str, *, gain: float, calls: float = 60.0) -> None:
        self.name = name
        self.pulls = 0
        self._gain = gain
        self._calls = calls

    @property
    def rate(self) -> float:
        """Gain per call, where what was long ago counts less."""
        return self._gain / self._calls

    def credit(self, gain: float, calls: float) -> None:
        """Book what a pull brought and cost."""
        self.pulls += 1
        self._gain = KEPT * self._gain + gain
        self._calls = KEPT * self._calls + calls

    async def make(self, step: Step, parent: Candidate, count: int) -> list[Candidate]:
        """Make up to about `count` candidates from one.

        Raises:
            BudgetExceeded: What they need does not fit what the budget leaves for the search.
            LMError: The LM that writes is down.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.pulls} pulls, {self.rate:.2g} a call>"


class TextArm(Arm):
    """Rewrites one text from all rows that are known of it.

    Args:
        place: Where the text is.
        rewriter: Gathers the evidence.
        gain: As for `Arm`.
    """

    def __init__(self, place: Place, rewriter: Rewriter, *, gain: float) -> None:
        super().__init__(place.path, gain=gain)
        self.place = place
        self.rewriter = rewriter

    async def make(self, step: Step, parent: Candidate, count: int) -> list[Candidate]:
        """A candidate for each text that may be tried, all written of the same rows, the very first without a tip."""
        evidence = self.rewriter.evidence(step.session, parent, self.place)
        if not evidence.rows:
            return []
        first = self.rewriter.numbered(parent, [evidence], count)
        edits = await self.rewriter.rewrite(step, varied([evidence], count, first))
        return [parent.child(edit.values, f"{step.name}, {self.name}") for edit in edits if edit and edit.passed]


class ReviseArm(Arm):
    """Lets one writer find which of several texts are to blame and rewrite those, from whole runs; see `revise`.

    Blame found in a few runs is uncertain, and a text that was rewritten for no reason stays so. So the first time
    that a candidate is rewritten, each text is also written by itself, from its own rows, and all are tried together.

    Args:
        places: Where the texts are.
        rewriter: Gathers the evidence.
        reviser: Program on the signature `Revise`.
        gain: As for `Arm`.
    """

    def __init__(self, places: Sequence[Place], rewriter: Rewriter, reviser: Predict, *, gain: float) -> None:
        super().__init__("texts to blame", gain=gain)
        self.places = list(places)
        self.rewriter = rewriter
        self.reviser = reviser

    async def make(self, step: Step, parent: Candidate, count: int) -> list[Candidate]:
        """A candidate for each proposal, for each text of the first one alone, and for all texts written apart.

        Cost: one LM call for each proposal, and, the first time that `parent` is rewritten, one for each of up to four
        texts.
        """
        texts = [self.rewriter.evidence(step.session, parent, place) for place in self.places]
        texts = [text for text in texts if text.rows]
        if not texts:
            return []
        first = self.rewriter.numbered(parent, texts, count)
        made = children(step, parent, await revise(self.rewriter, self.reviser, step, parent, texts, count, first))
        if not first and 2 <= len(texts) <= APART and step.session.affords(BLOCK, len(texts)):
            edits = await self.rewriter.rewrite(step.part("apart"), varied(texts, 1))
            values = {path: text for edit in edits if edit and edit.passed for path, text in edit.values.items()}
            apart = parent.child(values, f"{step.name}, each text apart")
            if values and all(apart.key != one.key for one in (parent, *made)):
                made.insert(1, apart)  # a small budget tries the first two
        return made


class DemosArm(Arm):
    """Gives the modules demos: labelled examples, or what a module was given and answered in runs that went right.

    Labels are a module's if the examples have its fields, and no other module answers any of these: what a program of
    several steps returns says nothing of an earlier step that calls its answer alike. Sizes and order take turns:
    examples at random, and those first on which the candidate failed.

    Args:
        session: The session.
        places: The demos parameters; a candidate sets all of them.
        sizes: Numbers of demos to try.
        gain: As for `Arm`.
    """

    def __init__(self, session: Session, places: Sequence[Place], sizes: Sequence[int], *, gain: float) -> None:
        super().__init__("demos", gain=gain)
        self.places = list(places)
        self.sizes = list(sizes)
        self._turn = 0
        self._shown: dict[str, frozenset[str]] = {}
        answered = answers(session.program())
        self._labeled = {
            place.path: [
                (example.id, demo)
                for example in session.train
                for demo in labeled_demos(place.signature, [example])
                if all(answered[name] <= 1 for name in demo.labels())
            ]
            for place in places
        }

    async def make(self, step: Step, parent: Candidate, count: int) -> list[Candidate]:
        """Candidates with other demos."""
        made: list[Candidate] = []
        for _ in range(2 * len(self.sizes)):
            if len(made) == count:
                break
            turn, place = divmod(self._turn, len(self.sizes))
            size, self._turn = self.sizes[place], self._turn + 1
            drawn = {place.path: self._draw(step, parent, place, size, hard=turn % 2 == 1) for place in self.places}
            values = {path: demos for path, demos in drawn.items() if demos}
            child = parent.child(values, f"{step.name}, {size} demos")
            if values and all(child.key != other.key for other in (parent, *made)):
                made.append(child)
        return made

    def _draw(self, step: Step, parent: Candidate, place: Place, size: int, *, hard: bool) -> tuple[Example, ...]:
        rows = {row.example: row for row in step.session.rows.of(place, parent)}
        pool = list(self._labeled[place.path]) or [
            (row.example, Example({**row.inputs, **row.outputs}).with_inputs(*row.inputs))
            for row in step.session.rows.right(place)
            if row.inputs and row.outputs
        ]
        step.rng.shuffle(pool)
        if hard:
            pool.sort(key=lambda entry: entry[0] not in rows or rows[entry[0]].right)
        demos = tuple(demo for _, demo in pool[:size])
        self._shown[value_digest(demos)] = frozenset(key for key, _ in pool[:size])
        return demos

    def shown(self, demos: Any) -> frozenset[str]:
        """The ids of the training examples that demos made here show."""
        return self._shown.get(value_digest(demos), frozenset()) if demos else frozenset()


class ChoiceArm(Arm):
    """Tries the other options of a choice, by turns.

    Args:
        place: Where the choice is.
        gain: As for `Arm`.
    """

    def __init__(self, place: Place, *, gain: float) -> None:
        super().__init__(place.path, gain=gain)
        self.place = place
        self._turn = 0

    async def make(self, step: Step, parent: Candidate, count: int) -> list[Candidate]:
        """Candidates with other options."""
        path, present = self.place.path, step.session.value(self.place.path, parent)
        others = [option for option in self.place.parameter.options or () if option != present]
        chosen = [others[(self._turn + n) % len(others)] for n in range(min(count, len(others)))]
        self._turn += len(chosen)
        return [parent.child({path: option}, f"{step.name}, {path}") for option in chosen]


class MergeArm(Arm):
    """Gives a candidate the value that another good candidate has in one place, the most promising first.

    Args:
        places: The places that candidates differ in.
        gain: As for `Arm`.
    """

    def __init__(self, places: Sequence[Place], *, gain: float) -> None:
        super().__init__("merge", gain=gain)
        self.paths = [place.path for place in places]

    async def make(self, step: Step, parent: Candidate, count: int) -> list[Candidate]:
        """Merges that were not tried yet."""
        session = step.session
        made: dict[str, Candidate] = {}
        for standing in sorted(session.standings.posterior(), key=lambda one: -one.gain):
            other = standing.candidate
            for path in self.paths:
                value = session.value(path, other)
                if len(made) == count or value in (session.value(path), session.value(path, parent)):
                    continue
                child = parent.child({path: value}, f"{step.name}, merge of {path}", other)
                if session.standings.of(child) is None and child.key != session.base.key:
                    made.setdefault(child.key, child)
        return list(made.values())
