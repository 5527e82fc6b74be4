"""`loss.explain()`: who is blamed for what, in words."""

import importlib.util
from pathlib import Path

import pytest

from promptgrad.autograd import Loss, LossRow
from promptgrad.data import Example

_spec = importlib.util.spec_from_file_location("programs", Path(__file__).with_name("programs.py"))
programs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(programs)


@pytest.fixture
def two_steps():
    first = programs.Call("first", lambda text: f"note on {text}")
    second = programs.Call("second", lambda note: f"answer from {note}")
    return lambda text: second(note=first(text=text).out).out


def test_a_failed_row_is_told_call_by_call(two_steps):
    right = programs.row(two_steps, Example(text="b"), 1.0, "", text="b")
    wrong = programs.row(two_steps, Example(text="a"), 0.25, "too long", text="a")
    loss = Loss([right, wrong], programs.ScriptedCritic(lambda path, target, feedback: f"{target}\nof {path}"))
    assert repr(loss.explain()).splitlines()[-1] == "nobody is blamed yet: backward() has not run"
    report = loss.backward()
    assert loss.report is report
    assert str(loss.explain()) == repr(loss.explain())
    assert str(loss.explain()).splitlines() == [
        "Loss(0.375, 1 of 2 failed, 0 errors)",
        "row 1: Example(text='a')",
        "  scored 0.25 of 1 with answer from note on a",
        "  feedback: too long",
        "  first[0] instruction: instruction",
        "      of first",
        "  second[0] instruction: instruction",
        "      of second",
        "  second[0] input note: note",
        "      of second",
        "1 of 2 rows has the best score",
        "first.instruction: blamed 1 time",
        "second.instruction: blamed 1 time",
    ]
    assert list(loss.explain().critiques) == [1]
    critiques = loss.explain().critiques[1]
    assert critiques == report.critiques[1]
    assert [(c.path, c.index, c.target, c.target_kind, c.parameter, c.text) for c in critiques] == [
        ("first", 0, "instruction", "instruction", "first.instruction", "instruction\nof first"),
        ("second", 0, "instruction", "instruction", "second.instruction", "instruction\nof second"),
        ("second", 0, "note", "input", "", "note\nof second"),
    ]
    assert {c.example_id for c in critiques} == {wrong.example.id}


def test_errors_and_silence_are_told(two_steps):
    def broken(text):
        raise LookupError("no such thing")

    failing = programs.row(programs.Call("step", broken), Example(text="a"), 0.0, "", raises=LookupError, text="a")
    quiet = programs.row(two_steps, Example(text="b"), text="b")
    loss = Loss([failing, quiet], programs.ScriptedCritic(lambda path, target, feedback: ""))
    loss.backward()
    text = str(loss.explain())
    assert "failed: LookupError: no such thing" in text
    assert text.count("nobody is blamed") == 2


def test_what_was_skipped_is_told(two_steps):
    class Broken:
        async def critique(self, failure):
            raise RuntimeError("out of order")

    loss = Loss([programs.row(two_steps, Example(text="b"), text="b")], Broken())
    with pytest.warns(RuntimeWarning, match="every critic call failed"):
        loss.backward()
    assert "skipped second[0]: the critic failed: RuntimeError('out of order')" in str(loss.explain())


def test_a_perfect_batch_and_a_notebook():
    loss = Loss([LossRow(Example(text="<b>"), "x", 1.0)])
    assert str(loss.explain()).splitlines()[1:] == ["1 of 1 rows has the best score"]
    failed = Loss([LossRow(Example(text="<b>"), "x", 0.0)])
    assert "&lt;b&gt;" in failed.explain()._repr_html_()
