"""A strong language model as critic and writer: what it replied to the built-in prompts, replayed.

Somebody who did not know the policies wrote the replies, each from its prompt alone (`benchmarks/strong`, and
`docs/strong-lm.md` for what came of it). A run here makes the same requests, so a prompt that changed is refused with
the difference. If the change is on purpose and the prompt says or shows much the same, write the cassettes anew with
`python benchmarks/strong/play.py --renew`; if it asks for something else, ask for new replies with `--url`.
"""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "strong"
NAMES = ("parcels", "letters", "parcels-2", "letters-2")


@pytest.fixture
def play(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("play", "says", "student", "tasks")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import play

    yield play
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_asks_what_is_on_record_and_improves_the_program(play, name):
    with play.replayed(name) as (cassette, strong):
        played = play.play(name, strong)
    assert cassette.unused == ()
    assert played.refused == []
    start, first = play.score(name, {}), play.score(name, played.steps[0])
    assert start == (0.2 if name.startswith("parcels") else 0.25)
    assert first >= 0.75
    assert played.result.outcome == "shipped"
    assert play.score(name, played.texts) >= first


@pytest.mark.parametrize("name", NAMES)
def test_one_call_needs_no_critic_and_every_module_at_fault_is_blamed(play, name):
    asked = [play.purpose(entry["request"]["messages"]) for entry in play.kept(name)]
    critics = [fields for fields in asked if "findings" in fields]
    writers = [fields[-1] for fields in asked if "new_instruction" in fields]
    assert len(critics) + len(writers) == len(asked), "no other prompt, and no reply was asked for twice"
    if name.startswith("parcels"):
        assert critics == []
        assert set(writers) == {"route"}
    else:
        assert set(writers) == {"note", "decide"}


def test_the_rows_of_a_writer_are_whole(play):
    shown = [e["request"]["messages"][-1]["content"] for n in NAMES for e in play.kept(n)]
    assert shown
    assert [text for text in shown if "[...]" in text] == []


def test_the_student_does_not_guess_what_it_was_told(play):
    import student

    with pytest.raises(student.Untranslated, match="Read the stars"):
        play.score("parcels", {"route.instruction": "Read the stars."})


def test_no_row_is_in_two_parts_and_each_answer_is_as_frequent(play):
    import tasks

    for name in NAMES:
        task = tasks.task(name)
        rows = [*task.train, *task.val, *task.test]
        assert len({row.id for row in rows}) == len(rows) == sum(tasks.COUNTS.values())
        answers = [row["code" if name.startswith("parcels") else "answer"] for row in task.test]
        assert len({answers.count(answer) for answer in set(answers)}) == 1
