"""`RemovableHandle`, which takes a hook or a rule off again."""

from collections.abc import Callable, MutableMapping
from itertools import count
from types import TracebackType
from typing import Any

_KEYS = count()


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook off, and so does leaving a `with` block."""

    __slots__ = ("_hooks", "_key", "_on_empty")

    def __init__(
        self, hooks: MutableMapping[int, Any], hook: Any, on_empty: Callable[[], object] | None = None
    ) -> None:
        self._hooks = hooks
        self._key = next(_KEYS)
        self._on_empty = on_empty
        hooks[self._key] = hook

    def remove(self) -> None:
        """Take the hook off. Calling it again does nothing."""
        self._hooks.pop(self._key, None)
        if self._on_empty is not None:
            self._on_empty()

    def __enter__(self) -> "RemovableHandle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()
