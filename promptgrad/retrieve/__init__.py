"""Indexes of passages, and search in them: by words, by vectors, by both, and with a second look."""

from typing import TYPE_CHECKING

__all__ = [
    "APPROXIMATE_FROM",
    "BM25",
    "Dense",
    "Filter",
    "Hybrid",
    "Passage",
    "Rerank",
    "Retriever",
    "as_passage",
    "load",
    "words",
]

if TYPE_CHECKING:
    from promptgrad.retrieve._bm25 import BM25
    from promptgrad.retrieve._dense import APPROXIMATE_FROM, Dense
    from promptgrad.retrieve._filter import Filter
    from promptgrad.retrieve._hybrid import Hybrid
    from promptgrad.retrieve._load import load
    from promptgrad.retrieve._passage import Passage, as_passage
    from promptgrad.retrieve._rerank import Rerank
    from promptgrad.retrieve._retriever import Retriever
    from promptgrad.retrieve._words import words
else:
    from promptgrad._late import late

    _LATE = {
        "APPROXIMATE_FROM": "_dense",
        "BM25": "_bm25",
        "Dense": "_dense",
        "Filter": "_filter",
        "Hybrid": "_hybrid",
        "Passage": "_passage",
        "Rerank": "_rerank",
        "Retriever": "_retriever",
        "as_passage": "_passage",
        "load": "_load",
        "words": "_words",
    }

    # What a user of DSPy may type out of habit, and what to write here.
    _ELSEWHERE = {
        "ColBERTv2": "nn.Retrieve(function, k), with a function of (query, k) that asks the service",
        "Embeddings": "nn.Retrieve(retrieve.Dense(passages, embedder), k)",
        "EmbeddingsWithScores": "retrieve.Dense(passages, embedder), whose passages have .score",
        "Retrieve": "nn.Retrieve(index, k)",
    }

    __getattr__, __dir__ = late(__name__, _LATE, _ELSEWHERE)
