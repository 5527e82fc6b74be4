import asyncio
import json

import pytest

from promptgrad import aio, run
from promptgrad.errors import BudgetExceeded, UnknownPriceError
from promptgrad.lm import HTTP, Completion, FilePart, FunctionLM, ImagePart, ToolResult, Transport, Usage, track_usage


def test_a_run_journals_and_replays(server, tmp_path):
    path = tmp_path / "journal.jsonl"
    lm = HTTP("m", server.url, "sk-never-in-the-journal", temperature=1)
    completions = []
    for _ in range(2):
        with run.Journal(path) as journal, run.active(journal=journal) as session, track_usage() as usage:
            completions.append(lm("q"))
            assert session.ledger.spent.calls == 1
            assert usage.calls == 1
    assert completions[0] == completions[1]
    assert len(server.requests) == 1
    assert server.requests[0].headers["idempotency-key"] in path.read_text()
    assert "sk-never" not in path.read_text()
    calls = [event for event in map(json.loads, path.read_text().splitlines()) if event["kind"] == "call"]
    assert [call["reply"]["text"] for call in calls] == ["echo q"]


def test_replicates_and_default_options_make_keys(server):
    warm, cold = HTTP("m", server.url, temperature=1), HTTP("m", server.url, temperature=0)
    with run.active():
        warm("q"), warm("q"), warm("q", replicate=1), cold("q"), warm("q", temperature=0.5)
    assert len(server.requests) == 4
    assert len({r.headers["idempotency-key"] for r in server.requests}) == 4


def test_the_budget_is_kept(server):
    lm = HTTP("m", server.url)

    async def many():
        return await asyncio.gather(*[lm.acall(str(i)) for i in range(10)], return_exceptions=True)

    with run.active(ledger=run.Ledger(run.Budget(calls=3))):
        results = aio.run(many())
        with pytest.raises(BudgetExceeded):
            lm("one more")
    assert sum(isinstance(r, BudgetExceeded) for r in results) == 7
    assert len(server.requests) == 3


def test_a_money_budget_needs_a_price(server):
    with run.active(ledger=run.Ledger(run.Budget(usd=1.0))) as session:
        with pytest.raises(UnknownPriceError):
            HTTP("m", server.url)("q")
        assert server.requests == []
        HTTP("m", server.url, prices=(1.0, 1.0))("q")
        assert 0 < session.ledger.spent.usd < 0.001
        FunctionLM(lambda messages: "free")("q")


def test_a_failed_call_is_booked_apart(server):
    from promptgrad.errors import LMStatusError
    from promptgrad.testing import Status

    server.script(Status(500))
    lm = HTTP("m", server.url)
    with run.active() as session:
        with pytest.raises(LMStatusError):
            lm("q")
        lm("q")
        assert (session.ledger.spent.calls, session.ledger.spent.failed) == (1, 1)


def test_a_subclass_defines_send_alone():
    class Mine(Transport):
        async def _send(self, request, key):
            return Completion(request.tail[-1].content, Usage(1))

    lm = Mine("mine", temperature=0) if False else Mine("mine", options={"top_k": 3})
    assert lm("q").text == "q"
    assert lm.prices == (0.0, 0.0)
    assert "top_k" in lm.identity()
    with pytest.raises(NotImplementedError, match="_send"):
        Transport("bare")("q")


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ([{"role": "user", "content": ["What?", ImagePart(b"x", "image/png")]}], {}),
        ([{"role": "user", "content": [FilePart(bytes(100_000), "application/pdf")]}], {}),
        ([{"role": "tool", "content": [ToolResult("c", "x" * 4_000)]}], {}),
        ("hi", {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 4_000}}]}),
    ],
    ids=["image", "file", "tool result", "tools"],
)
def test_a_reservation_counts_what_is_more_than_text(server, prompt, options):
    lm = HTTP("m", server.url)
    with run.active(ledger=run.Ledger(run.Budget(tokens=1_000))):
        with pytest.raises(BudgetExceeded):
            lm(prompt, **options)
        assert server.received == 0
        assert lm("hi").text == "echo hi"
