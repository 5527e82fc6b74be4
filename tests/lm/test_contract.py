"""Every LM of ours keeps the contract that `promptgrad.testing.lms` checks: transports, layers, recorded ones."""

import asyncio
import importlib.util
from functools import lru_cache
from pathlib import Path

import pytest

from promptgrad import lm as room
from promptgrad.errors import ContextWindowError, LMConnectionError, LMTimeoutError
from promptgrad.lm import (
    HTTP,
    Cache,
    Fallback,
    FunctionLM,
    Hedge,
    Limit,
    LiteLLM,
    Local,
    Retry,
    record,
    replay,
    resolve,
)
from promptgrad.testing.lms import LMContract
from tests.contract import PROMISES, run_contract

KEY = "sk-never-to-be-seen"


async def no_wait(seconds):
    pass


async def echo(messages):
    await asyncio.sleep(0)
    return messages[-1].text


def last(messages):
    return messages[-1].text


def out_of_time(messages):
    raise LMTimeoutError("nobody answers")


def unreachable(messages):
    raise LMConnectionError("nobody is there")


async def too_long(request):
    raise ContextWindowError("the prompt is too long", status=400)


class TestFunction(LMContract):
    def make(self):
        return FunctionLM(last)

    def different(self):
        return [FunctionLM(echo), FunctionLM(last, name="other"), FunctionLM(last, temperature=0.5)]

    def failing(self):
        return [(FunctionLM(out_of_time), LMTimeoutError), (FunctionLM(too_long), ContextWindowError)]


class TestAsyncFunction(LMContract):
    def make(self):
        return FunctionLM(echo)


class TestFallback(LMContract):
    # of one model under the key of the LM: a chain keeps each call under the model that was asked, see test_fallback.py
    test_a_run_pays_once = test_a_cassette_repeats_it = test_a_stream_is_journalled_like_a_call = None

    def make(self):
        return Fallback(FunctionLM(unreachable), FunctionLM(last))

    def different(self):
        return [Fallback(FunctionLM(last), FunctionLM(unreachable)), Fallback(FunctionLM(last), FunctionLM(echo))]

    def failing(self):
        return [(Fallback(FunctionLM(too_long), FunctionLM(last)), ContextWindowError)]


class Wire(LMContract):
    wire = True
    secrets = (KEY,)

    def http(self, **settings):
        return HTTP("loopback-model", self.url, KEY, **settings)


class TestHTTP(Wire):
    def make(self):
        return self.http()

    def different(self):
        return [self.http(temperature=0.5), HTTP("other-model", self.url), HTTP("loopback-model", "http://127.0.0.1:9")]

    def failing(self):
        return [(HTTP("loopback-model", "http://127.0.0.1:9", KEY), LMConnectionError)]


class TestHedge(Wire):
    def make(self):
        return Hedge(self.http(), after=60.0)

    def failing(self):
        return [(Hedge(HTTP("loopback-model", "http://127.0.0.1:9", KEY), quantile=0.9), LMConnectionError)]


class TestHTTPWithOptions(Wire):
    secrets = (KEY, "never-either", "bm9ib2R5Om5ldmVyLWVpdGhlcg==")

    def make(self):
        address = self.url.replace("//", "//nobody:never-either@")
        return HTTP("loopback-model", address, headers={"X-Key": KEY}, concurrency=3, temperature=0.25, top_k=4)


@pytest.mark.filterwarnings("ignore:Item.*ReadOnly:UserWarning")  # litellm's own, when it streams
@pytest.mark.filterwarnings("ignore:Accessing the 'model_.*:DeprecationWarning")
class TestLiteLLM(Wire):
    def make(self):
        return LiteLLM("openai/loopback-model", KEY, api_base=self.url)

    def different(self):
        return [
            LiteLLM("openai/other-model", api_base=self.url),
            LiteLLM("openai/loopback-model", api_base=self.url, temperature=0.5),
        ]


@lru_cache(maxsize=2)
def tiny(**sizes):
    """A random model and its tokenizer, the same in each process."""
    spec = importlib.util.spec_from_file_location("tiny_models", Path(__file__).with_name("conftest.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_model(**sizes).requires_grad_(False), module.make_tokenizer()


class TestLocal(LMContract):
    options = {"max_tokens": 4}  # noqa: RUF012

    def make(self):
        pytest.importorskip("torch")
        return Local(*tiny(), name="tiny")

    def different(self):
        return [Local(*tiny(), name="tiny", seed=1), Local(*tiny(), name="tiny", temperature=0.5)]

    def failing(self):
        model, tokenizer = tiny(max_position_embeddings=4)
        return [(Local(model, tokenizer, name="short"), ContextWindowError)]


class TestPocket(LMContract):
    prompts = ("cat 5", "all animals", "7 8 9")
    options = {"max_tokens": 4}  # noqa: RUF012

    def make(self):
        pytest.importorskip("torch")
        return room.pocket()

    def different(self):
        return [room.pocket(temperature=0.5)]


class TestCache(Wire):
    def make(self):
        return Cache(self.http())


class TestCacheOnDisk(Wire):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path_factory):
        self._folder = tmp_path_factory.mktemp("cache")
        self._number = 0

    def make(self):
        folder = getattr(self, "_folder", None)  # each has a file of its own, and another process none
        if folder is None:
            return Cache(self.http())
        self._number += 1
        return Cache(self.http(), folder / f"{self._number}.db")


class TestRetry(Wire):
    def make(self):
        return Retry(self.http(), sleep=no_wait)


class TestLimit(Wire):
    def make(self):
        return Limit(self.http(), 2)


class TestName(Wire):
    def make(self):
        return resolve("loopback-model", base_url=self.url, api_key=KEY, cache=None)


class TestRecorded(Wire):
    """While all is recorded."""

    @pytest.fixture(autouse=True)
    def cassette(self, tmp_path_factory):
        with record(tmp_path_factory.mktemp("record") / "cassette.jsonl") as cassette:
            yield cassette

    def make(self):
        return self.http()


class TestReplayed(LMContract):
    """While the calls that are on record are replayed, and the others are made."""

    @pytest.fixture(autouse=True)
    def cassette(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("replay") / "cassette.jsonl"
        with record(path):
            for number in range(4):
                self.make()(self.request(number))
        with replay(path, strict=False) as cassette:
            yield cassette

    def make(self):
        return FunctionLM(last)


KINDS = [value for name, value in list(globals().items()) if name.startswith("Test")]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_it_answers_under_pytest_asyncio(kind, server):
    case = kind()
    case.url = server.url
    model = case.make()
    replies = await asyncio.gather(*[model.acall(case.prompts[0], **case.options, replicate=i) for i in range(5)])
    assert len(replies) == 5
    model.close()


class Twice(LMContract):
    """First the one language model, then the other."""

    def make(self):
        return self.maker()


@pytest.mark.parametrize("name", [name for name in PROMISES if "another_process" not in name])
def test_what_a_cassette_gives_in_place_of_a_language_model_keeps_the_contract(name, server, tmp_path):
    path = tmp_path / "cassette.jsonl"
    case = Twice()
    case.maker = lambda: FunctionLM(last)
    with record(path):
        FunctionLM(last)("to have one on record")
        run_contract(case, name, server, tmp_path / "recorded")
    with replay(path) as cassette:
        case.maker = cassette.lm
        run_contract(case, name, server, tmp_path / "replayed")
