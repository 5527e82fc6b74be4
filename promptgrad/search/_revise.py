"""`revise`: one reply that finds which texts of a program are to blame for its failures, and rewrites those."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from promptgrad.autograd import no_grad
from promptgrad.errors import ParseError
from promptgrad.lm import LM, resolve, track_usage
from promptgrad.nn import Predict
from promptgrad.search._attempted import attempted_together
from promptgrad.search._candidate import Candidate
from promptgrad.search._checks import unwrapped
from promptgrad.search._edit import edit_ratio
from promptgrad.search._proposer import failing_as_lm, is_able, make_reviser
from promptgrad.search._rewriter import MOST_ATTEMPTS, Edit, Evidence, Rewriter
from promptgrad.search._row import unrun_rows
from promptgrad.search._side_by_side import fitted, side_by_side
from promptgrad.search._sight import sight
from promptgrad.search._writing import TIPS

if TYPE_CHECKING:
    from promptgrad.search._places import Place
    from promptgrad.search._session import Session
    from promptgrad.search._steps import Step

UNREADABLE = "the reply holds no revisions"
"""Why there is no text, for a reply that does not parse."""


async def revise(
    rewriter: Rewriter,
    reviser: Predict,
    step: "Step",
    candidate: Candidate,
    texts: Sequence[Evidence],
    count: int,
    first: int = 0,
) -> "list[Edit | None]":
    """Ask one writer for the texts that are to blame and their new versions; None where it gave no answer.

    Nobody divides the blame before: the writer sees all runs that the session has of the candidate, from beginning to
    end, and a text that it does not name has no edit. Edits are checked, journalled and remembered as those of
    `Rewriter.rewrite`.

    Cost: one LM call for each proposal, whatever the number of texts; one more for each re-ask of a reply that does not
    parse.

    Args:
        rewriter: Gives the rules, the memory of attempts and the bound of tokens, which counts for each text.
        reviser: Program on the signature `Revise`.
        step: The step.
        candidate: The candidate to improve.
        texts: What is known about each text that may be changed.
        count: Number of proposals.
        first: Number of earlier proposals, as in `varied`.

    Raises:
        BudgetExceeded: The calls do not fit what the budget leaves for the search.
        LMError: The LM is down.
    """
    session = step.session
    session.admit(calls=count)
    own = session.program_lm()
    lm = own if texts[0].lm is None else resolve(texts[0].lm)
    inputs = _inputs(rewriter, step, candidate, texts, sight(reviser, lm, own))
    variants = range(first, first + count)
    with session.scope(step.scope("propose")):
        replies = await session.ask_all(
            [step.scope(f"{variant}/revise") for variant in variants],
            [
                partial(
                    _ask,
                    rewriter,
                    reviser,
                    {**inputs, "tip": TIPS[variant % len(TIPS)]},
                    texts,
                    variant,
                    lm,
                )
                for variant in variants
            ],
        )
    edits = [edit for reply in replies for edit in ([None] if reply is None else reply)]
    by_path = {each.path: each.parameter for each in texts}
    rewriter.settle(step, [(None if edit is None else by_path.get(edit.path), edit) for edit in edits])
    return edits


def _inputs(
    rewriter: Rewriter, step: "Step", candidate: Candidate, texts: Sequence[Evidence], media: frozenset[str]
) -> dict[str, Any]:
    """What all proposals see."""
    promising, worse = attempted_together(step.session, [each.path for each in texts], candidate)
    for each in texts:
        shown = [changed for attempt in (*promising, *worse) for changed in _changed(attempt, each.path)]
        more, spent = rewriter.memory.shown(each.parameter, shown)
        promising += [{"changes": {each.path: old["text"]}, "effect": old["effect"]} for old in more]
        worse += [{"changes": {each.path: old["text"]}, "effect": old["effect"]} for old in spent]
    runs = step.session.rows.whole(candidate)
    known = {run.example for run in runs}
    runs += unrun_rows(example for example in rewriter.labeled if example.id not in known)
    rules = {each.path: each.rules.after(each.parameter.constraints).shown() for each in texts}
    return {
        "program": texts[0].program,
        "interfaces": {each.path: each.interface for each in texts},
        "parameters": {each.path: str.__str__(each.text) for each in texts},
        "rules": {path: shown for path, shown in rules.items() if shown},
        "attempts": fitted(promising, MOST_ATTEMPTS * len(texts)),
        "worse": fitted(worse, MOST_ATTEMPTS * len(texts)),
        "runs": side_by_side(runs, rewriter.max_evidence * len(texts), media),
    }


def _changed(attempt: dict[str, Any], path: str) -> list[dict[str, Any]]:
    changes = attempt["changes"]
    return [{"text": changes[path]}] if isinstance(changes, dict) and path in changes else []


async def _ask(
    rewriter: Rewriter, reviser: Predict, inputs: dict[str, Any], texts: Sequence[Evidence], variant: int, lm: LM | None
) -> list[Edit]:
    """One proposal: an edit for each text that the reply names, checked."""
    known = {each.path: each for each in texts}
    with track_usage() as usage, failing_as_lm():
        try:
            with no_grad():
                reply = await reviser.acall(**inputs, lm=lm, config=rewriter.sampling(variant))
        except ParseError as error:
            return [Edit(texts[0].path, texts[0].text, None, f"{UNREADABLE}: {error.reason}", variant=variant)]
    edits: dict[str, Edit] = {}
    for revision in reply.revisions:
        each = known.get(revision.parameter.strip().strip("`"))
        if each is None:
            name, old = revision.parameter, revision.new_text
            edits.setdefault(name, Edit(name, "", old, f"the program has no text {name!r} to train", variant=variant))
            continue
        text = unwrapped(str.__str__(each.text), revision.new_text.strip(), verbatim=False)
        rules = each.rules.after(each.parameter.constraints)
        reason = rules.refusal(each.text, text, tried=rewriter.memory.spent(each.parameter), verbatim=False) or ""
        edits[each.path] = Edit(each.path, each.text, text, reason, edit_ratio(each.text, text), variant=variant)
    found = list(edits.values())
    return [replace(edit, usage=usage.total) if edit is found[0] else edit for edit in found]


def reviser_for(session: "Session", places: Sequence["Place"], lm: LM | str | None) -> Predict | None:
    """The program that finds the texts to blame in whole runs and rewrites them; None where it cannot or need not.

    It need not where a program has one call to blame, and cannot rewrite solutions, nor be asked of an LM that knows
    only its own tasks.

    Args:
        session: The session.
        places: The places of the texts that are trained.
        lm: LM that would write; None for that of the program, or else of the context.
    """
    if len(places) < 2 or any(place.parameter.kind.exact for place in places):
        return None
    reviser = make_reviser()
    able = is_able(reviser, lm or session.program_lm())
    return reviser if able and session.needs_critic(places) else None
