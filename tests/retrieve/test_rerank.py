import asyncio

import pytest

from promptgrad import lm, nn, retrieve
from promptgrad.errors import DataError
from tests.retrieve.test_dense import RIVERS

INDEX = retrieve.BM25(RIVERS, stopwords=None)


def ids(index, query="the", k=3, **options):
    return [passage.id for passage in index.search(query, k, **options)]


def length(query, passages):
    return [len(passage) for passage in passages]


async def last_first(query, passages):
    await asyncio.sleep(0)
    return [float(place) for place in range(len(passages))]


def test_a_function_orders_what_was_found():
    assert ids(retrieve.Rerank(INDEX, length)) == ["danube", "0", "1"]
    assert ids(retrieve.Rerank(INDEX, last_first), k=2) == ["danube", "1"]
    assert ids(retrieve.Rerank(INDEX, last_first, depth=2), k=1) == ["1"]
    assert ids(retrieve.Rerank(INDEX, length), filter={"sea": "black"}) == ["danube"]
    assert ids(retrieve.Rerank(INDEX, length), query="nothing") == []
    assert retrieve.Rerank(INDEX, length).search("the", 1)[0].score == 20.0


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [([3, 1, 2], ["danube", "0", "1"]), ([2], ["1", "0", "danube"]), ([9, 0, 3, 3, True, "1"], ["danube", "0", "1"])],
)
def test_a_ranking_of_some_is_one_of_all(ranking, expected):
    assert ids(retrieve.Rerank(INDEX, lambda query, passages: ranking, by="ranking")) == expected


def reply(messages):
    """Scores by the number of letters; the ranking from the last to the first."""
    text = str(messages[-1]["content"])
    if "ranking" in str(messages[0]["content"]):
        return "[[ ## ranking ## ]]\n[3, 2, 1]"
    return f"[[ ## score ## ]]\n{2.0 if 'Tiber' in text else 1.0}"


def test_modules_of_one_call_and_of_a_call_for_each():
    with lm.track_usage() as usage:
        whole = nn.Predict("query, passages: list[str] -> ranking: list[int]").to(lm.FunctionLM(reply))
        assert ids(retrieve.Rerank(INDEX, whole, by="ranking")) == ["danube", "1", "0"]
        assert usage.total.calls == 1
        documents = nn.Predict("question, documents: list[Document] -> ranking: list[int]").to(lm.FunctionLM(reply))
        assert ids(retrieve.Rerank(INDEX, documents, by="ranking")) == ["danube", "1", "0"]
        assert usage.total.calls == 2
        each = nn.Predict("query, passage -> score: float").to(lm.FunctionLM(reply))
        assert ids(retrieve.Rerank(INDEX, each)) == ["1", "0", "danube"]
        assert usage.total.calls == 5


def test_it_is_saved_and_its_module_is_given_again(tmp_path):
    index = retrieve.Rerank(retrieve.BM25(RIVERS, stopwords=None), length, depth=7)
    index.add(["the Arno"])
    index.save(tmp_path)
    again = retrieve.load(tmp_path, module=length)
    assert (ids(again, k=4), again.depth, len(again)) == (["danube", "0", "1", "3"], 7, 4)
    assert repr(again) == f"Rerank({again.index!r}, length, by='scores', depth=7)"
    with pytest.raises(DataError, match="was made with the module length"):
        retrieve.load(tmp_path)


@pytest.mark.parametrize(
    ("module", "by", "said"),
    [
        (lambda query, passages: [1.0], "scores", "gave 1 scores for 3 passages"),
        (lambda query, passages: [float("nan")] * 3, "scores", "each needs a number"),
        (lambda query, passages: "best", "scores", "gives a score for each passage, not 'best'"),
        (lambda query, passages: 7, "ranking", "the numbers of passages in order, not 7"),
    ],
)
def test_what_is_no_order_is_an_error(module, by, said):
    with pytest.raises(DataError, match=said):
        ids(retrieve.Rerank(INDEX, module, by=by))


def test_what_cannot_look_is_refused():
    with pytest.raises(TypeError, match="has an input query or question, and one of passages"):
        retrieve.Rerank(INDEX, nn.Predict("text -> score: float"))
    with pytest.raises(TypeError, match=r"takes an index of promptgrad\.retrieve"):
        retrieve.Rerank([], length)
    with pytest.raises(TypeError, match="a module or a function"):
        retrieve.Rerank(INDEX, 3)
    with pytest.raises(ValueError, match="by is 'scores' or 'ranking'"):
        retrieve.Rerank(INDEX, length, by="rank")
    with pytest.raises(ValueError, match="depth is the number of candidates"):
        retrieve.Rerank(INDEX, length, depth=0)
