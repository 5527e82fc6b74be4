import pytest

from promptgrad.search import Verdict


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        (0, ""),
        (1, " (1 row without an answer left out)"),
        (2, " (2 rows without an answer left out)"),
    ],
)
@pytest.mark.parametrize(("pairs", "counted"), [(1, "1 pair"), (3, "3 pairs")])
def test_a_verdict_says_on_how_many_pairs_and_how_many_rows_it_is_not(pairs, counted, dropped, left):
    shown = str(Verdict(accepted=True, before=0.25, after=0.5, pairs=pairs, reason="better", dropped=dropped))
    assert counted in shown.replace("pairs:", "pairs")
    assert left in shown
    assert ("left out" in shown) is bool(dropped)


def test_where_no_row_was_compared_the_others_are_counted():
    assert str(Verdict(reason="no row could be compared", dropped=2)) == "no row compared, 2 without an answer"
