"""`Momentum`: the weights of critiques over the steps."""

from collections.abc import Hashable, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

from promptgrad.autograd import Critique, Gradient
from promptgrad.search._numbers import is_number

K = TypeVar("K", bound=Hashable)

Counted = MutableMapping[K, tuple[Gradient | None, dict[str, float]]]
"""The gradient that was counted last for each text, and the weights that it gave."""

ENTRY = "critiques"
"""Key of the weights in an optimizer's state."""

FORGOTTEN = 0.25
"""Weight below which a critique of earlier steps is dropped: a quarter of an example."""


def weigh(gradient: Gradient | None) -> dict[str, float]:
    """The weight of each critique, its support times its agreement. Critiques of the same meaning count as one."""
    weights: dict[str, float] = {}
    for critique in gradient.cluster().critiques if gradient is not None else ():
        text = str.__str__(critique.text).strip()
        weights[text] = weights.get(text, 0.0) + critique.support * critique.agreement
    return weights


def averaged(fresh: Mapping[str, float], old: Mapping[str, float], momentum: float) -> dict[str, float]:
    """The fresh weights plus `momentum` times the old ones. Critiques of one meaning add up, in the newest words."""
    texts = [*fresh, *(text for text in old if text not in fresh)]
    weights: dict[str, float] = {}
    for cluster in Gradient(Critique("", "", 0, "", text) for text in texts).clusters():
        alike = [critique.text for critique in cluster.critiques]
        weight = sum(fresh.get(text, 0.0) + momentum * old.get(text, 0.0) for text in alike)
        if weight >= FORGOTTEN or alike[0] in fresh:
            weights[alike[0]] = weight
    return {text: weights[text] for text in texts if text in weights}


class Momentum(Generic[K]):
    """The weights of critiques, including those of earlier steps, kept in an optimizer's state in JSON types.

    It has no store of its own, see `Attempts`. The weights stand in the state under "critiques".

    Args:
        state: A dict for each text, by parameter or path.
        counted: What was counted last; the optimizer keeps it in a separate dict beside the state.
    """

    def __init__(self, state: MutableMapping[K, dict[str, Any]], counted: Counted[K]) -> None:
        self._state = state
        self._counted = counted

    def weights(self, key: K, gradient: Gradient | None, momentum: float) -> dict[str, float]:
        """The weight of each critique; empty where the gradient has no critique.

        It is called once a step, so that a critique that does not recur fades. A gradient is counted once, even where
        its step is proposed again.
        """
        fresh = weigh(gradient)
        if not momentum:
            return fresh
        state = self._state.setdefault(key, {})
        counted, known = self._counted.get(key, (None, None))
        if counted is None or counted is not gradient or state.get(ENTRY) is not known:
            state[ENTRY] = averaged(fresh, state.get(ENTRY, {}), momentum)
            self._counted[key] = gradient, state[ENTRY]
        return dict(state[ENTRY]) if fresh else {}


def check_momentum(momentum: Any) -> None:
    """Check the share of a critique's weight that is kept from step to step.

    Raises:
        TypeError: It is not a number.
        ValueError: It is not in [0, 1).
    """
    if not is_number(momentum):
        raise TypeError(f"momentum is a number, not {momentum!r}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum lies in [0, 1), not {momentum}")


def check_weights(entry: Mapping[str, Any]) -> None:
    """Check the weights in an optimizer's state of one text.

    Raises:
        ValueError: A weight is malformed.
    """
    for text, weight in dict(entry.get(ENTRY, {})).items():
        if not isinstance(text, str) or not (is_number(weight) and weight >= 0):
            raise ValueError(f"a critique has a weight that is not negative, not {weight!r}")
