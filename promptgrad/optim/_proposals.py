"""The proposals of one step: their variants, those that can pass a gate, their verdicts and the best of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from promptgrad.autograd import Loss, Parameter
from promptgrad.optim._gate import UNTRIED, best_of, hopeless, judge, known_scores, paired_rows
from promptgrad.optim._report import Change
from promptgrad.search import Verdict, size_of

TWICE = "it was proposed twice in this step"
"""Reason of a proposal that is not measured because an equal one is measured."""

Changes = Sequence[tuple[Parameter, Change]]
"""One variant of a step: a change for each trained parameter."""


def _free(changes: Changes) -> float:
    return 0.0


class Proposals:
    """The proposals of a step, in variants; at most one variant is installed.

    Args:
        variants: The variants, each with a change for every trained parameter.
        price: The score that the changes of a variant must gain to be worth their length.
    """

    def __init__(self, variants: Iterable[Changes] = (), price: Callable[[Changes], float] | None = None) -> None:
        self.variants: list[Changes] = list(variants)
        self._price = price or _free

    def __len__(self) -> int:
        return len(self.variants)

    def __iter__(self) -> Iterator[tuple[Parameter, Change]]:
        for variant in self.variants:
            yield from variant

    def open(self, variant: int) -> list[tuple[Parameter, Change]]:
        """The changes of a variant that are still proposed."""
        return [(parameter, change) for parameter, change in self.variants[variant] if change.status == "proposed"]

    def values(self) -> dict[int, dict[Parameter, Any]]:
        """The values to try, by variant, without duplicates."""
        found: dict[int, dict[Parameter, Any]] = {}
        for variant in range(len(self.variants)):
            values = {parameter: change.new for parameter, change in self.open(variant)}
            if values and values not in found.values():
                found[variant] = values
        return found

    def winnable(self, before: Loss, *, confidence: float, seed: int) -> dict[int, dict[Parameter, Any]]:
        """The values that can pass a gate on these rows. The others are rejected before their trial costs anything.

        The fewer variants are measured, the smaller a gain can be shown. So each variant is tested on whether it could
        pass alone, then as one of two, and so on, until no more variants are left than that.
        """
        candidates = self.values()
        scores = known_scores(before)
        ask = partial(hopeless, scores, confidence=confidence, seed=seed, best=best_of(before))
        prices = {
            variant: self._price(self.open(variant))
            for variant, values in candidates.items()
            if not all(parameter.kind.exact for parameter in values)
        }
        kept = dict(candidates)
        for of in range(1, len(candidates) + 1):
            for variant in [variant for variant in kept if variant in prices]:
                why = ask(price=prices[variant], of=of)
                if not why:
                    continue
                if why.startswith(UNTRIED):  # give the number for the next step, which proposes as many
                    why = ask(price=prices[variant], of=len(candidates))
                del kept[variant]
                self._update(variant, partial(Change.to, status="rejected", reason=why))
            if len(kept) <= of:
                break
        return kept

    def judge(self, before: Loss, trials: Mapping[int, Loss], *, confidence: float, seed: int) -> dict[int, Verdict]:
        """A verdict on each variant that was tried."""
        best = best_of(before)
        verdicts: dict[int, Verdict] = {}
        for variant, after in trials.items():
            first, second, dropped = paired_rows(before, after)
            changed = self.open(variant)
            verdicts[variant] = judge(
                first,
                second,
                confidence=confidence,
                seed=seed,
                best=best,
                exact=all(parameter.kind.exact for parameter, _ in changed),
                price=self._price(changed),
                of=len(trials),
                dropped=dropped,
            )
        return verdicts

    def best(self, verdicts: Mapping[int, Verdict]) -> int:
        """The variant to install or to report: one that passed, with the largest gain, the shortest, the first."""
        if not verdicts:
            return 0

        def merit(variant: int) -> tuple[bool, float, int]:
            verdict = verdicts[variant]
            values = [change.new for _, change in self.open(variant)]
            return verdict.accepted, round(verdict.gain - verdict.price, 9), -sum(map(size_of, values))

        return max(verdicts, key=merit)  # the first among equals

    def note(self, variant: int, verdict: Verdict | None) -> None:
        """Write the verdict on a variant into its open changes."""
        self._update(variant, lambda change: replace(change, verdict=verdict))

    def _update(self, variant: int, new: Callable[[Change], Change]) -> None:
        self.variants[variant] = [
            (parameter, new(change) if change.status == "proposed" else change)
            for parameter, change in self.variants[variant]
        ]


def fate_of(change: Change, verdicts: Mapping[int, Verdict], best: int) -> Change:
    """The fate of a proposal that is not installed."""
    if change.status != "proposed":
        return change
    verdict = verdicts.get(change.variant)
    if verdict is None:
        return change.to("rejected", TWICE)
    reason = verdict.reason
    if verdict.accepted:
        kept = verdicts[best]
        worse = round(verdict.gain - verdict.price, 9) < round(kept.gain - kept.price, 9)
        reason = f"good, but proposal {best} is better" if worse else f"as good, but proposal {best} is kept"
    return replace(change.to("rejected", reason), verdict=verdict)
