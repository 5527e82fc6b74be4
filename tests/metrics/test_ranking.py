import math

import pytest

from promptgrad import metrics, nn, retrieve
from promptgrad.data import Example
from promptgrad.errors import MetricError
from promptgrad.metrics import mrr, ndcg_at, recall_at

RANKING = ["a", "b", "c", "d"]


def test_recall():
    assert recall_at(2).score(["b", "d"], RANKING) == 0.5
    assert recall_at(4).score(["b", "d"], RANKING) == 1.0
    assert recall_at(9).score(["b", "x", "y"], RANKING) == pytest.approx(1 / 3)
    assert recall_at(2).score("b", ["b", "b", "b", "c"]) == 1.0
    assert recall_at(2).score(["c"], ["b", "b", "b", "c"]) == 1.0  # what stands twice counts once
    assert recall_at(1).score({"a": 2, "b": 0}, RANKING) == 1.0  # grade 0 is not wanted


def test_ndcg_as_trec_eval_has_it():
    assert ndcg_at(10).score(["a"], RANKING) == 1.0
    assert ndcg_at(10).score(["b"], RANKING) == pytest.approx(1 / math.log2(3))
    gain = 1 / math.log2(2) + 3 / math.log2(4)
    assert ndcg_at(3).score({"a": 1, "c": 3, "d": 2}, RANKING) == pytest.approx(
        gain / (3 + 2 / math.log2(3) + 1 / math.log2(4))
    )
    assert ndcg_at(1).score(["a", "b"], RANKING) == 1.0  # the best that one place can have
    assert ndcg_at(2).score(["x"], RANKING) == 0.0


def test_reciprocal_rank():
    assert mrr.score(["c"], RANKING) == pytest.approx(1 / 3)
    assert mrr.score(["d", "b"], RANKING) == 0.5
    assert mrr.score(["x"], RANKING) == 0.0
    assert mrr(k=2).score(["c"], RANKING) == 0.0


def test_they_score_what_a_program_returns():
    index = retrieve.BM25([{"id": 1, "text": "red boat"}, {"id": 2, "text": "red car"}, {"id": 3, "text": "blue car"}])
    example = Example(query="red car", sources=[3, 1]).with_inputs("query")
    found = nn.Retrieve(index, k=2)(**example.inputs())
    score = recall_at(2)(example, found)
    assert (float(score), score.feedback) == (0.5, "not among the first 2 found: 3")
    assert float(mrr(example, found)) == 0.5
    assert mrr(example, found).feedback == "not among the 2 found: 3"
    record = nn.Prediction({"answer": "x", "notes": found})
    assert float(recall_at(2, found="notes")(example, record)) == 0.5
    assert float(recall_at(2)(example, {"sources": ["1", "3"], "answer": "x"})) == 1.0
    assert float(ndcg_at(2)(example, [{"id": 9}, {"id": 3}])) < 0.5
    report = nn.Retrieve(index, k=2).map([example])
    assert float(recall_at(1)(example, report[0])) == 0.0
    assert repr(recall_at(5, field="sources")) == "recall_at(field='sources', k=5)"


def test_what_is_no_ranking_is_an_error():
    with pytest.raises(MetricError, match="the example wants nothing"):
        recall_at(3).score([], RANKING)
    with pytest.raises(MetricError, match="a set, which has no order"):
        recall_at(3).score(["a"], {"a", "b"})
    with pytest.raises(MetricError, match=r"an id is a text or a whole number, not 1\.5"):
        recall_at(3).score(["a"], [1.5])
    with pytest.raises(MetricError, match="grades are numbers by id"):
        ndcg_at(3).score({"a": "high"}, RANKING)
    with pytest.raises(ValueError, match="a whole number of at least 1"):
        recall_at(0)
    with pytest.raises(MetricError, match="the output has no field 'notes'"):
        recall_at(3, found="notes")(Example(q="", ids=["a"]).with_inputs("q"), {"other": []})
    assert metrics.as_metric(mrr) is mrr
