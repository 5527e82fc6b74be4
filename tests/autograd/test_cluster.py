import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.autograd import Critique, Gradient, Trace, same_group
from promptgrad.autograd._cluster import wording
from tests.autograd.critiques import BY_DEFECT, CONTRARY, FRESH
from tests.counting import growth

TEXTS = [text for by_defect in (BY_DEFECT, FRESH) for texts in by_defect.values() for text in texts]


def critique(text, example="e", *, path="solve", index=0, target="instruction", **more):
    return Critique(example, path, index, target, text, **more)


critiques = st.builds(
    critique,
    st.sampled_from([*TEXTS[:24], "use metres", "Use metres.", "", "...", "it"]),
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
            critique("say  which unit\nis meant!", "3", agreement=0.5),
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
        loop = Gradient([critique("use metres", "1", index=0), critique("Use metres.", "1", index=1)])
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


@pytest.mark.parametrize("threshold", [0.01, 0.75, 1])
def test_without_a_similarity_only_the_same_words_meet_whatever_the_threshold(threshold):
    gradient = Gradient([critique("use metres", "1"), critique("Use metres!", "2"), critique("use metres here", "3")])
    assert [c.support for c in gradient.clusters(threshold)] == [2, 1]


class TestWords:
    """Two texts that are merged by their words ask for the same: opposites never do, nor do two defects."""

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("use metres", "do not use metres"),
            ("use metres and not feet", "use feet and not metres"),
            ("answer in at most 3 words", "answer in at most 5 words"),
            ("answer in three words", "answer in four words"),
            ("answer in words", "answer in three words"),
            ("use 3 words in 5 lines", "use 5 words in 3 lines"),
            ("accept values of -5", "accept values of 5"),
            ("round to 1,000 places", "round to 1000 places"),
            ("the color of the last word", "the color of the first word"),
            ("the first letter of the last word", "the last letter of the first word"),
            ("name the city", "name the first city"),
            ("answer yes", "answer no"),
            ('answer "Yes"', 'answer "yes"'),
            ("answer YES", "answer yes"),
            ("No, metres are needed", "No metres are needed"),
            ("write dates as YYYY-MM-DD", "write dates as DD-MM-YYYY"),
            ('separate them by ";"', 'separate them by ","'),
            ("end with !", "end with ?"),
            ("subtract a from b", "subtract b from a"),
        ],
    )
    def test_what_differs_in_the_word_that_matters_stays_apart(self, one, other):
        assert len(Gradient([critique(one), critique(other)]).clusters()) == 2

    @pytest.mark.parametrize(("one", "other"), CONTRARY)
    def test_what_is_too_much_wrong_or_there_is_not_what_is_asked_for(self, one, other):
        assert len(Gradient([critique(one), critique(other)]).clusters()) == 2

    @pytest.mark.parametrize("by_defect", [BY_DEFECT, FRESH], ids=["known", "fresh"])
    def test_no_two_defects_of_the_collection_meet(self, by_defect):
        said = [
            critique(variant, f"{number}{variant}", evidence={"defect": defect})
            for defect, texts in by_defect.items()
            for number, text in enumerate(texts)
            for variant in (text, f"{text[0].lower()}{text[1:].rstrip('.')}  ")
        ]
        clusters = Gradient(said).clusters()
        assert all(len({member.evidence["defect"] for member in one.critiques}) == 1 for one in clusters)
        assert [cluster.support for cluster in clusters] == [2] * (len(said) // 2)

    @given(st.text(), st.text())
    def test_a_wording_is_its_own_and_no_word_is_lost(self, text, other):
        assert wording(wording(text)) == wording(text)
        assert wording(text).rstrip(" .!").casefold() == " ".join(text.split()).rstrip(" .!").casefold()
        if wording(text) == wording(other):
            assert [word.strip(".!").lower() for word in text.split() if word.strip(".!")] == [
                word.strip(".!").lower() for word in other.split() if word.strip(".!")
            ]


class TestSameGroup:
    def test_groups_of_texts_are_a_similarity(self):
        texts = ["use metres", "give metres", "be brief", "give feet"]
        same = same_group(texts, [[0, 1], [3]])
        alike = {(a, b) for a, b in itertools.combinations(texts, 2) if same(a, b)}
        assert alike == {("use metres", "give metres")}
        gradient = Gradient(critique(text, str(number)) for number, text in enumerate([*texts, "Use metres."]))
        assert [(c.text, c.support) for c in gradient.clusters(similarity=same)] == [
            ("Use metres.", 3),
            ("be brief", 1),
            ("give feet", 1),
        ]

    def test_a_text_in_two_groups_stays_in_the_first_and_no_index_out_of_range_counts(self):
        same = same_group(["a b", "c d", "e f"], [[0, 1, 7, -1], [1, 2]])
        assert (same("a b", "c d"), same("c d", "e f"), same("a b", "e f"), same("e f", "e f")) == (1, 0, 0, 1)

    def test_a_text_of_no_group_is_like_itself_alone(self):
        same = same_group(["a b"], [[0]])
        assert (same("x y", "x y"), same("x y", "X y!"), same("x y", "z"), same("a b", "z")) == (1, 1, 0, 0)


def test_clustering_by_words_takes_no_more_for_each_critique_if_there_are_more_of_them():
    def work(size):
        rng = random.Random(0)
        texts = [" ".join(rng.sample(TEXTS, 2)) for _ in range(size)]
        gradient = Gradient([critique(text, str(number)) for number, text in enumerate(texts)])
        return gradient.clusters

    assert sum(cluster.support for cluster in work(2000)()) == 2000
    assert growth(work, 200) < 6  # 4.0 or a little more; if all pairs are compared, 16
