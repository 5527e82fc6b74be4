"""`blocking`: the plain twin of a coroutine function, with one argument list and one docstring for both."""

from collections.abc import Callable, Coroutine
from functools import wraps
from types import FunctionType, MethodType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from promptgrad.aio._caller import Caller, pointing_at
from promptgrad.aio._loops import run
from promptgrad.aio._signal import drive, serving
from promptgrad.errors import AsyncUsageError

_CO_COROUTINE = 0x80

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")


def blocking(fn: Callable[P, Coroutine[Any, Any, T]], *, in_place: bool = False) -> Callable[P, T]:
    """Make the blocking twin of a coroutine function: a plain function that runs it and waits for its result.

    The twin has the same arguments and docstring; its name is the coroutine function's without the leading "a":
    `evaluate = blocking(aevaluate)`, also in the body of a class.

    What the coroutine warns of with `warn` points at the line that called the twin.

    Args:
        fn: A coroutine function whose name begins with "a".
        in_place: Run the coroutine in the calling thread, which suits one that computes rather than waits; by default
            it runs on the program loop.

    Raises:
        AsyncUsageError: The twin is called inside a coroutine that promptgrad runs, where it would wait for itself.

    >>> async def adouble(number):
    ...     return 2 * number
    >>> blocking(adouble)(21)
    42
    """
    prefix, dot, last = fn.__qualname__.rpartition(".")
    name = f"{prefix}{dot}{last[1:]}"

    @wraps(fn)
    def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        if serving():
            home = [part for part in fn.__module__.split(".") if not part.startswith("_")]
            other = ".".join([*([] if dot else home), fn.__qualname__.rpartition("<locals>.")[2]])
            raise AsyncUsageError(
                f"{last[1:]} was called inside a coroutine that promptgrad runs, where it would wait for itself: "
                f"write `await {other}(...)`"
            )
        try:
            coroutine = fn(*args, **kwargs)
        except TypeError as error:  # the arguments do not fit: the coroutine has not begun
            raise TypeError(str(error).replace(fn.__qualname__, name, 1)) from None
        if in_place:
            return drive(coroutine)
        with pointing_at(Caller()):
            return run(coroutine)

    twin.__name__, twin.__qualname__ = last[1:], name
    return twin


def blocking_classmethod(fn: Callable[Concatenate[type[C], P], Coroutine[Any, Any, T]]) -> "classmethod[C, P, T]":
    """Make the blocking twin of a class method, in the body of its class; see `blocking`.

    For example `resume = blocking_classmethod(aresume)`.
    """
    return classmethod(blocking(cast("classmethod[C, P, Coroutine[Any, Any, T]]", fn).__func__))


def is_coroutine_function(function: object) -> bool:
    """Whether calling `function` gives a coroutine: an `async def`, a bound one, or an object whose call is one."""
    while isinstance(function, MethodType):
        function = function.__func__
    if isinstance(function, FunctionType):
        return bool(function.__code__.co_flags & _CO_COROUTINE)
    call = getattr(type(function), "__call__", None)  # noqa: B004 - its flags matter, not whether it exists
    return isinstance(call, FunctionType) and bool(call.__code__.co_flags & _CO_COROUTINE)
