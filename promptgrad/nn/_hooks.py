"""`Hooked`: the hooks of a module."""

from collections.abc import Callable
from types import CoroutineType
from typing import Any, ClassVar

from promptgrad.autograd import RemovableHandle

__all__ = ["Hooked", "Hooks", "RemovableHandle"]


class Hooks:
    """The hooks of one module, run in the order in which they were registered."""

    __slots__ = ("after", "backward", "before")

    backward_ever: ClassVar[bool] = False  # whether any module ever had a backward hook: if not, no call looks for them

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


class Hooked:
    """The part of `Module` that registers hooks."""

    _hooks: Hooks | None

    def register_forward_pre_hook(self, hook: Callable[..., Any], *, with_kwargs: bool = False) -> RemovableHandle:
        """Call `hook(module, args)` before each forward; what it returns, if not None, replaces the arguments.

        With `with_kwargs` it is `hook(module, args, kwargs)` and returns None or a pair of both.
        """
        hooks = self._get_hooks()
        return RemovableHandle(hooks.before, (hook, with_kwargs), self._drop_empty_hooks)

    def register_forward_hook(self, hook: Callable[..., Any], *, with_kwargs: bool = False) -> RemovableHandle:
        """Call `hook(module, args, output)` after each forward; what it returns, if not None, replaces the output.

        With `with_kwargs` it is `hook(module, args, kwargs, output)`.
        """
        hooks = self._get_hooks()
        return RemovableHandle(hooks.after, (hook, with_kwargs), self._drop_empty_hooks)

    def register_full_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` in `backward()`, for each call of the module that is to blame.

        `grad_output` is what is wrong with the outputs of the call, a tuple of texts. `grad_input` maps what may be to
        blame for it ("instruction", and the names of inputs that other calls wrote) to the critic's texts about it;
        what the hook returns, if not None, replaces the mapping.

        On a module made of others, the hook is called for each call of a module below, with that module. The hook has
        to be there when the forward runs. What it raises is raised by `backward()`.
        """
        Hooks.backward_ever = True
        hooks = self._get_hooks()
        return RemovableHandle(hooks.backward, hook, self._drop_empty_hooks)

    def _get_hooks(self) -> Hooks:
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    def _drop_empty_hooks(self) -> None:
        if self._hooks is not None and not self._hooks:
            self._hooks = None
