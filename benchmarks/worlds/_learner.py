"""A perfect learner: the most probable ordered rule list that fits what a prompt shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median_low

from worlds._rows import Shown
from worlds._rules import CODES, Condition, Rule
from worlds._tickets import CHANNELS, PRODUCTS, REGIONS, TONES

_BEAM = 24
_DEPTH = 7
_LIMITS = tuple(range(50, 651, 50))
# What each rule of a list costs in the logarithm of its prior, and what a rule is worth that somebody stated.
_RULE = -4.0
_STATED = 1.5


def infer(
    rows: Sequence[Shown],
    stated: Sequence[Rule] = (),
    noise: Callable[[object], float] = lambda _: 0.0,
) -> tuple[Rule, ...]:
    """The shortest ordered rule list that fits all rows; among equal ones that with the best support.

    Conditions are atomic. A limit of money is the middle of those that fit equally well, a round one if it can be.

    Args:
        rows: The tickets with what is known of their answers.
        stated: Rules that somebody stated; each that fits counts for something.
        noise: Added to the score of a rule, by its text; for samples instead of the most probable list.
    """
    known = [row for row in rows if len(row.allowed) < len(CODES)]
    if not known:
        return tuple(stated)
    everything = (1 << len(known)) - 1
    may = {code: sum(1 << i for i, row in enumerate(known) if code in row.allowed) for code in CODES}
    labels = {row.label for row in known if row.label is not None}
    codes = [code for code in CODES if code in labels] or [code for code in CODES if may[code]]
    claims = {(rule.conditions[0], rule.code) for rule in stated if len(rule.conditions) == 1}
    claimed_default = next((rule.code for rule in stated if not rule.conditions), None)
    atoms = _atoms(known, [rule.conditions[0] for rule in stated if len(rule.conditions) == 1])
    score: dict[tuple[Condition, str], float] = {}
    for condition, _ in atoms:
        for code in codes:
            bonus = _STATED if (condition, code) in claims else 0.0
            score[condition, code] = _RULE + bonus + noise(f"{condition} {code}")
    beam: list[tuple[float, int, tuple[Rule, ...]]] = [(0.0, everything, ())]
    best: tuple[float, tuple[Rule, ...]] | None = None
    for _ in range(_DEPTH):
        following: dict[tuple[int, int], tuple[float, int, tuple[Rule, ...]]] = {}
        for total, left, rules in beam:
            for code in codes:  # the list may end here
                if left & ~may[code] == 0:
                    worth = total + (0.5 if code == claimed_default else 0.0) + 0.02 * left.bit_count()
                    if best is None or worth > best[0]:
                        best = (worth, (*rules, Rule((), code)))
            for condition, mask in atoms:
                covered = left & mask
                if not covered or covered == left:
                    continue
                support = covered.bit_count()
                for code in codes:
                    if covered & ~may[code]:
                        continue
                    worth = total + score[condition, code] + 0.12 * support
                    remaining = left & ~covered
                    key = (remaining, 0)
                    if key not in following or worth > following[key][0]:
                        following[key] = (worth, remaining, (*rules, Rule((condition,), code)))
        # fewest rows left first: each row that is left costs more than support can make good
        beam = sorted(following.values(), key=lambda each: -(each[0] - 0.35 * each[1].bit_count()))[:_BEAM]
        if not beam or (best is not None and beam[0][0] + 6.0 < best[0]):
            break
    if best is not None:
        return best[1]
    total, left, rules = beam[0] if beam else (0.0, everything, ())
    rest = max(codes, key=lambda code: (left & may[code]).bit_count())
    return (*rules, Rule((), rest))


def _atoms(rows: Sequence[Shown], extra: Sequence[Condition]) -> list[tuple[Condition, int]]:
    """The conditions with the rows that meet them; of limits that meet the same rows only the middle one."""

    def mask(condition: Condition) -> int:
        return sum(1 << i for i, row in enumerate(rows) if condition.holds(row.ticket))

    names = {"product": PRODUCTS, "channel": CHANNELS, "tone": TONES, "region": REGIONS}
    found = [Condition(kind, name) for kind, values in names.items() for name in values]
    found += [Condition("people", "several"), Condition("people", "one")]
    for kind in ("money", "less"):
        alike: dict[int, list[int]] = {}
        for limit in _LIMITS:
            alike.setdefault(mask(Condition(kind, str(limit))), []).append(limit)
        for limits in alike.values():
            told = [int(each.value) for each in extra if each.kind == kind and int(each.value) in limits]
            found.append(Condition(kind, str(told[0] if told else _round(limits))))
    found = list(dict.fromkeys([*found, *extra]))
    return [(condition, covered) for condition in found if (covered := mask(condition))]


def _round(limits: Sequence[int]) -> int:
    """The middle of some limits; a hundred where it is as good."""
    middle = median_low(limits)
    hundreds = [limit for limit in limits if limit % 100 == 0 and abs(limit - middle) <= 50]
    return hundreds[0] if hundreds else middle
