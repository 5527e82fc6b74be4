"""Who observes a journal sees every event, in order, and disturbs nothing."""

import asyncio
import contextvars
import threading
import warnings

import pytest

from promptgrad import aio, run
from promptgrad.errors import JournalError


class Heard(list):
    """An observer that keeps what it is handed."""

    def __call__(self, event):
        self.append(event)

    def kinds(self):
        return [event["kind"] for event in self]


def call(session, key, text="fine"):
    async def send():
        return {"text": text, "usage": {"input_tokens": 2, "output_tokens": 1, "usd": 0.0}}

    return aio.run(session.call(key, send))


def a_run(journal):
    """A run with every sort of event."""
    with run.active(journal=journal) as session:
        journal.append("start", seed=1)
        with run.scope("trial/0") as inner:
            call(inner, "a")
            inner.record("cell", "k", score=0.5)
        call(session, "a")  # used again by another scope
        journal.note("trial", key="0", score=0.5)
        journal.append("decision", kept=True)


def test_every_event_in_the_order_of_the_file_and_as_it_is_there():
    journal, heard = run.Journal(), Heard()
    journal.subscribe(heard)
    a_run(journal)
    assert [{name: value for name, value in event.items() if name != "replayed"} for event in heard] == list(
        journal.events()
    )[1:]
    assert {"start", "decision", "call", "use", "cell", "send", "scope", "trial"} == set(heard.kinds())
    assert not any(event["replayed"] for event in heard)


def test_a_resumed_run_hands_over_the_same_run_marked_as_replayed(tmp_path):
    first = Heard()
    with run.Journal(tmp_path / "j") as journal:
        journal.subscribe(first)
        a_run(journal)
    again = Heard()
    with run.Journal(tmp_path / "j") as journal:
        journal.subscribe(again)
        a_run(journal)
        journal.append("more")

    def run_of(events):
        return [
            {name: value for name, value in event.items() if name != "replayed"}
            for event in events
            if event["kind"] not in ("send", "scope", "use", "closed")
        ]

    assert run_of(again)[:-1] == run_of(first)
    assert [event["replayed"] for event in again] == [True] * (len(again) - 2) + [False] * 2  # "more" and "closed"


def test_a_call_that_a_cache_answers_in_the_resumed_run_is_replayed_once(tmp_path):
    with run.Journal(tmp_path / "j") as journal:
        a_run(journal)
    heard = Heard()
    with run.Journal(tmp_path / "j") as journal, run.active(journal=journal) as session:
        journal.subscribe(heard)
        session.touch("a")
        session.touch("a")
        session.touch("unknown")
    assert [(event["kind"], event["replayed"]) for event in heard if event["kind"] == "call"] == [("call", True)]


def test_an_observer_gets_a_copy_that_it_cannot_change():
    journal, other = run.Journal(), Heard()

    def meddler(event):
        with pytest.raises(TypeError):
            event["kind"] = "other"
        event["items"].append(3)

    journal.subscribe(meddler)
    journal.subscribe(other)
    items = [1, 2]
    journal.append("decision", items=items)
    assert items == other[0]["items"] == list(journal.events())[-1]["items"] == [1, 2]


def test_the_subscription_ends_it():
    journal, heard = run.Journal(), Heard()
    unsubscribe = journal.subscribe(heard)
    journal.append("one")
    unsubscribe()
    unsubscribe()
    journal.append("two")
    assert heard.kinds() == ["one"]


def test_what_an_observer_raises_is_warned_of_once_for_each_type_and_kept():
    journal, heard = run.Journal(), Heard()

    def broken(event):
        raise {"a": ValueError, "b": KeyError}[event["kind"]](f"no {event['number']}")

    subscription = journal.subscribe(broken)
    journal.subscribe(heard)

    def write_all(journal):
        for number in range(3):
            journal.append("a", number=number)
            journal.append("b", number=number)

    with pytest.warns(UserWarning, match="broken raised") as told:
        write_all(journal)
    assert len(told) == 2
    where = test_what_an_observer_raises_is_warned_of_once_for_each_type_and_kept.__name__
    assert subscription.failures == (
        f"{where}.<locals>.broken raised ValueError on the event 'a': no 0 (3 times)",
        f"{where}.<locals>.broken raised KeyError on the event 'b': 'no 0' (3 times)",
    )
    assert heard.kinds() == ["a", "b"] * 3
    quiet = run.Journal()
    write_all(quiet)
    assert journal.digest() == quiet.digest()


def test_not_even_where_warnings_are_errors():
    journal = run.Journal()
    subscription = journal.subscribe(lambda event: 1 / 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        journal.append("a")
    assert "ZeroDivisionError" in subscription.failures[0]
    assert [event["kind"] for event in journal.events()] == ["header", "a"]


@pytest.mark.parametrize("write", ["append", "note", "record"])
def test_an_observer_cannot_write_to_the_journal(write):
    journal = run.Journal()

    def writer(event):
        if write == "record":
            journal.record("cell", "k")
        else:
            getattr(journal, write)("more")

    subscription = journal.subscribe(writer)
    with pytest.warns(UserWarning, match="an observer may not write to the journal"):
        journal.append("a")
    assert [event["kind"] for event in journal.events()] == ["header", "a"]
    assert "JournalError" in subscription.failures[0]
    journal.append("b")  # and the run may still


def test_language_model_calls_of_an_observer_are_no_part_of_the_run():
    from promptgrad import lm

    journal = run.Journal()
    model = lm.FunctionLM(lambda messages: "an opinion")
    journal.subscribe(lambda event: model("what do you make of it?"))
    with run.active(journal=journal):
        journal.append("a")
    assert (journal.paid, [event["kind"] for event in journal.canonical()]) == (0, ["a"])


def test_it_runs_in_the_context_in_which_it_was_subscribed():
    variable = contextvars.ContextVar("variable", default="outside")
    journal, seen = run.Journal(), []
    variable.set("subscribed")
    journal.subscribe(lambda event: seen.append(variable.get()))
    variable.set("later")
    journal.append("a")
    assert seen == ["subscribed"]


@pytest.mark.parametrize("kind", ["function", "object"])
def test_a_coroutine_function_is_refused(kind):
    async def later(event):
        pass

    class Later:
        async def __call__(self, event):
            pass

    with pytest.raises(TypeError, match="plain function"):
        run.Journal().subscribe(later if kind == "function" else Later())
    with pytest.raises(TypeError, match="a function of one event, not list"):
        run.Journal().subscribe([])


def test_an_awaitable_that_is_returned_all_the_same_is_an_error():
    async def later():
        pass

    journal = run.Journal()
    journal.subscribe(lambda event: later())
    with pytest.warns(UserWarning, match="returned an awaitable"):
        journal.append("a")


def test_one_at_a_time_and_in_order_from_many_threads():
    journal, heard, inside = run.Journal(), Heard(), []

    def observer(event):
        inside.append(1)
        assert len(inside) == 1
        heard.append(event)
        inside.pop()

    subscription = journal.subscribe(observer)

    def write(first):
        for number in range(50):
            journal.note("note", number=first + number)

    threads = [threading.Thread(target=write, args=(100 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert subscription.failures == ()
    assert [event["number"] for event in heard] == [event["number"] for event in journal.events() if "number" in event]
    assert len(heard) == 400


def test_a_slow_observer_does_not_lock_the_journal_and_close_waits_for_it():
    journal, heard = run.Journal(), Heard()
    entered, go_on = threading.Event(), threading.Event()

    def slow(event):
        entered.set()
        assert go_on.wait(60)
        heard.append(event)

    journal.subscribe(slow)
    first = threading.Thread(target=journal.append, args=("first",))
    first.start()
    assert entered.wait(60)
    journal.append("second")  # this thread goes on: the other one hands it over
    assert heard == []
    threading.Timer(0.01, go_on.set).start()
    journal.close()
    assert heard.kinds() == ["first", "second"]
    first.join()


def test_ctrl_c_in_an_observer_is_ctrl_c(tmp_path):
    journal, heard = run.Journal(tmp_path / "j"), Heard()

    def stop(event):
        if event["kind"] == "a":
            raise KeyboardInterrupt

    journal.subscribe(stop)
    journal.subscribe(heard)
    with pytest.raises(KeyboardInterrupt):
        journal.append("a")
    journal.append("b")
    assert [event["kind"] for event in journal.events()] == ["header", "a", "b"]
    assert heard.kinds() == ["b"]


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit])
def test_a_cancellation_of_its_own_is_an_error_like_any_other(kind):
    journal, heard = run.Journal(), Heard()

    def stop(event):
        raise kind("of a tracker")

    noted = journal.subscribe(stop)
    journal.subscribe(heard)
    with pytest.warns(UserWarning, match=f"raised {kind.__name__} on the event 'a': of a tracker. The run goes on"):
        journal.append("a")
    journal.append("b")
    assert heard.kinds() == ["a", "b"]
    assert len(noted.failures) == 1


def test_a_cancellation_of_the_run_that_comes_to_an_observer_is_one():
    journal, outcomes = run.Journal(), []

    def stop(event):
        raise asyncio.CancelledError

    journal.subscribe(stop)

    async def writes():
        try:
            await asyncio.sleep(60)
        finally:
            try:
                journal.append("a")
            except asyncio.CancelledError:
                outcomes.append("cancelled")

    async def fails():
        await asyncio.sleep(0)
        raise ValueError("the end")

    with pytest.raises(ValueError, match="the end"):
        aio.run(aio.gather([writes, fails]))
    assert outcomes == ["cancelled"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_in_an_observer_ends_the_run(kind):
    journal = run.Journal()

    def stop(event):
        raise kind

    journal.subscribe(stop)
    with pytest.raises(kind):
        journal.append("a")


def test_names_that_the_journal_uses_itself():
    with pytest.raises(ValueError, match="'replayed' is a field that the journal writes itself"):
        run.Journal().append("a", replayed=1)


def test_a_note_with_a_key_is_written_once_and_is_not_canonical(tmp_path):
    for _ in range(2):
        with run.Journal(tmp_path / "j") as journal:
            journal.note("trial", key="0", score=1.0)
            journal.note("trial", key="0", score=1.0)
            assert [event["kind"] for event in journal.events()].count("trial") == 1
            assert journal.canonical() == []


def test_a_diverging_run_is_still_refused(tmp_path):
    with run.Journal(tmp_path / "j") as journal:
        journal.append("a", number=1)
    heard = Heard()
    with run.Journal(tmp_path / "j") as journal:
        journal.subscribe(heard)
        with pytest.raises(JournalError, match="diverges from the recorded one"):
            journal.append("a", number=2)
        assert heard == []
