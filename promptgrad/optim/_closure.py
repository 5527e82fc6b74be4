"""The closure of a gated step: its call from `step` and from `astep`, and checks of its result."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from promptgrad import aio
from promptgrad.autograd import Loss
from promptgrad.errors import GraphError

Closure = Callable[[], "Loss | Awaitable[Loss]"]
"""The function by which `step` measures a proposal: it runs the batch anew and returns its loss."""


class Runner:
    """Calls a closure: in place for `step`, in a thread or as a task for `astep`.

    Attributes:
        limit: Most runs of it in flight: a coroutine function runs for all proposals side by side.

    Args:
        closure: The closure.
        in_place: True to call it in the thread that called `step`.
    """

    def __init__(self, closure: Closure, *, in_place: bool) -> None:
        self._closure = closure
        self._in_place = in_place
        self._waits = inspect.iscoroutinefunction(closure)
        self.limit = None if self._waits else 1

    async def __call__(self) -> Loss:
        """Run it once.

        Raises:
            TypeError: The closure does not return a loss.
        """
        if self._in_place:
            return _checked(self._closure())
        result = await self._closure() if self._waits else await aio.in_thread(self._closure)  # type: ignore[misc]
        return _checked(await result if inspect.isawaitable(result) else result)


def check_step(closure: Any, loss: Any, *, plain: bool) -> None:
    """Check the arguments of `step`.

    Args:
        closure: The closure, or None.
        loss: Its loss under the current values, or None.
        plain: Whether the closure must not be a coroutine function.

    Raises:
        TypeError: The closure is not a function, or `loss` is not a loss.
    """
    if isinstance(closure, Loss):
        raise TypeError(
            "step() takes a closure, a function that runs a batch and returns its loss, and not a loss: write "
            "step() after loss.backward(), or step(lambda: criterion(model.map(batch), batch))"
        )
    if closure is not None and not callable(closure):
        raise TypeError(f"the closure is a function that runs a batch and returns its loss, not {closure!r}")
    if loss is not None and not isinstance(loss, Loss):
        raise TypeError(f"loss= is the closure's loss under the current values, not {type(loss).__name__}")
    if plain and inspect.iscoroutinefunction(closure):
        raise TypeError("step() takes a plain function; with a coroutine function: await optimizer.astep(closure)")


@contextmanager
def without_backward() -> Iterator[None]:
    """Explain what to write instead where a closure calls backward in a trial, which records nothing."""
    try:
        yield
    except GraphError as error:
        raise TypeError(
            "the closure calls backward(), and the trial of a proposal records nothing. Call loss.backward() before "
            "step(closure), or in the closure only `if promptgrad.is_grad_enabled():`"
        ) from error


def _checked(loss: Any) -> Loss:
    if not isinstance(loss, Loss):
        if hasattr(loss, "__await__"):
            getattr(loss, "close", lambda: None)()
            raise TypeError("the closure returned a coroutine: write await optimizer.astep(closure)")
        raise TypeError(
            f"the closure must return the loss, `return criterion(model.map(batch), batch)`, not {type(loss).__name__}"
        )
    return loss
