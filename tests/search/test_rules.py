"""Rules for new texts."""

import pytest

from promptgrad.search import Rules, check_counts


def no_capitals(text):
    """Write no word in capitals.

    And so on.
    """
    return "it shouts" if any(word.isupper() for word in text.split()) else None


def test_what_a_proposer_sees():
    rules = Rules(max_edit=0.5, length_price=0.02, constraints=(no_capitals, "Write  English.", lambda text: None))
    assert rules.shown() == [
        "keep at least 50% of the words as they stand; you may add to them",
        "at most 1000 words and punctuation marks",
        "be short: each 100 words that are added must raise the score by more than 0.02",
        "Write no word in capitals.",
        "Write English.",
    ]
    assert Rules(max_tokens=None).shown() == []


def test_what_code_checks():
    rules = Rules(max_tokens=4, constraints=no_capitals)
    assert rules.refusal("Old text.", "New text.") is None
    assert rules.refusal("Old text.", "NEW text.") == "it shouts"
    assert "max_tokens=4" in rules.refusal("Old text.", "A new text, and more.")
    assert rules.refusal("Old text.", "New text.", tried=["new  text."]) == "it was tried before and rejected"


def test_a_parameter_has_rules_of_its_own():
    rules = Rules(max_edit=0.9, constraints=("Write English.",)).after([no_capitals])
    assert rules == Rules(max_edit=0.9, constraints=(no_capitals, "Write English."))


def test_they_are_made_of_the_options_of_a_group():
    assert Rules.of({"lm": None, "max_tokens": 7, "length": 0.5}) == Rules(max_tokens=7)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_edit": 0}, ValueError, r"in \(0, 1\]"),
        ({"max_edit": "much"}, TypeError, "max_edit is a number"),
        ({"length_price": -1}, ValueError, "not negative"),
        ({"max_tokens": 0}, ValueError, "at least 1"),
        ({"constraints": [3]}, TypeError, "a constraint is a function"),
    ],
)
def test_options_out_of_range(options, error, words):
    with pytest.raises(error, match=words):
        Rules(**options)


def test_counts():
    check_counts(steps=(3, 1), memory=(0, 0))
    with pytest.raises(TypeError, match=r"steps is a whole number, not 1\.5"):
        check_counts(steps=(1.5, 1))
    with pytest.raises(ValueError, match="steps is at least 1, not 0"):
        check_counts(memory=(0, 0), steps=(0, 1))
