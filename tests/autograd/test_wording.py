import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.autograd._cluster import THRESHOLD
from promptgrad.autograd._wording import alike, neighbours, read
from tests.autograd.critiques import BY_DEFECT, CONTRARY, FRESH, PARAPHRASES

WORDS = """use do not give the unit metres feet 3 three 5 most least at first last word color should but , ; instead of
    answer is never instruction says when list too lacks has must unless wrong which no it are and so"""
words = st.sampled_from(WORDS.split())
texts = st.lists(words, max_size=12).map(" ".join) | st.text(max_size=20)


def likeness(one, other):
    return alike(read(one), read(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("use metres", "do not use metres"),
        ("use metres", "never use metres"),
        ("use metres", "avoid using metres"),
        ("use metres and not feet", "use feet and not metres"),
        ("use metres instead of feet", "use feet instead of metres"),
        ("the answer gives feet but it should be metres", "the answer gives metres but it should be feet"),
        ("The answer may contain units.", "The answer mustn't contain units."),
        ("answer in at most 3 words", "answer in at most 5 words"),
        ("answer in at most 3 words", "answer in at least 3 words"),
        ("answer in three words", "answer in four words"),
        ("use 3 words in 5 lines", "use 5 words in 3 lines"),
        ("accept values of -5", "accept values of 5"),
        ("the color of the last word", "the color of the first word"),
        ("the first letter of the last word", "the last letter of the first word"),
        (
            "name the color of the dog on the left side of the house",
            "name the size of the dog on the left side of the house",
        ),
        ("write labels in upper case", "write labels in lower case"),
        ("answer yes", "answer no"),
        ("list the sums that are wrong in the table", "list the sums that are correct in the table"),
        ("the color of the door to the left of the tree", "the color of the door to the right of the tree"),
        ('separate them by ";"', 'separate them by ","'),
        ("write dates as YYYY-MM-DD", "write dates as DD-MM-YYYY"),
        ("return the list", "return the list if it is not empty"),
        ("translate from English to French", "translate from French to English"),
        ("translate English to French", "translate French to English"),
        ("subtract a from b", "subtract b from a"),
        ("put the name before the date", "put the date before the name"),
        ("the city is larger than the town", "the town is larger than the city"),
        ("compare A to B", "compare B to A"),
    ],
)
def test_what_differs_in_the_word_that_matters_is_not_alike(one, other):
    assert likeness(one, other) == likeness(other, one) < THRESHOLD


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("use metres", "Use meters!"),
        ("use metres", "The metres are used."),
        ("use metres", "The instruction should say: use metres."),
        ("do not use metres", "metres must not be used"),
        ("don't use metres", "do not use metres"),
        ("say which unit is meant", "which unit is meant must be said"),
        ("say which unit is meant", "The instruction does not say which unit is meant."),
        ("say which unit is meant", "The instruction never says which unit is meant."),
        ("at most 3 words", "no more than three words"),
        ("the color of the last word", "the last word's colour"),
        ("the answer gives feet but it should be metres", "it should be metres and not feet"),
        ("do not answer without a unit", "answer with a unit"),
        ("round to 1,000 places", "round to 1000 places"),
        ("write labels in upper case", "Labels should be written in uppercase."),
    ],
)
def test_what_differs_in_order_and_function_words_is_alike(one, other):
    assert likeness(one, other) == likeness(other, one) >= THRESHOLD


@pytest.mark.parametrize(("one", "other"), CONTRARY)
def test_what_is_too_much_wrong_or_there_is_not_what_is_asked_for(one, other):
    assert likeness(one, other) == likeness(other, one) < THRESHOLD


@pytest.mark.parametrize(("one", "other"), PARAPHRASES)
def test_the_same_complaint_or_wish_in_other_words_is_alike(one, other):
    assert likeness(one, other) == likeness(other, one) >= THRESHOLD


@pytest.mark.parametrize(("should", "is_now"), [("first", "last"), ("last", "first")])
def test_the_forms_of_what_is_and_what_should_be_meet_and_their_reverses_do_not(should, is_now):
    def forms(should, is_now):
        return (
            f"the answer gives the {is_now} word but it should be the {should} word",
            f"it should be the {should} word and not the {is_now} word",
            f"the answer is the {is_now} word ; it must be the {should} word",
        )

    for one, other in itertools.combinations(forms(should, is_now), 2):
        assert likeness(one, other) >= THRESHOLD
    for one, other in itertools.product(forms(should, is_now), forms(is_now, should)):
        assert likeness(one, other) < THRESHOLD


@given(texts, texts)
def test_likeness_is_symmetric_and_bounded_and_one_for_the_same(one, other):
    assert likeness(one, one) == 1
    assert likeness(one, other) == likeness(other, one)
    assert 0 <= likeness(one, other) <= 1


@given(st.lists(texts, max_size=12), st.sampled_from([0.2, 0.5, 0.75, 0.9, 1.0]))
def test_the_index_finds_every_pair_and_no_other(some, threshold):
    readings = [read(text) for text in some if read(text).weight]
    brute = {
        (i, j, alike(readings[i], readings[j]))
        for i, j in itertools.combinations(range(len(readings)), 2)
        if alike(readings[i], readings[j]) >= threshold
    }
    found = list(neighbours(readings, threshold))
    assert set(found) == brute
    assert len(found) == len(brute)


def score(by_defect):
    """Precision and recall of "these two name the same defect", over all pairs."""
    rows = [(read(text), defect) for defect, texts in by_defect.items() for text in texts]
    pairs = [(alike(a, b) >= THRESHOLD, one == other) for (a, one), (b, other) in itertools.combinations(rows, 2)]
    right = sum(close and same for close, same in pairs)
    return right / sum(close for close, _ in pairs), right / sum(same for _, same in pairs)


@pytest.mark.parametrize(("by_defect", "least"), [(BY_DEFECT, 0.9), (FRESH, 0.5)], ids=["known", "fresh"])
def test_no_two_defects_of_the_collection_meet_and_many_paraphrases_do(by_defect, least):
    precision, recall = score(by_defect)
    assert precision == 1
    assert recall >= least
