"""Calls that a program gives up itself: a resumed run gives them up again, and is not answered where it was not."""

import asyncio

import pytest

from promptgrad import lm, run
from promptgrad.errors import JournalError
from promptgrad.run import Journal


class Slow:
    """A model that answers some questions never, or all of them."""

    def __init__(self, *never):
        self.never, self.asked = never, []

    async def __call__(self, messages):
        question = messages[-1].content
        self.asked.append(question)
        if question in self.never:
            await asyncio.sleep(3600)
        return f"answer to {question}"


async def within(model, question, seconds):
    try:
        return (await asyncio.wait_for(model.acall(question), seconds)).text
    except TimeoutError:
        return "given up"


async def first_of(model, *questions):
    tasks = [asyncio.ensure_future(model.acall(question)) for question in questions]
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return sorted(task.result().text for task in done)


def lived(path, slow, program, *, decides=True):
    """What the program came to in one process of a run, which goes on after it, or ends there."""
    with Journal(path) as journal:
        with run.active(journal=journal):
            found = asyncio.run(program(lm.FunctionLM(slow, name="slow")))
            if decides:
                journal.append("decision", found=found)
        return found, journal


async def three(model):
    return [await within(model, "a", 3600), await within(model, "b", 0.05), await first_of(model, "c", "d")]


def test_what_was_given_up_is_given_up_again(tmp_path):
    found, journal = lived(tmp_path / "j", Slow("b", "d"), three)
    assert found == ["answer to a", "given up", ["answer to c"]]
    billed = journal.billed
    for _ in range(2):
        again = Slow()
        assert lived(tmp_path / "j", again, three)[0] == found
        assert again.asked == []
        assert journal.billed == billed


def test_what_was_given_up_before_anything_was_decided_is_asked_again(tmp_path):

    async def two(model, seconds=3600):
        return [await within(model, "a", 3600), await within(model, "b", seconds)]

    first = lived(tmp_path / "j", Slow("b"), lambda model: two(model, 0.05), decides=False)
    assert first[0] == ["answer to a", "given up"]
    again = Slow()
    found = lived(tmp_path / "j", again, two)[0]
    assert (found, again.asked) == (["answer to a", "answer to b"], ["b"])
    third = Slow()
    assert lived(tmp_path / "j", third, two)[0] == found
    assert third.asked == []


def test_the_same_question_may_be_given_up_and_answered_later(tmp_path):
    async def program(model):
        return [await within(model, "b", seconds) for seconds in (0.05, 0.05, 3600)]

    class Late(Slow):
        async def __call__(self, messages):
            self.never = ("b",) if len(self.asked) < 2 else ()
            return await super().__call__(messages)

    found = lived(tmp_path / "j", Late(), program)[0]
    assert found == ["given up", "given up", "answer to b"]
    again = Slow()
    assert (lived(tmp_path / "j", again, program)[0], again.asked) == (found, [])


def test_a_process_that_is_stopped_gives_nothing_up(tmp_path):
    """Cancelled from outside, as by Ctrl-C, it decides nothing."""

    async def stopped(model):
        task = asyncio.ensure_future(model.acall("b"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return "stopped"

    lived(tmp_path / "j", Slow("b"), stopped, decides=False)
    again = Slow()
    assert lived(tmp_path / "j", again, lambda model: within(model, "b", 3600))[0] == "answer to b"
    assert again.asked == ["b"]


def test_what_nobody_gives_up_any_more_is_asked_after_a_while(tmp_path, monkeypatch):
    """It was given up from outside, as by a handler whose client had left; the run does not wait for that for ever."""
    monkeypatch.setattr("promptgrad.run._active.PATIENCE", 0.01)
    found = lived(tmp_path / "j", Slow("b"), lambda model: within(model, "b", 0.05))[0]
    assert found == "given up"
    again = Slow()
    with pytest.raises(JournalError, match="diverges"):
        lived(tmp_path / "j", again, lambda model: within(model, "b", 3600))
    assert again.asked == ["b"]
