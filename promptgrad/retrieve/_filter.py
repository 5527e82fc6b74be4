"""Filters: which passages a search may find, by their metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from promptgrad.retrieve._passage import Passage

Filter = Mapping[str, Any] | Callable[[Passage], Any]
"""Which passages may be found: values by the name of the metadata (a list, tuple or set: any of them), all of which
must hold; or a function of a `Passage` that says so."""

_MANY = (list, tuple, set, frozenset)


def check_filter(given: Any) -> Filter | None:
    """The filter, if it is one.

    Raises:
        TypeError: It is neither a mapping nor a function.
    """
    if given is None or isinstance(given, Mapping) or callable(given):
        return given  # type: ignore[no-any-return]
    raise TypeError(
        f"filter is a mapping such as {{'year': 2020}} or a function of a passage, not {type(given).__name__}"
    )


def fits(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether metadata has all the wanted values."""
    return all(name in metadata and _is(metadata[name], value) for name, value in wanted.items())


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, _MANY):
        return any(_same(value, each) for each in wanted)
    return _same(value, wanted)


def _same(value: Any, wanted: Any) -> bool:
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def key_of(wanted: Mapping[str, Any]) -> str:
    """A text that is the same for equal filters."""
    return repr([(name, sorted(value, key=repr) if isinstance(value, _MANY) else value) for name, value in
                 sorted(wanted.items())])  # fmt: skip
