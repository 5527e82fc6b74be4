"""`Executor`, a pool of threads in which recording, language models and candidates are those of the caller."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from promptgrad.aio.sequence import fork

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = 32


class Executor(ThreadPoolExecutor):
    """A `concurrent.futures.ThreadPoolExecutor` that runs each function in the context of its caller.

    Calls that a program makes in it are recorded on the program's tape, under the grad mode, the language model and
    the candidate values of that moment. In a bare thread they would not be: a thread starts with an empty context.

    Args:
        max_workers: The most threads. Use one executor for each level of nesting: a function that waits for another
            in the same full pool waits forever, as in the standard library.
        thread_name_prefix: Prefix of the names of its threads.

    >>> with Executor() as pool:
    ...     list(pool.map(len, ["a", "bc"]))
    [1, 2]
    """

    def __init__(self, max_workers: int = WORKERS, thread_name_prefix: str = "promptgrad-executor") -> None:
        super().__init__(max_workers, thread_name_prefix)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call `fn` in a thread, in a copy of the context that this is called in."""
        context = copy_context()
        fork(context)
        return super().submit(partial(context.run, fn, *args, **kwargs))
