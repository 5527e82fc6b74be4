"""The end of a call of `Predict`: reading a reply that came to its end, and what is said of one that is of no use."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.adapters import Compiled
from promptgrad.errors import CutReplyError, ParseError, RefusalError
from promptgrad.lm import LM, Completion
from promptgrad.nn._history import HistoryCall

if TYPE_CHECKING:
    from promptgrad.nn._predict import Predict


def read_reply(predict: "Predict", compiled: Compiled, completion: Completion) -> dict[str, Any]:
    """The outputs in a reply that came to its end, or in one that was cut where that is allowed.

    Raises:
        CutReplyError: It ran out of tokens.
        ContentFilterError: A filter of the provider stopped it.
        ParseError: It does not parse.
    """
    if completion.finish_reason == "stop":
        return predict._parse(compiled, completion)
    cut = completion.is_cut and predict.allow_cut
    if not cut:
        compiled.check_end(completion)
    outputs = predict._parse(compiled, replace(completion, finish_reason="stop"))
    if cut:
        if not all(field.is_text for field in compiled.signature.outputs.values()):
            compiled.check_end(completion)
        aio.warn(f"{predict._called()} got a reply that ran out of tokens: its end is missing", UserWarning)
    return outputs


def unparsable(called: str, lm: LM, completion: Completion, call: HistoryCall, error: ParseError) -> ParseError:
    """The error of a call whose last reply is of no use.

    Args:
        called: The module, as messages name it.
        lm: The language model.
        completion: Its last reply.
        call: All requests and replies.
        error: Why the reply is of no use.
    """
    times = "" if not call.reasks else f" (asked {call.reasks + 1} times)"
    declined = isinstance(error, RefusalError)
    text = (declined and completion.refusal) or completion.text or completion.refusal or completion.preview
    shown = text if len(text) <= 500 else f"{text[:500]}... ({len(text)} characters)"
    said = f"the reply of {lm.name} to {called}"
    if isinstance(error, CutReplyError):
        options = {**getattr(lm.transport, "options", {}), **(call.request.options() if call.request else {})}
        most = options.get("max_tokens")
        limit = "the model's own limit of tokens" if most is None else f"max_tokens={most}"
        reason = f"it was cut at {limit}: raise max_tokens, or pass allow_cut=True if its end may be missing"
        message = f"{said} cannot be used: {reason}\nThe reply was: {shown}"
        return CutReplyError(message, reply=text, reason=reason, max_tokens=most)
    message = f"{said} does not parse{times}: {error.reason}\nThe reply was: {shown}"
    kind: type[ParseError] = next(base for base in type(error).__mro__ if base.__module__ == ParseError.__module__)
    return kind(message, reply=text, reason=error.reason)
