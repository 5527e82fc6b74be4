"""One proposal of a rewriter as the change of a step, with a reason where there is no text to try."""

from promptgrad.autograd import Gradient
from promptgrad.errors import LMError, NoLMError, ReplayError
from promptgrad.optim._report import Change
from promptgrad.search import Evidence, Rewriter, writer_of


async def written(rewriter: Rewriter, evidence: Evidence, name: str, *, seen: bool) -> Change:
    """Ask for one text; "untouched" without a row, "rejected" where the reply is missing or breaks a rule.

    Where no LM is set, that of the blamed call writes.

    Args:
        rewriter: The rewriter.
        evidence: All that is known about the text.
        name: Name of the optimizer.
        seen: True if the gradients show that there was a backward pass.

    Raises:
        NoLMError: There is no LM at all.
        ReplayError: The call is not in the cassette that is replayed.
    """
    path, kind, gradient = evidence.path, evidence.parameter.kind, evidence.parameter.grad or Gradient()
    if not evidence.rows:
        reason = "no critique"
        if evidence.parameter.grad is None:
            reason = "no gradient: nothing failed, the critic did not blame it, or its call failed"
            reason += "" if seen else ", or backward() was not called"
            reason += " (see the report that backward() returns)"
        return Change(path, kind, "untouched", reason)
    own = writer_of(gradient, rewriter.proposer) if evidence.lm is None else None
    try:
        edit = await rewriter.write(evidence, own)
    except ReplayError:
        raise
    except NoLMError:
        needs = f"{name} needs a language model that writes: optim.{name}(model.parameters(), lm=...)"
        raise NoLMError(needs) from None
    except LMError as error:
        return Change(path, kind, "rejected", f"the language model gave no answer: {error}", evidence.text)
    count = len(gradient.critiques)
    return Change.of(edit, kind, f"{count} critique{'' if count == 1 else 's'}")
