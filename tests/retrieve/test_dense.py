import asyncio
import pickle
import tracemalloc

import numpy as np
import pytest

import promptgrad as pg
from promptgrad import retrieve, run
from promptgrad.errors import BudgetExceeded, DataError

RIVERS = ["the Seine in Paris", "the Tiber in Rome", {"text": "the Danube in Vienna", "id": "danube", "sea": "black"}]


class Letters:
    """Counts letters; notes what it is asked."""

    name = "letters"

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return [[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def clouds(number, size=16, seed=0):
    """Vectors in clusters, by text: an embedder for texts that are numbers."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, size))
    table = centres[rng.integers(0, 20, number)] + 0.5 * rng.normal(size=(number, size))

    def embed(texts):
        return table[[int(text) for text in texts]]

    return embed, [str(place) for place in range(number)]


def ids(index, query, k=10, **options):
    return [passage.id for passage in index.search(query, k, **options)]


def test_it_finds_the_nearest_and_asks_once():
    letters = Letters()
    index = retrieve.Dense(RIVERS, letters)
    assert repr(index) == "Dense(3 passages, 3 without a vector yet, embedder='letters')"
    assert letters.asked == []
    (hit,) = index.search("Tiber, Rome, the", 1)
    assert (hit, hit.id) == ("the Tiber in Rome", "1")
    assert 0.9 < hit.score <= 1
    index.search("the Seine")
    assert [len(texts) for texts in letters.asked] == [3, 1, 1]
    index.add(["the Arno in Florence"])
    assert ids(index, "the Arno in Florence", 1) == ["3"]
    assert [len(texts) for texts in letters.asked] == [3, 1, 1, 1, 1]
    assert repr(index) == "Dense(4 passages, embedder='letters', size=26)"


def test_the_score_is_the_cosine_and_a_list_of_queries_is_as_one_by_one():
    embed, texts = clouds(300)
    index = retrieve.Dense(texts, embed)
    table = embed(texts)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    many = index.search(texts[:40], 7)
    for place, hits in enumerate(many):
        scores = table @ table[place]
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:7], abs=1e-5)
        assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in index.search(texts[place], 7)]


def test_equal_vectors_come_in_the_order_of_the_passages():
    index = retrieve.Dense(["same"] * 200, lambda texts: np.ones((len(texts), 3)))
    assert ids(index, "q", 5) == ["0", "1", "2", "3", "4"]


def test_what_is_added_is_found_as_if_it_had_been_there():
    embed, texts = clouds(300)
    whole, grown = retrieve.Dense(texts, embed), retrieve.Dense([], embed)
    assert grown.search("1") == []
    for begin in range(0, 300, 60):
        grown.add(texts[begin : begin + 60])
        grown.refresh()
    for query in texts[::30]:
        assert ids(grown, query) == ids(whole, query)


def test_filters_are_exact():
    embed, texts = clouds(500)
    passages = [{"text": text, "id": text, "n": int(text) % 50, "even": int(text) % 2 == 0} for text in texts]
    index = retrieve.Dense(passages, embed, approximate_from=100)
    everything = ids(index, "7", 500, filter=lambda passage: True)
    assert len(everything) == 500
    assert ids(index, "7", 9, filter={"n": 3}) == [place for place in everything if int(place) % 50 == 3][:9]
    wanted = [place for place in everything if int(place) % 50 == 4][:4]
    assert ids(index, "7", 4, filter=lambda passage: passage.metadata["n"] == 4) == wanted
    assert ids(index, "7", 4, filter={"n": 3, "even": True}) == []


@pytest.mark.parametrize(("every", "most"), [(2, 0.2), (5, 0.4)])
def test_a_filter_copies_no_large_part_of_the_vectors(every, most):
    rng = np.random.default_rng(0)
    table = rng.standard_normal((24_000, 64), dtype=np.float32)
    passages = [{"text": str(place), "of": place % every} for place in range(len(table))]
    index = retrieve.Dense(passages, lambda texts: table[[int(text) for text in texts]])
    index.refresh()
    queries, wanted = ["5", "11", "20"], {"of": 1}
    index.search("1", filter=wanted)  # which is then known
    tracemalloc.start()
    found = index.search(queries, 5, filter=wanted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most * table.nbytes
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    for query, hits in zip(queries, found, strict=True):
        scores = unit @ unit[int(query)]
        best = sorted(range(1, len(table), every), key=lambda place: -scores[place])[:5]
        assert [int(hit.id) for hit in hits] == best


def test_a_large_index_searches_a_graph_and_finds_nearly_the_same():
    embed, texts = clouds(2000)
    exact = retrieve.Dense(texts, embed, approximate_from=None)
    graphs = [retrieve.Dense(texts, embed, approximate_from=1000) for _ in range(2)]
    queries = texts[::50]
    truth = [ids(exact, query) for query in queries]
    found = [[ids(graph, query) for query in queries] for graph in graphs]
    assert found[0] == found[1]  # the graph is the same each time
    share = sum(len(set(one) & set(other)) for one, other in zip(truth, found[0], strict=True)) / (10 * len(queries))
    assert share > 0.97
    assert [hit.score for hit in graphs[0].search("3", 5)] == [hit.score for hit in exact.search("3", 5)]


@pytest.mark.parametrize("approximate_from", [None, 100])
def test_it_is_saved_mapped_and_grows(tmp_path, approximate_from):
    embed, texts = clouds(400)
    index = retrieve.Dense(texts[:300], embed, approximate_from=approximate_from)
    index.save(tmp_path)
    asked = []

    def counting(given):
        asked.append(len(given))
        return embed(given)

    counting.__qualname__ = embed.__qualname__
    again = retrieve.load(tmp_path, embedder=counting)
    assert ids(again, "7") == ids(index, "7")
    assert asked == [1]  # the query: the passages have their vectors
    for each in (again, index):
        each.add(texts[300:])
    assert [ids(again, query) for query in ("7", "390")] == [ids(index, query) for query in ("7", "390")]
    again.save(tmp_path)
    assert ids(retrieve.load(tmp_path, embedder=embed), "390") == ids(index, "390")
    with pytest.raises(DataError, match=r"was made with the embedder .*embed, and a folder holds no model"):
        retrieve.load(tmp_path)


def test_queries_may_have_an_embedder_of_their_own(tmp_path):
    letters, asked = Letters(), Letters()
    asked.name = "asked"
    index = retrieve.Dense(RIVERS, letters, query_embedder=asked)
    assert ids(index, "the Tiber in Rome", 1) == ["1"]
    assert (len(letters.asked), asked.asked) == (1, [["the Tiber in Rome"]])
    index.save(tmp_path)
    assert ids(retrieve.load(tmp_path, embedder={"letters": letters}, query_embedder=asked), "Rome", 1) == ["1"]
    with pytest.raises(DataError, match="made with the query_embedder asked"):
        retrieve.load(tmp_path, embedder=letters)


def test_functions_plain_and_async_and_embedders():
    letters = Letters()

    async def later(texts):
        await asyncio.sleep(0)
        return letters(texts)

    expected = ids(retrieve.Dense(RIVERS, letters), "Vienna")
    embedder = pg.Embedder(letters, name="letters", cache=False)
    for embed in (later, embedder):
        index = retrieve.Dense(RIVERS, embed)
        assert ids(index, "Vienna") == expected

        async def gathered(index=index):
            return await asyncio.gather(*[index.asearch("Vienna", 10) for _ in range(4)])

        assert [[hit.id for hit in hits] for hits in asyncio.run(gathered())] == [expected] * 4
    again = pickle.loads(pickle.dumps(retrieve.Dense(RIVERS, Letters())))
    assert ids(again, "Vienna") == expected


def test_embedding_is_within_the_budget_of_the_run():
    embedder = pg.Embedder(Letters(), name="letters", cache=False, batch_size=1)
    index = retrieve.Dense(RIVERS, embedder)
    with run.active(ledger=run.Ledger(pg.Budget(calls=2))), pytest.raises(BudgetExceeded):
        index.search("Vienna")
    assert ids(index, "the Danube in Vienna", 1) == ["danube"]


@pytest.mark.parametrize(
    ("embed", "error", "said"),
    [
        (lambda texts: [[1.0]], TypeError, "gave 1x1 for 3 texts"),
        (lambda texts: [1.0] * len(texts), TypeError, "one vector for each text"),
        (lambda texts: [[1.0, 2.0]] * (len(texts) - 1) + [[1.0]], TypeError, "all of one length"),
        (lambda texts: [[float("nan")]] * len(texts), DataError, "not finite"),
        (lambda texts: np.ones((len(texts), len(texts))), DataError, "queries have 1 numbers, and those of passages 3"),
    ],
)
def test_an_embedder_that_does_not_fit_is_told(embed, error, said):
    with pytest.raises(error, match=said):
        retrieve.Dense(RIVERS, embed).search("x")


def test_what_is_no_embedder_is_refused():
    with pytest.raises(TypeError, match="an embedder is a function of a list of texts, not int"):
        retrieve.Dense(RIVERS, 3)
