import asyncio
import copy
import traceback

import pytest

from promptgrad import aio
from promptgrad.errors import LMError, ParseError, RateLimitError, is_outage
from promptgrad.lm import Completion, FunctionLM, Request, Usage


class Interrupt(BaseException):
    """What ends a process, such as Ctrl-C."""


def test_it_gets_the_messages():
    lm = FunctionLM(lambda messages: messages[-1].content.upper(), name="shout")
    completion = lm("hi")
    assert completion.text == "HI"
    assert completion.model == lm.name == "shout"
    assert completion.usage.calls == 1
    assert completion.usage.usd == 0.0


def test_it_gets_the_request_if_it_asks_for_it():
    def named(request):
        return str(request.temperature)

    def annotated(r: Request) -> str:
        return str(r.temperature)

    assert FunctionLM(named)("hi", temperature=0.5).text == "0.5"
    assert FunctionLM(annotated)("hi", temperature=0.5).text == "0.5"
    assert FunctionLM(named, temperature=0.7)("hi").text == "0.7"
    assert FunctionLM(named, temperature=0.7)("hi", temperature=0.1).text == "0.1"


def test_default_options_are_part_of_its_identity():
    assert FunctionLM(str, name="f", temperature=1).identity() != FunctionLM(str, name="f").identity()
    assert FunctionLM(str, name="f", temperature=1).identity() == FunctionLM(str, name="f", temperature=1.0).identity()


def test_it_may_return_a_completion():
    made = Completion("x", Usage(3), "other")
    assert FunctionLM(lambda messages: made)("hi") is made


def test_an_async_function_works_driven_awaited_and_on_a_running_loop():
    async def slow(messages):
        await asyncio.sleep(0.001)
        return "done"

    lm = FunctionLM(slow)
    assert lm("hi").text == "done"

    async def caller():
        return (await lm.acall("hi")).text, lm("from a notebook cell").text

    assert asyncio.run(caller()) == ("done", "done")
    assert aio.run(lm.acall("hi")).text == "done"


def test_a_sync_function_never_suspends():
    coroutine = FunctionLM(lambda messages: "x").complete(Request.of("hi"))
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.mark.parametrize("reply", [None, 3, b"x"])
def test_another_reply_is_refused(reply):
    with pytest.raises(LMError, match="must return a str or a Completion"):
        FunctionLM(lambda messages: reply)("hi")


class Unsayable(Exception):
    def __str__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("mine"), "the function of LM 'broken' raised KeyError: 'mine'"),
        (ConnectionResetError(), "the function of LM 'broken' raised ConnectionResetError"),
        (Unsayable(), "the function of LM 'broken' raised Unsayable"),
    ],
)
def test_its_errors_are_the_cause_of_errors_of_the_model(error, said, waits):
    def broken(messages):
        raise error

    async def waiting(messages):
        broken(messages)

    with pytest.raises(LMError) as raised:
        FunctionLM(waiting if waits else broken, name="broken")("hi")
    assert (str(raised.value), raised.value.__cause__) == (said, error)
    assert is_outage(raised.value)
    assert [entry.name for entry in traceback.extract_tb(error.__traceback__)][-1] == "broken"


@pytest.mark.parametrize("error", [ParseError("no"), RateLimitError("busy"), ModuleNotFoundError("it"), Interrupt()])
def test_errors_of_ours_stay_what_they_are(error):
    def broken(messages):
        raise error

    with pytest.raises(type(error)) as raised:
        FunctionLM(broken)("hi")
    assert raised.value is error


def test_it_wants_a_function():
    with pytest.raises(TypeError, match="takes a function"):
        FunctionLM("openai/gpt-4o-mini")


def test_copies_share_the_lm():
    lm = FunctionLM(lambda messages: "x")
    assert copy.deepcopy(lm) is lm
    assert copy.copy(lm) is lm
