"""What providers keep of prompts: tokens that they had in their cache, their price, and marks for some."""

import asyncio

import pytest

from promptgrad import aio
from promptgrad.lm import HTTP, LiteLLM, Message, Prefix, Request, TextPart, Usage, track_usage
from promptgrad.testing import LoopbackLM, Reply

PREFIX = Prefix([Message("system", "Be brief."), Message("user", "2+2?"), Message("assistant", "4")])
ASKED = Request(PREFIX, (Message("user", "3+3?"),))


@pytest.fixture
def server():
    with LoopbackLM() as running:
        yield running


def test_tokens_that_the_provider_had_are_told_and_cost_less(server):
    lm = HTTP("m", server.url, prices=(2.0, 8.0, 0.5))
    server.script(Reply("6", usage=(100, 5, 80)), Reply("6", usage=(100, 5)), Reply("6", usage=(100, 5, 700)))
    with track_usage() as usage:
        first, second, third = (lm(ASKED).usage for _ in range(3))
    assert (first.input_tokens, first.cached_input_tokens) == (100, 80)
    assert first.usd == pytest.approx((20 * 2 + 80 * 0.5 + 5 * 8) / 1e6)
    assert (second.cached_input_tokens, second.usd) == (0, pytest.approx((100 * 2 + 5 * 8) / 1e6))
    assert third.cached_input_tokens == 100  # no more than were sent
    assert usage.total.cached_input_tokens == 180


def test_two_prices_make_no_difference_between_them(server):
    server.script(Reply("6", usage=(100, 5, 80)))
    assert HTTP("m", server.url, prices=(2.0, 8.0))(ASKED).usage.usd == pytest.approx((100 * 2 + 5 * 8) / 1e6)


def test_a_stream_tells_it_too(server):
    server.script(Reply("6 it is", usage=(100, 5, 80)))

    async def last():
        return [event async for event in HTTP("m", server.url).stream(ASKED)][-1]

    assert aio.run(last()).usage.cached_input_tokens == 80


def test_it_is_written_where_there_is_any():
    some = Usage(1, 100, 5, 0.0, cached_input_tokens=80)
    assert Usage.from_dict(some.to_dict()) == some
    assert "cached_input_tokens" not in Usage(1, 100, 5).to_dict()
    assert Usage.from_dict({"calls": 1}).cached_input_tokens == 0  # of a journal from before


def test_litellm_tells_it(server):
    lm = LiteLLM("openai/gpt-4o-mini", api_key="k", api_base=server.url)
    assert lm.prices is not None
    assert len(lm.prices) == 3
    server.script(Reply("6", usage=(100, 5, 80)))
    found = asyncio.run(lm.acall(ASKED)).usage
    assert found.cached_input_tokens == 80
    assert 0 < found.usd < (lm.prices[0] * 100 + lm.prices[1] * 5) / 1e6


def test_the_prefix_is_marked_at_its_end_for_anthropic():
    lm = LiteLLM("anthropic/claude-sonnet-4-5", api_key="k", mark_prefix=True)
    written = lm._arguments(ASKED, "")["messages"]
    assert [m["content"] for m in written if isinstance(m["content"], str)] == ["Be brief.", "2+2?", "3+3?"]
    mark = {"cache_control": {"type": "ephemeral"}}
    assert written[2]["content"] == [{"type": "text", "text": "4", **mark}]
    import litellm

    body = litellm.AnthropicConfig().transform_request("claude-sonnet-4-5", written, {"max_tokens": 9}, {}, {})
    assert [m["content"][-1].get("cache_control") for m in body["messages"]] == [None, {"type": "ephemeral"}, None]
    plain = LiteLLM("anthropic/claude-sonnet-4-5", api_key="k")._arguments(ASKED, "")["messages"]
    assert [m["content"] for m in plain] == ["Be brief.", "2+2?", "4", "3+3?"]
    assert lm.identity() == LiteLLM("anthropic/claude-sonnet-4-5", api_key="k").identity()  # the replies are the same


def test_a_request_without_a_prefix_has_no_mark():
    lm = LiteLLM("anthropic/claude-sonnet-4-5", api_key="k", mark_prefix=True)
    parts = Request(tail=(Message("user", (TextPart("hi"),)),))
    assert "cache_control" not in str(lm._arguments(parts, ""))
