"""`apart`: a coroutine in a context of its own."""

import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@types.coroutine
def apart(fn: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, T]:
    """Await an async function in this task, but in an empty context: nothing that it starts keeps the caller's.

    A timer holds the context in which it was set, and asyncio lets go of a timer that is cancelled only some time
    later. A request that sets one would so keep what its program recorded, and the batch around it.

    Cost: a call of `Context.run` for each time that the function waits.
    """
    call, context = fn(*args, **kwargs), Context()
    step: Callable[[Any], Any] = call.send
    value: Any = None
    while True:
        try:
            waited = context.run(step, value)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            value = None
        try:
            step, value = call.send, (yield waited)
        except BaseException as error:  # noqa: BLE001 - of the waiter, for the function
            step, value = call.throw, error
