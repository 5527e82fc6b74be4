import csv
import io
import json
import re
import sys

import pytest

from promptgrad.data import Example
from promptgrad.errors import DataError, MissingExtraError
from promptgrad.evaluation import Report, ReportRow
from promptgrad.lm import Usage
from promptgrad.nn import Prediction


def example(n, **more):
    return Example(question=f"q{n}", answer=str(n), **more).with_inputs("question")


def report(scores, **options):
    rows = [
        ReportRow(
            example(n, kind="even" if n % 2 == 0 else "odd"), output=f"o{n}", score=score, usage=Usage(1, 5, 2, 0.001)
        )
        if score is not None
        else ReportRow(example(n, kind="even" if n % 2 == 0 else "odd"), error=KeyError("x"))
        for n, score in enumerate(scores)
    ]
    return Report(rows, metric="exact_match", program="QA", **options)


def test_figures():
    found = report([1, 0, None, 1], seconds=1.5)
    assert found.score == float(found) == pytest.approx(2 / 3)
    assert len(found.errors) == 1
    assert (found.usage.calls, found.usage.tokens, found.usage.usd) == (3, 21, pytest.approx(0.003))
    text = str(found)
    assert text.startswith("exact_match of QA: 0.667 [")
    assert "on 3 rows, 1 error apart" in text
    assert "3 calls, 21 tokens, $0.0030, 1.5 s" in text
    assert "1 x KeyError: 'x'" in text


def test_a_score_of_one_run_of_each_example_looks_for_no_equal_examples():
    class Value:
        looked = 0

        def __content__(self):
            Value.looked += 1
            return "the same"

    def found(replicates):
        return Report([ReportRow(Example(value=Value()), score=score, replicate=r) for score, r in replicates])

    assert found([(1.0, 0), (0.0, 0), (0.5, 0)]).score == 0.5
    assert Value.looked == 0
    assert found([(1.0, 0), (0.0, 1), (0.5, 1)]).score == 0.5  # the first and second are one example, the third another
    assert Value.looked == 3


def test_it_is_a_sequence_of_rows():
    found = report([1, 0, 1, 1])
    assert len(found) == 4
    assert found[1].score == 0
    assert isinstance(found[:2], Report)
    assert found[:2].score == 0.5
    assert [row.score for row in found] == [1, 0, 1, 1]
    assert repr(found[1]).startswith("ReportRow(score=0, example=Example(")
    assert "error=KeyError" in repr(report([None])[0])


def test_no_rows_no_score():
    found = report([])
    assert found.score != found.score
    assert "nan" in str(found)
    json.loads(found.to_json())


def test_slices():
    found = report([1, 0, 1, 0, 1, None])
    by_kind = found.slices("kind")
    assert {value: part.score for value, part in by_kind.items()} == {"even": 1.0, "odd": 0.0}
    assert len(by_kind["odd"].errors) == 1
    assert repr(by_kind).splitlines()[1].startswith("odd   0.000 [")
    by_function = found.slices(lambda row: [len(row.question)])
    assert list(by_function) == ["[2]"]
    with pytest.raises(DataError, match="no such field"):
        found.slices("topic")


def test_compare_pairs_by_example_and_leaves_errors_out():
    before, after = report([0, 0, 0, 0, 1, None, 0, 1]), report([1, 1, 1, 1, 0, 1, None, 1])
    found = after.compare(before)
    assert (found.pairs, found.better, found.worse, found.left_out) == (6, 4, 1, 2)
    assert found.difference == found.diff == pytest.approx(0.5)
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.p == pytest.approx(0.375)  # of 5 that differ, 4 or more on one side
    assert before.compare(after).difference == -0.5
    assert not found.significant
    assert str(found).startswith("+0.500 [")
    assert "(4 better, 1 worse, 1 the same, 2 left out)" in str(found)


def test_compare_finds_examples_in_any_order_and_counts_repeated_ones():
    scores = [1, 0, 1, 0]
    one = report(scores)
    other = Report(reversed(one.rows), metric="exact_match", program="QA")
    assert one.compare(other).better == 0
    twice = Report([*one.rows, *one.rows], metric="exact_match")
    assert twice.compare(twice).pairs == 8


def test_compare_clearly_better():
    found = report([1] * 30).compare(report([0] * 20 + [1] * 10))
    assert found.significant
    assert found.p < 0.001


def test_compare_refuses_what_has_nothing_in_common():
    with pytest.raises(DataError, match="no example in common"):
        report([1]).compare(Report([ReportRow(example(9), score=1.0)], metric="exact_match"))
    with pytest.raises(DataError, match="different metrics"):
        report([1]).compare(report([1], best=10))


def test_replicates_of_an_example_are_one_observation():
    rows = [ReportRow(example(n), score=float(n % 2), replicate=r) for n in range(4) for r in range(50)]
    found = Report(rows)
    assert found.score == 0.5
    assert found.interval[1] - found.interval[0] > 0.8
    assert found.compare(found).pairs == 4


records = [
    ReportRow(example(0), output=Prediction(answer="0", reasoning="r"), score=1.0, parts={"style": 0.5}),
    ReportRow(example(1, tags=["a", "b"]), output={"answer": 1.5, "n": None}, score=0.25, feedback="the answer, be 1"),
    ReportRow(example(2), error=ValueError("bad\nvalue")),
    ReportRow("a plain item", output=[1, {"x": float("nan")}], score=0.0),
]


def test_csv(tmp_path):
    text = Report(records).to_csv(tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8").replace("\r\n", "\n") == text.replace("\r\n", "\n")
    found = list(csv.DictReader(io.StringIO(text)))
    assert [row["question"] for row in found] == ["q0", "q1", "q2", ""]
    assert (found[0]["output.answer"], found[0]["output.reasoning"], found[0]["part.style"]) == ("0", "r", "0.5")
    assert (found[1]["tags"], found[1]["feedback"], found[1]["score"]) == ('["a", "b"]', "the answer, be 1", "0.25")
    assert (found[2]["score"], found[2]["error"]) == ("", "ValueError: bad value")
    assert (found[3]["example"], found[3]["output"]) == ("a plain item", '[1, {"x": null}]')


def test_json(tmp_path):
    found = report([1, 0, None])
    data = json.loads(found.to_json(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_text()) == data
    assert (data["score"], data["errors"], data["count"], data["metric"]) == (0.5, 1, 3, "exact_match")
    assert data["usage"]["calls"] == 2
    assert data["rows"][2]["score"] is None
    rows = json.loads(Report(records).to_json())["rows"]
    assert rows[1]["tags"] == ["a", "b"]
    assert rows[3]["output"] == [1, {"x": None}]


def test_pandas():
    pytest.importorskip("pandas")
    frame = report([1, 0, None]).to_pandas()
    assert frame["score"].mean() == 0.5
    assert list(frame["question"]) == ["q0", "q1", "q2"]


def test_pandas_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        report([1]).to_pandas()


def test_tables_show_the_worst_rows_first_and_escape_what_they_show():
    rich_console = pytest.importorskip("rich.console")
    rows = [ReportRow(example(n), output="[red]<b>o</b>", score=float(n)) for n in range(30)] + [
        ReportRow(example(99), error=KeyError("x"))
    ]
    found = Report(rows, metric="exact_match", best=30)
    file = io.StringIO()
    rich_console.Console(file=file, width=160).print(found)
    text = file.getvalue()
    assert "KeyError: 'x'" in text
    assert "[red]<b>o</b>" in text
    assert "10 of 31 rows, the worst first" in text
    assert text.index("q99") < text.index("q0") < text.index("q1")
    html = found._repr_html_()
    assert "&lt;b&gt;o&lt;/b&gt;" in html
    assert "<b>o" not in html
    assert "20 of 31 rows" in html


@pytest.mark.parametrize(("kinds", "rest"), [(3, ""), (4, "  and 1 other errors"), (7, "  and 4 other errors")])
def test_the_commonest_errors_are_told_and_the_others_counted(kinds, rest):
    rows = [
        ReportRow(example(10 * kind + copy), error=ValueError(f"kind {kind}"))
        for kind in range(kinds)
        for copy in range(9 - kind)
    ]
    text = str(Report([*rows, ReportRow(example(999), score=1.0)]))
    assert [line for line in text.splitlines() if " x " in line] == [
        f"  {9 - kind} x ValueError: kind {kind}" for kind in range(3)
    ]
    assert [line for line in text.splitlines() if "other errors" in line] == [rest] * bool(rest)


def test_a_long_value_is_cut_in_tables_and_told_in_full_in_rows():
    found = Report([ReportRow(example(1), output="word " * 100, score=0.5), ReportRow(example(2), output="short")])
    html = found._repr_html_()
    (cell,) = re.findall(r"<td[^>]*>(word[^<]*)</td>", html)
    assert cell.endswith("...")
    assert ("word " * 100).startswith(cell[:-3])
    assert 20 < len(cell) <= 200
    assert ">short<" in html
    assert "word " * 99 in str(found.rows[0].output)


def test_show_prints(capsys):
    report([1, 0]).show()
    assert "exact_match of QA" in capsys.readouterr().out
