"""LMs and programs on them go to other processes: their settings do, never their keys."""

import copy
import multiprocessing
import pickle

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.testing import LoopbackLM

SECRET = "sk-never-in-a-pickle"


@pytest.fixture
def server():
    with LoopbackLM(lambda messages: "[[ ## word ## ]]\nhere\n\n[[ ## completed ## ]]") as made:
        yield made


def shout(messages):
    return messages[-1].content.upper()


def ask(program):
    return str(program(text="some text").word)


@pytest.mark.parametrize(
    "kind", ["TGD", "GEPA", "MIPRO", "BootstrapFewShot", "LabeledFewShot", "KNNFewShot", "RandomSearch", "Auto"]
)
def test_optimizers_come_back_with_their_state(kind):
    made = getattr(pg.optim, kind)(Two().parameters())
    assert again(made).state_dict() == made.state_dict()
    assert copy.deepcopy(made).state_dict() == made.state_dict()


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Predict("text -> word")
        self.second = nn.ChainOfThought("text -> word")


def again(obj):
    written = pickle.dumps(obj)
    assert SECRET.encode() not in written
    return pickle.loads(written)


@pytest.mark.parametrize(
    "make",
    [
        lambda url, folder: pg.LM("openai/m", base_url=url, api_key=SECRET, temperature=0.5, attempts=2, concurrency=3),
        lambda url, folder: pg.LM("m", base_url=url, api_key=SECRET, cache=folder, headers={"X-Key": SECRET}),
        lambda url, folder: pg.LM("m", base_url=url.replace("://", f"://user:{SECRET}@"), cache=False, rpm=600),
        lambda url, folder: pg.LM("anthropic/m", api_key=SECRET, extra_headers={"X-Key": SECRET}, aws_secret=SECRET),
        lambda url, folder: lm.HTTP("m", url, SECRET, timeout=7.0, headers={"X-Key": SECRET}, without=["system"]),
        lambda url, folder: lm.Cache(lm.Retry(lm.Limit(lm.HTTP("m", url, SECRET), 2), 3), folder),
        lambda url, folder: lm.LiteLLM("gemini/m", SECRET, settings={"aws_session_token": SECRET, "seed": 3}),
        lambda url, folder: lm.FunctionLM(shout, name="shout", temperature=0.3),
        lambda url, folder: pg.LM("pocket"),
    ],
)
def test_it_comes_back_with_its_settings_and_without_its_keys(server, tmp_path, make):
    made = make(server.url, tmp_path / "cache")
    back = again(made)
    assert type(back) is type(made)
    assert repr(back) == repr(made)
    assert back.identity() == made.identity()
    assert back.adapter == made.adapter
    ours, theirs = made, back
    while isinstance(ours, lm.Layer):
        ours, theirs = ours.lm, theirs.lm
        assert type(ours) is type(theirs)
    assert theirs.options == ours.options
    assert getattr(theirs, "timeout", None) == getattr(ours, "timeout", None)


def test_a_program_comes_back_and_shares_its_lm(server):
    program = Two().to(pg.LM("m", base_url=server.url, api_key=SECRET, cache=False))
    program.first.instruction.data = "Changed."
    back = again(program)
    assert back.first.instruction.data == "Changed."
    assert back.first.lm is back.second.lm
    assert ask(back.first) == "here"


def test_a_program_works_in_other_processes(server):
    program = nn.Predict("text -> word").to(pg.LM("openai/m", base_url=server.url, api_key=SECRET))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(ask, [program] * 3) == ["here"] * 3


def test_a_copy_shares_the_lm(server):
    program = Two().to(pg.LM("m", base_url=server.url, api_key=SECRET))
    twin = copy.deepcopy(program)
    assert twin.first.lm is program.first.lm
    assert twin.first.instruction is not program.first.instruction


class Own(lm.Transport):
    """A transport of one's own is pickled as any object is."""

    def __init__(self, reply):
        super().__init__("own")
        self.reply = reply

    async def _send(self, request, key):
        return lm.Completion(self.reply)


def test_one_of_your_own_keeps_its_state():
    own = Own("a")
    own.reply = "b"
    assert again(own)("x").text == "b"


def test_trained_weights_are_not_lost_in_silence():
    torch = pytest.importorskip("torch")
    local = lm.Local(lm.pocket()._source)
    assert again(local).identity() == local.identity()
    with torch.no_grad():
        next(local.model.parameters()).add_(0.01)
    with pytest.raises(TypeError, match="a pickle would lose them: save the program"):
        pickle.dumps(local)
