import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.autograd import Critique, Gradient, Trace
from tests.autograd.critiques import BY_DEFECT, FRESH

TEXTS = [text for by_defect in (BY_DEFECT, FRESH) for texts in by_defect.values() for text in texts]


def critique(text, example="e", *, path="solve", index=0, target="instruction", **more):
    return Critique(example, path, index, target, text, **more)


critiques = st.builds(
    critique,
    st.sampled_from([*TEXTS[:24], "use metres", "Use meters.", "", "...", "it"]),
    st.sampled_from(["", "1", "2", "3", "4", "5"]),
    path=st.sampled_from(["solve", "pick"]),
    index=st.integers(0, 1),
    support=st.integers(1, 3),
    agreement=st.sampled_from([0.1, 0.3, 0.7, 1.0]),
)
trace = Trace("1", "solve", 0, {"q": "1"}, {"a": "2"}, 1.0)
gradients = st.lists(critiques | st.just(trace), max_size=12).map(Gradient)


def told(clusters):
    """What clusters say, whatever the order of what they were made of."""
    return sorted((c.path, c.target, c.text, c.support, sorted(c.examples), c.agreement) for c in clusters)


def test_what_says_the_same_is_one_with_the_number_of_its_examples():
    gradient = Gradient(
        [
            critique("Say which unit is meant.", "1"),
            critique("Answer in one word.", "2"),
            trace,
            critique("The instruction should say which unit is meant", "3", agreement=0.5),
            critique("say which unit is meant", "4"),
        ]
    )
    unit, word = gradient.clusters()
    assert (unit.support, unit.examples, unit.critiques) == (
        3,
        ("1", "3", "4"),
        (gradient[0], gradient[3], gradient[4]),
    )
    assert unit.agreement == pytest.approx(2.5 / 3)
    assert (unit.path, unit.target, unit.text) == ("solve", "instruction", unit.critique.text)
    assert (word.support, word.text, word.critique) == (1, "Answer in one word.", gradient[1])
    assert gradient.cluster().records == (unit.critique, word.critique, trace)
    assert gradient.cluster()[0].evidence is unit.critique.evidence


def test_a_complaint_of_too_much_is_not_the_wish_for_more():
    gradient = Gradient([critique("the answer should be long", "1"), critique("the answer is too long", "2")])
    assert [cluster.support for cluster in gradient.clusters()] == [1, 1]


def test_other_targets_and_other_modules_say_something_else():
    gradient = Gradient([critique("no"), critique("no", target="description"), critique("no", path="pick")])
    assert gradient.cluster() == gradient


class TestSupport:
    def test_an_example_counts_once_however_often_it_says_so(self):
        loop = Gradient([critique("use metres", "1", index=0), critique("metres must be used", "1", index=1)])
        assert [(c.support, c.examples) for c in loop.clusters()] == [(1, ("1",))]
        again = loop + loop  # a second backward pass over the same example
        assert [c.support for c in again.clusters()] == [1]
        assert [c.support for c in (again + Gradient([critique("use metres", "2")])).clusters()] == [2]

    def test_examples_without_an_id_cannot_be_told_apart_and_count_each(self):
        gradient = Gradient([critique("use metres", ""), critique("use metres", ""), critique("use metres", "1")])
        (cluster,) = gradient.clusters()
        assert (cluster.support, cluster.examples) == (3, ("1",))
        assert gradient.cluster().clusters()[0].support == 3

    def test_clusters_that_share_examples_add_up_to_their_union(self):
        first = Gradient([critique("use metres", name) for name in "123"])
        second = Gradient([critique("use metres", name) for name in "345"])
        (cluster,) = (first.cluster() + second.cluster()).clusters()
        assert (cluster.support, cluster.examples) == (5, ("1", "2", "3", "4", "5"))

    @given(gradients)
    def test_it_is_conserved_where_every_example_speaks_once(self, gradient):
        apart = Gradient(
            replace(record, example_id=str(number)) if isinstance(record, Critique) else record
            for number, record in enumerate(gradient)
        )
        assert sum(c.support for c in apart.cluster().critiques) == sum(c.support for c in apart.critiques)


@given(gradients)
def test_every_critique_is_in_one_cluster_and_traces_stay(gradient):
    clusters = gradient.clusters()
    members = [member for cluster in clusters for member in cluster.critiques]
    assert sorted(map(id, members)) == sorted(map(id, gradient.critiques))
    assert all({(m.path, m.target) for m in c.critiques} == {(c.path, c.target)} for c in clusters)
    assert all(c.text in [m.text for m in c.critiques] for c in clusters)
    assert [c.support for c in clusters] == sorted((c.support for c in clusters), reverse=True)
    assert gradient.cluster().traces == gradient.traces


@given(gradients)
def test_clustering_again_changes_nothing(gradient):
    once = gradient.cluster()
    assert once.cluster() == once


@given(gradients, st.randoms(use_true_random=False))
def test_the_order_of_what_is_added_does_not_matter(gradient, rng):
    mixed = list(gradient)
    rng.shuffle(mixed)
    assert told(Gradient(mixed).clusters()) == told(gradient.clusters())


@given(gradients, gradients, gradients)
def test_the_way_of_adding_does_not_matter(a, b, c):
    assert ((a + b) + c).clusters() == (a + (b + c)).clusters()


def test_all_that_is_in_a_cluster_is_like_what_stands_for_it():
    """No chains: a text near the middle does not tie its two neighbours together unless it speaks for both."""

    def similarity(one, other):
        return 1 - abs(int(one) - int(other)) / 10

    chain = Gradient([critique(str(number), str(number)) for number in range(10)])
    for cluster in chain.clusters(0.8, similarity=similarity):
        assert all(similarity(cluster.text, member.text) >= 0.8 for member in cluster.critiques)
    centers = [cluster.text for cluster in chain.clusters(0.8, similarity=similarity)]
    assert all(similarity(a, b) < 0.8 for a in centers for b in centers if a != b)


class TestSimilarity:
    def test_it_is_asked_once_for_each_pair_of_different_texts_of_one_target(self):
        asked = []

        def similarity(one, other):
            asked.append((one, other))
            return float({one, other} == {"shade", "color"})

        texts = ["shade", "size", "color", "size"]
        gradient = Gradient([critique(text, str(number)) for number, text in enumerate(texts)])
        elsewhere = Gradient([critique("color", "9", path="pick")])
        clusters = (gradient + elsewhere).clusters(similarity=similarity)
        assert [(c.text, c.support) for c in clusters] == [("color", 2), ("size", 2), ("color", 1)]
        assert sorted(asked) == [("color", "shade"), ("color", "size"), ("shade", "size")]

    @pytest.mark.parametrize("value", [1.5, -1, float("nan")])
    def test_it_returns_a_number_from_0_to_1(self, value):
        with pytest.raises(ValueError, match=r"similarity returns a number in \[0, 1\], not"):
            Gradient([critique("a"), critique("b")]).cluster(similarity=lambda one, other: value)

    @pytest.mark.parametrize("threshold", [0, -1, 1.1])
    def test_the_threshold_is_one_too(self, threshold):
        with pytest.raises(ValueError, match=r"threshold is a similarity in \(0, 1\]"):
            Gradient().cluster(threshold)


def test_with_threshold_1_only_the_same_words_meet():
    gradient = Gradient([critique("use metres", "1"), critique("Use metres!", "2"), critique("use metres here", "3")])
    assert [c.support for c in gradient.clusters(1)] == [3]  # "here" is a function word
    gradient += Gradient([critique("use metres everywhere", "4")])
    assert [c.support for c in gradient.clusters(1)] == [3, 1]


def test_two_thousand_critiques_take_no_two_million_comparisons():
    rng = random.Random(0)
    texts = [" ".join(rng.sample(TEXTS, 2)) for _ in range(2000)]
    gradient = Gradient([critique(text, str(number)) for number, text in enumerate(texts)])
    began = time.process_time()
    clusters = gradient.clusters()
    assert time.process_time() - began < 4  # some 0.4 s; all pairs read closely take a minute
    assert sum(cluster.support for cluster in clusters) == 2000
