"""`Parameter`: a mutable tensor of text, and `candidate`, which lays other values over parameters for a while."""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from promptgrad.autograd._gradient import Gradient
from promptgrad.autograd._handle import RemovableHandle
from promptgrad.autograd._kind import as_kind, kinds_of
from promptgrad.autograd._mode import GRAD, mode
from promptgrad.autograd._node import AccumulateGrad, Read
from promptgrad.autograd._tape import current_log
from promptgrad.autograd._text import Text
from promptgrad.errors import ConstraintError

Constraint = Callable[[Any], object]
GradHook = Callable[[Gradient], "Gradient | None"]

_growing = threading.Lock()

_new = tuple.__new__
"""Makes a `Read` in half the time of its class, as each call makes several."""

_overlay: "ContextVar[Mapping[Parameter, Any] | None]" = ContextVar("promptgrad.candidate", default=None)


def is_trial() -> bool:
    """Whether candidate values lie over parameters in this context: something is being tried, not measured."""
    return _overlay.get() is not None


class Parameter:
    """A piece of a program's text that optimizers may change.

    `p.data` is the plain value: a `str`, for demos a tuple of records or a `Selector`, for a choice one of `options`.
    Assigning validates, and keeps the old value if the new one is refused. `str(p)`, `format(p)` and f-strings that
    hold nothing but `p` give a `Text` whose `grad_fn` is the parameter.

    A solution is a text that is not part of a prompt but the answer itself (code, a letter, a molecule), improved while
    it is needed: `criterion(solution, problem).backward()`, then a step of `optim.TGD([solution])`.

    Shape: `()` for texts and choices, `(k,)` for k demos.

    Attributes:
        critic: Language model, or its name, that criticises it in `backward` where no other critic is named: the one
            that an optimizer made with `lm=` lets write; None for the one that answered the call.

    Args:
        data: The first value.
        kind: "instruction", "demos", "description", "choice", "solution", or one of your own, see `register_kind`.
        requires_grad: Whether backward should fill `grad`; by default for instructions, demos and solutions.
        constraints: Functions of a value. One refuses it by returning a reason or False, or by raising.
        options: The values that a choice may have.
        role: What the text is for, in words; shown to the language model that rewrites it.
        name: The name of a parameter that is not part of a program. The path of a parameter in a program is not its
            name: it comes from `program.named_parameters()`.

    Raises:
        ConstraintError: The value is of the wrong type, not among the options, or refused by a constraint.
        ValueError: The kind is unknown, or `options` does not fit it.
    """

    def __init__(
        self,
        data: Any,
        kind: str = "instruction",
        *,
        requires_grad: bool | None = None,
        constraints: Iterable[Constraint] = (),
        options: Iterable[Any] | None = None,
        role: str = "",
        name: str = "",
    ) -> None:
        self.kind = as_kind(kind)
        if self.kind not in kinds_of():
            known = ", ".join(kinds_of())
            raise ValueError(f"unknown kind {str(kind)!r}: a parameter is one of {known}, or register_kind adds yours")
        if self.kind.has_options != (options is not None):
            wrong = "needs options=..." if self.kind.has_options else "has no options"
            raise ValueError(f"a parameter of kind {str(kind)!r} {wrong}")
        self.name = name
        self.role = role
        self.requires_grad = self.kind.trained if requires_grad is None else requires_grad
        self.constraints = tuple(constraints)
        self.options = None if options is None else tuple(options)
        self.grad: Gradient | None = None
        self.critic: Any = None
        self.version = 0
        self._hooks: dict[int, GradHook] = {}
        self._after_hooks: dict[int, Callable[[Parameter], object]] = {}
        self._data = self.validate(data)

    @property
    def data(self) -> Any:
        """The value, or the one that `candidate` lays over it; while calls are recorded, the read is noted."""
        overlay = _overlay.get()
        if overlay is not None and self in overlay:
            value, version = overlay[self], -1
        else:
            value, version = self._data, self.version
        log = current_log()
        if log is not None:
            log.note(Read(self, version, value))
        return value

    @data.setter
    def data(self, value: Any) -> None:
        self._data = self.validate(value)
        self.version += 1

    def read(self, name: str = "") -> Read:
        """The value with its version, without noting the read: for calls that list their own reads, and for display."""
        overlay = _overlay.get()
        if overlay is not None and self in overlay:
            return Read(self, -1, overlay[self], name)
        return _new(Read, (self, self.version, self._data, name))

    def validate(self, value: Any) -> Any:
        """The value as it would be stored.

        Raises:
            ConstraintError: It is of the wrong type, not among the options, or refused by a constraint.
        """
        value = self._normal(value)
        for constraint in self.constraints:
            reason, error = objection(constraint, value)
            if reason:
                raise self._refusal(value, reason) from error
        return value

    def _normal(self, value: Any) -> Any:
        try:
            return self.kind.normal(value, self.options)
        except (ValueError, TypeError) as error:
            raise self._refusal(value, str(error)) from None

    def _refusal(self, value: Any, reason: str) -> ConstraintError:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return ConstraintError(f"{self.name or self.kind} cannot be {shown}: {reason}", value=value, reason=reason)

    @property
    def index(self) -> int:
        """Which of `options` is chosen.

        Raises:
            AttributeError: The parameter is no choice.
        """
        if self.options is None:
            raise AttributeError(f"a parameter of kind {str(self.kind)!r} has no index: only a choice has options")
        return self.options.index(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(k,)` for k demos (of a selector: for as many as it chooses), else `()`."""
        return self.kind.shape(self._data)

    def numel(self) -> int:
        """Words and punctuation marks of a text (roughly its tokens), the number of demos, 1 for a choice."""
        return self.kind.numel(self._data)

    def requires_grad_(self, requires_grad: bool = True) -> "Parameter":  # noqa: FBT001, FBT002 - PyTorch's signature
        """Set `requires_grad`, and return the parameter."""
        self.requires_grad = requires_grad
        return self

    def register_hook(self, hook: "GradHook") -> RemovableHandle:
        """Call `hook(grad)` in `backward()`, with the `Gradient` that is about to be added to `grad`.

        What the hook returns, if not None, is added in its place; an empty `Gradient()` adds nothing. It is called once
        in each backward pass that reaches the parameter, in the order of registration. What it raises is raised by
        `backward()`, and then no parameter's gradient changes.
        """
        return RemovableHandle(self._hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: "Callable[[Parameter], object]") -> RemovableHandle:
        """Call `hook(parameter)` in `backward()`, after `grad` has grown; the return value is ignored."""
        return RemovableHandle(self._after_hooks, hook)

    def hooked(self, share: Gradient) -> Gradient:
        """A share of the gradient after the hooks have changed it.

        Raises:
            TypeError: A hook returns something other than a `Gradient` or None.
        """
        for hook in list(self._hooks.values()):
            changed = hook(share)
            if changed is not None:
                if not isinstance(changed, Gradient):
                    raise TypeError(
                        f"a hook of {self.name or self.kind} returned {changed!r}: a hook of a parameter takes a "
                        "Gradient and returns a Gradient, or None to leave it as it is"
                    )
                share = changed
        return share

    def accumulate(self, share: Gradient) -> None:
        """Add a share to `grad`, and run the post-accumulate hooks."""
        if share:
            with _growing:  # two backward passes in two threads may both add to it
                self.grad = (self.grad or Gradient()) + share
        for hook in list(self._after_hooks.values()):
            hook(self)

    def __str__(self) -> str:
        read = self.read()
        log = current_log()
        if log is not None:
            log.note(read)  # in an f-string with other text only its words show where it went
        recorded = mode.get() == GRAD
        return Text(str(read.value), AccumulateGrad(self, read.version, read.value) if recorded else None)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __repr__(self) -> str:
        shown = self.kind.show(self._data)
        grad = "" if self.grad is None else f", grad={self.grad!r}"
        label = f"{self.name}: {self.kind}" if self.name else self.kind
        return f"Parameter({label}, {shown}, requires_grad={self.requires_grad}{grad})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Parameter":
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__.update(self.__getstate__())
        return twin

    def __getstate__(self) -> dict[str, Any]:
        # values are immutable and may be shared; a gradient and hooks are not copied
        return {**self.__dict__, "grad": None, "_hooks": {}, "_after_hooks": {}}


def objection(constraint: Constraint, value: Any) -> tuple[str, Exception | None]:
    """Why a constraint refuses a value, and what it raised; an empty reason where it holds."""
    try:
        verdict = constraint(value)
    except Exception as error:  # noqa: BLE001 - a constraint that fails refuses the value
        return (error.reason if isinstance(error, ConstraintError) else str(error)) or repr(error), error
    if isinstance(verdict, str):
        return verdict, None
    if _is_bool(verdict) and not verdict:
        return f"the constraint {getattr(constraint, '__name__', repr(constraint))} does not hold", None
    return "", None


def _is_bool(verdict: object) -> bool:
    """Whether it is a bool, of Python or of numpy."""
    kind = type(verdict)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


class candidate:
    """Within the block, in this context, these parameters read as if they held these values.

    Nothing is copied or changed, and other threads and tasks see nothing of it, so any number of candidates can be
    tried at once. Blocks nest; the inner one wins.

    Raises:
        ConstraintError: A parameter may not take its value.

    >>> p = Parameter("Answer.")
    >>> with candidate({p: "Answer in one word."}):
    ...     p.data
    'Answer in one word.'
    >>> p.data
    'Answer.'
    """

    def __init__(self, values: "Mapping[Parameter, Any]") -> None:
        self._values = {parameter: parameter.validate(value) for parameter, value in values.items()}
        self._outer: list[Mapping[Parameter, Any] | None] = []

    def __enter__(self) -> None:
        outer = _overlay.get()
        self._outer.append(outer)
        _overlay.set(self._values if outer is None else {**outer, **self._values})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _overlay.set(self._outer.pop())
