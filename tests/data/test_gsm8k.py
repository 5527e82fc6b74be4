import pytest

from promptgrad.data import gsm8k
from promptgrad.errors import DataError


def test_three_splits_of_a_hundred_that_share_no_question():
    splits = [gsm8k(name) for name in ("train", "val", "test")]
    assert [len(rows) for rows in splits] == [100, 100, 100]
    assert len({row.question for rows in splits for row in rows}) == 300
    for row in splits[0]:
        assert list(row.inputs()) == ["question"]
    sums = [sum(float(row.answer) for row in rows) for rows in splits]
    assert sums == [54_699, 109_965_330, 275_854]  # the answers are those of the data set, as numbers without commas


def test_the_worked_solutions_on_request():
    row = gsm8k("val", reasoning=True)[0]
    assert set(row.labels()) == {"reasoning", "answer"}
    assert "<<" not in row.reasoning
    assert row.reasoning


def test_an_unknown_split_is_told():
    with pytest.raises(DataError, match="'train', 'val', 'test'"):
        gsm8k("dev")
