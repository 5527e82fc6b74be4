"""Tools to test programs: a scripted language-model server on loopback, and contract suites.

Nothing in the package imports this room; tests, examples and benchmarks do.
"""

from promptgrad.testing._answers import (
    Answer,
    Cut,
    Delay,
    Drop,
    Garbage,
    Hang,
    ReceivedRequest,
    Reply,
    Status,
)
from promptgrad.testing._fields import Fields
from promptgrad.testing._jobs import LoopbackJobs
from promptgrad.testing._loopback import LoopbackLM, LoopbackProcess
from promptgrad.testing._nearest import Nearest

__all__ = [
    "Answer",
    "Cut",
    "Delay",
    "Drop",
    "Fields",
    "Garbage",
    "Hang",
    "LoopbackJobs",
    "LoopbackLM",
    "LoopbackProcess",
    "Nearest",
    "ReceivedRequest",
    "Reply",
    "Status",
]
