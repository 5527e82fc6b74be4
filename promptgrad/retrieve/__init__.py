"""Indexes of passages, and search in them: by words, by vectors, by both, and with a second look."""

from promptgrad.retrieve._bm25 import BM25
from promptgrad.retrieve._filter import Filter
from promptgrad.retrieve._load import load
from promptgrad.retrieve._passage import Passage
from promptgrad.retrieve._retriever import Retriever
from promptgrad.retrieve._words import words

__all__ = ["BM25", "Filter", "Passage", "Retriever", "load", "words"]
