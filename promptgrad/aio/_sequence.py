"""Where running code stands in the order of the program, whatever the order in which its tasks and threads get on.

Every task and thread that a program starts is a branch of the place where it was started, and what it does comes after
that place and before what the program does next. Branches of one place come in the order in which they were started.
"""

import threading
from contextvars import Context, ContextVar
from itertools import count

from promptgrad.aio._signal import running_loop

Position = tuple[tuple[int, ...], ...]
"""Compares with others of the same forward: ((2, 0),) is the second thing done, ((2, 1), (1, 0)) the first in a
branch that was made then."""

_FORK = object()
"""The owner of a branch that was made for a thread, until the thread does something."""

_place: "ContextVar[tuple[Position, int, object]]" = ContextVar("promptgrad.place", default=((), 0, _FORK))
_births = count(1).__next__

_STEP, _THREAD, _TASK, _STRANGER = range(4)


def begin() -> None:
    """Start to count, in this context."""
    _place.set(((), 0, _runner()))


def step() -> Position:
    """The position of what is done now."""
    branch, number = _advance()
    return (*branch, (number, _STEP))


def fork(context: Context) -> None:
    """Make of a copied context, in which a thread is going to run, a branch of its own."""
    branch, number = _advance()
    context.run(_place.set, ((*branch, (number, _THREAD)), 0, _FORK))


def _advance() -> tuple[Position, int]:
    branch, number, owner = _place.get()
    me = _runner()
    if owner is not me and owner != me and (owner is not _FORK or not isinstance(me, int)):
        branch, number = (*branch, (number, *_born(me))), 0  # it started in a copy of the context of another
    number += 1
    _place.set((branch, number, me))
    return branch, number


def _runner() -> object:
    """Who runs this code: a task, or a thread."""
    loop = running_loop()
    if loop is not None:
        import asyncio

        task = asyncio.current_task(loop)
        if task is not None:
            return task
    return threading.get_ident()


def _born(runner: object) -> tuple[int, int]:
    """Sorts tasks by when they were made, which their default names tell, and others by when they are first seen."""
    name: str = getattr(runner, "get_name", str)()
    head, _, number = name.rpartition("-")
    return (_TASK, int(number)) if head == "Task" and number.isdecimal() else (_STRANGER, _births())
