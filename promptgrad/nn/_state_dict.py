"""`StateDict`: what `Module.state_dict()` returns."""

from collections.abc import Iterable, Mapping
from typing import Any

META = "_meta"
"""The key under which a file holds what describes a state."""


class StateDict(dict[str, Any]):
    """Values by path, in JSON types; a loop over it meets parameters and buffers alone.

    What describes them (kinds, fields, names of language models) is beside them, in `_metadata`, as in torch, and can
    also be read as `state["_meta"]`. `promptgrad.save` writes both. A plain dict made of it has the values alone, and
    loads as well: then nobody can say that a field has another type than it had.

    Args:
        values: The values.
        metadata: What describes them.
    """

    _metadata: dict[str, Any]

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), metadata: Any = None) -> None:
        super().__init__(values)
        self._metadata = {} if metadata is None else metadata

    def __missing__(self, key: str) -> Any:
        if key == META:
            return self._metadata
        raise KeyError(key)

    def copy(self) -> "StateDict":
        """A shallow copy, with what describes the values."""
        return StateDict(self, self._metadata)

    def __repr__(self) -> str:
        return f"StateDict({super().__repr__()})"


def metadata_of(state: Any) -> Any:
    """What describes a state, or one that is a plain dict from a file; None where nothing does."""
    if isinstance(state, StateDict):
        return state._metadata
    return state.get(META) if isinstance(state, Mapping) else None


def whole_state(state: Any) -> Any:
    """A state, or what holds states, as a file has it: in dicts alone, with "_meta" among the values."""
    if isinstance(state, Mapping):
        found = {key: whole_state(value) for key, value in state.items()}
        return {**found, META: state._metadata} if isinstance(state, StateDict) else found
    if isinstance(state, (list, tuple)):
        return [whole_state(item) for item in state]
    return state


def state_of_whole(whole: Any) -> Any:
    """What `whole_state` was given, from a file."""
    if isinstance(whole, dict):
        found = {key: state_of_whole(value) for key, value in whole.items() if key != META}
        return StateDict(found, whole[META]) if META in whole else found
    return [state_of_whole(item) for item in whole] if isinstance(whole, list) else whole
