import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.optim import edit_distance, edit_ratio
from promptgrad.search import lost_ratio

words = st.lists(st.sampled_from("abcd"), max_size=12)


def by_table(first, second):
    """The textbook table, slow and plain."""
    above = list(range(len(second) + 1))
    for row, one in enumerate(first, 1):
        line = [row]
        for column, other in enumerate(second, 1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (one != other)))
        above = line
    return above[-1]


@given(words, words)
def test_agrees_with_the_textbook_table(first, second):
    assert edit_distance(" ".join(first), " ".join(second)) == by_table(first, second)


@given(words, words)
def test_is_a_distance_between_0_and_1(first, second):
    one, other = " ".join(first), " ".join(second)
    assert edit_distance(one, other) == edit_distance(other, one)
    assert 0 <= edit_ratio(one, other) <= 1
    assert (edit_ratio(one, other) == 0) == (first == second)


def test_more_tokens_than_a_machine_word_has_bits():
    rng = random.Random(0)
    first = [rng.choice("abcdefgh") for _ in range(300)]
    second = [*first[:100], "x", *first[120:], "y"]
    assert edit_distance(" ".join(first), " ".join(second)) == by_table(first, second)


def test_white_space_does_not_count_and_punctuation_does():
    assert edit_distance("Answer  in\none word", "Answer in one word") == 0
    assert edit_distance("Answer in one word", "Answer in one word!") == 1


def kept_by_table(first, second):
    """Length of the longest common subsequence, by the textbook table."""
    above = [0] * (len(second) + 1)
    for one in first:
        line = [0]
        for column, other in enumerate(second, 1):
            line.append(above[column - 1] + 1 if one == other else max(line[-1], above[column]))
        above = line
    return above[-1]


@given(words, words)
def test_what_is_lost_agrees_with_the_textbook_table(first, second):
    lost = lost_ratio(" ".join(first), " ".join(second))
    assert lost == pytest.approx(1 - kept_by_table(first, second) / len(first) if first else 0)


@given(words, words, words)
def test_additions_are_free(before, text, after):
    assert lost_ratio(" ".join(text), " ".join([*before, *text, *after])) == 0
