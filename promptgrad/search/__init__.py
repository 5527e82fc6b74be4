"""The parts that optimizers share: sessions, candidates, races, the rewriter and its rules, search models, plans.

An optimizer is a short file that decides *what to try*. This room runs, measures, journals and resumes it.
"""

from typing import TYPE_CHECKING

__all__ = [
    "BLOCK",
    "SWAPS",
    "TIPS",
    "TOO_FAR",
    "TPE",
    "Amend",
    "Arm",
    "Attempt",
    "Attempts",
    "Candidate",
    "ChoiceArm",
    "Constraint",
    "Cost",
    "Costs",
    "DemoPool",
    "DemosArm",
    "Edit",
    "Effects",
    "Evidence",
    "Feedback",
    "Fronts",
    "Hunk",
    "Improve",
    "ImproveSolution",
    "Measured",
    "Merge",
    "MergeArm",
    "Objectives",
    "Pareto",
    "Phase",
    "Place",
    "Plan",
    "Point",
    "ProposeInstruction",
    "Race",
    "Revise",
    "ReviseArm",
    "Revision",
    "Rewriter",
    "Row",
    "Rows",
    "Rules",
    "Session",
    "Standing",
    "Standings",
    "Step",
    "Steps",
    "Stop",
    "Study",
    "TextArm",
    "Trial",
    "Verdict",
    "apply_hunks",
    "attempted",
    "best_demos",
    "bootstrap",
    "broken",
    "chance",
    "check_amends",
    "check_attempts",
    "check_counts",
    "check_fronts",
    "check_swaps",
    "check_writer",
    "checked_constraints",
    "children",
    "demos_of",
    "describe",
    "edit_distance",
    "edit_ratio",
    "eliminate",
    "fields_of",
    "in_order",
    "interface",
    "is_able",
    "is_number",
    "is_winnable",
    "judged",
    "labeled_demos",
    "lost_ratio",
    "make_proposer",
    "make_reviser",
    "make_writers",
    "meet",
    "pairs",
    "places",
    "race",
    "recombined",
    "refusal",
    "refused",
    "remark",
    "revise",
    "reviser_for",
    "right_rows",
    "role",
    "rows_of",
    "sentences",
    "show_value",
    "side_by_side",
    "sift",
    "sight",
    "size_of",
    "swapped",
    "unblamed",
    "untie",
    "varied",
    "write",
    "writer_of",
]

if TYPE_CHECKING:
    from promptgrad._numbers import check_counts, is_number
    from promptgrad.search._amend import Amend
    from promptgrad.search._arms import Arm, ChoiceArm, DemosArm, MergeArm, ReviseArm, TextArm
    from promptgrad.search._attempted import attempted
    from promptgrad.search._candidate import Candidate, Measured, pairs, show_value, size_of
    from promptgrad.search._chance import chance
    from promptgrad.search._checks import TOO_FAR, Constraint, broken, checked_constraints, refusal
    from promptgrad.search._demos import DemoPool, best_demos, bootstrap, demos_of, fields_of, labeled_demos
    from promptgrad.search._edit import edit_distance, edit_ratio, lost_ratio
    from promptgrad.search._effects import Effects
    from promptgrad.search._elimination import eliminate
    from promptgrad.search._feedback import Feedback
    from promptgrad.search._hunks import Hunk, apply_hunks
    from promptgrad.search._meet import meet
    from promptgrad.search._memory import Attempt, Attempts, check_attempts, judged, refused
    from promptgrad.search._objectives import Costs, Objectives
    from promptgrad.search._pareto import Fronts, Merge, Pareto, check_fronts
    from promptgrad.search._places import Place, describe, interface, places, role
    from promptgrad.search._plan import Phase, Plan
    from promptgrad.search._proposer import (
        check_amends,
        check_writer,
        is_able,
        make_proposer,
        make_reviser,
        make_writers,
        write,
    )
    from promptgrad.search._race import BLOCK, Race, is_winnable, race
    from promptgrad.search._reasons import unblamed
    from promptgrad.search._revise import revise, reviser_for
    from promptgrad.search._revision import Revise, Revision
    from promptgrad.search._rewriter import Edit, Evidence, Rewriter, children, varied, writer_of
    from promptgrad.search._row import Row, remark, right_rows, rows_of
    from promptgrad.search._rows import Rows
    from promptgrad.search._rules import Rules
    from promptgrad.search._sentences import recombined, sentences
    from promptgrad.search._session import Session
    from promptgrad.search._side_by_side import in_order, side_by_side
    from promptgrad.search._sift import sift
    from promptgrad.search._sight import sight
    from promptgrad.search._standings import Standing, Standings
    from promptgrad.search._steps import Step, Steps
    from promptgrad.search._stop import Stop
    from promptgrad.search._study import Study
    from promptgrad.search._ties import untie
    from promptgrad.search._token_swaps import SWAPS, check_swaps, swapped
    from promptgrad.search._tpe import TPE, Point
    from promptgrad.search._trial import Cost, Trial
    from promptgrad.search._verdict import Verdict
    from promptgrad.search._writing import TIPS, Improve, ImproveSolution, ProposeInstruction
else:
    from promptgrad._late import late

    _LATE = {
        "meet": "_meet",
        "chance": "_chance",
        "TextArm": "_arms",
        "MergeArm": "_arms",
        "ReviseArm": "_arms",
        "DemosArm": "_arms",
        "ChoiceArm": "_arms",
        "Arm": "_arms",
        "BLOCK": "_race",
        "Stop": "_stop",
        "SWAPS": "_token_swaps",
        "TIPS": "_writing",
        "TOO_FAR": "_checks",
        "TPE": "_tpe",
        "Amend": "_amend",
        "Attempt": "_memory",
        "Attempts": "_memory",
        "Candidate": "_candidate",
        "Constraint": "_checks",
        "Cost": "_trial",
        "Costs": "_objectives",
        "DemoPool": "_demos",
        "Edit": "_rewriter",
        "Effects": "_effects",
        "Evidence": "_rewriter",
        "Feedback": "_feedback",
        "Fronts": "_pareto",
        "Hunk": "_hunks",
        "Improve": "_writing",
        "ImproveSolution": "_writing",
        "Measured": "_candidate",
        "Merge": "_pareto",
        "Objectives": "_objectives",
        "Pareto": "_pareto",
        "Phase": "_plan",
        "Place": "_places",
        "Plan": "_plan",
        "Point": "_tpe",
        "ProposeInstruction": "_writing",
        "Race": "_race",
        "Revise": "_revision",
        "Revision": "_revision",
        "Rewriter": "_rewriter",
        "Row": "_row",
        "Rows": "_rows",
        "Rules": "_rules",
        "Session": "_session",
        "Standing": "_standings",
        "Standings": "_standings",
        "Step": "_steps",
        "Steps": "_steps",
        "Study": "_study",
        "Trial": "_trial",
        "Verdict": "_verdict",
        "apply_hunks": "_hunks",
        "attempted": "_attempted",
        "best_demos": "_demos",
        "bootstrap": "_demos",
        "broken": "_checks",
        "check_amends": "_proposer",
        "check_attempts": "_memory",
        "check_counts": "promptgrad._numbers",
        "check_fronts": "_pareto",
        "check_swaps": "_token_swaps",
        "check_writer": "_proposer",
        "checked_constraints": "_checks",
        "children": "_rewriter",
        "demos_of": "_demos",
        "describe": "_places",
        "edit_distance": "_edit",
        "edit_ratio": "_edit",
        "lost_ratio": "_edit",
        "eliminate": "_elimination",
        "fields_of": "_demos",
        "in_order": "_side_by_side",
        "interface": "_places",
        "is_able": "_proposer",
        "reviser_for": "_revise",
        "is_number": "promptgrad._numbers",
        "is_winnable": "_race",
        "judged": "_memory",
        "labeled_demos": "_demos",
        "make_proposer": "_proposer",
        "make_reviser": "_proposer",
        "make_writers": "_proposer",
        "pairs": "_candidate",
        "places": "_places",
        "race": "_race",
        "recombined": "_sentences",
        "refusal": "_checks",
        "refused": "_memory",
        "remark": "_row",
        "revise": "_revise",
        "role": "_places",
        "right_rows": "_row",
        "rows_of": "_row",
        "sentences": "_sentences",
        "show_value": "_candidate",
        "side_by_side": "_side_by_side",
        "sift": "_sift",
        "sight": "_sight",
        "size_of": "_candidate",
        "swapped": "_token_swaps",
        "unblamed": "_reasons",
        "untie": "_ties",
        "varied": "_rewriter",
        "write": "_proposer",
        "writer_of": "_rewriter",
    }

    __getattr__, __dir__ = late(__name__, _LATE)
