import copy
import pickle
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.data import Score
from promptgrad.errors import MetricError

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite)
def test_it_compares_and_counts_as_its_value(a, b):
    assert float(Score(a)) == a
    assert (Score(a) < Score(b)) == (a < b)
    assert (Score(a) <= b) == (a <= b)
    assert (Score(a) > b) == (a > b)
    assert (a >= Score(b)) == (a >= b)
    assert (Score(a) == b) == (a == b)
    assert bool(Score(a)) == (a > 0)
    if a == b:
        assert hash(Score(a)) == hash(Score(b))


def test_feedback_and_parts_do_not_change_the_value():
    score = Score(1, feedback="good", parts={"style": True})
    assert score == Score(1.0) == 1
    assert score.parts == {"style": 1.0}
    assert score != "1"
    assert pickle.loads(pickle.dumps(score)).feedback == copy.deepcopy(score).feedback == "good"


def test_what_metrics_return_is_understood():
    import numpy as np

    assert Score.of(True) == 1.0
    assert Score.of(3) == 3.0
    assert Score.of(np.float32(0.5)) == 0.5
    assert Score.of(np.bool_(True)) == 1.0
    given = Score(0.5)
    assert Score.of(given) is given
    for record in ({"score": 0.5, "feedback": "half"}, SimpleNamespace(score=0.5, feedback="half")):
        assert (Score.of(record).value, Score.of(record).feedback) == (0.5, "half")
    assert Score.of({"score": 1}).feedback == ""


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "does every branch end in a return"),
        ("0.5", "returned str '0.5'"),
        (float("nan"), "NaN"),
        (float("inf"), "infinite"),
        ({"value": 1}, "return a bool, a number or Score"),
        ([1], "return a bool"),
    ],
)
def test_what_is_no_score_is_told(result, words):
    with pytest.raises(MetricError, match=words):
        Score.of(result)


def test_feedback_is_text_and_the_value_a_number():
    with pytest.raises(MetricError, match="feedback must be text"):
        Score(1, feedback=["a"])
    for text in ("high", "1", "1_0", b"1"):
        with pytest.raises(MetricError, match="must be a number"):
            Score(text)
        with pytest.raises(MetricError, match="must be a number"):
            Score.of({"score": text})
        with pytest.raises(MetricError, match="the part 'a' must be a finite number"):
            Score(1, parts={"a": text})


def test_scores_lie_between_zero_and_the_best():
    assert Score(1.0).checked() == 1
    assert Score(5).checked(best=10) == 5
    for value in (1.01, -0.1):
        with pytest.raises(MetricError, match=r"outside \[0, 1\]"):
            Score(value).checked()


def test_feedback_by_module_is_text_or_a_list_of_texts():
    said = {"query": "ask for the city", "answer": ["", "be brief"]}
    kept = {"query": "ask for the city", "answer": ("", "be brief")}
    assert Score(0, module_feedback=said).module_feedback == kept
    assert Score(0).module_feedback is None
    for record in ({"score": 0, "module_feedback": said}, SimpleNamespace(score=0, module_feedback=said)):
        assert Score.of(record).module_feedback == kept
    for wrong in ("ask", {"query": 3}, {"query": ["a", None]}, {3: "a"}):
        with pytest.raises(MetricError, match=r"module_feedback maps|must be text or a list of texts"):
            Score(0, module_feedback=wrong)


@pytest.mark.parametrize("part", [float("nan"), float("inf"), None, "good"])
def test_a_part_that_is_no_number_is_named(part):
    with pytest.raises(MetricError, match="the part 'style' must be a finite number"):
        Score(1, parts={"style": part})
    with pytest.raises(MetricError, match="parts maps the names of aspects to numbers"):
        Score(1, parts=[part])
