import asyncio
import pickle
import random

import bm25s
import pytest

from promptgrad import retrieve
from promptgrad.errors import DataError

RIVERS = [
    "The Seine flows through Paris to the sea.",
    "The Tiber flows through Rome.",
    {"id": "rhine", "text": "The Rhine flows through Basel and Cologne.", "length": 1233, "sea": "north"},
    {"id": "danube", "text": "The Danube flows through Vienna and Budapest.", "length": 2850, "sea": "black"},
]


def texts(number, seed=0, most=40):
    drawn = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(200)]
    return [" ".join(drawn.choices(vocabulary, k=drawn.randint(1, most))) for _ in range(number)]


def found(index, query, k=10, **options):
    return [(passage.id, round(passage.score, 5)) for passage in index.search(query, k, **options)]


def test_it_scores_as_bm25s_does():
    passages, queries = texts(500), texts(30, seed=1, most=6)
    peer = bm25s.BM25(method="lucene")
    peer.index(bm25s.tokenize(passages, stopwords=None, show_progress=False), show_progress=False)
    index = retrieve.BM25(passages)
    for query in queries:
        scores = peer.get_scores(query.split())
        for passage in index.search(query, 20):
            assert passage.score == pytest.approx(scores[int(passage.id)], abs=1e-5)
        assert len(index.search(query, 500)) == sum(scores > 0)


def test_it_finds_by_words_and_leaves_out_the_rest():
    index = retrieve.BM25(RIVERS)
    assert [p.id for p in index.search("Which river is in ROME?")] == ["1"]
    assert index.search("the and to") == []  # stop words
    assert index.search("Amazon") == []
    assert index.search("") == []
    assert [len(hits) for hits in index.search(["rome", "amazon", "flows"], 9)] == [1, 0, 4]
    assert repr(index) == "BM25(4 passages, 13 words, k1=1.5, b=0.75)"


def test_equal_scores_come_in_the_order_of_the_passages():
    index = retrieve.BM25(["a red boat"] * 50)
    assert [p.id for p in index.search("boat", 7)] == [str(place) for place in range(7)]


def test_what_is_added_is_found_as_if_it_had_been_there():
    passages = texts(300)
    whole = retrieve.BM25(passages)
    grown = retrieve.BM25(passages[:100])
    for place in range(100, 110):
        assert len(grown.search("w1")) == 3
        grown.add([passages[place]])
    grown.add(passages[110:200])
    grown.add(passages[200:])
    for query in texts(20, seed=2, most=5):
        assert found(grown, query, 50) == found(whole, query, 50)
    empty = retrieve.BM25()
    assert empty.search("w1") == []
    empty.add(passages)
    assert found(empty, "w1 w2") == found(whole, "w1 w2")


def test_a_little_that_is_added_is_searched_apart_with_the_same_scores(tmp_path):
    passages = [*texts(200), "neverseen w1 w1", "w2 neverseen", *texts(40, seed=3)]
    grown, queries = retrieve.BM25(passages[:200]), ["w1 w2 neverseen", "w7", "w7 w7 w9", "neverseen"]
    grown.search("w1")
    for place in range(200, 242):
        grown.add([passages[place]])
        whole = retrieve.BM25(passages[: place + 1])
        for query in queries:
            mine, all_of_it = grown.search(query, 300), whole.search(query, 300)
            assert [hit.id for hit in mine] == [hit.id for hit in all_of_it]
            assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in all_of_it], rel=1e-6)
        if place in (210, 241):
            grown.save(tmp_path)
            assert found(retrieve.load(tmp_path), queries[0], 300) == found(whole, queries[0], 300)


def test_filters():
    index = retrieve.BM25(RIVERS)
    assert [p.id for p in index.search("flows", filter={"sea": "north"})] == ["rhine"]
    assert [p.id for p in index.search("flows", filter={"sea": ["north", "black"], "length": 2850})] == ["danube"]
    assert [p.id for p in index.search("flows", filter=lambda p: p.metadata.get("length", 0) > 2000)] == ["danube"]
    assert index.search("flows", filter={"sea": None}) == []
    assert len(index.search("flows", 9, filter={})) == 4
    index.add([{"text": "The Elbe flows.", "id": "elbe", "sea": "north"}])
    assert {p.id for p in index.search("flows", filter={"sea": "north"})} == {"rhine", "elbe"}
    with pytest.raises(TypeError, match="filter is a mapping such as"):
        index.search("flows", filter="north")


def test_a_function_that_accepts_little_is_asked_until_there_are_enough():
    index = retrieve.BM25([{"text": "red boat", "n": n} for n in range(400)])
    assert [p.id for p in index.search("boat", 3, filter=lambda p: p.metadata["n"] >= 397)] == ["397", "398", "399"]


def test_ids_are_unique():
    with pytest.raises(DataError, match="the id 'a' stands twice: passage 1"):
        retrieve.BM25([{"text": "x", "id": "a"}, {"text": "y", "id": "a"}])
    index = retrieve.BM25(RIVERS)
    with pytest.raises(DataError, match="'rhine' stands twice"):
        index.add(["a new one", {"text": "again", "id": "rhine"}])
    assert len(index) == 4  # nothing of it
    with pytest.raises(DataError, match="the id '0' stands twice"):
        index.add([{"text": "as the first", "id": "0"}])
    with pytest.raises(DataError, match="a list of passages"):
        index.add("one text")


def test_stemmers_tokenizers_and_stop_words():
    stem = retrieve.BM25(["many cells grow"], stemmer=lambda word: word.rstrip("s"))
    assert len(stem.search("one cell")) == 1
    assert retrieve.BM25(["many cells grow"]).search("one cell") == []
    signs = retrieve.BM25(["abc", "xyz"], tokenizer=list, stopwords=None)
    assert [p.id for p in signs.search("z")] == ["1"]
    assert retrieve.BM25(["der Fluss"], stopwords="german").search("der") == []
    assert retrieve.BM25(["der Fluss"], stopwords="de").search("der") == []
    assert retrieve.BM25(["the river"], stopwords=["River"]).search("river") == []
    with pytest.raises(ValueError, match="the stop words of 'klingon' are not known"):
        retrieve.BM25(stopwords="klingon")
    with pytest.raises(ValueError, match="b between 0 and 1"):
        retrieve.BM25(b=2)
    with pytest.raises(TypeError, match="a stemmer is a function"):
        retrieve.BM25(stemmer=3)


@pytest.mark.parametrize("query", [7, ["a", None]])
def test_a_query_is_a_text(query):
    with pytest.raises(TypeError):
        retrieve.BM25(RIVERS).search(query)


@pytest.mark.parametrize(("k", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_k_is_a_number_of_passages(k, error):
    with pytest.raises(error, match="k is the number of passages"):
        retrieve.BM25(RIVERS).search("rome", k)


def test_awaited_and_pickled_it_is_the_same():
    index = retrieve.BM25(RIVERS)
    again = pickle.loads(pickle.dumps(index))

    async def all_of_it():
        return await asyncio.gather(*[index.asearch("flows rome", 4) for _ in range(5)])

    expected = found(index, "flows rome", 4)
    assert [[(p.id, round(p.score, 5)) for p in each] for each in asyncio.run(all_of_it())] == [expected] * 5
    assert found(again, "flows rome", 4) == expected
    again.add(["The Arno flows."])
    assert (len(again), len(index)) == (5, 4)


def test_half_a_character_is_a_passage_too(tmp_path):
    index = retrieve.BM25(["one \ud83d half"])
    index.save(tmp_path)
    assert retrieve.load(tmp_path).search("half")[0] == "one \ud83d half"
