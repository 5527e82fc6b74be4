"""How well the rule that ships is calibrated: simulated searches, of which the true gain of each candidate is known.

    python benchmarks/calibrate_ship.py [--runs 400] [--seed 0] [--sizes 10,20,40,100,200] [--counts 1,3,8,25,60]

Everything is simulated; no language model is called. A row has a difficulty, a program a true mean score; which rows
it gets right is drawn from both. In the worlds `star` all candidates are made from the start; in the worlds `climb` a
search makes children of the best so far on the same rows, of which each redraws a share. One JSON line a world: the
mean true gain that reaches the user and the share of runs that ship something worse than the start, for the posterior
of `Standings` at 0.9, for a sign test on half of the rows (two finalists, at 0.025), and for one who knows the truth;
and the mean of the reported minus the true gain, over all runs and over those that ship.
"""

import argparse
import json
import math
import random
import zlib
from statistics import NormalDist

from promptgrad.search import Candidate, Measured, Standings

NORMAL = NormalDist()
SHIP = 0.9

WORLDS = {
    "nothing": "no candidate differs from the start (by less than 0.001, downwards)",
    "worse": "all are worse, by up to 0.2",
    "one": "one gains 0.2, the others lose up to 0.1",
    "mixed": "gains have mean -0.05 and standard deviation 0.12",
    "good": "gains have mean 0.2 and standard deviation 0.05",
    "noisy": "as mixed, with scores that are fractions and vary from run to run",
    "climb nothing": "children of the best so far, none of which differs",
    "climb worse": "children that lose up to 0.1 each",
    "climb mixed": "children whose gains over their parent have mean -0.02 and standard deviation 0.06",
    "climb rare": "one child in ten gains 0.12, the others lose up to 0.1",
}


def step_of(world, count, rng):
    """The true gains of so many candidates, over the start or (climb) over their parents."""
    kind = world.removeprefix("climb ")
    if kind == "nothing":
        return [-0.001] * count if world == kind else [-0.0001] * count
    if kind == "worse":
        return [-rng.uniform(0, 0.2 if world == kind else 0.1) for _ in range(count)]
    if kind == "one":
        best = rng.randrange(count)
        return [0.2 if place == best else -rng.uniform(0, 0.1) for place in range(count)]
    if kind == "good":
        return [rng.gauss(0.2, 0.05) for _ in range(count)]
    if kind == "rare":
        return [0.12 if rng.random() < 0.1 else -rng.uniform(0, 0.1) for _ in range(count)]
    mean, spread = (-0.02, 0.06) if world.startswith("climb") else (-0.05, 0.12)
    return [rng.gauss(mean, spread) for _ in range(count)]


def scores(rows, own, mean, share):
    """Which rows are right: a part of the luck belongs to the row, the rest to the program and the row."""
    limit = NORMAL.inv_cdf(min(max(mean, 1e-4), 1 - 1e-4))
    return [
        float(math.sqrt(share) * row + math.sqrt(1 - share) * luck < limit) for row, luck in zip(rows, own, strict=True)
    ]


def search(world, size, count, rng):
    """Run one simulated search; the start's scores, and (candidate, scores, true gain) of each candidate."""
    start, base = rng.choice([0.3, 0.5, 0.7]), Candidate()
    climbs = world.startswith("climb")
    share = rng.choice([0.3, 0.6]) if climbs else rng.choice([0.5, 0.8, 0.9])
    redrawn = rng.choice([0.1, 0.3, 0.6])
    rows, first = ([rng.gauss(0, 1) for _ in range(size)] for _ in range(2))
    before = scores(rows, first, start, share)
    best, best_own, best_mean, best_score = base, first, start, sum(before)
    found = []
    for place, gain in enumerate(step_of(world, count, rng)):
        fresh = [rng.gauss(0, 1) for _ in range(size)]
        own = [new if not climbs or rng.random() < redrawn else old for old, new in zip(best_own, fresh, strict=True)]
        mean = min(max((best_mean if climbs else start) + gain, 0.01), 0.99)
        after = scores(rows, own, mean, share)
        child = best.child({"instruction": f"text {place}"}, f"child {place}")
        found.append((child, after, mean - start))
        if climbs and sum(after) > best_score:
            best, best_own, best_mean, best_score = child, own, mean, sum(after)
    if world == "noisy":
        before = [0.6 * score + rng.gauss(0, 0.15) for score in before]
        found = [
            (child, [0.6 * score + rng.gauss(0, 0.15) for score in after], 0.6 * gain) for child, after, gain in found
        ]
    return base, before, found


def by_posterior(base, before, found):
    """What ships by the posterior (None for nothing), and what is reported of the best: (index, expected gain)."""
    ids = [str(place) for place in range(len(before))]
    known = Standings(base, ids)
    for candidate, values in [(base, before), *((child, after) for child, after, _ in found)]:
        known.add(Measured(candidate, tuple(ids), tuple(values)))
    shipped = known.best(SHIP)
    shipped = shipped if shipped is not None and shipped.chance >= SHIP else None
    best = shipped or known.best()
    place = next(index for index, (child, _, _) in enumerate(found) if child.key == best.candidate.key)
    return (None if shipped is None else place), (place, best.gain)


def by_half(before, found):
    """What ships by a test on the half of the rows on which nothing was chosen; None for nothing."""
    half = len(before) // 2
    order = sorted(range(len(found)), key=lambda index: -sum(found[index][1][:half]))[:2]
    passed = []
    for index in order:
        gains = [new - old for old, new in zip(before[half:], found[index][1][half:], strict=True)]
        wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        total = wins + losses
        chance = sum(math.comb(total, more) for more in range(wins, total + 1)) / 2**total
        if chance <= 0.05 / len(order) and sum(gains) > 0:
            passed.append((sum(gains), -index))
    return -max(passed)[1] if passed else None


def simulate(world, size, count, seed):
    """One search: for each rule the true gain that it ships, 0 for nothing, and the reported minus the true gain."""
    rng = random.Random(zlib.crc32(f"{world}/{size}/{count}/{seed}".encode()))
    base, before, found = search(world, size, count, rng)
    gains = [gain for _, _, gain in found]
    shipped, (best, reported) = by_posterior(base, before, found)
    half = by_half(before, found)
    return {
        "best": max(0.0, *gains),
        "posterior": 0.0 if shipped is None else gains[shipped],
        "significant": 0.0 if half is None else gains[half],
        "ships": shipped is not None,
        "error": reported - gains[best],
    }


def summary(world, cells, runs, seed):
    """One line: means over the runs of all sizes and counts."""
    done = [simulate(world, size, count, seed + number) for size, count in cells for number in range(runs)]
    shipped = [one["error"] for one in done if one["ships"]]

    def mean(values):
        return round(sum(values) / len(values), 4) if values else None

    return {
        "simulated": True,
        "world": world,
        "runs": len(done),
        "gain": {rule: mean([one[rule] for one in done]) for rule in ("best", "posterior", "significant")},
        "worse": {rule: mean([one[rule] < 0 for one in done]) for rule in ("posterior", "significant")},
        "ships": mean([one["ships"] for one in done]),
        "reported minus true": {"all": mean([one["error"] for one in done]), "shipped": mean(shipped)},
    }


def main():
    """Print one JSON line a world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="runs for each number of rows and of candidates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", default="10,20,40,100,200", help="numbers of validation rows")
    parser.add_argument("--counts", default="1,3,8,25,60", help="numbers of candidates")
    parser.add_argument("--world", choices=WORLDS, action="append", help="one of the worlds; all by default")
    given = parser.parse_args()
    sizes, counts = ([int(one) for one in text.split(",")] for text in (given.sizes, given.counts))
    for world in given.world or WORLDS:
        counted = [count for count in counts if count >= 8] or counts if world.startswith("climb") else counts
        cells = [(size, count) for size in sizes for count in counted]
        print(json.dumps(summary(world, cells, given.runs, given.seed)), flush=True)


if __name__ == "__main__":
    main()
