"""Grad modes: `no_grad`, `enable_grad`, `inference_mode`, held in a context variable."""

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast, overload

F = TypeVar("F", bound=Callable[..., Any])

GRAD, NO_GRAD, INFERENCE = 0, 1, 2

mode: ContextVar[int] = ContextVar("promptgrad.grad_mode", default=GRAD)


def is_grad_enabled() -> bool:
    """Whether calls are recorded in this context (thread, task)."""
    return mode.get() == GRAD


class _Mode:
    """A context manager and decorator that sets the grad mode; nestable, re-enterable."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._outer: list[int] = []

    def __enter__(self) -> None:
        outer = mode.get()
        self._outer.append(outer)
        mode.set(INFERENCE if outer == INFERENCE else self._target)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mode.set(self._outer.pop())

    def __call__(self, fn: F) -> F:
        target = self._target
        if inspect.iscoroutinefunction(fn):

            @wraps(fn)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with _Mode(target):
                    return await fn(*args, **kwargs)

            return cast(F, awaited)
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(
                f"{getattr(fn, '__name__', fn)} is a generator function, whose body runs in its callers' contexts: "
                "use the `with` form inside it"
            )

        @wraps(fn)
        def called(*args: Any, **kwargs: Any) -> Any:
            with _Mode(target):
                return fn(*args, **kwargs)

        return cast(F, called)


@overload
def no_grad() -> _Mode: ...
@overload
def no_grad(fn: F) -> F: ...
def no_grad(fn: F | None = None) -> "_Mode | F":
    """Record nothing inside: no node, no graph.

    A context manager, and a decorator with or without parentheses, for async functions too.
    """
    return _Mode(NO_GRAD) if fn is None else _Mode(NO_GRAD)(fn)


@overload
def enable_grad() -> _Mode: ...
@overload
def enable_grad(fn: F) -> F: ...
def enable_grad(fn: F | None = None) -> "_Mode | F":
    """Record again inside a `no_grad` block. Inside `inference_mode` it changes nothing, as in PyTorch."""
    return _Mode(GRAD) if fn is None else _Mode(GRAD)(fn)


@overload
def inference_mode() -> _Mode: ...
@overload
def inference_mode(fn: F) -> F: ...
def inference_mode(fn: F | None = None) -> "_Mode | F":
    """Record nothing, whatever is called inside. Evaluation and serving use this mode."""
    return _Mode(INFERENCE) if fn is None else _Mode(INFERENCE)(fn)
