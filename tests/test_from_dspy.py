"""The page for users of DSPy says what to write for each public name of it, and what it says exists."""

import importlib
import re
from pathlib import Path

import pytest

import promptgrad as pg

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "guide" / "from_dspy.md").read_text()
THEIRS = " ".join(left for left, _ in re.findall(r"^\| (.*?) \| (.*) \|$", PAGE, re.MULTILINE))
NAMES = (Path(__file__).parent / "dspy_names.txt").read_text().split()
"""What `dir(dspy)` shows in 3.4.1, without modules."""
MORE = [
    *("EM", "CompleteAndGrounded", "EvaluationResult", "SemanticF1", "answer_exact_match", "answer_passage_match"),
    *("normalize_text", "StatusMessage", "StatusMessageProvider", "StreamListener", "StreamResponse"),
    *("apply_sync_streaming", "BaseCallback", "DummyLM", "with_callbacks", "pretty_print_history", "GroundedProposer"),
]
"""What programs use of its `evaluate`, `streaming`, `utils` and `propose`."""
ROOMS = "nn|optim|lm|errors|retrieve|finetune|sandbox|adapters"


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_each_name_has_a_row(name):
    assert re.search(rf"\b{name}\b", THEIRS)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_exists_at_the_front_door_or_is_told_what_to_write(name):
    if not hasattr(pg, name):
        with pytest.raises(AttributeError, match=f"no attribute '{name}': write "):
            getattr(pg, name)


@pytest.mark.parametrize("name", sorted(set(re.findall(rf"`(?:pg\.)?((?:{ROOMS})\.\w+)", PAGE))))
def test_what_stands_in_its_place_exists(name):
    room, attribute = name.split(".")
    assert hasattr(importlib.import_module(f"promptgrad.{room}"), attribute)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`pg\.([a-zA-Z_]+)\b", PAGE))))
def test_what_is_at_the_front_door_exists(name):
    assert hasattr(pg, name)
