import contextlib

import pytest

from promptgrad import aio, evaluate, nn, run
from promptgrad.data import Example
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
    OverloadedError,
    RateLimitError,
)
from promptgrad.lm import HTTP, LM, Completion, FunctionLM, Limit, Retry, Usage, resolve
from promptgrad.lm._retry import is_transient
from promptgrad.metrics import exact_match
from promptgrad.testing import Cut, Drop, Garbage, LoopbackLM, Status


@pytest.fixture
def waits():
    return []


@pytest.fixture
def sleep(waits):
    async def note(seconds):
        waits.append(seconds)

    return note


def test_retry_after_is_obeyed(server, waits, sleep):
    server.script(Status(429, retry_after=7), "Paris")
    assert Retry(HTTP("m", server.url), sleep=sleep, draw=lambda: 0.0)("q").text == "Paris"
    assert waits == [7]
    assert len(server.requests) == 2


def test_every_passing_failure_is_tried_again(server, waits, sleep):
    server.script(Status(500), Status(503), Cut(), Garbage(), Drop(), "Paris")
    assert Retry(HTTP("m", server.url), attempts=6, sleep=sleep)("q").text == "Paris"
    assert len(waits) == 5
    for attempt, wait in enumerate(waits):
        assert 0.5 * 2**attempt / 2 <= wait <= 0.5 * 2**attempt


def test_it_gives_up_and_says_how_often_it_tried(server, waits, sleep):
    server.script(*[Status(500)] * 5)
    with pytest.raises(LMStatusError, match=r"attempt 3 of 3") as caught:
        Retry(HTTP("m", server.url), attempts=3, sleep=sleep)("q")
    assert caught.value.status == 500
    assert len(server.requests) == 3
    assert len(waits) == 2


def test_waits_are_spread_but_repeat(waits, sleep):
    def broken(messages):
        raise LMConnectionError("down")

    lm = Retry(FunctionLM(broken), attempts=2, sleep=sleep)
    for prompt in ("a", "b", "a"):
        with pytest.raises(LMConnectionError):
            lm(prompt)
    assert waits[0] == waits[2] != waits[1]


def test_waits_do_not_pass_the_ceiling(waits, sleep):
    def broken(messages):
        raise LMConnectionError("down")

    with pytest.raises(LMConnectionError):
        Retry(FunctionLM(broken), attempts=12, ceiling=4.0, sleep=sleep)("q")
    assert max(waits) <= 4.0


def test_a_retry_after_of_just_the_patience_is_waited_for(server, waits, sleep):
    server.script(Status(429, retry_after=9), "Paris")
    assert Retry(HTTP("m", server.url), patience=9, sleep=sleep, draw=lambda: 0.0)("q").text == "Paris"
    assert waits == [9]


def test_each_attempt_draws_its_own_wait(waits, sleep):
    def broken(messages):
        raise LMConnectionError("down")

    with pytest.raises(LMConnectionError):
        Retry(FunctionLM(broken), attempts=5, sleep=sleep)("a")
    shares = [wait / (0.5 * 2**attempt) for attempt, wait in enumerate(waits)]
    assert len(set(shares)) == len(shares) == 4


def test_a_retry_after_beyond_patience_is_raised_at_once(server, waits, sleep):
    server.script(Status(429, retry_after=3600))
    with pytest.raises(RateLimitError) as caught:
        Retry(HTTP("m", server.url), sleep=sleep)("q")
    assert caught.value.retry_after == 3600
    assert waits == []


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
def test_what_cannot_pass_is_not_tried_again(server, waits, sleep, code):
    server.script(Status(code))
    with pytest.raises(LMStatusError):
        Retry(HTTP("m", server.url), sleep=sleep)("q")
    assert len(server.requests) == 1


def test_what_a_function_raises_is_not_sent_again(waits, sleep):
    def broken(messages):
        raise ConnectionResetError

    with pytest.raises(LMError, match="raised ConnectionResetError"):
        Retry(FunctionLM(broken), sleep=sleep)("q")
    assert waits == []


def test_which_errors_pass():
    assert is_transient(LMReplyError("cut"))
    assert is_transient(RateLimitError("busy", status=429))
    assert is_transient(LMStatusError("down", status=529))
    assert not is_transient(ContextWindowError("long", status=500))
    assert not is_transient(AuthenticationError("no", status=401))
    assert not is_transient(LMError("?"))
    assert is_transient(OverloadedError("loading", status=400))
    assert not is_transient(LMTimeoutError("silent"))  # it may still be running, and be billed
    for kind in (BadRequestError, BillingError, ContentFilterError):
        assert not is_transient(kind("no", status=503))


def test_at_least_one_attempt():
    with pytest.raises(ValueError, match="at least 1"):
        Retry(FunctionLM(str), attempts=0)


def test_repr():
    assert repr(Retry(FunctionLM(str, name="f"))) == "Retry(FunctionLM('f'), attempts=5)"


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(7, 7, 8.75), (0, 0.25, 0.5), (0.3, 0.3, 0.55), (None, 0.25, 0.5)]
)
def test_the_larger_of_the_asked_and_the_own_wait_counts_and_is_spread(server, waits, sleep, asked, least, most):
    for drawn in (0.0, 1.0):
        server.script(Status(429, retry_after=asked), "Paris")
        Retry(HTTP("m", server.url), sleep=sleep, draw=lambda drawn=drawn: drawn)("q")
    assert waits == pytest.approx([least, most])


def test_many_that_are_turned_away_together_do_not_come_back_together(server, waits, sleep):
    server.respond = lambda messages: Status(429, retry_after=2)
    lm = Retry(HTTP("m", server.url), attempts=2, turns=2, sleep=sleep)
    for number in range(20):
        with pytest.raises(RateLimitError):
            lm(str(number))
    assert len({round(wait, 3) for wait in waits}) > 15
    assert all(2 <= wait <= 2.5 for wait in waits)


def test_being_turned_away_is_not_a_failed_attempt(server, waits, sleep):
    server.script(*[Status(429)] * 3, Status(500), *[Status(503)] * 2, "Paris")
    assert Retry(HTTP("m", server.url), attempts=2, turns=9, sleep=sleep)("q").text == "Paris"
    assert len(server.requests) == 7
    server.script(*[Status(429)] * 4)
    with pytest.raises(RateLimitError, match="turned away 4 times"):
        Retry(HTTP("m", server.url), attempts=2, turns=4, sleep=sleep)("q")


def test_it_is_one_where_nothing_else_is_said(server, waits, sleep):
    server.script(Status(429), Status(500), Status(429))
    with pytest.raises(RateLimitError, match="attempt 3 of 3"):
        Retry(HTTP("m", server.url), attempts=3, sleep=sleep)("q")
    for attempts, sent in ((1, 1), (2, 3)):
        server.reset()
        server.script(*[Status(429)] * 9)
        lm = resolve("openai/m", base_url=server.url, attempts=attempts, cache=False)
        with pytest.raises(RateLimitError):
            Retry(lm.lm, lm.attempts, turns=lm.turns, sleep=sleep)("q")
        assert len(server.requests) == sent


def test_no_wait_passes_the_end_of_a_budget_of_seconds(server, waits, sleep):
    now = [0.0]
    server.script(Status(429, retry_after=20), "Paris")
    with (
        run.active(ledger=run.Ledger(run.Budget(seconds=10), run.Journal(clock=lambda: now[0]))),
        pytest.raises(BudgetExceeded, match="would pass the budget of 10 seconds") as caught,
    ):
        Retry(HTTP("m", server.url), sleep=sleep)("q")
    assert waits == []
    assert isinstance(caught.value.__cause__, RateLimitError)
    assert (caught.value.kind, len(server.requests)) == ("seconds", 1)


def test_what_waits_to_be_sent_again_keeps_no_place(server):
    order = []

    async def sleep(seconds):
        order.append((await limited.acall("other")).text)

    server.script(Status(500))
    limited = Limit(HTTP("m", server.url), 1)
    assert Retry(limited, sleep=sleep)("q").text == "echo q"
    assert order == ["echo other"]


def test_retries_are_counted(server, sleep):
    server.script(Status(500), Status(500), "Paris")
    lm = Retry(Limit(HTTP("m", server.url), 3), sleep=sleep)
    lm("q")
    stats = lm.stats()
    assert (stats["retries"], stats["requests"], stats["concurrency"]) == (2, server.received, 3)


def test_a_row_that_waits_to_be_sent_again_holds_up_no_other():
    """With two rows in flight, the two that are refused wait for the other eight."""
    others = aio.Signal()

    async def sleep(seconds):
        await others

    asked = []

    def respond(messages):
        prompt = messages[-1]["content"]
        asked.append(prompt)
        if asked.count(prompt) == 1 and prompt in "ab":
            return Status(500)
        if len(asked) == 10:
            others.set(None)
        return f"to {prompt}"

    with LoopbackLM(respond) as server:
        lm = Retry(HTTP("m", server.url), sleep=sleep)

        async def rows():
            return await aio.gather([lambda row=row: lm.acall(row) for row in "abcdefghij"], limit=2)

        assert [row.text for row in aio.run(rows())] == [f"to {row}" for row in "abcdefghij"]
        assert sorted(asked[-2:]) == ["a", "b"]


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_so_in_an_evaluation(kind):
    """Of eight rows, two in flight, the first two are refused and wait for the other six."""

    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.ask = nn.Predict("question -> answer")

        def forward(self, question):
            return self.ask(question=question)

    class Awaited(Program):
        async def forward(self, question):
            return await self.ask.acall(question=question)

    others = aio.Signal()

    async def sleep(seconds):
        await others

    asked = []

    def respond(messages):
        row = messages[-1]["content"].splitlines()[1]
        asked.append(row)
        if asked.count(row) == 1 and row in "ab":
            return Status(503)
        if len(asked) == 8:
            others.set(None)
        return "Paris"

    with LoopbackLM(respond) as server:
        program = (Program if kind == "plain" else Awaited)().to(Retry(HTTP("m", server.url), sleep=sleep))
        rows = [Example(question=row, answer="Paris").with_inputs("question") for row in "abcdefgh"]
        report = evaluate(program, rows, exact_match, concurrency=2)
        assert [row.score for row in report.rows] == [1.0] * 8
        assert sorted(asked[-2:]) == ["a", "b"]


class Told(LM):
    """An LM whose answers, which take so many seconds, and failures are told beforehand."""

    def __init__(self, seconds, outcomes=""):
        self.seconds = seconds
        self.outcomes = list(outcomes)

    async def complete(self, request):
        outcome = self.outcomes.pop(0) if self.outcomes else "answer"
        if outcome == "f":
            raise LMConnectionError("lost")
        if outcome == "r":
            raise RateLimitError("busy", status=429)
        return Completion("x", Usage(1, 1, 1, 0.0, 0, self.seconds))


def told(seconds, outcomes, sleep, **settings):
    return Retry(Told(seconds, outcomes), sleep=sleep, draw=lambda: 1.0, **settings)


def test_the_first_wait_is_the_time_of_a_reply_and_the_last_what_it_was(waits, sleep):
    lm = told(0.1, ".r.rrrrr", sleep, turns=9)
    lm("how long does it take?")
    lm("first")
    assert waits == [pytest.approx(0.1)]
    waits.clear()
    lm("q")
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(0.1)
    lm = told(0.1, "." + "r" * 8, sleep, turns=9)
    lm("how long does it take?")
    waits.clear()
    lm("q")
    assert (waits[0], waits[-1]) == (pytest.approx(0.1), pytest.approx(0.5 * 1.6**7))


@pytest.mark.parametrize(("seconds", "first"), [(30.0, 0.5), (0.5, 0.5), (0.03, 0.03), (0.0, 0.01)])
def test_slow_replies_leave_the_first_wait_and_none_is_shorter_than_a_hundredth(waits, sleep, seconds, first):
    lm = told(seconds, ".f", sleep)
    lm("how long does it take?")
    lm("q")
    assert waits == [pytest.approx(first)]


def while_others(are, failed=0):
    """The waits of a call that fails four times, in each of which another is answered (".") or fails too ("f")."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        with contextlib.suppress(LMConnectionError):
            await (lm if are == "." else lm.lm).acall("other")

    lm = told(0.1, "." + f"f{are}" * 4, sleep)
    lm("how long does it take?")
    for _ in range(failed):
        lm._lately.failed(refused=False)
    lm("q")
    return [pytest.approx(wait) for wait in waits]


GROWN = [0.1 ** (1 - share) * 0.5**share * 2**time for time, share in enumerate((0, 1 / 9, 4 / 9, 1))]


def test_failures_of_an_endpoint_that_answers_others_are_waited_for_alike():
    assert while_others(".") == [0.1] * 4


def test_failures_of_one_that_answers_nobody_meanwhile_are_waited_for_longer():
    assert while_others("f") == GROWN


def test_failures_of_one_that_answers_less_than_a_third_are_waited_for_longer():
    assert while_others(".", failed=32) == GROWN
    assert while_others(".", failed=4) == [*GROWN[:3], 0.1]  # 4 of 12 in the end


def test_being_turned_away_is_waited_for_longer_whoever_is_answered(waits, sleep):
    lm = told(0.1, "." * 40 + "rrrr", sleep, turns=5)
    for number in range(41):
        lm(str(number))
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(0.5 * 1.6**3)
