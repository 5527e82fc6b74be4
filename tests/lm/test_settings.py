import asyncio
import threading

import pytest

from promptgrad import aio
from promptgrad.errors import NoLMError
from promptgrad.lm import Cache, FunctionLM, Settings, configure, context, current, resolve, resolve_lm
from promptgrad.lm._settings import change_default

A, B, C, D = (FunctionLM(lambda messages: "x", name=name) for name in "abcd")


@pytest.fixture(autouse=True)
def fresh():
    yield
    change_default(dict.fromkeys(("lm", "critic", "adapter", "concurrency", "cache")))


def test_the_order():
    with pytest.raises(NoLMError) as caught:
        resolve_lm()
    for way in ("lm=lm", ".to(", "context(lm=", "configure(lm="):
        assert way in str(caught.value)
    configure(lm=A)
    assert resolve_lm() is A
    with context(B):
        assert resolve_lm() is B
        assert resolve_lm(None, None, C) is C
        assert resolve_lm(None, D, C) is D
        with context(lm=A, override=True):
            assert resolve_lm(None, D) is A
            assert resolve_lm(B, D) is B
            with context(lm=C):
                assert resolve_lm(None, D) is A
        assert resolve_lm(None, D) is D
    assert resolve_lm() is A


def test_what_is_not_given_stays_and_none_takes_back():
    configure(lm=A, critic=B, concurrency=7, adapter="json")
    configure(concurrency=8)
    assert current() == Settings(lm=A, critic=B, concurrency=8, adapter="json")
    configure(critic=None)
    assert current().critic is None
    assert current().lm is A


def test_contexts_nest_and_lay_over_the_default():
    configure(lm=A, concurrency=4)
    with context(critic=B) as outer, context(replicate=3, adapter="chat") as inner:
        assert outer == Settings(lm=A, critic=B, concurrency=4)
        assert inner == current() == Settings(lm=A, critic=B, concurrency=4, replicate=3, adapter="chat")
        configure(concurrency=9)
        assert current().concurrency == 9
    assert current() == Settings(lm=A, concurrency=9)


def test_a_context_belongs_to_its_task_and_a_default_to_all_threads():
    configure(lm=A)

    async def inside(lm):
        with context(lm):
            await asyncio.sleep(0)
            return resolve_lm()

    async def main():
        return await asyncio.gather(inside(B), inside(C))

    assert aio.run(main()) == [B, C]
    seen = []
    with context(B):
        thread = threading.Thread(target=lambda: seen.append(resolve_lm()))
        thread.start()
        thread.join()
    assert seen == [A]


@pytest.mark.parametrize("bad", [{"concurrency": 0}, {"concurrency": True}, {"concurrency": 1.5}])
def test_bad_numbers(bad):
    with pytest.raises(ValueError, match="concurrency"):
        configure(**bad)
    with pytest.raises(ValueError, match="replicate"), context(replicate=-1):
        pass
    assert current() == Settings()


def test_override_needs_an_lm():
    with pytest.raises(ValueError, match="needs an lm"), context(override=True):
        pass


def test_unknown_settings_are_errors():
    with pytest.raises(TypeError):
        configure(temprature=0)


def test_names_are_resolved():
    configure(lm="openai/gpt-4o-mini")
    assert resolve_lm() is resolve("openai/gpt-4o-mini")
    assert resolve_lm("openai/gpt-4o-mini") is resolve_lm()
    with context(critic=lambda messages: "x"):
        assert isinstance(current().critic, FunctionLM)


def test_a_configured_cache_folder_is_used_by_names(tmp_path):
    configure(cache=tmp_path)
    lm = resolve("openai/cached-here")
    assert isinstance(lm, Cache)
    assert str(tmp_path) in repr(lm)
    assert (tmp_path / "lm.db").exists()
    lm.close()
    configure(cache=None)
    assert resolve("openai/cached-here") is not lm
