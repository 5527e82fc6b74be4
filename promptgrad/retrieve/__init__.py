"""Indexes of passages, and search in them: by words, by vectors, by both, and with a second look."""

from promptgrad.retrieve._bm25 import BM25
from promptgrad.retrieve._dense import APPROXIMATE_FROM, Dense
from promptgrad.retrieve._filter import Filter
from promptgrad.retrieve._hybrid import Hybrid
from promptgrad.retrieve._load import load
from promptgrad.retrieve._passage import Passage, as_passage
from promptgrad.retrieve._rerank import Rerank
from promptgrad.retrieve._retriever import Retriever
from promptgrad.retrieve._words import words

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
