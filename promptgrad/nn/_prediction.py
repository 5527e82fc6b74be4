"""`Prediction`, the record that `Predict` returns."""

import difflib
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import partial
from typing import Any, NoReturn

from promptgrad._frozen import setters
from promptgrad.autograd import Node
from promptgrad.lm import Usage
from promptgrad.nn._confidence import confidence
from promptgrad.nn._history import HistoryCall

_NO_CALL = HistoryCall()


class Prediction:
    """An immutable record of the outputs of one call, in the order of the signature.

    Fields are read as attributes or by key and are plain values: a `str` is a `Text` (which is a `str`) that remembers
    what produced it, everything else has the type of its field. A field named like a method (`get`, `items`, `keys`,
    `to_dict`, `values`) is read by key only.

    Besides its fields, and unless a field has the same name, a prediction has facts about its call:

    - `usage`: what it cost, with all re-asks,
    - `messages`: the messages that were sent, and `reply`: the last reply,
    - `reasks`: how often the model was asked again because its reply did not parse,
    - `grad_fn`: the node of the recorded graph, None where nothing was recorded,
    - `confidence(name)`: the probability of a `Literal`, enum or bool among its values, as `nn.confidence` gives it.

    The graph notes when the program's code reads a field: a router gets its gradient that way.

    Args:
        base: Fields to start from, a mapping.
        **fields: Fields by name.
    """

    __slots__ = ("_call", "_fields", "_node")
    _fields: dict[str, Any]
    _node: Node | None
    _call: HistoryCall

    def __init__(self, base: Mapping[str, Any] | None = None, /, **fields: Any) -> None:
        _set_fields(self, {**base, **fields} if base is not None else fields)
        _set_node(self, None)
        _set_call(self, _NO_CALL)

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` where there is none."""
        return self[name] if name in self._fields else default

    def keys(self) -> KeysView[str]:
        """Names of the fields, in the order of the signature."""
        return self._fields.keys()

    def values(self) -> ValuesView[Any]:
        """Values of the fields, in the order of the signature."""
        return self.to_dict().values()

    def items(self) -> ItemsView[str, Any]:
        """Pairs of name and value, in the order of the signature."""
        return self.to_dict().items()

    def to_dict(self) -> dict[str, Any]:
        """The fields as a new dict."""
        node = self._node
        if node is not None:
            for name in self._fields:
                node.touch(name)
        return dict(self._fields)

    def __record__(self) -> tuple[Node | None, dict[str, Any]]:
        return self._node, self._fields

    def __getitem__(self, name: str) -> Any:
        try:
            value = self._fields[name]
        except KeyError:
            raise KeyError(self._unknown(name)) from None
        node = self._node
        if node is not None:
            node.touch(name)
        return value

    def __getattr__(self, name: str) -> Any:
        if name in self._fields:
            node = self._node
            if node is not None:
                node.touch(name)
            return self._fields[name]
        if name in _ABOUT:
            return getattr(self, _ABOUT[name])()
        raise AttributeError(self._unknown(name))

    def _about_usage(self) -> Usage:
        return self._call.usage

    def _about_messages(self) -> list[dict[str, str]]:
        return self._call.messages

    def _about_reply(self) -> str:
        return self._call.reply

    def _about_reasks(self) -> int:
        return self._call.reasks

    def _about_confidence(self) -> Callable[[str], float]:
        return partial(confidence, self)

    def _about_grad_fn(self) -> Node | None:
        return self._node

    def _unknown(self, name: object) -> str:
        if name in _ELSEWHERE:
            return f"a prediction has no {name!r}: {_ELSEWHERE[str(name)]}"
        near = difflib.get_close_matches(str(name), self._fields, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"this prediction has no field {name!r}{hint}: its fields are {', '.join(self._fields) or 'none'}"

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"a Prediction does not change: make another, nn.Prediction({{**prediction, {name!r}: ...}})"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Prediction does not change")

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __dir__(self) -> list[str]:
        return [*self._fields, *_ABOUT, "get", "items", "keys", "to_dict", "values"]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Prediction):
            return self._fields == other._fields
        if isinstance(other, Mapping):
            return self._fields == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._fields.items()))

    def __repr__(self) -> str:
        lines = [f"{name}={value!r}" for name, value in self._fields.items()]
        if sum(map(len, lines)) <= 88:
            return f"Prediction({', '.join(lines)})"
        return "Prediction(\n    " + ",\n    ".join(lines) + ",\n)"

    def __copy__(self) -> "Prediction":
        return self

    def __reduce__(self) -> tuple[type["Prediction"], tuple[dict[str, Any]]]:
        return (Prediction, (self._fields,))


# What a user of PyTorch or DSPy may type out of habit, and what to write here.
_ELSEWHERE = {
    "backward": "write nn.MetricLoss(metric)(prediction, example).backward()",
    "completions": "write module.map([item], n=5) for several rollouts",
    "copy": "write nn.Prediction({**prediction, 'field': ...})",
    "get_lm_usage": "write prediction.usage",
    "observations": "print(promptgrad.inspect_history(5)) shows each step of an agent, module.stream(...) tells of it",
    "passages": "what nn.Retrieve returns is the list of passages itself",
    "toDict": "write prediction.to_dict()",
    "trajectory": "print(promptgrad.inspect_history(5)) shows each step of an agent, module.stream(...) tells of it",
    "with_inputs": "write promptgrad.Example(prediction.to_dict()).with_inputs(...)",
}

_ABOUT = {
    "confidence": "_about_confidence",
    "grad_fn": "_about_grad_fn",
    "messages": "_about_messages",
    "reasks": "_about_reasks",
    "reply": "_about_reply",
    "usage": "_about_usage",
}

_set_call, _set_fields, _set_node = setters(Prediction)
_new = object.__new__


def make_prediction(fields: dict[str, Any], node: Node | None, call: HistoryCall) -> Prediction:
    """A prediction that owns `fields`, without a copy."""
    prediction = _new(Prediction)
    _set_fields(prediction, fields)
    _set_node(prediction, node)
    _set_call(prediction, call)
    return prediction


def fields_of(prediction: Prediction) -> dict[str, Any]:
    """The fields, without a note in the graph that they were read."""
    return prediction._fields
