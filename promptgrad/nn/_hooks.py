"""Hooks of a module."""

from collections.abc import Callable
from types import CoroutineType
from typing import Any

from promptgrad.autograd import RemovableHandle

__all__ = ["Hooks", "RemovableHandle"]


class Hooks:
    """The hooks of one module, run in the order in which they were registered."""

    __slots__ = ("after", "backward", "before")

    def __init__(self) -> None:
        self.before: dict[int, tuple[Callable[..., Any], bool]] = {}
        self.after: dict[int, tuple[Callable[..., Any], bool]] = {}
        self.backward: dict[int, Callable[..., Any]] = {}

    def copy(self) -> "Hooks":
        """The same hooks, to which others can be added."""
        twin = Hooks()
        twin.before, twin.after, twin.backward = dict(self.before), dict(self.after), dict(self.backward)
        return twin

    def __bool__(self) -> bool:
        return bool(self.before or self.after or self.backward)

    def run_before(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Run the forward pre-hooks, each of which may replace the arguments."""
        for hook, with_kwargs in list(self.before.values()):
            if with_kwargs:
                changed = _refuse_coroutine(hook, hook(module, args, kwargs))
                if changed is None:
                    continue
                if not (isinstance(changed, tuple) and len(changed) == 2 and isinstance(changed[1], dict)):
                    raise TypeError(
                        "a forward pre-hook registered with with_kwargs=True returns None or a pair "
                        f"(args, kwargs), not {changed!r}"
                    )
                args, kwargs = changed
            else:
                changed = _refuse_coroutine(hook, hook(module, args))
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        return args, kwargs

    def run_after(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Run the forward hooks, each of which may replace the output."""
        for hook, with_kwargs in list(self.after.values()):
            changed = hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)
            if _refuse_coroutine(hook, changed) is not None:
                output = changed
        return output


def _refuse_coroutine(hook: Callable[..., Any], changed: Any) -> Any:
    """What a hook returned.

    Raises:
        TypeError: It is a coroutine, which would never be awaited.
    """
    if type(changed) is CoroutineType:
        changed.close()
        name = getattr(hook, "__qualname__", None) or repr(hook)
        raise TypeError(f"the forward hook {name} returned a coroutine: hooks are plain functions, write it as `def`")
    return changed
