import copy
import json
import pickle

import pytest

from promptgrad import retrieve
from promptgrad.content import Document
from promptgrad.data import Example
from promptgrad.errors import DataError
from promptgrad.retrieve import words


def only(item):
    """The passage that an item becomes."""
    return retrieve.BM25([item], stopwords=None).search("seine", 1)[0]


def test_a_passage_is_a_text_with_facts():
    found = only(
        {"text": "the Seine in Paris", "doc_id": 7, "title": "Seine", "year": 2020, "metadata": {"lang": "en"}}
    )
    assert found == "Seine\nthe Seine in Paris"
    assert isinstance(found, str)
    assert found.id == "7"
    assert found.score > 0
    assert found.metadata == {"title": "Seine", "year": 2020, "lang": "en"}
    assert found.document == Document("the Seine in Paris", "Seine")
    assert repr(found).startswith("Passage('Seine the Seine in Paris', id='7', score=")
    assert json.dumps([found]) == '["Seine\\nthe Seine in Paris"]'
    assert found.replace("Paris", "Rouen") == "Seine\nthe Seine in Rouen"


def test_texts_documents_and_records_are_passages():
    assert only("the Seine").id == "0"
    document = Document("the Seine", "Rivers", "https://example.org")
    assert only(document) == str(document)
    assert only(document).document == document
    assert only(Example(text="the Seine", id="a").with_inputs("text")).id == "a"
    assert only(only({"text": "the Seine", "id": "b", "n": 1})).metadata == {"n": 1}


def test_copies_keep_the_facts():
    found = only({"text": "the Seine", "id": "a", "n": 1})
    for other in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found)), found.scored(3.0)):
        assert (other, other.id, other.metadata) == (found, "a", {"n": 1})
    assert found.scored(3.0).score == 3.0


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (7, "passage 0 is of type int"),
        ({"title": "Seine"}, "no text under 'text', only title"),
        ({"text": 3}, "no text under 'text'"),
        ({"text": "a", "id": 1.5}, "the id of passage 0 is 1.5"),
        ({"text": "a", "title": 3}, "a title is a text"),
        ({"text": "a", "metadata": [1]}, "it is a mapping"),
    ],
)
def test_what_is_no_passage_is_refused(item, said):
    with pytest.raises(DataError, match=said):
        retrieve.BM25([item])


def test_words_of_any_script():
    assert words("Type-2 diabetes: β-cells, C++ (don't)") == ["type", "2", "diabetes", "β", "cells", "c", "don", "t"]
    assert words("東京都の 天気 は?") == ["東京", "京都", "都の", "天気", "は"]
    assert words("STRASSE straße") == ["strasse", "strasse"]
    assert words("한국어 텍스트") == ["한국어", "텍스트"]
    assert words("สวัสดี") == ["สว", "วั", "ัส", "สด", "ดี"]
    assert words("") == []
