"""The memory of attempts lives in the state of an optimizer."""

import json
from collections import defaultdict

import pytest

from promptgrad.search import Attempt, Attempts, Hunk, Verdict, check_attempts, judged, refused


@pytest.fixture
def state():
    return defaultdict(dict)


def test_what_was_measured_is_not_tried_again_and_what_was_refused_may_be(state):
    memory = Attempts(state, 8)
    memory.add("a", Attempt("Shout.", "refused: it shouts", measured=False))
    memory.add("a", Attempt("Whisper.", "gain -0.100 [-0.300, +0.100] on 9 pairs"))
    memory.add("a", Attempt("Murmur.", "gain +0.100 on 9 pairs; undecided, it may come again", measured=False))
    shown, closed = memory.shown("a", known=[{"text": "Known."}])
    assert [attempt["text"] for attempt in shown] == ["Murmur."]
    assert closed == [
        {"text": "Shout.", "effect": "refused: it shouts"},
        {"text": "Whisper.", "effect": "gain -0.100 [-0.300, +0.100] on 9 pairs"},
    ]
    assert memory.shown("a", known=closed) == (shown, [])
    assert memory.spent("a") == ["Whisper."]
    assert memory.of("b") == ()
    assert "b" not in state


def test_it_is_the_state_and_survives_json(state):
    Attempts(state, 8).add("a", Attempt("Whisper.", "no gain"))
    loaded = json.loads(json.dumps(state))
    assert Attempts(loaded, 8).of("a") == (Attempt("Whisper.", "no gain"),)


def test_the_latest_are_kept_each_text_once(state):
    memory = Attempts(state, 2)
    for text in ("one", "two", "one", "three"):
        memory.add("a", Attempt(text, "no gain"))
    assert [attempt.text for attempt in memory.of("a")] == ["one", "three"]


def test_less_does_not_replace_what_a_measurement_showed(state):
    memory = Attempts(state, 2)
    memory.add("a", Attempt("one", "no gain"))
    memory.add("a", Attempt("one", "refused: it is long", measured=False))
    assert memory.of("a") == (Attempt("one", "no gain"),)
    memory.add("a", Attempt("two", "refused: it is long", measured=False))
    memory.add("a", Attempt("two", "no gain"))
    assert memory.spent("a") == ["one", "two"]


def test_no_memory_and_no_attempt_leave_no_trace(state):
    Attempts(state, 0).add("a", Attempt("one", "no gain"))
    Attempts(state, 8).add("a", None)
    assert not state


def test_what_is_the_value_now_is_forgotten(state):
    memory = Attempts(state, 8)
    memory.add("a", Attempt("one", "no gain"))
    memory.forget("a", "one")
    memory.forget("b", "one")
    assert memory.of("a") == ()
    assert "b" not in state


def test_what_a_measurement_says():
    verdict = Verdict(before=0.5, after=0.75, low=-0.1, high=0.6, pairs=4)
    told = "gain +0.250 [-0.100, +0.600] on 4 pairs"
    assert judged("x", verdict, alone=True, useless=True) == Attempt("x", told)
    assert judged("x", verdict, alone=True, useless=False) == Attempt(
        "x", f"{told}; undecided, it may come again", measured=False
    )
    assert judged("x", verdict, alone=False, useless=True) == Attempt(
        "x", f"{told}, with other changes", measured=False
    )
    assert judged("x", Verdict(), alone=True, useless=True) is None


def test_of_hunks_that_made_no_text_the_hunks_are_kept():
    hunks = [Hunk("delete", "please"), Hunk("replace", "one", "two")]
    assert refused(None, "hunk 2 overlaps", hunks).text == "delete 'please'; replace 'one'"
    assert refused(None, "the reply holds no hunks") is None


@pytest.mark.parametrize("entry", ["Whisper.", {"text": 3, "effect": ""}, {"text": "x"}])
def test_a_malformed_attempt_is_refused(entry):
    check_attempts({"rejected": [{"text": "x", "effect": "y"}]})
    with pytest.raises(ValueError, match="text, effect and measured"):
        check_attempts({"rejected": [entry]})
