"""RandomSearch: demo sets drawn at random, raced against each other."""

from typing import Any

from promptgrad._habits import refuses
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import RANDOM_SEARCH_HABITS
from promptgrad.optim._search import Search
from promptgrad.search import Candidate, DemoPool, Session, bootstrap, check_counts, eliminate, is_number

RACES = 20
"""Most races, where the budget leaves room for more than one."""

TRACES = 0.25
"""Share of a budget for the runs that make traces."""


class RandomSearch(Search):
    """Try demo sets of random size, drawn from labelled examples and from runs that went right; keep the best.

    The candidates are DSPy's: no demos; labelled examples only; the first traces in the order of the data, filled up
    with labelled examples; then `num_candidate_programs` seeded draws, each with 1 to `max_bootstrapped_demos` traces.
    Instructions stay as they are. The candidates run on the validation data block by block, and one that is almost
    certainly worse than the leader leaves the race. Where the trainer has a budget, further draws follow, race by race,
    until it ends or a candidate is right on every row.

    Cost in `Trainer.fit`: at most one run for each training example and round, once for all candidates; at most
    `num_candidate_programs + 3` runs for each validation example, in simulated worlds half of that.
    Source: DSPy's `BootstrapFewShotWithRandomSearch` (Khattab et al. 2023, arXiv 2310.03714). Differs: traces are made
    once, not once for each candidate; candidates race, instead of each being scored on everything; validation data
    are never the training data; each module's demos are drawn by themselves.

    Args:
        params: Parameters; those of kind "demos" are trained.
        max_bootstrapped_demos: Most traces for each module.
        max_labeled_demos: Most demos for each module, labelled examples included; 0 for traces only.
        max_rounds: Tries for each training example; later ones only help LMs that sample.
        num_candidate_programs: Seeded draws.
        threshold: Score from which a run counts as right; None for the full score.
        teacher: LM (or name of one, or a program of the same structure) that makes the traces; None for the program
            on its own LM.

    Raises:
        ValueError: A number is out of range.
        TypeError: A count is not a whole number; or an argument is unknown: for DSPy's the message names the
            replacement.
    """

    kinds = ("demos",)

    @refuses(RANDOM_SEARCH_HABITS)
    def __init__(
        self,
        params: Params,
        max_bootstrapped_demos: int = 4,
        max_labeled_demos: int = 16,
        max_rounds: int = 1,
        num_candidate_programs: int = 16,
        threshold: float | None = None,
        teacher: Any = None,
    ) -> None:
        check_counts(max_bootstrapped_demos=(max_bootstrapped_demos, 1), max_labeled_demos=(max_labeled_demos, 0))
        check_counts(max_rounds=(max_rounds, 1), num_candidate_programs=(num_candidate_programs, 0))
        if threshold is not None and not is_number(threshold):
            raise TypeError(f"threshold is a number, or None for the full score, not {threshold!r}")
        super().__init__(params)
        self.max_bootstrapped_demos, self.max_labeled_demos = max_bootstrapped_demos, max_labeled_demos
        self.max_rounds, self.num_candidate_programs = max_rounds, num_candidate_programs
        self.threshold, self.teacher = threshold, teacher

    async def fit(self, session: Session) -> None:
        """Make the traces, draw the candidates, race them."""
        paths = [place.path for place in session.places(self.kinds)]
        pool = await bootstrap(
            session,
            paths,
            wanted=4 * self.max_bootstrapped_demos,
            max_labeled=self.max_labeled_demos,
            max_rounds=self.max_rounds,
            threshold=self.threshold,
            teacher=self.teacher if self.teacher is not None else session.teacher,
            limit=session.share_of_runs(TRACES, len(session.train)),
        )
        session.decide("bootstrapped", tried=pool.tried, traces=sum(len(pool.traces[path]) for path in paths))
        candidates = self._candidates(session, pool, paths, range(-2, self.num_candidate_programs))
        if not candidates:
            session.notes.append(
                f"there was nothing to try: none of {pool.tried} training runs went right, and no example has the "
                "fields of a module with demos: lower threshold=, or give a stronger teacher="
            )
            return
        await eliminate(session, candidates, scope="race")
        tried, size = {candidate.key for candidate in candidates}, self.num_candidate_programs
        for race in range(1, RACES if size and session.ledger.budget.calls is not None else 1):
            drawn = self._candidates(session, pool, paths, range(race * size, (race + 1) * size))
            fresh = [candidate for candidate in drawn if candidate.key not in tried]
            if not fresh or session.perfect():
                break
            tried |= {candidate.key for candidate in fresh}
            await eliminate(session, fresh, scope=f"race/{race}")

    def _candidates(self, session: Session, pool: DemoPool, paths: list[str], numbers: range) -> list[Candidate]:
        """The demo sets of these numbers, all different from each other and from the base."""
        most, labels = self.max_bootstrapped_demos, self.max_labeled_demos
        made = [session.base.child(dict.fromkeys(paths, ()), "no demos")] if -2 in numbers else []
        for number in numbers:
            values = {}
            for path in paths:
                rng = None if number == -1 else session.rng("draw", number, path)
                size = 0 if number == -2 else most if rng is None else rng.randint(1, most)
                right = min(size, len(pool.traces[path]))
                values[path] = pool.draw(path, rng, bootstrapped=right, total=max(right, labels))
            name = {-2: "labelled demos only", -1: "the first traces"}.get(number, f"draw {number}")
            made.append(session.base.child({path: demos for path, demos in values.items() if demos}, name))
        start = {path: session.value(path) for path in paths}
        different = {each.key: each for each in made if any(start[p] != session.value(p, each) for p in paths)}
        return list(different.values())

    def expected_demos(self) -> tuple[int, int]:
        """Return the most traces, and the most demos."""
        return self.max_bootstrapped_demos, max(self.max_bootstrapped_demos, self.max_labeled_demos)

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases, each at most: traces, and the race of all candidates over all validation examples."""
        per, count = plan.calls_per_example, self.num_candidate_programs + 3
        traces, race = plan.train * self.max_rounds * per, count * plan.val * per
        return [("traces", traces, False), (f"race of {count} candidates", race, False)]


BootstrapFewShotWithRandomSearch = RandomSearch
