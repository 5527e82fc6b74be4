"""Patterns that are compiled when they are first used."""

import re

import pytest

from promptgrad._patterns import late_pattern


def test_a_pattern_does_what_a_compiled_one_does_and_is_compiled_once():
    word = late_pattern("[a-z]+", re.IGNORECASE)
    assert (word.pattern, word.flags) == ("[a-z]+", re.IGNORECASE)
    assert word.findall("One 2 three") == ["One", "three"]
    assert word.sub("x", "One 2") == "x 2"
    assert word.fullmatch("1") is None
    assert word.search is word.search


def test_it_is_compiled_where_it_is_used():
    open_bracket = late_pattern("(")
    with pytest.raises(re.error):
        open_bracket.search("a")
    with pytest.raises(AttributeError, match="no attribute 'serch'"):
        late_pattern("a").serch("a")
