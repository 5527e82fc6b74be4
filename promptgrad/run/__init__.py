"""What a run remembers: seeds, the journal of paid calls and decisions, the budget, the store of cells.

A run is a deterministic program of its seed and of the language model's replies. Every paid reply is journalled
before it is used, so a run is resumed by executing it again with the journalled replies: same decisions, same result,
and nothing journalled is bought twice.
"""

from typing import TYPE_CHECKING

__all__ = [
    "EXHAUSTED",
    "ActiveRun",
    "Budget",
    "Cell",
    "CellStore",
    "Journal",
    "Ledger",
    "Progress",
    "Reservation",
    "Spent",
    "Subscription",
    "active",
    "current",
    "current_phase",
    "phase",
    "progress",
    "rng",
    "scope",
    "spawn",
    "value_digest",
]

if TYPE_CHECKING:
    from promptgrad.run._active import ActiveRun, active, current, scope
    from promptgrad.run._budget import Budget, Ledger, Reservation, Spent, current_phase, phase
    from promptgrad.run._cells import Cell, CellStore
    from promptgrad.run._digest import value_digest
    from promptgrad.run._event import EXHAUSTED
    from promptgrad.run._journal import Journal
    from promptgrad.run._observers import Subscription
    from promptgrad.run._progress import Progress, progress
    from promptgrad.run._seeds import rng, spawn
else:
    from promptgrad._late import late

    _LATE = {
        "ActiveRun": "_active",
        "Budget": "_budget",
        "Cell": "_cells",
        "CellStore": "_cells",
        "EXHAUSTED": "_event",
        "Journal": "_journal",
        "Ledger": "_budget",
        "Progress": "_progress",
        "Reservation": "_budget",
        "Spent": "_budget",
        "Subscription": "_observers",
        "active": "_active",
        "current": "_active",
        "current_phase": "_budget",
        "phase": "_budget",
        "progress": "_progress",
        "rng": "_seeds",
        "scope": "_active",
        "spawn": "_seeds",
        "value_digest": "_digest",
    }

    __getattr__, __dir__ = late(__name__, _LATE)
