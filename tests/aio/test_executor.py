import asyncio
from concurrent.futures import as_completed
from contextvars import ContextVar

import pytest

from promptgrad.aio import Executor
from promptgrad.autograd import Parameter, candidate, is_grad_enabled, no_grad

word = ContextVar("word", default="none")


def test_each_call_gets_the_context_of_the_moment_it_was_submitted():
    with Executor(2) as pool:
        futures = []
        for value in ("a", "b", "c"):
            word.set(value)
            futures.append(pool.submit(word.get))
        assert [future.result() for future in futures] == ["a", "b", "c"]


def test_what_a_call_sets_stays_in_the_call():
    word.set("mine")
    with Executor(1) as pool:
        pool.submit(word.set, "other").result()
        assert pool.submit(word.get).result() == word.get() == "mine"


def test_grad_mode_and_candidates_are_carried():
    p = Parameter("old")
    with Executor(1) as pool, no_grad(), candidate({p: "new"}):
        assert pool.submit(is_grad_enabled).result() is False
        assert list(pool.map(lambda _: p.data, range(2))) == ["new", "new"]


def test_it_is_one_of_the_standard_librarys_executors():
    async def use(pool):
        return await asyncio.get_running_loop().run_in_executor(pool, pow, 2, 5)

    with Executor() as pool:
        assert asyncio.run(use(pool)) == 32
        futures = [pool.submit(pow, base, 2) for base in range(4)]
        assert sorted(future.result() for future in as_completed(futures)) == [0, 1, 4, 9]
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 / 0).result()
