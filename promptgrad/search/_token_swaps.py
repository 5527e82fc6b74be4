"""Proposals without a writer: words of a text replaced along the gradient of the local model's own loss."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from promptgrad.autograd import atoken_swaps
from promptgrad.data import Example
from promptgrad.errors import InputError, NoLMError
from promptgrad.lm import Local, resolve_lm
from promptgrad.nn import NLLLoss, Predict
from promptgrad.search._candidate import Candidate
from promptgrad.search._edit import edit_ratio
from promptgrad.search._places import Place, answers, places
from promptgrad.search._rewriter import Edit, Evidence, Rewriter

if TYPE_CHECKING:
    from promptgrad.search._session import Session
    from promptgrad.search._steps import Step

SWAPS = 3
"""Most words that are replaced, one after the other; the text after each is a proposal."""

_TRIED = 16  # replacements whose loss is computed for each of them
_MOST_ROWS = 32  # rows of the evidence that the loss is about, those that failed first


async def swapped(
    rewriter: Rewriter, step: "Step", base: Candidate, texts: Sequence[Evidence], first: int
) -> list[Edit | None]:
    """Propose texts in which a word, then two, then three are replaced, each by what makes the right replies likeliest.

    The gradient at the text's tokens names the replacements that promise most; the loss itself, that of the labels in
    the rows given the module's own prompts, is computed for each of them, and the best one that lowers it is kept.
    Texts of modules that are not on a local model, or whose labels the rows do not have, get no proposal.

    Cost: no LM call; for each word one forward and backward pass of the local model over up to 32 rows, and 16 forward
    passes.
    Source: HotFlip, Ebrahimi et al. 2018, arXiv 1712.06751; AutoPrompt, Shin et al. 2020, arXiv 2010.15980; greedy
    coordinate gradient, Zou et al. 2023, arXiv 2307.15043. Differs: letters replace letters, so that the text stays one
    of words; replacements are tried in order of promise and not drawn, so that a run proposes the same each time.

    Args:
        rewriter: Its memory and rules decide what may be tried.
        step: The step.
        base: The candidate whose texts are changed.
        texts: All that is known of them.
        first: Number of the first proposal.
    """
    session = step.session
    known = places(session.program(base))
    edits: list[Edit | None] = []
    for evidence in texts:
        place = known[evidence.path]
        examples = _labels(place, evidence)
        if not examples or _obstacle(session, place):
            continue
        text, spent = evidence.text, rewriter.memory.spent(evidence.parameter)
        rules = evidence.rules.after(evidence.parameter.constraints)
        for _ in range(SWAPS):
            found = await _best(session, base, place, text, examples)
            if found is None:
                break
            text = found
            reason = rules.refusal(evidence.text, text, tried=spent) or ""
            ratio = edit_ratio(evidence.text, text)
            edits.append(Edit(evidence.path, evidence.text, text, reason, ratio, variant=first + len(edits)))
    settled = {evidence.path: evidence.parameter for evidence in texts}
    rewriter.settle(step, [(settled[edit.path], edit) for edit in edits if edit is not None])
    return edits


async def _best(
    session: "Session", base: Candidate, place: Place, text: str, examples: Sequence[Example]
) -> str | None:
    """The text with the replacement that lowers the loss most; None where none does."""
    program, criterion = session.program(base), NLLLoss(place.module)
    with ExitStack() as stack:
        stack.enter_context(program.candidate({**base.values, place.path: text}))
        loss = await criterion.acall(place.module, examples)
        swaps = await atoken_swaps(loss, place.parameter, _TRIED)
    least, found = loss.item(), None
    for swap in swaps:
        with program.candidate({**base.values, place.path: swap.text}):
            other = (await criterion.acall(place.module, examples)).item()
        if other < least - 1e-6:
            least, found = other, swap.text
    return found


def check_swaps(session: "Session", given: Sequence[Place]) -> None:
    """Check that the words of at least one text can be replaced along a gradient.

    Raises:
        InputError: They cannot; the message says why, for each text.
    """
    obstacles = {place.path: _obstacle(session, place) for place in given}
    if all(obstacles.values()):
        told = "; ".join(f"{path}: {why}" for path, why in obstacles.items())
        raise InputError(
            "proposals='tokens' takes the gradient of a local model's loss at the words of an instruction, and there "
            f"is none here ({told or 'no text is trained'}). Leave it out, and a language model writes the proposals"
        )


def _obstacle(session: "Session", place: Place) -> str:
    """Why the words of a text cannot be replaced along a gradient; empty where they can."""
    module = place.module
    if not isinstance(module, Predict) or place.parameter.kind.exact:
        return "it is not part of the prompt of a Predict"
    try:
        lm = resolve_lm(None, module.lm)
    except NoLMError:
        return "its module has no language model"
    if not isinstance(lm.transport, Local):
        return f"its module runs on {lm.name!r}, which is no promptgrad.lm.Local"
    shared = answers(session.program())
    lacking = [
        name
        for name in module.signature.outputs
        if shared[name] > 1 or not any(name in example for example in session.train)
    ]
    return f"the examples have no label for its {', '.join(lacking)}" if lacking else ""


def _labels(place: Place, evidence: Evidence) -> list[Example]:
    """The rows of a text that have the right outputs of its module, as examples, those that failed first."""
    signature = place.signature
    if signature is None:
        return []
    rows = [
        row
        for row in evidence.rows
        if all(name in row.expected for name in signature.outputs)
        and all(name in row.inputs for name in signature.inputs)
    ]
    rows.sort(key=lambda row: row.right)
    return [Example({**row.inputs, **row.expected}).with_inputs(*signature.inputs) for row in rows[:_MOST_ROWS]]
