"""The front door of a room: names that are imported on first use, and hints for those that are not there."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def late(
    room: str, homes: Mapping[str, str], elsewhere: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a room.

    Args:
        room: Its `__name__`.
        homes: Where each late name lives: a file of the room ("_tgd"), another room ("promptgrad.search"), or, if it
            is a room itself, its own name.
        elsewhere: What users of other libraries may type out of habit, and what to write here.
    """
    namespace = vars(sys.modules[room])

    def __getattr__(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(_no_such_name(room, name, namespace["__all__"], elsewhere or {}))
        module = import_module(home if "." in home else f"{room}.{home}")
        value = namespace[name] = module if home == name else getattr(module, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*namespace, *namespace["__all__"]})

    return __getattr__, __dir__


def _no_such_name(room: str, name: str, public: list[str], elsewhere: Mapping[str, str]) -> str:
    message = f"module {room!r} has no attribute {name!r}"
    if name in elsewhere:
        return f"{message}: write {elsewhere[name]}"
    if name.startswith("_"):
        return message
    from difflib import get_close_matches

    known = {right.lower(): right for right in public}
    near = get_close_matches(name.lower(), known, 1, 0.7)
    return f"{message}: did you mean {room.removeprefix('promptgrad.')}.{known[near[0]]}?" if near else message
