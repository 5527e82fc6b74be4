"""Standings: all that was measured of a run's candidates, and what it says of their true gains."""

import importlib.util
import random
from pathlib import Path

import pytest

from promptgrad.search import Candidate, Measured, Standings

BASE = Candidate()


def named(name, *parents):
    return Candidate({"instruction": name}, name, parents=parents)


def measured(candidate, scores, first=0):
    return Measured(candidate, tuple(f"row{first + place}" for place in range(len(scores))), tuple(scores))


def standings(rows=40, base=()):
    found = Standings(BASE, [f"row{place}" for place in range(rows)])
    if base:
        found.add(measured(BASE, base))
    return found


def of(known, candidate):
    return next(one for one in known.posterior() if one.candidate.key == candidate.key)


class TestRecord:
    def test_blocks_of_one_candidate_come_together_in_the_order_of_the_data(self):
        known = standings(6)
        one = named("one")
        known.add(measured(one, [1.0, 0.0], first=3))
        known.add(measured(one, [0.5], first=1))
        assert known.of(one).by_id() == {"row1": 0.5, "row3": 1.0, "row4": 0.0}
        assert known.of(one).ids == ("row1", "row3", "row4")
        assert known.of(named("other")) is None
        assert len(known) == 1

    def test_only_validation_rows_count(self):
        known = standings(2)
        known.add(Measured(named("one"), ("row0", "train7"), (1.0, 0.0)))
        known.add(Measured(named("two"), ("train7",), (1.0,)))
        assert known.of(named("one")).ids == ("row0",)
        assert known.of(named("two")) is None

    def test_replicates_are_averaged_and_a_repeated_cell_counts_once(self):
        known = standings(2)
        known.add(measured(BASE, [1.0, 0.0]))
        known.add(measured(BASE, [1.0, 0.0]))
        known.add(measured(BASE, [0.0, 0.0]), replicate=1)
        assert known.of(BASE).scores == (0.5, 0.0)

    def test_rows_without_an_answer_are_unknown(self):
        known = standings(2)
        known.add(Measured(named("one"), ("row0", "row1"), (None, 1.0)))
        assert known.of(named("one")).by_id() == {"row1": 1.0}

    def test_the_base_comes_first_and_then_by_age(self):
        known = standings(2)
        for candidate in (named("b"), named("a"), BASE, named("b")):
            known.add(measured(candidate, [1.0]))
        assert [one.candidate.origin for one in known] == ["start", "b", "a"]

    def test_without_a_row_in_common_nothing_is_believed(self):
        known = standings(4, [0.0, 0.0])
        assert known.posterior() == ()
        assert known.best() is None
        known.add(measured(named("one"), [1.0], first=3))
        assert known.posterior() == ()


class TestPosterior:
    def test_few_rows_are_shrunken_more(self):
        known = standings(40, [0.0] * 40)
        lucky, steady = named("lucky"), named("steady")
        known.add(measured(lucky, [1.0, 1.0]))
        known.add(measured(steady, [1.0] * 16 + [0.0] * 24))
        for place in range(8):
            known.add(measured(named(f"none{place}"), [0.0] * 40))
        assert of(known, lucky).sd > of(known, steady).sd
        assert known.best().candidate.key == steady.key

    def test_a_gain_is_shrunken_towards_what_the_siblings_achieved(self):
        rng = random.Random(0)
        base = [float(rng.random() < 0.5) for _ in range(40)]
        one = [1.0 if rng.random() < 0.4 else score for score in base]

        def gain(like):
            rng = random.Random(1)
            known = standings(40, base)
            known.add(measured(named("one"), one))
            for place in range(10):
                scores = [score if rng.random() > 0.1 else 1.0 - score for score in like]
                known.add(measured(named(f"other{place}"), scores))
            return of(known, named("one")).gain

        raw = sum(one) / 40 - sum(base) / 40
        assert gain(base) < gain(one) < raw

    def test_the_chance_is_corrected_for_the_number_tried(self):
        base = [0.0, 1.0] * 20
        good = [1.0] * 16 + base[16:]

        def chance(others):
            rng = random.Random(3)
            known = standings(40, base)
            known.add(measured(named("good"), good))
            for place in range(others):
                scores = [float(rng.random() < 0.5) if rng.random() < 0.4 else score for score in base]
                known.add(measured(named(f"other{place}"), scores))
            return of(known, named("good")).chance

        assert chance(0) > 0.9
        assert chance(0) > chance(10) > chance(60) >= 0.5

    def test_where_all_siblings_gain_together_the_number_tried_is_no_doubt(self):
        base = [0.0, 0.0, 1.0, 1.0] * 10

        def chance(together):
            rng = random.Random(5)
            known = standings(40, base)
            for place in range(30):
                share = 0.4 if together or not place else 0.0  # of the rows that were wrong, those that are right now
                scores = [float(score or rng.random() < share) * float(rng.random() < 0.95) for score in base]
                known.add(measured(named(f"child{place}"), scores))
            return of(known, named("child0")).chance

        assert chance(together=False) < 0.9 < chance(together=True)

    def test_six_rows_won_and_none_lost_ship_though_children_that_gain_less_were_tried(self):
        """The prior alone holds back what luck hardly explains: a gain of this size it takes for next to nothing."""
        base = [0.0] * 7 + [1.0] * 33

        def changed(won, lost, rows):
            return [1.0] * won + base[won : rows - lost] + [0.0] * lost

        def chance(won):
            known, good = standings(40, base), named("good")
            known.add(measured(good, changed(won, 0, 40)))
            known.add(measured(named("same"), base[:20]))
            for place, (gained, lost) in enumerate([(4, 3), (4, 2), (5, 1)]):
                known.add(measured(named(f"child{place}", good), changed(gained, lost, 25)))
            return of(known, good).chance

        assert chance(6) >= 0.9
        assert chance(4) < 0.9

    def test_a_lineage_adds_up_the_luck_of_its_steps(self):
        """A child of the luckiest starts from that luck, so the same gain says less at the end of a long line."""

        def chance(parents):
            rng = random.Random(1)
            base = [float(rng.random() < 0.5) for _ in range(100)]
            known = standings(100, base)
            rows, line, best = list(base), [], BASE
            for step in range(8):
                failed = [place for place, score in enumerate(rows) if score == 0.0][:3]
                for place in failed:
                    rows[place] = 1.0
                best = named(f"step{step}", *([best] if parents and line else []))
                known.add(measured(best, rows))
                line.append(best)
            return of(known, best).chance

        assert chance(parents=True) < chance(parents=False)

    def test_of_equal_gains_the_shorter_wins(self):
        known = standings(10, [0.0] * 10)
        known.add(measured(named("a longer instruction"), [1.0] * 10))
        known.add(measured(named("short"), [1.0] * 10))
        assert known.best().candidate.origin == "short"

    @pytest.mark.parametrize("scores", [[1.0] * 20, [0.5] * 20, [0.1 * (place % 10) for place in range(20)]])
    def test_candidates_equal_to_the_start_are_no_gain(self, scores):
        known = standings(20, scores)
        for place in range(5):
            known.add(measured(named(f"same{place}"), scores))
        assert all(abs(one.gain) < 0.02 and 0.2 < one.chance < 0.6 for one in known.posterior())

    def test_of_all_rows_right_where_all_were_wrong_there_is_no_doubt(self):
        known = standings(20, [0.0] * 20)
        known.add(measured(named("right"), [1.0] * 20))
        assert of(known, named("right")).chance > 0.99
        assert of(known, named("right")).gain > 0.8


class TestCalibration:
    """A small, repeatable part of benchmarks/calibrate_ship.py, which has the whole."""

    @pytest.fixture
    def simulated(self):
        path = Path(__file__).parents[2] / "benchmarks" / "calibrate_ship.py"
        spec = importlib.util.spec_from_file_location("calibrate_ship", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return lambda world: module.summary(world, [(20, 8), (40, 3), (40, 20)], 20, seed=1000)

    @pytest.mark.parametrize("world", ["nothing", "worse", "climb nothing", "climb worse"])
    def test_where_nothing_is_better_hardly_anything_ships(self, simulated, world):
        assert simulated(world)["ships"] <= 0.05  # 3 of 60

    @pytest.mark.parametrize("world", ["one", "good", "climb mixed", "climb rare"])
    def test_where_something_is_better_more_ships_than_by_a_test_on_half_of_the_rows(self, simulated, world):
        found = simulated(world)
        assert found["worse"]["posterior"] <= 0.02
        assert found["gain"]["posterior"] > found["gain"]["significant"]
        assert abs(found["reported minus true"]["shipped"]) < 0.05
