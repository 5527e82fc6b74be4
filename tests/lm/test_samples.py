"""Several samples in one request: which calls are one, who gets which, and what is paid, cached and journalled."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from promptgrad import lm, nn, run, usage
from promptgrad.errors import BadRequestError, BudgetExceeded, OverloadedError, ParseError
from promptgrad.lm import HTTP, Cache, Completion, Fallback, FunctionLM, Retry, SamplesInOne
from promptgrad.testing import Garbage, LoopbackLM, Reply, Status

BATCH = [{"question": "a"}, {"question": "b"}]


def number(server_side: Iterator[int]) -> Any:
    return lambda messages: f"[[ ## answer ## ]]\n{messages[-1]['content'].split()[5]}{next(server_side)}"


@pytest.fixture
def server() -> Iterator[LoopbackLM]:
    with LoopbackLM(number(itertools.count())) as made:
        yield made


def model_of(server: LoopbackLM, **options: Any) -> Any:
    return SamplesInOne(Cache(Retry(HTTP("m", base_url=server.url, prices=(1.0, 2.0), **options), attempts=1)))


def asked(server: LoopbackLM) -> list[int]:
    return [request.samples for request in server.requests]


def answers(batch: Any) -> list[str]:
    return [str(output.answer) for output in batch]


def test_the_rollouts_of_a_call_are_one_request(server: LoopbackLM) -> None:
    program = nn.Predict("question -> answer").to(model_of(server))
    with usage() as used:
        batch = program.map(BATCH, n=3, concurrency=1)
    assert asked(server) == [3, 3]
    assert answers(batch) == ["a0", "a1", "a2", "b3", "b4", "b5"]
    assert used.total.calls == 2
    words = len(server.requests[0].messages[0]["content"].split()) + len(server.requests[0].prompt.split())
    assert used.total.input_tokens == 2 * words  # the prompt is paid once
    assert used.total.output_tokens == 6 * 6
    assert [row.tape.nodes[0].usage.calls for row in batch.rows] == [1, 0, 0, 1, 0, 0]
    assert sum(row.usage.tokens for row in batch.rows) == used.total.tokens


@pytest.mark.parametrize("concurrency", [1, 2, 32])
def test_a_reply_depends_on_the_number_of_the_rollout_alone(server: LoopbackLM, concurrency: int) -> None:
    server.respond = None
    server.script(*(f"[[ ## answer ## ]]\n{letter}" for letter in "xyz"))
    program = nn.Predict("question -> answer").to(model_of(server))
    assert answers(program.map(BATCH[:1], n=3, concurrency=concurrency)) == ["x", "y", "z"]
    assert asked(server) == [3]
    assert answers(program.map(BATCH[:1], n=3)) == ["x", "y", "z"]  # from the cache
    assert asked(server) == [3]


def test_without_the_layer_each_rollout_is_a_request(server: LoopbackLM) -> None:
    program = nn.Predict("question -> answer").to(Cache(HTTP("m", base_url=server.url)))
    program.map(BATCH, n=3)
    assert asked(server) == [1] * 6


class TwoSteps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Predict("question -> answer"), nn.Predict("question -> answer")

    async def forward(self, question: str) -> Any:
        found = await self.first.acall(question=question)
        return await self.second.acall(question=found.answer)


def test_what_may_differ_between_rollouts_goes_alone(server: LoopbackLM) -> None:
    answered = TwoSteps().to(model_of(server)).map(BATCH[:1], n=2)
    assert not answered.errors
    assert asked(server) == [1] * 4

    class Own(nn.Predict):
        async def forward(self, **inputs: Any) -> Any:
            return await super().forward(**inputs)

    Own("question -> answer").to(model_of(server)).map(BATCH[:1], n=2)
    hooked = nn.Predict("question -> answer").to(model_of(server))
    hooked.register_forward_pre_hook(lambda module, args: None)
    hooked.map(BATCH[:1], n=2)
    assert asked(server)[4:] == [1] * 4
    with lm.context(replicate=0):
        list(nn.Predict("question -> answer").to(model_of(server)).stream_sync(question="c"))
    assert asked(server)[8:] == [1]


def test_attempts_side_by_side_are_one_request(server: LoopbackLM) -> None:
    step = nn.Predict("question -> answer").to(model_of(server))
    nn.SelfConsistency(step, n=4)(question="a")
    assert asked(server) == [4]
    nn.SelfConsistency(step, n=3, concurrency=1)(question="b")  # which ends as soon as it can
    assert asked(server)[1:] == [1] * (len(server.requests) - 1)
    server.requests.clear()
    best = nn.BestOfN(step, 4, reward=lambda inputs, output: int(output.answer[1:]))(question="c")
    assert sorted(asked(server)) == [1, 3]  # the first has a temperature of its own
    assert best.answer[0] == "c"
    server.requests.clear()
    nn.BestOfN(step, 4, reward=lambda inputs, output: 1.0, threshold=1.0)(question="d")
    nn.MultiChainComparison("question -> answer", M=3).to(model_of(server)).map([{"question": "e"}])
    assert asked(server)[:2] == [1, 3]


def test_asking_again_is_of_the_one_whose_reply_does_not_parse(server: LoopbackLM) -> None:
    server.respond = None
    server.script('{"count": 1}', "no idea", '{"count": 3}', '{"count": 2}')
    program = nn.Predict("question -> count: int", adapter="json").to(model_of(server))
    batch = program.map(BATCH[:1], n=3)
    assert [output.count for output in batch] == [1, 2, 3]
    assert asked(server) == [3, 1]
    assert "no idea" in str(server.requests[1].messages)


def test_a_reply_of_no_use_is_forgotten_with_its_group(server: LoopbackLM) -> None:
    server.respond = None
    server.script("no idea", '{"count": 1}', '{"count": 2}', '{"count": 3}')
    program = nn.Predict("question -> count: int", adapter="json", retries=0).to(model_of(server))
    first = program.map(BATCH[:1], n=2)
    assert [type(row.error) for row in first.errors] == [ParseError]
    assert [output.count for output in program.map(BATCH[:1], n=2)] == [2, 3]


def test_an_error_is_that_of_all_and_is_not_kept(server: LoopbackLM) -> None:
    server.respond = None
    server.script(Status(529), *["[[ ## answer ## ]]\nx"] * 2)
    program = nn.Predict("question -> answer").to(model_of(server))
    failed = program.map(BATCH[:1], n=2)
    assert [type(row.error) for row in failed.errors] == [OverloadedError] * 2
    assert answers(program.map(BATCH[:1], n=2)) == ["x", "x"]
    assert asked(server) == [2, 2]


def test_an_endpoint_that_refuses_is_asked_one_by_one_and_it_is_said_once(server: LoopbackLM) -> None:
    program = nn.Predict("question -> answer").to(model_of(server))
    said = "Unsupported value: 'n' does not support 3 with this model. Only the default (1) value is supported."
    server.script(Status(400, message=said))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batch = program.map(BATCH, n=3, concurrency=1)
    assert [str(warning.message) for warning in caught if "number of samples" in str(warning.message)]
    assert len({*answers(batch)}) == 6
    assert asked(server) == [3, 1, 1, 1, 1, 1, 1]
    assert [type(program.lm.transport).__name__, program.lm.transport._habits.lacks] == ["HTTP", frozenset({"n"})]


@pytest.mark.parametrize(
    "said",
    [
        "Invalid n value (currently only n = 1 is supported)",
        "'n' : number must be at most 1",
        "n: must be exactly 1",
        "Unknown parameter: 'n'.",
    ],
)
def test_refusals_of_different_servers_are_understood(server: LoopbackLM, said: str) -> None:
    http = HTTP(f"m of {said}", base_url=server.url)
    server.script(Status(400, message=said))
    with pytest.warns(UserWarning, match="number of samples"):
        assert http(lm.Request.of([{"role": "user", "content": "a b c d e f"}], samples=2)).more == ()
    server.script(Status(400, message="nothing of n here, number too large"))
    with pytest.raises(BadRequestError):
        http("a b c d e f", samples=2)


def test_an_endpoint_that_gives_one_is_asked_for_the_others(server: LoopbackLM) -> None:
    one = {"choices": [{"message": {"content": "[[ ## answer ## ]]\nx"}}], "usage": {"prompt_tokens": 1}}
    server.script(Garbage(json.dumps(one).encode()))
    program = nn.Predict("question -> answer").to(model_of(server))
    assert answers(program.map(BATCH[:1], n=3, concurrency=1)) == ["x", "a0", "a1"]
    assert asked(server) == [3, 1, 1]


def test_samples_come_by_their_numbers_with_all_that_they_hold(server: LoopbackLM) -> None:
    server.respond = None
    server.script(
        Reply("one", logprobs=[("one", -0.5)]),
        Reply("<think>so</think>two", finish_reason="length"),
        Reply(tool_calls=[("look", {"a": 1})]),
    )
    http = HTTP("m", base_url=server.url)
    found = http("q", samples=3)
    assert [sample.text for sample in found.samples] == ["one", "two", ""]
    assert [sample.is_cut for sample in found.samples] == [False, True, False]
    assert found.more[0].reasoning == "so"
    assert [call.name for call in found.more[1].tool_calls] == ["look"]
    assert found.logprobs[0].token == "one"
    assert Completion.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.as_cached().more == found.more
    server.script("x")
    assert stream(http, samples=2)[-1].more == ()
    assert "n" not in server.requests[-1].json


def stream(model: lm.LM, **options: Any) -> list[Any]:
    from promptgrad import aio

    async def events() -> list[Any]:
        return [event async for event in model.stream("q", **options)]

    return aio.run(events())


@pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class:UserWarning")  # of litellm
def test_litellm_asks_for_several_too(server: LoopbackLM) -> None:
    pytest.importorskip("litellm")
    model = lm.LiteLLM("openai/m", api_base=server.url, api_key="none", prices=(1.0, 1.0))
    server.respond = None
    server.script("x", "y")
    assert [sample.text for sample in model("q", samples=2).samples] == ["x", "y"]
    assert asked(server) == [2]


def test_a_model_that_cannot_gives_one() -> None:
    assert len(FunctionLM(lambda messages: "x")("q", samples=3).samples) == 1
    model = SamplesInOne(FunctionLM(lambda messages: "[[ ## answer ## ]]\nx"))
    with usage() as used:
        assert answers(nn.Predict("question -> answer").to(model).map(BATCH, n=2)) == ["x"] * 4
    assert used.total.calls == 4


# --- runs ---


def journal_of(server: LoopbackLM, path: Any, concurrency: int, **how: Any) -> tuple[Any, list[str], Any]:
    program = nn.Predict("question -> answer", max_tokens=10).to(model_of(server))
    journal = run.Journal(path)
    ledger = run.Ledger(run.Budget(**how), journal=journal) if how else None
    with run.active(journal=journal, ledger=ledger) as active, run.scope("trial"):
        found = answers(program.map(BATCH, n=3, concurrency=concurrency))
    canonical = journal.canonical()
    journal.close()
    return canonical, found, active.ledger


@pytest.mark.parametrize("concurrency", [1, 32])
def test_a_resumed_run_sends_nothing_again(server: LoopbackLM, tmp_path: Any, concurrency: int) -> None:
    first, found, ledger = journal_of(server, tmp_path / "j", concurrency)
    assert asked(server) == [3, 3]
    assert ledger.spent.calls == 2
    again, same, resumed = journal_of(server, tmp_path / "j", 32 // concurrency)
    assert asked(server) == [3, 3]
    assert (same, again) == (found, first)
    assert resumed.spent.tokens == ledger.spent.tokens


def test_the_journal_is_the_same_at_any_concurrency(tmp_path: Any) -> None:
    with LoopbackLM("[[ ## answer ## ]]\nx") as server:
        seen = [journal_of(server, tmp_path / str(limit), limit)[0] for limit in (1, 2, 32)]
    assert seen[0] == seen[1] == seen[2]


def test_a_budget_reserves_for_all_samples(server: LoopbackLM, tmp_path: Any) -> None:
    program = nn.Predict("question -> answer", max_tokens=100).to(model_of(server))
    with run.active(ledger=run.Ledger(run.Budget(tokens=300))):
        assert {type(row.error) for row in program.map(BATCH[:1], n=3).errors} == {BudgetExceeded}
    assert asked(server) == []
    with run.active(ledger=run.Ledger(run.Budget(calls=1))):
        assert not program.map(BATCH[:1], n=3).errors
        assert {type(row.error) for row in program.map(BATCH[1:], n=3).errors} == {BudgetExceeded}


def test_a_cassette_has_them_all(server: LoopbackLM, tmp_path: Any) -> None:
    program = nn.Predict("question -> answer").to(model_of(server))
    with lm.record(tmp_path / "c"):
        found = answers(program.map(BATCH, n=2))
    with lm.replay(tmp_path / "c"):
        assert answers(program.map(BATCH, n=2, concurrency=1)) == found
    assert asked(server) == [2, 2]


# --- how it is made ---


def test_it_is_the_outermost_layer(server: LoopbackLM) -> None:
    made = lm.resolve("m", base_url=server.url, samples_in_one=True)
    assert isinstance(made, SamplesInOne)
    assert isinstance(made.lm, Cache)
    assert made is not lm.resolve("m", base_url=server.url)
    with pytest.raises(TypeError, match=r"write SamplesInOne\(Cache\(...\)\)"):
        Cache(made)
    both = Fallback(made, lm.resolve("m2", base_url=server.url))
    assert len(answers(nn.Predict("question -> answer").to(both).map(BATCH[:1], n=2))) == 2
    assert asked(server) == [2]


def test_a_number_of_samples_is_checked() -> None:
    with pytest.raises(ValueError, match="samples is at least 1"):
        lm.Request.of("q", samples=0)
    with pytest.raises(TypeError, match="no option 'samples'"):
        HTTP("m", samples=2)
