"""The expected cost of a run, before it starts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """One phase of a plan.

    Attributes:
        name: What the calls are for.
        calls: LM calls.
        exact: True if the number is exact; otherwise it is an upper bound.
        demo_tokens: Tokens that the demos of candidates add to one of its calls.
        demo_usd: Their price; None if it is unknown.
        tokens_per_call: Tokens of one of its calls, where it is not one of the program but of a writer or critic.
        usd_per_call: Its price; None if it is unknown. It counts with `tokens_per_call` alone.
    """

    name: str
    calls: int
    exact: bool
    demo_tokens: float = 0.0
    demo_usd: float | None = 0.0
    tokens_per_call: float | None = None
    usd_per_call: float | None = None


@dataclass(frozen=True)
class Plan:
    """What `Trainer.fit` is expected to cost; print it.

    It counts one LM call for each `Predict` in the program and each example, with as many demos as candidates may show
    (`Search.expected_demos`), and writers' calls with the rows that they are shown, without re-asks, stored cells or an
    early end: so it is usually more than a run needs. A program that calls a module in a loop needs more: set
    `calls_per_example` then.

    Attributes:
        phases: Calls by phase.
        calls_per_example: Calls for one run of the program.
        tokens_per_call: Tokens of one call of the start, read and written, estimated from rendered prompts.
        usd_per_call: Price of one call of the start; None if it is unknown.
        train: Examples to learn from.
        val: Examples to choose on.
        confirm: Examples to confirm on.
        test: Examples of the final report.
        notes: Further remarks.
        limit: LM calls that the budget allows; None without a limit. It counts in the first line of the print alone.
    """

    phases: tuple[Phase, ...]
    calls_per_example: float
    tokens_per_call: float
    usd_per_call: float | None
    train: int
    val: int
    confirm: int
    test: int
    notes: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def calls(self) -> int:
        """LM calls."""
        return sum(phase.calls for phase in self.phases)

    @property
    def exact(self) -> bool:
        """Whether all phases are exact."""
        return all(phase.exact for phase in self.phases)

    @property
    def tokens(self) -> int:
        """Tokens, read and written."""
        own = self.tokens_per_call
        each = [own if phase.tokens_per_call is None else phase.tokens_per_call for phase in self.phases]
        return round(sum(p.calls * (tokens + p.demo_tokens) for p, tokens in zip(self.phases, each, strict=True)))

    @property
    def usd(self) -> float | None:
        """Money; None if the price is unknown."""
        total = 0.0
        for phase in self.phases:
            usd = self.usd_per_call if phase.tokens_per_call is None else phase.usd_per_call
            if usd is None or phase.demo_usd is None:
                return None
            total += phase.calls * (usd + phase.demo_usd)
        return total

    def __repr__(self) -> str:
        limited = self.limit is not None and self.limit < self.calls
        calls = self.limit if self.limit is not None and limited else self.calls
        share = calls / self.calls if self.calls else 0.0
        usd = "price unknown" if self.usd is None else f"${share * self.usd:.4f}"
        bound = "" if self.exact and not limited else "at most " if limited else "at most about "
        without = f" (without the budget {self.calls})" if limited else ""
        lines = [
            f"Plan: {bound}{calls} LM calls{without}, about {round(share * self.tokens)} tokens, {usd}",
            f"  examples: {self.train} to learn from, {self.val} to choose on, {self.confirm} to confirm on, "
            f"{self.test} to test on",
        ]
        lines += [f"  {phase.name:<32} {'' if phase.exact else '<= '}{phase.calls}" for phase in self.phases]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
