import asyncio
import threading
from functools import partial

import pytest

from promptgrad import aio, run
from promptgrad.errors import (
    BadRequestError,
    BudgetExceeded,
    ContentFilterError,
    JournalError,
    LMError,
    LMStatusError,
    LMTimeoutError,
    UnknownPriceError,
)
from promptgrad.run import Budget, Journal, Ledger
from tests.waiting import turns


class Server:
    """Counts what is sent; answers with the key, after others had their turn."""

    def __init__(self, fail=()):
        self.sent = []
        self.fail = set(fail)
        self.in_flight = self.high_water = 0

    def ask(self, key, **estimate):
        async def send():
            self.sent.append(key)
            self.in_flight += 1
            self.high_water = max(self.high_water, self.in_flight)
            await turns()
            self.in_flight -= 1
            if key in self.fail:
                self.fail.discard(key)
                raise LMStatusError("no", status=500)
            return {"text": f"re {key}", "usage": {"input_tokens": 2, "output_tokens": 3, "usd": 0.5}}

        return run.current().call(key, send, **estimate)


def test_outside_of_a_run_there_is_no_session():
    assert run.current() is None
    with run.scope("anything") as session:
        assert session is None


def test_a_reply_is_in_the_journal_before_it_is_used_and_is_not_bought_twice():
    server, journal = Server(), Journal()
    with run.active(journal=journal) as session:
        reply, replayed = aio.run(server.ask("k"))
        assert (reply["text"], replayed) == ("re k", False)
        assert journal.reply("k") == reply
        assert aio.run(server.ask("k")) == (reply, True)
        assert session.ledger.spent.calls == 1
    assert server.sent == ["k"]


def test_equal_keys_in_flight_are_sent_once():
    server = Server()
    with run.active():
        replies = aio.run(aio.gather([lambda: server.ask("k")] * 20))
        assert run.current().ledger.spent.calls == 1
    assert server.sent == ["k"]
    assert [replayed for _, replayed in replies].count(False) == 1


def test_an_error_reaches_all_who_wait_is_not_journalled_and_may_be_tried_again():
    server = Server(fail=["k"])

    async def ask():
        try:
            return await server.ask("k")
        except LMStatusError as error:
            return error.status

    with run.active() as session:
        assert aio.run(aio.gather([ask] * 3)) == [500, 500, 500]
        assert not session.journal.has("k")
        assert session.ledger.spent.failed == 1
        assert aio.run(ask())[0]["text"] == "re k"
    assert server.sent == ["k", "k"]


def test_a_cancelled_sender_leaves_its_place_to_one_who_waits():
    server = Server()

    async def main():
        first = asyncio.ensure_future(server.ask("k"))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(server.ask("k"))
        await asyncio.sleep(0)
        first.cancel()
        reply, _ = await second
        return reply["text"]

    with run.active() as session:
        assert asyncio.run(main()) == "re k"
        assert session.ledger.spent.calls == 1
    assert server.sent == ["k", "k"]


def test_the_budget_refuses_before_anything_is_sent():
    server = Server()

    async def ask(number):
        try:
            await server.ask(f"k{number}")
        except BudgetExceeded:
            return False
        return True

    with run.active(ledger=Ledger(Budget(calls=5))):
        done = aio.run(aio.gather([lambda n=n: ask(n) for n in range(20)]))
    assert done.count(True) == len(server.sent) == 5
    with run.active(ledger=Ledger(Budget(usd=5))), pytest.raises(UnknownPriceError):
        aio.run(server.ask("x", usd=None))
    assert len(server.sent) == 5


def test_a_call_inside_a_call_does_not_wait_for_itself():
    server = Server()

    async def outer():
        async def send():
            return (await server.ask("inner", tokens=60))[0]

        return await run.current().call("outer", send, tokens=60)

    with run.active(ledger=Ledger(Budget(tokens=100))), pytest.raises(BudgetExceeded):
        aio.run(outer())


def test_threads_and_plain_calls_share_the_run():
    server = Server()
    with run.active() as session:
        aio.drive(server.ask("a"))
        aio.run(aio.in_thread(lambda: aio.drive(server.ask("b"))))
        bare = threading.Thread(target=lambda: seen.append(run.current()))
        seen = []
        bare.start()
        bare.join()
        assert session.ledger.spent.calls == 2
    assert seen == [None]


def program(server, limit, trials=4, width=12):
    """A run with blocks, decisions at their ends, replies shared between trials, and an interrupted inner part."""
    session = run.current()
    best = -1
    for trial in range(trials):
        with run.scope(f"trial/{trial}"):

            async def cell(number, trial=trial):
                with run.scope(f"example/{number}"):
                    shared = await server.ask(f"shared/{number}")
                    own = await server.ask(f"{trial}/{number}")
                return len(shared[0]["text"]) + len(own[0]["text"])

            scores = aio.run(aio.gather([lambda n=n: cell(n) for n in range(width)], limit=limit))
        best = max(best, sum(scores))
        session.journal.append("decision", trial=trial, best=best, left=session.ledger.remaining())
    return best


def test_the_canonical_journal_is_the_same_at_any_concurrency():
    digests, counts = set(), set()
    for limit in (1, 3, 32):
        server, journal = Server(), Journal()
        with run.active(journal=journal, ledger=Ledger(Budget(calls=500))):
            program(server, limit)
        digests.add(journal.digest())
        counts.add(len(server.sent))
        assert server.high_water == min(limit, 12)
    assert len(digests) == 1
    assert counts == {12 + 4 * 12}


def test_a_run_that_was_cut_anywhere_ends_the_same(tmp_path):
    with Journal(tmp_path / "whole") as journal, run.active(journal=journal, ledger=Ledger(Budget(calls=500), journal)):
        best = program(Server(), 4)
    wanted = Journal(tmp_path / "whole", readonly=True).canonical()
    data = (tmp_path / "whole").read_bytes()
    lost = set()
    for cut in range(100, len(data), len(data) // 9):
        path = tmp_path / f"cut{cut}"
        path.write_bytes(data[:cut])
        known = Journal(path, readonly=True).paid
        sent = sum(event["kind"] == "send" for event in Journal(path, readonly=True).events())
        server = Server()
        with Journal(path) as journal:
            ledger = Ledger(Budget(calls=500), journal)
            with run.active(journal=journal, ledger=ledger):
                assert program(server, 32) == best
            assert len(server.sent) == 60 - known == ledger.spent.sent
            assert ledger.spent.replayed == known
            assert journal.lost == sent - known <= 4
            lost.add(journal.lost)
            assert journal.canonical() == wanted
    assert len(lost) > 1  # some cuts fall between a request and its reply, and some do not


def test_an_exhausted_budget_decides_the_same_after_a_resume_and_sends_no_more(tmp_path):
    def attempt(path, limit):
        server = Server()
        with Journal(path) as journal, run.active(journal=journal, ledger=Ledger(Budget(calls=41), journal)):
            try:
                program(server, limit)
            except BudgetExceeded:
                journal.append("stopped", reason="budget")
        return len(server.sent)

    assert attempt(tmp_path / "one", 1) == 41
    assert attempt(tmp_path / "many", 32) == 41
    wanted = Journal(tmp_path / "one", readonly=True).canonical()
    assert Journal(tmp_path / "many", readonly=True).canonical() == wanted
    data = (tmp_path / "many").read_bytes()
    for cut in range(200, len(data), len(data) // 6):
        path = tmp_path / f"cut{cut}"
        path.write_bytes(data[:cut])
        known = Journal(path, readonly=True).paid
        assert attempt(path, 8) + known == 41
        assert Journal(path, readonly=True).canonical() == wanted


def test_a_warm_cache_above_changes_nothing_in_a_resumed_run(tmp_path):
    with Journal(tmp_path / "j") as journal, run.active(journal=journal):
        aio.run(Server().ask("k"))
    with Journal(tmp_path / "j") as journal:
        ledger = Ledger(Budget(calls=5), journal)
        with run.active(journal=journal, ledger=ledger) as session:
            assert session.touch("k")
            assert session.touch("k")
            assert not session.touch("bought by somebody else")
        assert ledger.remaining() == 4
        assert len(journal.canonical()) == 1


def broken(key):
    with run.scope("broken"):
        run.current().record("cell", key, score=1)
        raise KeyError


def test_scopes_nest_and_an_error_leaves_them_open():
    with run.active() as session:
        with run.scope("a") as outer, run.scope("b/c") as inner:
            assert (outer.scope, inner.scope) == ("a", "a/b/c")
            assert run.current() is inner
            inner.record("cell", "x", score=1)
        with pytest.raises(KeyError):
            broken("y")
        assert run.current() is session
    assert [event["key"] for event in session.journal.canonical()] == ["x"]
    assert [event["key"] for event in session.journal.unfinished()] == ["y"]


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b"])
def test_a_scope_needs_a_name(name):
    with run.active(), pytest.raises(ValueError, match="needs a name"):
        run.scope(name).__enter__()


def test_a_scope_entered_twice_counts_when_both_ended():
    with run.active() as session:
        for key in ("v", "w"):
            with run.scope("a"):
                run.current().record("cell", key)
        with run.scope("broken"):
            run.current().record("cell", "x")
        with pytest.raises(KeyError):
            broken("z")
    assert [event["key"] for event in session.journal.canonical()] == ["v", "w"]
    assert [event["key"] for event in session.journal.unfinished()] == ["x", "z"]


def test_a_journal_that_cannot_be_written_stops_the_call_but_books_it(tmp_path):
    journal = Journal(tmp_path / "j")
    ledger = Ledger()

    async def send():
        journal.close()
        return {"text": "paid", "usage": {"input_tokens": 1}}

    def main():
        with run.active(journal=journal, ledger=ledger) as session:
            aio.drive(session.call("k", send))

    with pytest.raises(JournalError, match="closed"):
        main()
    assert ledger.spent.calls == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt, asyncio.CancelledError, ValueError])
def test_what_was_in_flight_when_the_run_was_stopped_is_lost(tmp_path, stop):
    journal = Journal(tmp_path / "j")
    flying = []

    async def send(name):
        flying.append(name)
        if len(flying) == 5:
            raise stop
        await asyncio.sleep(3600)

    async def main():
        with run.active(journal=journal) as session:
            calls = [partial(session.call, name, partial(send, name)) for name in "abcde"]
            await aio.gather(calls, limit=5)

    with pytest.raises(stop):
        asyncio.run(main())
    lost = 4 if stop is ValueError else 5  # one failed; the others were cancelled in flight
    assert journal.lost == lost
    journal.close()
    with Journal(tmp_path / "j") as journal:
        assert journal.lost == lost


def test_what_a_block_paid_that_is_not_run_again_is_booked(tmp_path):
    server, path = Server(), tmp_path / "journal.jsonl"
    with run.active(journal=(journal := Journal(path))):
        for key in ("a", "b", "c"):
            aio.run(server.ask(key))
        journal.append("the budget ended")
        aio.run(server.ask("d"))
        spent = run.current().ledger.spent
    journal.close()
    with run.active(journal=(journal := Journal(path))) as session:
        aio.run(server.ask("a"))
        session.catch_up()
        session.catch_up()
        assert session.ledger.spent.calls == 3
        journal.append("the budget ended")
        aio.run(server.ask("d"))
        assert session.ledger.spent.tokens == spent.tokens
        assert session.ledger.spent.calls == spent.calls == 4
        assert [event for event in journal.events() if event["kind"] == "use"] == []
    assert len(server.sent) == 4


class TestFailures:
    """A call without which a run went on fails again when the run is resumed; any other is sent again."""

    def first(self, path, *events, error=None):
        """A process in which the call failed; then `events` follow in its journal."""
        journal = Journal(path)
        with run.active(journal=journal):
            fails(error or LMStatusError("no", status=500))
            for event in events:
                event(journal)
        journal.close()

    def test_it_fails_again_where_an_ordered_event_follows(self, tmp_path):
        server, path = Server(), tmp_path / "journal.jsonl"
        self.first(path, lambda journal: journal.append("decision", without="k"))
        with run.active(journal=Journal(path)) as session:
            with pytest.raises(LMStatusError, match=r"^no$") as caught:
                aio.run(server.ask("k"))
            with pytest.raises(LMStatusError):
                session.touch("k")  # a warm cache changes nothing
            assert (caught.value.status, caught.value.replayed, caught.value.call) == (500, True, "k")
            session.journal.append("decision", without="k")
            assert aio.run(server.ask("k"))[0]["text"] == "re k"  # at another place it is another question
        assert server.sent == ["k"]

    def test_it_is_sent_again_where_the_process_ended_with_it(self, tmp_path):
        server, path = Server(), tmp_path / "journal.jsonl"
        self.first(path)
        for replayed in (False, True):
            with Journal(path) as journal, run.active(journal=journal):
                assert aio.run(server.ask("k"))[1] is replayed

    def test_it_fails_again_where_it_was_given_up(self, tmp_path):
        server, path = Server(), tmp_path / "journal.jsonl"
        self.first(path, lambda journal: journal.record("unanswered", "row 1", call="k"))
        with run.active(journal=Journal(path)), pytest.raises(LMStatusError):
            aio.run(server.ask("k"))
        assert server.sent == []

    def test_a_later_reply_is_not_used_before_its_place(self, tmp_path):
        server, path = Server(), tmp_path / "journal.jsonl"
        ask = lambda journal: aio.run(server.ask("k"))  # noqa: E731
        self.first(path, lambda journal: journal.append("decision"), ask, lambda journal: journal.append("decision"))
        with run.active(journal=Journal(path)) as session:
            with pytest.raises(LMStatusError):
                aio.run(server.ask("k"))
            session.journal.append("decision")
            assert aio.run(server.ask("k"))[1] is True
        assert server.sent == ["k"]

    def test_an_attempt_that_was_followed_by_a_reply_is_no_failure(self, tmp_path):
        server, path = Server(), tmp_path / "journal.jsonl"
        self.first(path, lambda journal: aio.run(server.ask("k")), lambda journal: journal.append("decision"))
        with run.active(journal=Journal(path)):
            assert aio.run(server.ask("k"))[1] is True

    def test_another_scope_may_have_got_the_reply(self, tmp_path):
        server, path = Server(), tmp_path / "journal.jsonl"
        journal = Journal(path)
        with run.active(journal=journal):
            with run.scope("one"):
                fails(LMStatusError("no", status=500))
            with run.scope("two"):
                aio.run(server.ask("k"))
            journal.append("decision")
        journal.close()
        with run.active(journal=Journal(path)):
            with run.scope("one"), pytest.raises(LMStatusError):
                aio.run(server.ask("k"))
            with run.scope("two"):
                assert aio.run(server.ask("k"))[1] is True

    def test_an_attempt_after_which_the_budget_ended_is_no_failure(self, tmp_path):
        path = tmp_path / "journal.jsonl"
        journal = Journal(path)
        with run.active(journal=journal, ledger=Ledger(Budget(calls=1), journal)):
            fails(LMStatusError("no", status=500))
            aio.run(Server().ask("other"))
            with pytest.raises(BudgetExceeded):
                aio.run(Server().ask("k"))
            journal.append("the budget ended")
        journal.close()
        again = Journal(path)
        with run.active(journal=again, ledger=Ledger(Budget(calls=1), again)), pytest.raises(BudgetExceeded):
            aio.run(Server().ask("k"))

    def test_an_error_that_is_no_language_models_is_met_again(self, tmp_path):
        server, path = Server(), tmp_path / "journal.jsonl"
        self.first(path, lambda journal: journal.append("decision"), error=ValueError("a bug"))
        with run.active(journal=Journal(path)):
            aio.run(server.ask("k"))
        assert server.sent == ["k"]

    @pytest.mark.parametrize("kind", [ContentFilterError, LMTimeoutError, BadRequestError])
    def test_it_is_the_same_error(self, kind, tmp_path):
        class Own(kind):
            pass

        path = tmp_path / "journal.jsonl"
        self.first(path, lambda journal: journal.append("decision"), error=Own("why"))
        with run.active(journal=Journal(path)), pytest.raises(kind, match=r"^why$"):
            aio.run(Server().ask("k"))


def fails(error):
    """A call in the active run that fails."""

    async def send():
        raise error

    with pytest.raises(type(error)):
        aio.run(run.current().call("k", send))


class TestRows:
    """Who got no answer gets none in a resumed run, whatever others got to the same request."""

    @staticmethod
    async def asked(outcomes):
        """Rows ask for "k" one after the other; what each of them got."""

        async def one(outcome):
            async def answer():
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

            try:
                return await run.current().ask("k", answer)
            except LMError as error:
                return f"no: {error}"

        return await aio.gather([partial(one, outcome) for outcome in outcomes], limit=1)

    def twice(self, path, first, again, *events):
        """What rows get in a process and in the next one, which is decided otherwise; `events` come between."""
        found = []
        for outcomes in (first, again):
            with Journal(path) as journal, run.active(journal=journal):
                found.append(aio.run(self.asked(outcomes)))
                for event in events if not found[1:] else ():
                    event(journal)
        return found[1]

    def test_the_same_row_is_refused(self, tmp_path):
        refused = BadRequestError("no", status=400)
        decided = lambda journal: journal.append("decision")  # noqa: E731
        again = self.twice(tmp_path / "j", [1, refused, 2], [1, 1, 1], decided)
        assert again == [1, "no: no", 1]

    def test_it_is_asked_again_where_the_process_ended_there(self, tmp_path):
        assert self.twice(tmp_path / "j", [LMError("no")], [1]) == [1]
        with Journal(tmp_path / "j") as journal, run.active(journal=journal):
            journal.append("decision")
        with Journal(tmp_path / "j") as journal, run.active(journal=journal):
            assert aio.run(self.asked([2])) == [2]  # what the second process got is what it went on with

    def test_it_is_refused_where_it_was_given_up(self, tmp_path):
        given_up = lambda journal: journal.record("unanswered", "row 0", call="k")  # noqa: E731
        assert self.twice(tmp_path / "j", [LMError("no"), 1], [1, 1], given_up) == ["no: no", 1]

    def test_it_is_asked_again_where_the_run_stopped_for_it(self, tmp_path):
        path = tmp_path / "j"
        assert self.twice(path, [LMError("no")], [1], lambda journal: journal.withdraw()) == [1]
        assert [event.get("error") for event in Journal(path, readonly=True).events() if event["kind"] == "fail"] == [
            "LMError",
            "withdrawn",
        ]

    def test_one_that_asked_again_itself_got_its_answer(self, tmp_path):
        path = tmp_path / "j"
        for _ in range(2):
            with Journal(path) as journal, run.active(journal=journal):
                outcomes = [aio.run(self.asked([outcome])) for outcome in (LMError("no"), 1)]
                journal.append("decision")
        assert outcomes == [["no: no"], [1]]

    @pytest.mark.parametrize("first", [[LMError("no"), 1], [1, LMError("no")], [LMError("no"), 1, LMError("no")]])
    def test_blocks_of_one_scope_have_the_same_rows_and_are_told_apart(self, tmp_path, first):
        async def blocks(outcomes):
            return [got for outcome in outcomes for got in await self.asked([outcome])]

        found = []
        for outcomes in (first, [1] * len(first)):
            with Journal(tmp_path / "j") as journal, run.active(journal=journal):
                found.append(aio.run(blocks(outcomes)))
                journal.append("decision")
        assert found[0] == found[1] == [1 if outcome == 1 else "no: no" for outcome in first]

    def test_the_turns_of_a_row_begin_anew_at_each_decision(self, tmp_path):
        for outcomes in ([1, LMError("no")], [1, 1]):
            with Journal(tmp_path / "j") as journal, run.active(journal=journal):
                found = []
                for outcome in outcomes:
                    found += aio.run(self.asked([outcome]))
                    journal.append("decision")
        assert found == [1, "no: no"]

    def test_what_is_said_of_a_row_ends_no_call_in_flight(self, tmp_path):
        with Journal(tmp_path / "j") as journal:
            journal.sending("k")
            journal.went_without("k", "", "0", 0, LMError("no"))
        assert Journal(tmp_path / "j").lost == 1
