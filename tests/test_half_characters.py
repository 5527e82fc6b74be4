"""Half of a character, as a server makes it when it cuts an emoji: what keeps a text keeps it and gives it back."""

import pytest

import promptgrad as pg
from promptgrad import nn, run
from promptgrad.lm import HTTP, Cache, FunctionLM, record, replay
from promptgrad.testing import LoopbackLM, Reply

HALF = "cut \ud83d here"


def silent(messages):
    raise AssertionError("it is known")


def says(text=HALF):
    return FunctionLM(lambda messages: text, name="half")


@pytest.fixture
def predict():
    return nn.Predict("question -> answer, notes: list[str], more: dict[str, str]")


@pytest.fixture
def reply(predict):
    form = pg.adapters.ChatAdapter().format(predict.signature)
    return form.assistant({"answer": HALF, "notes": [HALF, "x"], "more": {HALF: HALF}})


def check(prediction):
    assert prediction.to_dict() == {"answer": HALF, "notes": [HALF, "x"], "more": {HALF: HALF}}


def test_the_cache_on_disk(predict, reply, tmp_path):
    first = Cache(says(reply), tmp_path)
    check(predict.to(first)(question=HALF))
    first.close()
    again = Cache(FunctionLM(silent, name="half"), tmp_path)
    check(predict.to(again)(question=HALF))
    again.close()


def test_the_journal(predict, reply, tmp_path):
    for lm in (says(reply), FunctionLM(silent, name="half")):
        journal = run.Journal(tmp_path / "journal.jsonl")
        with run.active(journal=journal):
            check(predict.to(lm)(question=HALF))
        journal.close()


def test_a_cassette(predict, reply, tmp_path):
    predict.to(says(reply))
    with record(tmp_path / "cassette.jsonl"):
        check(predict(question=HALF))
    with replay(tmp_path / "cassette.jsonl"):
        check(predict(question=HALF))


def test_a_state(predict, tmp_path):
    predict.instruction.data = HALF
    predict.demos.data = [pg.Example(question=HALF, answer=HALF, notes=[HALF], more={HALF: HALF})]
    pg.save(predict.state_dict(), tmp_path / "state.json")
    other = nn.Predict(predict.signature)
    other.load_state_dict(pg.load(tmp_path / "state.json"))
    assert other.instruction.data == HALF
    assert other.demos.data[0].to_dict() == predict.demos.data[0].to_dict()


def test_a_server(predict, reply):
    with LoopbackLM() as server:
        server.script(Reply(reply))
        check(predict.to(HTTP("tiny", server.url))(question="?"))
