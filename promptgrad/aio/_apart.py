"""`apart`: a coroutine in a context of its own."""

import types
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def apart(call: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await a coroutine in this task, but in an empty context: nothing that it starts keeps the caller's.

    A timer holds the context in which it was set, and asyncio lets go of a timer that is cancelled only some time
    later. A request that sets one would so keep what its program recorded, and the batch around it.

    Cost: a call of `Context.run` for each time that the coroutine waits.
    """
    context = Context()
    try:
        waited = context.run(call.send, None)
        while True:
            try:
                value = yield waited
            except BaseException as error:  # noqa: BLE001 - of the waiter, for the coroutine
                waited = context.run(call.throw, error)
            else:
                waited = context.run(call.send, value)
    except StopIteration as end:
        result: T = end.value
        return result
