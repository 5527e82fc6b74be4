"""Record and replay: what an LM said once, it says again, and nothing else is sent."""

import asyncio
import itertools
import json
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad import lm, nn, run
from promptgrad.errors import (
    AuthenticationError,
    ContextWindowError,
    JournalError,
    LMTimeoutError,
    NoLMError,
    RateLimitError,
    ReplayError,
)
from promptgrad.testing import LoopbackLM, Status
from tests.train import world

HERE = Path(__file__).parent
CAPITALS = HERE / "cassettes" / "capitals.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Numbers:
    """Answers each call with the next number."""

    def __init__(self):
        self.calls = 0

    def __call__(self, messages):
        self.calls += 1
        return f"{messages[-1]['content']} {self.calls}"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "cassette.jsonl"


def test_what_was_recorded_is_replayed_in_order_and_nothing_is_called(path):
    numbers = Numbers()
    model = lm.FunctionLM(numbers, name="numbers")
    with lm.record(path) as cassette:
        said = [model("a").text, model("b", temperature=0.5).text, model("a").text]
        assert len(cassette) == 3
    with lm.replay(path) as cassette:
        again = [model("a"), model("b", temperature=0.5), model("a"), model("a")]
        assert cassette.unused == ()
    assert [completion.text for completion in again] == [*said, said[2]]
    assert numbers.calls == 3
    assert model("a").text == "a 4"


def test_equal_requests_side_by_side_keep_their_replies(path):
    words = ["one", "two", "three", "four", "five"]
    asked = itertools.count()
    answered = [asyncio.Event() for _ in words]

    async def sample(messages):
        number = next(asked)
        if number < 3:
            await answered[number + 1].wait()  # the first four come back in the opposite order
        answered[number].set()
        return f"[[ ## word ## ]]\n{words[number]}\n\n[[ ## completed ## ]]"

    model = nn.Predict("text -> word").to(lm.FunctionLM(sample, name="sampling"))
    batch = [{"text": "the same"}] * 4
    with lm.record(path):
        recorded = [output.word for output in model.map(batch)]
    assert [entry["turn"] for entry in lines(path)[2:]] == [3, 2, 1, 0]
    with lm.record(path, append=True):
        recorded.append(model(text="the same").word)
    assert recorded == words
    with lm.replay(path):
        assert [output.word for output in model.map(batch)] == recorded[:4]
        assert model(text="the same").word == "five"


def test_the_file_is_versioned_json_lines_with_everything_that_was_said(path):
    with lm.record(path):
        lm.FunctionLM(lambda messages: "yes", name="one")("Is it?", temperature=0.5)
    header, model, call = lines(path)
    assert header == {"kind": "cassette", "schema": 4}
    assert model == {"kind": "lm", "name": "one", "identity": "one", "adapter": "chat", "prices": [0.0, 0.0]}
    assert call["request"] == {"messages": [{"role": "user", "content": "Is it?"}], "temperature": 0.5}
    assert call["reply"]["text"] == "yes"


def test_no_key_reaches_the_file(path):
    with LoopbackLM(lambda messages: Status(401, message="the key sk-verysecret is wrong")) as server:
        model = lm.HTTP("m", server.url.replace("//", "//user:sk-verysecret@"), "sk-verysecret")
        with lm.record(path), pytest.raises(AuthenticationError):
            model("hello")
        model.close()
    assert "sk-verysecret" not in path.read_text()
    assert [entry["kind"] for entry in lines(path)] == ["cassette", "lm", "error"]


def test_an_existing_file_is_never_overwritten(path):
    model = lm.FunctionLM(Numbers(), name="numbers")
    with lm.record(path):
        model("a")
    with pytest.raises(FileExistsError, match="append=True"), lm.record(path):
        pass
    with lm.record(path, append=True) as cassette:
        model("b")
        assert len(cassette) == 2
    assert [entry["kind"] for entry in lines(path)] == ["cassette", "lm", "call", "call"]


def test_an_unknown_request_is_refused_and_the_nearest_is_shown(path):
    numbers = Numbers()
    model = lm.FunctionLM(numbers, name="numbers")
    with lm.record(path):
        model("Name the capital of France.")
        model("How many legs has a spider?")
    with pytest.raises(ReplayError) as caught, lm.replay(path):
        model("Name the capital of Spain.")
    assert numbers.calls == 2
    message = str(caught.value)
    assert "-Name the capital of France." in message
    assert "+Name the capital of Spain." in message
    assert "spider" not in message
    assert "strict=False" in message
    assert caught.value.request["messages"][0]["content"] == "Name the capital of Spain."


def test_options_are_part_of_a_request(path):
    model = lm.FunctionLM(Numbers(), name="numbers")
    with lm.record(path):
        model("a", temperature=0.5)
    with pytest.raises(ReplayError, match=r"-temperature = 0\.5"), lm.replay(path):
        model("a")


def test_the_same_request_of_another_model_is_another_request(path):
    with lm.record(path):
        lm.FunctionLM(Numbers(), name="one")("a")
    with pytest.raises(ReplayError, match="another language model") as caught, lm.replay(path):
        lm.FunctionLM(Numbers(), name="two")("a")
    assert "cassette.lm()" in str(caught.value)


def test_what_is_not_strict_asks_the_model_for_the_rest(path):
    numbers = Numbers()
    model = lm.FunctionLM(numbers, name="numbers")
    with lm.record(path):
        model("a")
    with lm.replay(path, strict=False):
        assert model("a").text == "a 1"
        assert model("b").text == "b 2"
    with pytest.raises(ReplayError), lm.replay(path, strict=False) as cassette:
        cassette.lm()("b")


def test_a_refusal_stops_a_batch_and_is_not_a_wrong_answer(path):
    model = nn.Predict("question -> answer", lm=lm.FunctionLM(lambda m: "[[ ## answer ## ]]\nParis", name="one"))
    with lm.record(path):
        model(question="a")
    with pytest.raises(ReplayError), lm.replay(path):
        model.map(["a", "b"])


def test_a_refusal_that_a_program_swallows_is_raised_at_the_end(path):
    model = lm.FunctionLM(Numbers(), name="numbers")
    with lm.record(path):
        model("a")
    with pytest.raises(ReplayError, match="holds no reply"), lm.replay(path) as cassette:  # noqa: PT012
        with pytest.raises(NoLMError):
            model("b")
        assert len(cassette.unknown) == 1


def test_caches_begin_empty_and_hits_are_recorded(path):
    numbers = Numbers()
    model = lm.Cache(lm.FunctionLM(numbers, name="numbers"))
    first = model("warm").text
    with lm.record(path), lm.track_usage() as recorded:
        assert [model("warm").text, model("cold").text, model("cold").text] == [first, "cold 2", "cold 2"]
    model.clear()
    with lm.replay(path), lm.track_usage() as replayed:
        assert [model("warm").text, model("cold").text, model("cold").text] == [first, "cold 2", "cold 2"]
    assert numbers.calls == 2
    assert len(model) == 0
    assert (replayed.total.calls, replayed.total.cached) == (recorded.total.calls, recorded.total.cached) == (1, 2)


def test_errors_are_replayed_without_waiting_and_those_that_passed_are_not(path):
    async def no_sleep(seconds):
        waits.append(seconds)

    waits = []
    server = LoopbackLM()
    model = lm.Retry(lm.HTTP("m", server.url, "key"), attempts=2, sleep=no_sleep)
    server.script(Status(429, retry_after=3), "first", Status(429), Status(429, retry_after=5))
    with lm.record(path):
        assert model("a").text == "first"
        with pytest.raises(RateLimitError):
            model("b")
    server.close()
    assert len(waits) == 2
    with lm.replay(path):
        assert model("a").text == "first"
        with pytest.raises(RateLimitError) as caught:
            model("b")
    assert caught.value.status == 429
    assert len(waits) == 2
    model.close()


@pytest.mark.parametrize("kind", [LMTimeoutError, ContextWindowError])
def test_an_error_keeps_its_type(path, kind):
    def fail(messages):
        raise kind("too much")

    model = lm.FunctionLM(fail, name="failing")
    with lm.record(path), pytest.raises(kind):
        model("a")
    with lm.replay(path) as cassette, pytest.raises(kind, match="too much"):
        cassette.lm()("a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("hello\n", "is not a cassette"),
        ('{"kind": "header", "schema": 1}\n', "is not a cassette"),
        ('{"kind": "cassette", "schema": 99}\n', "upgrade promptgrad"),
        ('{"kind": "cassette", "schema": 1}\n{"kind": "call"', "line 2"),
    ],
)
def test_a_file_that_is_no_cassette_is_refused(tmp_path, text, said):
    path = tmp_path / "file.jsonl"
    path.write_text(text)
    with pytest.raises(ReplayError, match=said), lm.replay(path):
        pass


def test_the_default_model_of_a_replay_is_the_one_on_record():
    with lm.replay(CAPITALS) as cassette:
        assert cassette.lms == ("gpt-4o-mini",)
        answer = nn.Predict("question -> answer")(question="What is the capital of France?")
        assert answer.answer == "Paris"
        assert answer.usage.calls == 1
        assert [request["messages"][-1]["content"].count("Spain") for request in cassette.unused] == [1]
    with pytest.raises(NoLMError):
        nn.Predict("question -> answer")(question="What is the capital of France?")


def test_a_recorded_model_answers_only_inside_of_a_replay():
    with lm.replay(CAPITALS) as cassette:
        model = cassette.lm("gpt-4o-mini")
        with pytest.raises(ReplayError, match=r"holds 'gpt-4o-mini'"):
            cassette.lm("gpt-5")
    with pytest.raises(ReplayError, match="only inside"):
        model("hello")


def train(folder, *, concurrency, to=None):
    model = world.Program()
    if to is not None:
        model.to(to)
    trainer = pg.Trainer(
        model, world.optimizer("tgd", model), metric=world.metric, run_dir=folder, seed=5, concurrency=concurrency
    )
    result = trainer.fit(world.examples(8), world.examples(20, seed=1))
    journal = run.Journal(folder / "journal.jsonl", readonly=True)
    state = {path: value for path, value in model.state_dict().items() if path != "_meta"}
    return state, result.outcome, journal.canonical()


@pytest.mark.parametrize("placed", ["on the model", "in the context"])
def test_a_training_run_replays_without_any_model_to_the_same_canonical_journal(tmp_path, path, placed):
    with LoopbackLM(world.answer) as server:
        real = world.lm_at(server.url)
        on_model = real if placed == "on the model" else None
        with lm.context(lm=None if on_model else real), lm.record(path):
            recorded = train(tmp_path / "one", concurrency=8, to=on_model)
        sent = len(server.requests)
    assert sent > 50
    with lm.replay(path) as cassette:
        replayed = train(tmp_path / "two", concurrency=3, to=cassette.lm() if on_model else None)
        assert cassette.unused == ()
    assert replayed == recorded
    assert len(recorded[2]) > 50


def test_a_resumed_run_is_recorded_in_full(tmp_path, path):
    model = lm.FunctionLM(Numbers(), name="numbers")
    journal = run.Journal()
    with run.active(journal=journal):
        model("a")
    with run.active(journal=journal), lm.record(path):
        model("a")
        model("a")
    assert [entry["kind"] for entry in lines(path)] == ["cassette", "lm", "call"]
    with lm.replay(path) as cassette:
        assert cassette.lm()("a").text == "a 1"


def record_capitals():
    """Write the fixture anew, after a change of the chat format: python tests/lm/test_cassette.py."""
    CAPITALS.unlink(missing_ok=True)
    capitals = {"France": "Paris", "Spain": "Madrid"}

    def answer(messages):
        name = next(city for country, city in capitals.items() if country in messages[-1]["content"])
        return f"[[ ## answer ## ]]\n{name}\n\n[[ ## completed ## ]]"

    program = nn.Predict("question -> answer", lm=lm.FunctionLM(answer, name="gpt-4o-mini"))
    with lm.record(CAPITALS):
        for country in capitals:
            program(question=f"What is the capital of {country}?")


if __name__ == "__main__":
    record_capitals()


DAMAGES = [
    lambda entry: "[" * 100_000,
    lambda entry: json.dumps({**entry, "reply": 5}),
    lambda entry: json.dumps({**entry, "reply": {}}),
    lambda entry: json.dumps({**entry, "reply": {"content": 7}}),
    lambda entry: json.dumps({**entry, "reply": {"text": "x", "usage": 5}}),
    lambda entry: json.dumps({**entry, "key": ["k"]}),
    lambda entry: json.dumps({**entry, "turn": "first"}),
    lambda entry: json.dumps({name: value for name, value in entry.items() if name != "reply"}),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_told(tmp_path, damage):
    path = tmp_path / "c.jsonl"
    model = lm.FunctionLM(lambda messages: "x", name="f")
    with lm.record(path):
        model("hi")
    *first, last = path.read_text().splitlines()
    path.write_text("\n".join([*first, damage(json.loads(last))]) + "\n")
    with pytest.raises(ReplayError, match="is damaged"), lm.replay(path):
        model("hi")


@pytest.mark.parametrize(
    "reply", [{}, {"content": 7}, {"content": [7]}, {"text": "x", "tool_calls": 5}, {"content": [{"type": "zz"}]}]
)
def test_a_damaged_reply_of_a_journal_is_told(tmp_path, reply):
    model = lm.FunctionLM(lambda messages: "x", name="f")
    call = {"kind": "call", "key": lm.Request.of("hi").digest(model.identity()), "scope": "", "reply": reply}
    path = tmp_path / "j.jsonl"  # as version 2 wrote it, without checksums
    path.write_text('{"kind":"header","schema":2}\n' + json.dumps(call) + "\n")
    with run.Journal(path) as journal, run.active(journal=journal), pytest.raises(JournalError, match="is damaged"):
        model("hi")


def test_a_cassette_that_is_no_text_is_told(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(ReplayError, match="is damaged: it is not UTF-8"), lm.replay(tmp_path / "c.jsonl"):
        pass
