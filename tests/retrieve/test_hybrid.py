import pytest

from promptgrad import retrieve
from promptgrad.errors import DataError
from tests.retrieve.test_dense import RIVERS, Letters


def both():
    return retrieve.Hybrid([retrieve.BM25(RIVERS), retrieve.Dense(RIVERS, Letters())])


def test_ranks_are_fused():
    index = both()
    hits = index.search("Vienna, on the Danube", 3)
    assert hits[0].id == "danube"
    assert hits[0].score == pytest.approx(1 / 61 + 1 / 61)
    assert [hit.id for hit in index.search("Rome", 1)] == ["1"]
    alone = index.search("Paris", 3)
    assert len(alone) == 3  # BM25 finds one, the vectors all
    assert sorted(hit.score for hit in alone)[0] == pytest.approx(1 / 63)
    assert index.search(["Rome", "Paris"], 1) == [index.search("Rome", 1), index.search("Paris", 1)]
    assert repr(index).startswith("Hybrid(BM25(3 passages, ")


def test_weights_and_ties():
    one, other = retrieve.BM25(["red", "blue"]), retrieve.BM25(["blue", "red"])
    assert [hit.id for hit in retrieve.Hybrid([one, other]).search("red blue")] == ["0", "1"]
    index = retrieve.Hybrid([retrieve.BM25(["red"]), retrieve.BM25(["a", "red"])], weights=[1, 2])
    assert [hit.id for hit in index.search("red")] == ["1", "0"]


def test_it_grows_filters_and_is_saved(tmp_path):
    index = both()
    index.add([{"text": "the Elbe in Hamburg", "id": "elbe", "sea": "north"}])
    assert [hit.id for hit in index.search("the Elbe", filter={"sea": "north"})] == ["elbe"]
    index.save(tmp_path)
    again = retrieve.load(tmp_path, embedder=Letters())
    assert [(h.id, h.score) for h in again.search("Elbe")] == [(h.id, h.score) for h in index.search("Elbe")]
    assert (len(again), again.weights, again.constant) == (4, (1.0, 1.0), 60.0)
    with pytest.raises(DataError, match="made with the embedder letters"):
        retrieve.load(tmp_path)


def test_what_makes_no_hybrid_is_refused():
    with pytest.raises(ValueError, match="two indexes or more"):
        retrieve.Hybrid([retrieve.BM25([])])
    with pytest.raises(TypeError, match=r"indexes of promptgrad\.retrieve, not of list"):
        retrieve.Hybrid([[], []])
    with pytest.raises(ValueError, match="2 indexes and 1 weights"):
        retrieve.Hybrid([retrieve.BM25([]), retrieve.BM25([])], weights=[1])
