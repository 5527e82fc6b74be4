"""What optimizers share: sessions, candidates and races, what a rewriter sees and what it may write, searches, plans.

An optimizer is a short file that says *what to try*. How it is run, measured, journalled and resumed stands here.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "EXHAUSTED",
    "SHRINK",
    "TIPS",
    "TPE",
    "Amend",
    "Candidate",
    "Constraint",
    "Cost",
    "DemoPool",
    "Hunk",
    "Improve",
    "ImproveSolution",
    "Measured",
    "Phase",
    "Place",
    "Plan",
    "Point",
    "ProposeInstruction",
    "Race",
    "Session",
    "Trial",
    "amend",
    "apply_hunks",
    "bootstrap",
    "broken",
    "chance",
    "check_amends",
    "checked_constraints",
    "demos_of",
    "describe",
    "edit_distance",
    "edit_ratio",
    "fields_of",
    "is_final",
    "labeled_demos",
    "make_proposer",
    "pairs",
    "placeholders",
    "places",
    "race",
    "refusal",
    "role",
    "show_value",
    "size_of",
    "write",
]

if TYPE_CHECKING:
    from promptgrad.search._candidate import Candidate, Measured, pairs, show_value, size_of
    from promptgrad.search._checks import Constraint, broken, checked_constraints, placeholders, refusal
    from promptgrad.search._demos import DemoPool, bootstrap, demos_of, fields_of, labeled_demos
    from promptgrad.search._edit import edit_distance, edit_ratio
    from promptgrad.search._hunks import Hunk, apply_hunks
    from promptgrad.search._outage import is_final
    from promptgrad.search._places import Place, describe, places, role
    from promptgrad.search._plan import Phase, Plan
    from promptgrad.search._proposer import (
        TIPS,
        Amend,
        Improve,
        ImproveSolution,
        ProposeInstruction,
        amend,
        check_amends,
        make_proposer,
        write,
    )
    from promptgrad.search._race import Race, chance, race
    from promptgrad.search._session import EXHAUSTED, SHRINK, Cost, Session, Trial
    from promptgrad.search._tpe import TPE, Point
else:
    _HOME = {
        "EXHAUSTED": "_session",
        "SHRINK": "_session",
        "TIPS": "_proposer",
        "TPE": "_tpe",
        "Amend": "_proposer",
        "Candidate": "_candidate",
        "Constraint": "_checks",
        "Cost": "_session",
        "DemoPool": "_demos",
        "Hunk": "_hunks",
        "Improve": "_proposer",
        "ImproveSolution": "_proposer",
        "Measured": "_candidate",
        "Phase": "_plan",
        "Place": "_places",
        "Plan": "_plan",
        "Point": "_tpe",
        "ProposeInstruction": "_proposer",
        "Race": "_race",
        "Session": "_session",
        "Trial": "_session",
        "amend": "_proposer",
        "apply_hunks": "_hunks",
        "bootstrap": "_demos",
        "broken": "_checks",
        "chance": "_race",
        "check_amends": "_proposer",
        "checked_constraints": "_checks",
        "demos_of": "_demos",
        "describe": "_places",
        "edit_distance": "_edit",
        "edit_ratio": "_edit",
        "fields_of": "_demos",
        "is_final": "_outage",
        "labeled_demos": "_demos",
        "make_proposer": "_proposer",
        "pairs": "_candidate",
        "placeholders": "_checks",
        "places": "_places",
        "race": "_race",
        "refusal": "_checks",
        "role": "_places",
        "show_value": "_candidate",
        "size_of": "_candidate",
        "write": "_proposer",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'promptgrad.search' has no attribute {name!r}")
        value = getattr(import_module(f"promptgrad.search.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
