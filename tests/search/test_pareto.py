"""The pool: fronts, who is drawn, and merges of two members."""

import random
from collections import Counter
from types import SimpleNamespace

import pytest

from promptgrad.data import Example
from promptgrad.search import Candidate, Measured, Pareto

OWN = {"a": "a0", "b": "b0", "c": "c0"}
"""The values of the program itself."""
PATHS = list(OWN)


def value(path, candidate):
    return candidate.values.get(path, OWN[path])


def measured(candidate, scores, **parts):
    ids = tuple(f"e{n}" for n in range(len(scores)))
    return Measured(candidate, ids, tuple(scores), parts=parts)


def pool_of(*rows, by="example"):
    """A pool whose first member is the start and whose others are its children; each is given by its scores."""
    start = Candidate()
    pool = Pareto(measured(start, rows[0]), value, by)
    for number, row in enumerate(rows[1:]):
        pool.add(measured(start.child({"a": f"a{number + 1}"}, f"child {number}"), row))
    return pool


def origins(pool, keys):
    names = {member.candidate.key: member.candidate.origin for member in pool}
    return {names[key]: count for key, count in keys.items()}


class TestFronts:
    def test_everybody_who_reaches_the_best_score_is_on_the_front(self):
        pool = pool_of([1, 0, 0], [1, 1, 0])
        fronts = {what: [m.candidate.origin for m in front] for what, front in pool.fronts().items()}
        assert fronts == {
            "example e0": ["start", "child 0"],
            "example e1": ["child 0"],
            "example e2": ["start", "child 0"],
        }

    def test_scores_that_differ_by_rounding_are_equal(self):
        pool = pool_of([0.3, 0.0], [0.1 + 0.2, 0.0])
        assert [len(front) for front in pool.fronts().values()] == [2, 2]

    def test_who_is_on_no_front_without_company_is_dominated(self):
        assert origins(pool_of([1, 0, 0], [1, 1, 0]), pool_of([1, 0, 0], [1, 1, 0]).survivors()) == {"child 0": 3}
        pool = pool_of([1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1])
        assert origins(pool, pool.survivors()) == {"start": 1, "child 0": 2, "child 1": 2}

    def test_two_that_share_all_fronts_are_not_both_dropped(self):
        pool = pool_of([1, 1], [1, 1])
        assert origins(pool, pool.survivors()) == {"start": 2}

    def test_parts_of_a_score(self):
        start = Candidate()
        pool = Pareto(measured(start, [0.5, 0.5], form=(1.0, 1.0), fact=(0.0, None)), value, "part")
        pool.add(measured(start.child({"a": "a1"}, "child"), [0.7, 0.7], form=(0.4, 1.0), fact=(1.0, 1.0)))
        assert list(pool.fronts()) == ["part form", "part fact"]
        assert origins(pool, pool.survivors()) == {"start": 1, "child": 1}
        both = Pareto(measured(start, [0.5, 0.5], form=(1.0, 1.0)), value, "both")
        assert list(both.fronts()) == ["example e0", "example e1", "part form"]
        with pytest.raises(ValueError, match='by "example", by "part" or by "both"'):
            Pareto(measured(start, [0.5]), value, "all")

    def test_what_has_no_score_is_no_front(self):
        pool = pool_of([None, 1], [0, 0])
        assert {what: len(front) for what, front in pool.fronts().items()} == {"example e0": 1, "example e1": 1}


class TestDraw:
    def test_by_the_number_of_fronts(self):
        pool = pool_of([1, 1, 1, 0], [0, 0, 0, 1])
        rng = random.Random(0)
        drawn = Counter(pool.draw(rng).origin for _ in range(4000))
        assert drawn["start"] / 4000 == pytest.approx(0.75, abs=0.03)
        first, second = ([pool.draw(rng).key for _ in range(9)] for rng in (random.Random(1), random.Random(1)))
        assert first == second

    def test_without_fronts_the_best_is_drawn(self):
        pool = pool_of([0.2], [0.8], by="part")
        assert pool.draw(random.Random(0)).origin == "child 0"

    def test_the_same_content_is_one_member(self):
        pool = pool_of([0, 1])
        again = Candidate({}, "another origin")
        assert not pool.add(measured(again, [1, 1]))
        assert len(pool) == 1
        assert pool.best.scores == (0, 1)

    def test_of_equals_the_oldest_is_the_best(self):
        assert pool_of([0, 0.5], [0.5, 0]).best.candidate.origin == "start"
        assert repr(pool_of([0, 1], [1, 0])) == "Pareto(2 candidates, 2 not dominated on 2 fronts)"


class TestMerge:
    def family(self, first, second, scores=((0, 0, 0, 0), (1, 1, 0, 0), (0, 0, 1, 1))):
        start = Candidate()
        pool = Pareto(measured(start, scores[0]), value)
        for values, row, name in ((first, scores[1], "first"), (second, scores[2], "second")):
            pool.add(measured(start.child(values, name), row))
        return pool

    def test_both_changes_since_the_common_ancestor(self):
        merge = self.family({"a": "a1"}, {"b": "b1"}).merge(random.Random(0), PATHS, "step 4")
        assert {path: value(path, merge.candidate) for path in PATHS} == {"a": "a1", "b": "b1", "c": "c0"}
        assert merge.candidate.origin == "step 4, merge"
        assert [parent.origin for parent in merge.candidate.parents] == ["first", "second"]
        assert merge.ancestor.candidate.origin == "start"

    def test_it_is_made_once(self):
        pool = self.family({"a": "a1"}, {"b": "b1"})
        assert pool.merge(random.Random(0), PATHS, "step 4") is not None
        assert pool.merge(random.Random(1), PATHS, "step 5") is None

    def test_what_both_changed_is_taken_from_the_better_one(self):
        pool = self.family(
            {"a": "a1", "c": "c1"}, {"a": "a2", "b": "b1"}, scores=((0, 0, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0.5))
        )
        merged = pool.merge(random.Random(0), PATHS, "step 4").candidate
        assert merged.values == {"a": "a1", "b": "b1", "c": "c1"}

    def test_a_change_back_to_what_the_program_has_counts(self):
        start = Candidate({"a": "old a"})  # what an earlier search found
        pool = Pareto(measured(start, [0, 0, 0]), value)
        pool.add(measured(start.child({"a": "a0"}, "back"), [1, 0, 0]))
        pool.add(measured(start.child({"b": "b1"}, "other"), [0, 1, 1]))
        merged = pool.merge(random.Random(0), PATHS, "step 4").candidate
        assert {path: value(path, merged) for path in PATHS} == {"a": "a0", "b": "b1", "c": "c0"}

    @pytest.mark.parametrize(
        ("first", "second", "scores"),
        [
            ({"a": "a1"}, {"a": "a2"}, ((0, 0, 0), (1, 0, 0), (0, 1, 0))),  # not disjoint
            ({"a": "a1"}, {"b": "b1"}, ((0, 0, 0), (1, 1, 1), (0, 1, 1))),  # the second is dominated
            ({"a": "a1"}, {"b": "b1"}, ((0.9, 0.9, 0.9), (1, 0, 0), (0, 1, 0))),  # the ancestor is better
        ],
    )
    def test_there_may_be_nothing_to_merge(self, first, second, scores):
        assert self.family(first, second, scores).merge(random.Random(0), PATHS, "step 4") is None

    def test_a_descendant_is_not_merged_with_its_ancestor(self):
        start = Candidate()
        child = start.child({"a": "a1"}, "child")
        pool = Pareto(measured(start, [0, 0, 1]), value)
        pool.add(measured(child, [1, 0, 0]))
        pool.add(measured(child.child({"b": "b1"}, "grandchild"), [0, 1, 0]))
        assert len(pool.survivors()) == 3
        assert pool.merge(random.Random(0), PATHS, "step 4") is None

    def test_what_would_be_a_member_already_is_no_merge(self):
        start = Candidate()
        one = measured(start.child({"a": "a1"}, "one"), [1, 0, 0])
        two = measured(start.child({"a": "a2", "b": "b1"}, "two"), [0, 1, 1])
        pool = Pareto(measured(start, [0, 0, 0]), value)
        pool.add(one)
        pool.add(two)  # the better one: the merge would have its a and its b
        assert pool.merge(random.Random(0), PATHS, "step 4") is None

    def test_the_sample_has_examples_of_each_kind(self):
        scores = ((0,) * 8, (1, 1, 1, 0, 0, 0, 1, 0), (0, 0, 0, 1, 1, 1, 1, 0))
        merge = self.family({"a": "a1"}, {"b": "b1"}, scores).merge(random.Random(0), PATHS, "step 4")
        examples = [Example(q=n) for n in range(8)]
        ids = [example.id for example in examples]
        sides = tuple(Measured(side.candidate, tuple(ids), side.scores) for side in merge.sides)
        merge = type(merge)(merge.candidate, sides, merge.ancestor)
        for seed in range(5):
            drawn = [example.q for example in merge.sample(examples, 5, random.Random(seed))]
            assert len(drawn) == len(set(drawn)) == 5
            assert len({0, 1, 2}.intersection(drawn)) == len({3, 4, 5}.intersection(drawn)) == 2
        assert len(merge.sample(examples, 99, random.Random(0))) == 8

    @pytest.mark.parametrize(
        ("ids", "scores", "holds"),
        [
            (("e0", "e2"), (1, 1), True),
            (("e0", "e2"), (0, 1), True),
            (("e0", "e2"), (0.6, 0.4), True),
            (("e0", "e2"), (0, 0.9), False),
            (("e0", "e1"), (1, 0), False),  # the first side has both
        ],
    )
    def test_it_holds_if_it_does_as_well_as_the_better_side_on_the_same_examples(self, ids, scores, holds):
        merge = self.family({"a": "a1"}, {"b": "b1"}).merge(random.Random(0), PATHS, "step 4")
        told = []
        step = SimpleNamespace(number=4, session=SimpleNamespace(decide=lambda kind, **what: told.append(what)))
        assert merge.holds(Measured(merge.candidate, ids, scores), step) is holds
        assert told[0]["holds"] is holds
        assert told[0]["before"] == ([1, 1] if "e2" in ids else [2, 0])


def test_each_objective_beside_the_score_has_a_front():
    start = Candidate()
    cheap = start.child({"a": "cheap"}, "cheap")
    goals = {start.key: {"tokens": -50.0}, cheap.key: {"tokens": -10.0}}
    pool = Pareto(measured(start, [1, 1]), value, goals=lambda member: goals[member.candidate.key])
    pool.add(measured(cheap, [0, 0]))
    assert [m.candidate.origin for m in pool.fronts()["objective tokens"]] == ["cheap"]
    assert origins(pool, pool.survivors()) == {"start": 2, "cheap": 1}
