"""`confidence`: how likely the language model took the value of one output among those that its type allows."""

import math
from typing import TYPE_CHECKING, Any

from promptgrad.adapters import ValuePlace
from promptgrad.errors import InputError
from promptgrad.lm import Completion, Request, TokenLogprob
from promptgrad.nn._history import HistoryCall

if TYPE_CHECKING:
    from promptgrad.lm import Local

_EDGES = "\"'`*_. "


def confidence(prediction: Any, name: str) -> float:
    """The probability that the LM gave to the value of an output, among the values that its type allows.

    The output is a `Literal`, an enum or a bool, or such a part of a list, a dict or a model that the reply has as
    JSON: `items[0].kind`, `votes["anna"]`. Everything before it in the reply is as it is. On `lm.Local` it is
    exact: the likelihood of each allowed value in its place, normalised over them, at temperature 1. Elsewhere it comes
    from the log-probabilities of the reply's tokens, so the request sets `logprobs=True`: with `top_logprobs` it is
    normalised over the allowed values where the first token tells them apart, else it is the probability of the value's
    own tokens. `prediction.confidence(name)` is the same, unless an output has that name.

    Cost: no LM call. On `lm.Local`, one forward pass over the prompt and one over each allowed value.

    Args:
        prediction: What a `Predict` returned in this process.
        name: Name of the output, or the path of a part of it.

    Raises:
        InputError: There is no such output, its type has no such values, the reply does not show where it stands, or
            there are no log-probabilities.
    """
    return confidence_in(prediction._call, prediction._fields, name)


def confidence_in(call: HistoryCall, fields: dict[str, Any], name: str) -> float:
    """The confidence in an output of one call."""
    compiled, exchanges = call.compiled, call.exchanges
    output = "" if compiled is None else compiled.output_of(name)
    if compiled is None or not exchanges or not output:
        known = "" if compiled is None else f": its outputs are {', '.join(compiled.signature.outputs)}"
        raise InputError(f"there is no confidence in {name!r}, as no call of a language model gave it{known}")
    values = compiled.alternatives(name)
    if not values:
        field = compiled.signature.outputs[output]
        whole = "" if output == name else f"a part of {output!r}, "
        raise InputError(
            f"there is no confidence in {name!r}, {whole}which is of the type {field.type_name}: it takes a Literal, "
            "an enum or a bool, whose values can be compared, or such a part of a list or a model, as 'items[0].kind'"
        )
    try:
        value = compiled.part_of(fields, name)
    except LookupError:
        raise InputError(f"there is no confidence in {name!r}: the prediction has no such part") from None
    request, completion = exchanges[-1]
    place = None if completion is None else compiled.place(completion.text, name)
    if completion is None or place is None:
        raise InputError(f"the reply does not show where the value of {name!r} stands: {call.reply[:200]!r}")
    chosen = place_of(values, value)
    texts = {number: compiled.write(name, value) for number, value in enumerate(values)}
    said = completion.text[place.start : place.end]
    if said.strip(_EDGES).lower() != texts[chosen].strip(_EDGES).lower():
        raise InputError(f"the value of {name!r} stands in other words in the reply, {said[:200]!r}: nothing compares")
    texts[chosen] = said
    from promptgrad.lm import Local

    lm = None if call.asked is None else call.asked()
    local = None if lm is None else lm.transport
    if isinstance(local, Local) and not completion.reasoning:
        return _exact(local, request, completion, place, texts, chosen)
    if completion.logprobs:
        return _from_tokens(completion, place, texts, chosen)
    if lm is None:
        raise InputError(f"the language model that gave {name!r} is gone, and its reply has no log-probabilities")
    raise InputError(
        f"the reply of {lm.name!r} has no log-probabilities: ask for them, nn.Predict(..., logprobs=True, "
        "top_logprobs=5), where the endpoint gives them"
    )


def place_of(values: tuple[Any, ...], given: Any) -> int:
    """The place of a value among others: 1 and True are two."""
    return next(
        place
        for place, value in enumerate(values)
        if value == given and isinstance(value, bool) is isinstance(given, bool)
    )


def _exact(
    lm: "Local", request: Request, completion: Completion, place: ValuePlace, texts: dict[int, str], chosen: int
) -> float:
    before = completion.text[: place.start]
    replies = [f"{before}{text}{place.after}" for text in texts.values()]
    found = dict(zip(texts, lm.log_likelihoods(request, replies, ended=not place.after), strict=True))
    return math.exp(found[chosen] - _log_sum(list(found.values())))


def _log_sum(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def _from_tokens(completion: Completion, place: ValuePlace, texts: dict[int, str], chosen: int) -> float:
    """The confidence by the log-probabilities of the tokens that a value is made of."""
    tokens = completion.logprobs
    shift = "".join(token.token for token in tokens).rfind(completion.text)  # thoughts come before it
    if shift < 0:
        raise InputError("the tokens of the reply do not add up to its text, so the value's are not known")
    start, end = place.start + shift, place.end + shift
    at, own, first = 0, 0.0, -1
    for token in tokens:
        after = at + len(token.token)
        if at < end and after > start:
            own += token.logprob
            if first < 0:
                first = at
                among = _among(token, completion.text[max(at - shift, 0) : place.start], texts, place.after, chosen)
                if among is not None:
                    return among
        at = after
    return math.exp(own)


def _among(token: TokenLogprob, before: str, texts: dict[int, str], after: str, chosen: int) -> float | None:
    """The share of the chosen value in the first token, if its likeliest tokens tell the values apart."""
    mass = dict.fromkeys(texts, 0.0)
    seen = {token.token: token.logprob, **dict(token.top)}
    if not token.top:
        return None
    for text, logprob in seen.items():
        begun = [number for number, value in texts.items() if f"{before}{value}{after}".startswith(text)]
        if len(begun) > 1:
            return None
        if begun:
            mass[begun[0]] += math.exp(logprob)
    return mass[chosen] / sum(mass.values()) if mass[chosen] else None
