"""The event loops, and the bridge between threads, loops and plain calls.

Two loops run in daemon threads of their own, started on first use: the *transport loop*, for our own I/O and nothing
else, and the *program loop*, for users' coroutines and for our orchestration. A `Signal` is the one primitive:
it can be awaited in a coroutine that `drive` runs in place, and in a task of any asyncio loop.
"""

from typing import TYPE_CHECKING

from promptgrad.aio._apart import apart
from promptgrad.aio._caller import Caller, pointing_at, warn
from promptgrad.aio._gather import Semaphore, aside, each, gather, is_failure, is_stopping, row, sleep
from promptgrad.aio._loops import awaited, is_program_loop, on_program, on_transport, prepare, run, start
from promptgrad.aio._signal import Signal, brief, drive, is_driven, serving
from promptgrad.aio._threads import in_thread, start_in_thread
from promptgrad.aio._twins import blocking, blocking_classmethod, is_coroutine_function

__all__ = [
    "Caller",
    "Executor",
    "Semaphore",
    "Signal",
    "apart",
    "aside",
    "awaited",
    "blocking",
    "blocking_classmethod",
    "brief",
    "drive",
    "each",
    "gather",
    "in_thread",
    "is_coroutine_function",
    "is_driven",
    "is_failure",
    "is_program_loop",
    "is_stopping",
    "on_program",
    "on_transport",
    "pointing_at",
    "prepare",
    "row",
    "run",
    "serving",
    "sleep",
    "start",
    "start_in_thread",
    "warn",
]

if TYPE_CHECKING:
    from promptgrad.aio._executor import Executor
else:
    from promptgrad._late import late

    _LATE = {"Executor": "_executor"}  # most programs need no `concurrent.futures`

    __getattr__, __dir__ = late(__name__, _LATE)
