"""What a run of a program costs, by name."""

from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptgrad.lm import Usage, UsageTracker

COSTS = ("calls", "tokens", "input_tokens", "output_tokens", "usd", "seconds")
"""The costs of a run of a program: calls, tokens, money, and the seconds of its replies, one after the other."""

_READ = attrgetter(*COSTS)

JUDGING = "metric_calls"
"""The number of calls that the metric made, beside the costs."""


def costs_of(program: "Usage", spent: "UsageTracker") -> Mapping[str, float | None]:
    """The costs of the program's own calls, and the number of the metric's.

    Replies from a cache whose cost is not known count as calls; the other costs are then not known.

    Args:
        program: What the program's calls cost without a cache.
        spent: What those of the program and the metric cost together.
    """
    whole = spent.uncached
    calls = program.calls + program.cached
    costs: dict[str, float | None] = (
        dict.fromkeys(COSTS) if program.cached else dict(zip(COSTS, _READ(program), strict=True))
    )
    costs["calls"], costs[JUDGING] = calls, whole.calls + whole.cached - calls
    return costs
