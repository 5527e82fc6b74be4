"""`Fallback`: which errors go on, streams, budgets, journals, resumed runs, caches."""

import asyncio
import pickle

import pytest

import promptgrad as pg
from promptgrad import run
from promptgrad.errors import (
    AuthenticationError,
    BadRequestError,
    BillingError,
    BudgetExceeded,
    ContentFilterError,
    ContextWindowError,
    LMConnectionError,
    LMError,
    LMReplyError,
    LMStatusError,
    LMTimeoutError,
    NoLMError,
    OverloadedError,
    RateLimitError,
    ReplayError,
    UnknownPriceError,
)
from promptgrad.lm import HTTP, Cache, Completion, Fallback, FunctionLM, Retry, record, replay, track_usage
from promptgrad.testing import Cut, LoopbackLM, Reply, Status

QUESTION = "the capital of France?"


@pytest.fixture
def other():
    with LoopbackLM(respond="from the other") as running:
        yield running


@pytest.fixture
def pair(server, other):
    def make(**settings):
        first = HTTP("first", server.url, prices=(1.0, 1.0))
        second = HTTP("second", other.url, prices=(10.0, 10.0))
        return Fallback(first, second, **settings)

    return make


def failing(error):
    def fail(messages):
        raise error

    return FunctionLM(fail, name="failing")


def answering(messages):
    return "from the other"


class TestKinds:
    @pytest.mark.parametrize(
        "error",
        [
            RateLimitError("x", status=429),
            OverloadedError("x", status=503),
            LMStatusError("x", status=500),
            LMConnectionError("x"),
            LMTimeoutError("x"),
            LMReplyError("x"),
            AuthenticationError("x", status=401),
            BillingError("x", status=402),
            BadRequestError("no such model", status=404),
            ConnectionResetError("of the function's own client"),
        ],
    )
    def test_what_may_pass_elsewhere_goes_on(self, error):
        completion = Fallback(failing(error), FunctionLM(answering))(QUESTION)
        assert (completion.text, completion.model) == ("from the other", "answering")

    @pytest.mark.parametrize(
        "error",
        [
            BadRequestError("x", status=400),
            ContextWindowError("x", status=400),
            ContentFilterError("x", status=400),
            UnknownPriceError("x"),
            ReplayError("x"),
            NoLMError("x"),
            BudgetExceeded(kind="calls"),
        ],
    )
    def test_what_would_fail_there_too_does_not(self, error):
        with pytest.raises(type(error)) as caught:
            Fallback(failing(error), FunctionLM(answering))(QUESTION)
        assert caught.value is error

    def test_kinds_of_your_own(self):
        long, busy = ContextWindowError("x", status=400), RateLimitError("x", status=429)
        lm = Fallback(failing(long), FunctionLM(answering), on=ContextWindowError)
        assert lm(QUESTION).model == "answering"
        with pytest.raises(RateLimitError):
            Fallback(failing(busy), FunctionLM(answering), on=(ContextWindowError, LMTimeoutError))(QUESTION)
        assert Fallback(failing(busy), FunctionLM(answering), on=lambda error: error.status == 429)(QUESTION)

    @pytest.mark.parametrize("on", [ValueError, (), "overload", (LMError, int)])
    def test_others_are_refused(self, on):
        with pytest.raises(TypeError, match="on= is a kind of LMError"):
            Fallback(FunctionLM(answering), FunctionLM(answering), on=on)

    def test_one_prompt_goes_to_all(self):
        with pytest.raises(ValueError, match="has 'json'"):
            Fallback(FunctionLM(answering), FunctionLM(answering, adapter="json"))
        with pytest.raises(ValueError, match="at least two"):
            Fallback(FunctionLM(answering))


class TestCalls:
    def test_who_answered_and_what_each_cost(self, pair, server, other):
        lm = pair()
        server.script("from the first", Status(503))
        with track_usage() as used:
            answers = [lm(QUESTION), lm(QUESTION)]
        assert [(answer.text, answer.model) for answer in answers] == [
            ("from the first", "first"),
            ("from the other", "second"),
        ]
        assert answers[1].usage.usd == pytest.approx(10.0 * (4 + 3) / 1e6)
        assert used.usd == sum(answer.usage.usd for answer in answers)
        assert lm.stats()["fallbacks"] == 1
        assert (server.received, other.received) == (2, 1)

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_a_cache_around_it_counts_its_hits_for_the_one_that_answered(self, pair, server, other, tmp_path, on_disk):
        lm = Cache(pair(), tmp_path if on_disk else None)
        server.script(Status(529), "from the first")
        other.script("from the second")
        assert lm(QUESTION).answered_by == "second"
        assert lm("another question").answered_by == ""
        if on_disk:
            lm.close()
            lm = Cache(pair(), tmp_path)
        with pg.usage() as used:
            found = lm(QUESTION)
            assert (found.text, found.answered_by, found.cached) == ("from the second", "second", True)
            lm("another question")
        assert {name: part.cached for name, part in used.by_lm.items()} == {"second": 1, "first": 1}
        assert (
            Fallback(
                failing(OverloadedError("busy", status=529)),
                Fallback(failing(OverloadedError("busy", status=529)), FunctionLM(lambda m: "x", name="z")),
            )(QUESTION).answered_by
            == "z"
        )
        lm.close()

    def test_the_last_error_tells_of_those_before(self, pair, server, other):
        server.script(Status(503))
        other.script(Status(429))
        with pytest.raises(RateLimitError, match=r"asked after first: OverloadedError"):
            pair()(QUESTION)

    def test_the_first_one_is_retried_before(self, server, other):
        async def no_wait(seconds):
            pass

        server.script(Status(503), Status(503), "at last", *[Status(503)] * 3)
        lm = Fallback(Retry(HTTP("first", server.url), 3, sleep=no_wait), HTTP("second", other.url))
        assert lm(QUESTION).text == "at last"
        assert lm(QUESTION).text == "from the other"
        assert server.received == 6

    def test_a_chain_of_three(self):
        busy = failing(OverloadedError("x", status=503))
        assert Fallback(busy, Fallback(busy, busy), FunctionLM(answering))(QUESTION).text == "from the other"

    def test_a_program_runs_on_it(self, pair, server, other):
        other.respond = "[[ ## answer ## ]]\nParis"
        server.respond = Status(503)
        program = pg.nn.Predict("question -> answer").to(pair())
        assert program(question=QUESTION).answer == "Paris"

    def test_another_process_makes_it_anew(self, pair):
        again = pickle.loads(pickle.dumps(pair()))
        assert again.identity() == pair().identity()
        assert repr(again) == repr(pair())

    def test_a_reply_that_is_of_no_use_is_forgotten_everywhere(self):
        calls = []

        def count(messages):
            calls.append(1)
            return f"reply {len(calls)}"

        lm = Fallback(failing(OverloadedError("x", status=503)), Cache(FunctionLM(count)))
        request = pg.lm.Request.of(QUESTION)
        assert [lm(request).text, lm(request).text] == ["reply 1", "reply 1"]
        lm.forget(request)
        assert lm(request).text == "reply 2"


async def collect(lm):
    return [event async for event in lm.stream(QUESTION)]


class TestStreams:
    def test_it_goes_on_before_the_first_piece(self, pair, server):
        server.script(Status(503))
        *pieces, completion = asyncio.run(collect(pair()))
        assert "".join(piece.text for piece in pieces) == completion.text == "from the other"

    def test_it_does_not_after_it(self, pair, server, other):
        server.script(Cut(0.5, Reply("one two three four five six")))
        with pytest.raises(LMReplyError):
            asyncio.run(collect(pair()))
        assert other.received == 0


class TestRuns:
    def test_each_call_is_paid_and_the_failed_one_is_not(self, pair, server):
        server.script(Status(503))
        with run.active(ledger=run.Ledger(pg.Budget(calls=1))) as active:
            assert pair()(QUESTION).text == "from the other"
            assert (active.ledger.spent.calls, active.ledger.spent.failed) == (1, 1)

    def test_the_end_of_the_budget_is_no_reason_to_go_on(self, pair, other):
        with run.active(ledger=run.Ledger(pg.Budget(calls=1))):
            pair()(QUESTION)
            with pytest.raises(BudgetExceeded):
                pair()("another question")
        assert other.received == 0

    @pytest.mark.parametrize("decided", [True, False])
    def test_a_resumed_run_goes_on_to_the_same_and_sends_nothing(self, pair, server, other, tmp_path, decided):
        path = tmp_path / "run.jsonl"

        def program():
            with run.Journal(path) as journal, run.active(journal=journal):
                with run.scope("rows"):
                    rows = pg.nn.Predict("question -> answer").to(pair()).map([{"question": word} for word in "abcd"])
                answers = [row.answer for row in rows]
                if decided:
                    journal.append("decision", answers=answers)
                canonical = journal.canonical()
            return answers, canonical

        server.respond = lambda messages: (
            Status(503)
            if "\na\n" in messages[-1]["content"] or "\nc\n" in messages[-1]["content"]
            else "[[ ## answer ## ]]\n1"
        )
        other.respond = "[[ ## answer ## ]]\n2"
        first = program()
        assert first[0] == ["2", "1", "2", "1"]
        assert (server.received, other.received) == (4, 2)
        server.respond = "[[ ## answer ## ]]\n3"  # it is back, and that changes nothing
        assert program() == first
        assert (server.received, other.received) == (4, 2)

    def test_what_a_run_went_on_without_is_not_asked_again_before_it_has_decided(self, pair, server, other, tmp_path):
        server.script(Status(503))
        server.respond = "[[ ## answer ## ]]\n1"
        other.respond = "[[ ## answer ## ]]\n2"

        def program():
            with run.Journal(tmp_path / "run.jsonl") as journal, run.active(journal=journal), run.scope("rows"):
                rows = pg.nn.Predict("question -> answer").to(pair()).map([{"question": "a"}] * 2, concurrency=1)
                answers = [row.answer for row in rows]
                journal.append("decision", answers=answers)
            return answers

        assert program() == ["2", "2"]
        assert program() == ["2", "2"]
        assert (server.received, other.received) == (1, 1)

    def test_a_row_that_asks_the_same_again_goes_on_each_time(self, pair, server, other, tmp_path):
        """In one block of work, in another scope and in a later block: each time is on record, and none asked again."""
        path = tmp_path / "run.jsonl"
        server.respond, other.respond = (lambda messages: Status(503)), (lambda messages: Status(429))

        def program(blocks, *, decides=True):
            with run.Journal(path) as journal, run.active(journal=journal):
                for block in range(blocks):
                    for scope in ("a", "b"):
                        with run.scope(f"{block}/{scope}"):
                            for _ in range(2):
                                with pytest.raises(RateLimitError):
                                    pair()(QUESTION)
                    if decides or block + 1 < blocks:
                        journal.append("decision", block=block)
                return [event for event in journal.events() if event["kind"] == "fallback"]

        assert len(program(2, decides=False)) == 8
        assert server.received == 2  # once in each block of work: then it is known that the run goes on without it
        assert len(program(2)) == 8
        assert server.received == 2

    def test_a_cassette_has_the_failure_too(self, pair, server, other, tmp_path):
        server.script(Status(503))
        with record(tmp_path / "tape.jsonl"):
            pair()(QUESTION)
        with replay(tmp_path / "tape.jsonl"):
            completion = pair()(QUESTION)
        assert isinstance(completion, Completion)
        assert completion.model == "second"
        assert (server.received, other.received) == (1, 1)
