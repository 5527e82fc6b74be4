import warnings
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.data import Example, split
from promptgrad.errors import DataError


def test_counts_and_fractions():
    assert [len(part) for part in split(range(10), [3, 4])] == [3, 4]
    assert [len(part) for part in split(range(10), 4)] == [4, 6]
    assert [len(part) for part in split(range(10), 0.7)] == [7, 3]
    assert [len(part) for part in split(range(11), (0.5, 0.25, 0.25))] == [5, 3, 3]
    assert [len(part) for part in split(range(1000), [0.1, 0.1])] == [100, 100]


@given(st.integers(3, 200), st.integers(0, 5))
def test_the_parts_share_no_row_and_a_seed_repeats_them(n, seed):
    parts = split(range(n), [0.4, 0.3, 0.3], seed=seed)
    assert sorted(row for part in parts for row in part) == list(range(n))
    assert split(range(n), [0.4, 0.3, 0.3], seed=seed) == parts


def test_the_seed_decides():
    assert split(range(50), 0.5, seed=0) != split(range(50), 0.5, seed=1)
    assert split(range(50), 0.5, seed=0)[0] != list(range(25))


@given(st.lists(st.sampled_from("aaaabbc"), min_size=12, max_size=150), st.integers(0, 3))
def test_stratified_parts_hold_every_class_in_its_share(labels, seed):
    rows = [Example(n=n, label=label) for n, label in enumerate(labels)]
    parts = split(rows, [0.5, 0.25, 0.25], seed=seed, stratify="label")
    whole = Counter(labels)
    for part in parts:
        for label, count in Counter(row.label for row in part).items():
            assert abs(count - len(part) * whole[label] / len(rows)) <= 2
    assert sorted(row.n for part in parts for row in part) == list(range(len(rows)))


def test_stratified_parts_are_mixed_and_take_a_function():
    train, _ = split(range(100), 0.8, stratify=lambda n: n % 2)
    assert sum(n % 2 for n in train) == 40
    assert [n % 2 for n in train[:40]].count(0) not in (0, 40)
    assert train != sorted(train)


def test_duplicates_across_parts_warn():
    rows = [Example(q=n % 5) for n in range(20)]
    with pytest.warns(UserWarning, match="10 rows have the same content as a row in an earlier part"):
        split(rows, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split([Example(q=n) for n in range(20)], 0.5)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([5, 6], "cannot be split into parts of 5, 6"),
        (10, "cannot be split into parts of 10, 0"),
        ([0.5, 0.6], "fractions of at most 1"),
        ([0.5, 3], "either counts"),
        ([], "counts or fractions"),
        ([-1, 2], "above zero"),
        ([True, 2], "above zero"),
        ([0.99, 0.01], "parts of 10, 0"),
        ("abc", "above zero"),
    ],
)
def test_sizes_that_do_not_fit_are_told(sizes, words):
    with pytest.raises(DataError, match=words):
        split(range(10), sizes)


def test_no_data_and_no_such_field():
    with pytest.raises(DataError, match="the data is empty"):
        split([], 0.5)
    with pytest.raises(DataError, match="no such field"):
        split([Example(a=1), Example(a=2)], 0.5, stratify="label")
