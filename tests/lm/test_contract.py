"""What holds for every LM: transports and layers, by one suite."""

import asyncio
import copy
import threading

import pytest

from promptgrad import aio, run
from promptgrad.lm import HTTP, LM, Cache, Completion, Function, Limit, Local, Request, Retry, resolve, track_usage

KINDS = {
    "Function": lambda server, local, folder: Function(lambda messages: messages[-1].content),
    "async Function": lambda server, local, folder: Function(echo, name="echo"),
    "HTTP": lambda server, local, folder: HTTP("m", server.url),
    "Local": lambda server, local, folder: local(),
    "Cache": lambda server, local, folder: Cache(HTTP("m", server.url)),
    "Cache on disk": lambda server, local, folder: Cache(HTTP("m", server.url), folder),
    "Retry": lambda server, local, folder: Retry(HTTP("m", server.url)),
    "Limit": lambda server, local, folder: Limit(HTTP("m", server.url), 2),
    "a name": lambda server, local, folder: resolve("m", base_url=server.url),
}


async def echo(messages):
    await asyncio.sleep(0)
    return messages[-1].content


@pytest.fixture(params=KINDS)
def lm(request, server, tmp_path):
    def local():
        models, tokenizer = request.getfixturevalue("models"), request.getfixturevalue("tokenizer")
        return Local(models["llama"], tokenizer, max_tokens=4)

    made = KINDS[request.param](server, local, tmp_path)
    yield made
    made.close()


def test_it_is_an_lm(lm):
    assert isinstance(lm, LM)
    assert type(lm.name) is str
    assert type(lm.adapter) is str
    assert type(lm.identity()) is str
    assert lm.identity() == lm.identity()
    assert lm.name in repr(lm) or "m" in repr(lm)
    assert isinstance(lm.transport, LM)
    assert lm.transport.transport is lm.transport
    assert lm.traces() is False
    assert copy.deepcopy(lm) is lm


def test_it_answers_in_every_way(lm):
    request = Request.of("w1 w2", temperature=0)
    first = lm(request)
    assert isinstance(first, Completion)
    assert type(first.text) is str
    assert (first.usage.calls, first.cached) == (1, False)
    assert first.usage.input_tokens > 0
    assert first.usage.seconds >= 0

    async def caller():
        return [await lm.complete(request), await lm.acall("w1 w2", temperature=0), lm(request)]

    answers = [*asyncio.run(caller()), *aio.run(caller_without_blocking(lm, request))]
    thread = threading.Thread(target=lambda: answers.append(lm(request)))
    thread.start()
    thread.join(20)
    assert [answer.text for answer in answers] == [first.text] * 6


async def caller_without_blocking(lm, request):
    return await asyncio.gather(lm.complete(request), lm.acall(request))


@pytest.mark.asyncio
async def test_it_answers_under_pytest_asyncio(lm):
    replies = await asyncio.gather(*[lm.acall("w3", replicate=i) for i in range(5)])
    assert len(replies) == 5


def test_usage_is_counted_once(lm):
    with track_usage() as usage:
        completion = lm("w1", temperature=0)
    assert usage.total == completion.usage


def test_a_run_pays_once(lm):
    with run.active() as session, track_usage() as usage:
        first = lm("w1 w2", temperature=0)
        again = lm("w1 w2", temperature=0)
        lm("w1 w2", temperature=0, replicate=1)
        assert first.text == again.text
        assert session.ledger.spent.calls == 2
        assert session.journal.paid == 2
        assert session.journal.has(Request.of("w1 w2", temperature=0).digest(lm.identity()))
    assert usage.calls + usage.cached == 3


def test_what_it_is_called_with_is_checked(lm):
    with pytest.raises(TypeError):
        lm(3)
    with pytest.raises(ValueError, match="temperature"):
        lm("w1", temperature=-1)
    with pytest.raises(ValueError, match="api_key"):
        lm("w1", api_key="sk-1")
