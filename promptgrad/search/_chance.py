"""Chances: how likely one candidate is better than another, by the examples that both were run on."""

from collections.abc import Sequence

from promptgrad.search._candidate import Measured
from promptgrad.search._shrinkage import beliefs


def chance(champion: Measured | None, challenger: Measured | None, price: float = 0.0) -> float:
    """Probability that the challenger's mean gain over the champion exceeds a price, given the pairs and the prior."""
    if champion is None or challenger is None:
        return 0.5
    return chances_of(champion, [challenger], [price])[0]


def chances_of(champion: Measured, challengers: Sequence[Measured], prices: Sequence[float]) -> list[float]:
    """The same for all challengers of a race, each shrunken towards what the others achieve; 0.5 without a pair.

    It is not corrected for the choice among them: a race says where to go on, and what ships is decided at the end.
    """
    known = champion.by_id()
    gains = [
        {key: score - known[key] - price for key, score in challenger.by_id().items() if key in known}
        for challenger, price in zip(challengers, prices, strict=True)
    ]
    believed = iter(beliefs([rows for rows in gains if rows]))
    return [next(believed).chance if rows else 0.5 for rows in gains]
