import pytest

from promptgrad.errors import (
    AuthenticationError,
    BadRequestError,
    BillingError,
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
from promptgrad.lm import HTTP, FunctionLM, Retry
from promptgrad.lm._retry import is_transient
from promptgrad.testing import Cut, Drop, Garbage, Status


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
    assert Retry(HTTP("m", server.url), sleep=sleep)("q").text == "Paris"
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
    assert Retry(HTTP("m", server.url), patience=9, sleep=sleep)("q").text == "Paris"
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


def test_other_errors_are_not_ours(waits, sleep):
    def broken(messages):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
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
