"""The position of running code in the order of the program, whatever the order in which its tasks and threads run.

Every task and thread that a program starts is a branch of the place where it was started, and what it does comes after
that place and before what the program does next. Branches of one place come in the order in which they were started.

Our own loops and `Executor` note the place when they start a task or thread. On a loop of the user's own, a task is
noticed at its first step, and is ordered by its default name, which counts up as tasks are made.
"""

import sys
import threading
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from promptgrad.aio._signal import running_loop

if TYPE_CHECKING:
    import asyncio

Position = tuple[tuple[int, ...], ...]
"""Sorts the steps of one forward: ((2, 0),) is its second step, and ((2, 1), (1, 0)) the first step of a branch that
was made there."""

Mark = tuple[Position, int]
"""What `step` returns: a branch, and its number of steps. `position` makes a position of it."""

_STEP, _FORK, _TASK, _STRANGER = range(4)
_births = count(1).__next__
_get_ident = threading.get_ident
_ANY = object()


_Branch = list[Any]
"""One line of work: its position, its number of steps, and its runner, which is `_ANY` at first.

A thread counts up in place, since whatever it starts either is forked by us or blocks the thread. A task makes a new
branch at each step, since a task that it starts copies the context of that moment and may begin at any later time.
"""

_branch: "ContextVar[_Branch]" = ContextVar("promptgrad.branch")


def begin() -> None:
    """Start counting steps in this context."""
    _branch.set([(), 0, _runner()])


def step() -> Mark:
    """Count one step, and return the place of the program."""
    branch = _branch.get(None)
    me = _runner()
    if branch is not None and branch[2] == me and type(me) is int:
        branch[1] += 1
        return branch[0], branch[1]
    if branch is None:
        branch = [(), 0, me]
    elif branch[2] is not me and branch[2] is not _ANY:
        branch = [(*branch[0], (branch[1], *_born(me))), 0, me]  # it started in a copy of the context of another
    branch = [branch[0], branch[1] + 1, me]
    _branch.set(branch)
    return branch[0], branch[1]


def position(mark: Mark) -> Position:
    """The position of a mark, which sorts."""
    branch, number = mark
    return (*branch, (number, _STEP))


def branches(number: int) -> list[Context] | None:
    """Copies of this context for a number of tasks, as branches in order; None where no steps are counted."""
    if _branch.get(None) is None:
        return None
    contexts = [copy_context() for _ in range(number)]
    for context in contexts:
        fork(context)
    return contexts


def fork(context: Context) -> None:
    """Make a copied context, in which a task or thread is about to run, a branch of its own."""
    if _branch.get(None) is not None:
        branch, number = step()
        context.run(_branch.set, [(*branch, (number, _FORK)), 0, _ANY])


def make_task(loop: "asyncio.AbstractEventLoop", coro: Any, **options: Any) -> "asyncio.Task[Any]":
    """A task factory of a loop: each task is a branch of the place where it was made, whenever it begins."""
    import asyncio

    if _branch.get(None) is None:  # no steps are counted here
        return asyncio.Task(coro, loop=loop, **options)
    context: Context | None = options.pop("context", None)
    if context is None:
        context = copy_context()
        fork(context)
    else:
        with suppress(RuntimeError):  # a context that is in use, such as the caller's own, cannot be entered
            fork(context)
    if sys.version_info >= (3, 11):
        return asyncio.Task(coro, loop=loop, context=context, **options)
    return context.run(partial(asyncio.Task, coro, loop=loop, **options))  # a task copies the current context


def _runner() -> object:
    """The task that runs this code, or else the thread."""
    loop = running_loop()
    if loop is not None:
        task = sys.modules["asyncio.tasks"].current_task(loop)
        if task is not None:
            return task
    return _get_ident()


def _born(runner: object) -> tuple[int, int]:
    """A key that sorts tasks by their creation, which their default names show, and others by their first step."""
    name: str = getattr(runner, "get_name", str)()
    head, _, number = name.rpartition("-")
    return (_TASK, int(number)) if head == "Task" and number.isdecimal() else (_STRANGER, _births())
