from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from promptgrad.data import Example, Score
from promptgrad.errors import MetricError
from promptgrad.metrics import contains, exact_match, f1, numeric_match, recall


def qa(answer, **more):
    return Example(question="q", answer=answer, **more).with_inputs("question")


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("Paris", "paris.", 1),
        ("the Eiffel Tower", " Eiffel  tower!", 1),
        ("Paris", "Paris, France", 0),
        (["Paris", "Lutetia"], "lutetia", 1),
        (["Paris", "Lutetia"], "London", 0),
        ("A", "B", 0),
        ("A", "a.", 1),
        ("A", "the", 0),
        ("3.5", "35", 0),
        ("-5", "5", 0),
        ("1,234", "1234", 1),
        ("$5", "5", 1),
        (4, "4", 1),
        (4, 4, 1),
        (4, 4.0, 1),
        (4, 5, 0),
        (True, False, 0),
        (["a", "b"], ["a", "b"], 1),
        (["a", "b"], ["b", "a"], 0),
        ("", "", 1),
        ("x", "", 0),
        ("straße", "STRASSE", 1),
        ("\N{MINUS SIGN}3", "-3", 1),
        (None, None, 1),
        ("A+", "A-", 0),
        ("A+", "A", 0),
        ("A-", "A", 0),
        ("A-", "a-.", 1),
        ("A-", "(A-)", 1),
        ("C++", "C#", 0),
        ("C++", "c++", 1),
        ("C", "C++", 0),
        ("C++17", "C#17", 0),
        ("x+1", "x-1", 0),
        ("x+1", "x + 1", 1),
        ("x + y", "x * y", 0),
        ("1/2", "1 2", 0),
        ("1/2", "\N{VULGAR FRACTION ONE HALF}", 1),
        ("<5", ">5", 0),
        ("< 5", "> 5", 0),
        ("5%", "5", 0),
        ("5%", "5 %", 1),
        ("R&B", "RB", 0),
        ("Paris", "**Paris**", 1),
        ("Paris", "*Paris*.", 1),
        ("Paris", "# Paris", 1),
        ("A*", "A", 0),
        ("2*3", "2+3", 0),
        ("well-known", "well known", 1),
        ("COVID-19", "COVID 19", 1),
        ("Paris", "- Paris", 1),
        ("Paris", '"Paris"', 1),
        ("Paris", "Paris (France)", 0),
        ("Paris France", "Paris (France)", 1),
    ],
)
def test_exact_match(gold, answer, score):
    assert exact_match(qa(gold), answer) == score


def test_exact_match_as_it_is_or_by_a_function():
    assert exact_match(normalize=False)(qa("Paris"), "paris") == 0
    assert exact_match(normalize=str.lower)(qa("Paris"), "paris") == 1
    assert exact_match(normalize=str.lower)(qa("Paris"), "paris.") == 0


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("red big apple", "a big red apple", 1),
        ("red apple", "green apple", 0.5),
        ("red", "blue", 0),
        ("a b c d".upper(), "b", pytest.approx(2 / 4)),
        ("", "", 1),
        ("x", "", 0),
        (["red", "big apple"], "apple", pytest.approx(2 / 3)),
    ],
)
def test_f1(gold, answer, score):
    assert f1(qa(gold), answer).value == score


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("42", "The answer is 42.", 1),
        ("1234.5", "so she pays $1,234.50.", 1),
        (42, 42.0000001, 1),
        ("42", "42 of 100", 0),
        ("42", "no idea", 0),
        ("-3", "minus: -3", 1),
        ("3", "10-3", 1),
        ("3", "\N{MINUS SIGN}3", 0),
        ("0.5", ".5", 1),
        ("50", "50%", 1),
        ("2", "x2", 0),
        ("1e3", "1000", 1),
        (1, True, 0),
        ("7", float("nan"), 0),
        ("7", {"answer": None}, 0),
        ("2", "1,2", 0),
        ("3", "on 1.2.3", 0),
        ("1/2", "0.5", 1),
        ("1/2", "2", 0),
        ("1/2", "2/4", 1),
        ("0.75", "so it is 3 / 4.", 1),
        ("2 1/2", "2.5", 1),
        ("2 1/2", "0.5", 0),
        ("2.5", "2\xbd", 1),
        ("0.5", "\xbd", 1),
        ("0.5", r"\boxed{\frac{1}{2}}", 1),
        ("2", r"$\frac{1}{2}$", 0),
        ("-7", "**-7**", 1),
        ("7", "**-7**", 0),
        ("1000", "1 000", 1),
        ("30000", "3万", 1),
        ("10", "2^10", 0),
        ("-1/2", "-0.5", 1),
        ("-1 1/2", "-1.5", 1),
        ("5", "10/2 = 5", 1),
        ("2024", "5/12/2024", 1),
        ("0", "1/0", 1),
        ("1/3", "0.333333333", 1),
        ("1", f"{'9' * 400}/1", 1),
    ],
)
def test_numeric_match(gold, answer, score):
    assert numeric_match(qa(gold), answer) == score


def test_numeric_match_within_a_tolerance():
    assert numeric_match(tolerance=0.01)(qa(200), 201) == 1
    assert numeric_match(tolerance=0.01)(qa(200), 203) == 0
    with pytest.raises(MetricError, match="the right answer 'many' holds no number"):
        numeric_match(qa("many"), "3")


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("Paris", "It is Paris, of course", 1),
        ("4", "it is 14", 0),
        ("New York", "york new", 0),
        (["a1", "b"], "b!", 1),
        ("A+", "C+", 0),
        ("C", "I like C++.", 0),
    ],
)
def test_contains(gold, answer, score):
    assert contains(qa(gold), answer) == score


@pytest.mark.parametrize("metric", [exact_match, f1, numeric_match, contains])
def test_feedback_says_what_would_have_been_right(metric):
    wrong = metric(qa("4"), "5")
    assert isinstance(wrong, Score)
    assert wrong.feedback == "the answer should be 4"
    assert metric(qa("4"), "4").feedback == ""
    assert metric(qa(["4", "6"]), "5").feedback == "the answer should be 4 or 6"


@dataclass
class Record:
    answer: str


class Model(BaseModel):
    answer: str


@pytest.mark.parametrize(
    "output",
    [{"answer": "4"}, Example(answer="4"), Record("4"), Model(answer="4"), SimpleNamespace(answer="4"), "4", 4],
)
def test_the_field_is_read_from_any_record_or_is_the_plain_value(output):
    assert exact_match(qa("4"), output) == 1
    assert exact_match(field="answer")(qa("4"), output) == 1
    assert exact_match(qa("5"), output) == 0


def test_the_default_field_is_the_only_label_or_the_only_one_that_the_output_has():
    two = qa("4", note="n")
    assert exact_match(two, {"answer": "4", "reasoning": "r"}) == 1
    with pytest.raises(
        MetricError, match=r"labels answer, note.*Write exact_match\(field='answer'\) or exact_match\(field='note'\)$"
    ):
        exact_match(two, "4")
    with pytest.raises(MetricError, match="cannot tell which field"):
        exact_match(two, {"answer": "4", "note": "n"})
    assert exact_match(Example(question="q", answer="4"), {"answer": "4"}) == 1
    with pytest.raises(MetricError, match=r"mark the inputs with example\.with_inputs"):
        exact_match(Example(question="q", answer="4"), "4")
    assert exact_match({"question": "q", "answer": "4"}, {"answer": "4"}) == 1


def test_a_field_that_is_missing_is_told():
    with pytest.raises(MetricError, match="the output has no field 'answer', only label"):
        exact_match(qa("4"), {"label": "4"})
    with pytest.raises(MetricError, match="the example has no field 'label', only question, answer"):
        exact_match(field="label")(qa("4"), "4")
    with pytest.raises(MetricError, match="'answer' is empty"):
        exact_match(qa([]), "4")
    with pytest.raises(MetricError, match="needs an Example"):
        exact_match("4", "4")


def test_options_that_are_not_there_are_told():
    with pytest.raises(TypeError, match="has the options field, normalize, not 'filed'"):
        exact_match(filed="answer")
    with pytest.raises(MetricError, match=r"write exact_match\(example, output\)"):
        exact_match("answer")
    assert exact_match() is not exact_match


def test_names():
    assert exact_match.__name__ == "exact_match"
    assert repr(exact_match) == "exact_match"
    assert repr(numeric_match(field="a", tolerance=0.5)) == "numeric_match(field='a', tolerance=0.5)"


@pytest.mark.parametrize(
    ("gold", "found", "score", "missing"),
    [
        (["d1", "d2"], ["d2", "d1", "d7"], 1, ""),
        (["d1", "d2"], ["d1"], 0.5, "d2"),
        (["d1", "d2", "d3"], [], 0, "d1; d2; d3"),
        ("Paris", ["The city of Paris", "Rome"], 1, ""),
        (["Rome", "Paris"], "Paris is a city", 0.5, "Rome"),
        (["New York"], ["York is new"], 0, "New York"),
        (["d1"], ["d10"], 0, "d1"),
        ([3, 4], (4,), 0.5, "3"),
        (["Paris"], [{"id": 7, "text": "Paris, France"}], 1, ""),
    ],
)
def test_recall(gold, found, score, missing):
    result = recall(Example(question="q", sources=gold).with_inputs("question"), found)
    assert result == score
    assert result.feedback == (f"not found, of the sources: {missing}" if missing else "")
    assert recall.score(gold, found) == score


def test_recall_reads_a_field_and_wants_something():
    example = Example(question="q", answer="a", sources=["d1"]).with_inputs("question")
    assert recall(field="sources")(example, {"sources": ["d1"], "answer": "x"}) == 1
    with pytest.raises(MetricError, match="'sources' is empty"):
        recall(field="sources")(Example(question="q", sources=[]).with_inputs("question"), ["d1"])
    with pytest.raises(MetricError, match=r"cannot tell which field"):
        recall(example, ["d1"])


@pytest.mark.parametrize("metric", [exact_match, f1, numeric_match, contains, recall])
def test_an_output_of_none_is_no_answer(metric):
    with pytest.raises(MetricError, match=rf"{metric.name}: the output is None; does forward end in a return\?"):
        metric(qa("4"), None)
    assert metric(qa("4"), {"answer": None}) == 0


@pytest.mark.parametrize("metric", [exact_match, f1, numeric_match, contains])
def test_a_tuple_is_no_answer_where_one_value_is_wanted(metric):
    words = r"the output is a tuple of 2, and 'answer' of the example is str '4': return the answer, or a record"
    with pytest.raises(MetricError, match=words):
        metric(qa("4"), ("4", 1))
    assert recall(qa("4"), ("4", 1)) == 1
    assert exact_match(qa((4, 1)), (4, 1)) == 1
