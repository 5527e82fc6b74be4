"""Ties: where validation examples leave open which of two candidates is better, training examples are asked too."""

from collections.abc import Awaitable, Callable, Sequence

from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._chance import chance
from promptgrad.search._session import Session

OPEN = (0.35, 0.9)
"""Probabilities of being better, by validation examples, between which training examples are asked too."""

ROOM = 6
"""Runs of all training examples that the budget must still pay for."""

Asked = Callable[[Candidate, str], Awaitable[Measured | None]]
"""Runs a candidate on the training examples that it lacks, under a name; gives all that is known of it anywhere."""


async def untie(
    session: Session,
    champion: Candidate,
    rivals: Sequence[tuple[Candidate, float, float]],
    *,
    scope: str,
    asked: Asked | None = None,
) -> list[float]:
    """The probabilities that the two likeliest candidates are better than a champion, by training examples as well.

    The champion was chosen among many by the validation examples, and owes some of its lead there to luck. Training
    examples only say where to search on: what ships is decided on validation examples alone.

    Cost: runs of the champion and two rivals on the training examples that they lack, where the budget pays for it.

    Args:
        session: The session.
        champion: Who is to be beaten.
        rivals: The candidates, each with its probability by validation examples alone and the score that it must gain
            to be worth its length; the likeliest first, and no more than two.
        scope: Name in the journal.
        asked: Asks training examples; the rows of the session by default.

    Raises:
        BudgetExceeded: The runs do not fit what the budget leaves for the search.
    """
    found, ask = list[float](), asked if asked is not None else _everywhere(session)
    for number, (rival, likely, price) in enumerate(rivals):
        if OPEN[0] < likely < OPEN[1] and ROOM * len(session.train) < session.runs_left():
            before = await ask(champion, f"{scope}/{number}/a")
            likely = chance(before, await ask(rival, f"{scope}/{number}/b"), price)
        found.append(likely)
    return found


def _everywhere(session: Session) -> Asked:
    """Asks the training examples on which no run speaks of a candidate."""

    async def ask(candidate: Candidate, scope: str) -> Measured | None:
        rows = session.rows
        out = rows.known(candidate) | session.unanswered.rows(candidate.key)
        if lacking := [example for example in session.train if example.id not in out]:
            await session.forward(candidate, lacking, scope=scope)  # which notes the rows
        known = rows.known(candidate)
        trained = rows.measured(candidate, [example for example in session.train if example.id in known])
        measured = session.standings.of(candidate)
        return trained if measured is None else measured + trained if trained.ids else measured

    return ask
