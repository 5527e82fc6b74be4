"""`clip_grad_tokens_`: a bound on how much a step has to read."""

from collections.abc import Iterable

from promptgrad.autograd._gradient import Gradient, Trace, heaviest
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._program import Program
from promptgrad.autograd._tokens import tokens


def clip_grad_tokens_(parameters: Parameter | Iterable[Parameter], max_tokens: int) -> int:
    """Bound the critiques in the gradients of all parameters together, in place; as `nn.utils.clip_grad_norm_`.

    What is kept is chosen over all parameters as if their gradients were one, see `Gradient.clip`: the critiques of
    greatest weight, uncut, and among equals those of the earlier parameter. Traces stay. Parameters without a gradient
    are skipped; one that loses all its critiques keeps an empty gradient. Where the total is within the bound nothing
    changes.

    Args:
        parameters: A parameter, or several such as `model.parameters()`; one that is given twice counts once.
        max_tokens: Most words and marks of critiques.

    Returns:
        The words and marks of all critiques before.

    Raises:
        TypeError: `parameters` holds something other than parameters; no gradient was changed.
        ValueError: `max_tokens` is negative.
    """
    given = list(_parameters(parameters))
    gradients = [parameter.grad for parameter in given]
    critiques = [critique for grad in gradients if grad is not None for critique in grad.critiques]
    total = sum(len(tokens(critique.text)) for critique in critiques)
    kept = iter(heaviest(critiques, max_tokens))
    if total > max_tokens:
        for parameter, grad in zip(given, gradients, strict=True):
            if grad is not None:
                parameter.grad = Gradient(record for record in grad if isinstance(record, Trace) or next(kept))
    return total


def _parameters(parameters: Parameter | Iterable[Parameter]) -> Iterable[Parameter]:
    if isinstance(parameters, Parameter):
        return [parameters]
    if isinstance(parameters, Program):
        raise TypeError(f"clip_grad_tokens_ takes parameters: write {type(parameters).__name__.lower()}.parameters()")
    found = dict.fromkeys(parameters)
    for parameter in found:
        if not isinstance(parameter, Parameter):
            raise TypeError(
                f"clip_grad_tokens_ takes promptgrad parameters, such as model.parameters(), not {parameter!r:.80}; "
                "weights of local models are clipped by torch.nn.utils.clip_grad_norm_"
            )
    return found
