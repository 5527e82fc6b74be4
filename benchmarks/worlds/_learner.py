"""A perfect learner: the most probable ordered rule list that fits what a prompt shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median_low

from worlds._rows import Shown
from worlds._rules import CODES, Condition, Rule, decide
from worlds._tickets import CHANNELS, PRODUCTS, REGIONS, TONES

_BEAM = 24
_DEPTH = 7
_LIMITS = tuple(range(50, 651, 50))
# In the logarithm of a prior: what each new rule costs; how much less one that somebody stated, and one of the present
# list that is moved; what it costs to drop one that a row contradicts; what the present default is worth; what a row
# costs that the list gets wrong, which is more than all else.
_RULE = -4.0
_CLAIMED = 1.5
_MOVED = 2.5
_DROPPED = -0.5
_DEFAULT = 3.0
_MISFIT = -100.0

_Partial = tuple[float, int, int, tuple[Rule, ...]]  # worth, rows left, rules of the present list done, rules


def infer(
    rows: Sequence[Shown],
    present: Sequence[Rule] = (),
    claims: Sequence[Rule] = (),
    noise: Callable[[object], float] = lambda _: 0.0,
) -> tuple[Rule, ...]:
    """The ordered rule list that fits the rows and changes the present one least.

    A present list that fits stays as it is. Else its rules stay, in their order, but for those that a row contradicts;
    what is missing is added, as late as the rows allow. Without a present list that is the shortest list that fits,
    among equal ones that with the best support. New conditions are atomic. A limit of money is the middle of those that
    fit equally well, a round one if it can be.

    Args:
        rows: The tickets with what is known of their answers.
        present: The rules that stand in the instruction now.
        claims: Rules that others stated; each that fits counts for something.
        noise: Added to the score of a new rule, by its text; for samples instead of the most probable list.
    """
    known = [row for row in rows if len(row.allowed) < len(CODES)]
    if all(decide(present, row.ticket) in row.allowed for row in known):
        return tuple(dict.fromkeys([*present, *claims] if not known else present))
    everything = (1 << len(known)) - 1
    may = {code: sum(1 << i for i, row in enumerate(known) if code in row.allowed) for code in CODES}
    labels = {row.label for row in known if row.label is not None}
    codes = [code for code in CODES if code in labels] or [code for code in CODES if may[code]]
    standing = [
        (rule, sum(1 << i for i, row in enumerate(known) if rule.applies(row.ticket)))
        for rule in dict.fromkeys(present)
        if rule.conditions
    ]
    simple = [rule for rule in (*claims, *present) if len(rule.conditions) == 1]
    atoms = _atoms(known, [rule.conditions[0] for rule in simple])
    otherwise = next((rule.code for rule in present if not rule.conditions), None)
    claimed = next((rule.code for rule in claims if not rule.conditions), None)
    worth_of_end = {code: 0.5 * (code == claimed) + _DEFAULT * (code == otherwise) for code in CODES}
    score: dict[tuple[Condition, str], float] = {}
    for condition, _ in atoms:
        for code in codes:
            rule = Rule((condition,), code)
            bonus = _MOVED if rule in present else _CLAIMED if rule in claims else 0.0
            score[condition, code] = _RULE + bonus + noise(f"{condition} {code}")
    beam: list[_Partial] = [(0.0, everything, 0, ())]
    best: tuple[float, tuple[Rule, ...]] = (-math.inf, ())
    for _ in range(_DEPTH + len(standing)):
        following: dict[tuple[int, int], _Partial] = {}
        for total, left, at, rules in beam:
            if at < len(standing):
                rule, mask = standing[at]
                if rule in rules:  # it was moved to the front
                    _offer(following, (total, left, at + 1, rules))
                    continue
                covered = left & mask
                wrong = covered & ~may[rule.code]
                worth = total + 0.12 * covered.bit_count() + _MISFIT * wrong.bit_count()
                _offer(following, (worth, left & ~mask, at + 1, (*rules, rule)))
                if wrong:
                    _offer(following, (total + _DROPPED, left, at + 1, rules))
            else:
                for code in codes if left or otherwise is None else (otherwise,):  # the list may end here
                    wrong = left & ~may[code]
                    worth = total + worth_of_end[code] + 0.02 * left.bit_count() + _MISFIT * wrong.bit_count()
                    if worth > best[0]:
                        best = (worth, (*rules, Rule((), code)))
            for condition, mask in atoms:
                covered = left & mask
                if not covered or (covered == left and at == len(standing)):
                    continue
                for code in codes:
                    if covered & ~may[code]:
                        continue
                    worth = total + score[condition, code] + 0.12 * covered.bit_count() + 0.01 * at
                    _offer(following, (worth, left & ~covered, at, (*rules, Rule((condition,), code))))
        # fewest rows left first: each row that is left costs more than support can make good
        beam = sorted(following.values(), key=lambda each: -(each[0] - 0.35 * each[1].bit_count()))[:_BEAM]
        if not beam or beam[0][0] + 6.0 < best[0]:
            break
    return best[1]


def _offer(found: dict[tuple[int, int], _Partial], partial: _Partial) -> None:
    """Keep the best list for the same rows left and the same rules of the present list done."""
    _, left, at, _ = partial
    if (left, at) not in found or partial[0] > found[left, at][0]:
        found[left, at] = partial


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
