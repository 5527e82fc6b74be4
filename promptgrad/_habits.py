"""Arguments and names that users of other libraries write out of habit: an error that names what to write here."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_COROUTINE = 0x80


def refuses(habits: Mapping[str, str], name: str = "") -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Have a function refuse arguments that it does not have with what to write in their place.

    Args:
        habits: Arguments of other libraries, each with its replacement here; "nothing: ..." where it needs none.
        name: How the function is called; by default its own name, or the class of an `__init__`.
    """

    def decorate(fn: Callable[P, T]) -> Callable[P, T]:
        code: Any = fn.__code__
        names = frozenset(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
        called = name or fn.__qualname__.removesuffix(".__init__")
        order = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])

        def check(kwargs: Mapping[str, Any]) -> None:
            if not kwargs.keys() <= names:
                refuse(called, (argument for argument in kwargs if argument not in names), habits, order)

        if code.co_flags & _COROUTINE:

            async def acalled(*args: P.args, **kwargs: P.kwargs) -> Any:
                check(kwargs)
                return await fn(*args, **kwargs)  # type: ignore[misc]

            return wraps(fn)(acalled)  # type: ignore[return-value]

        @wraps(fn)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            check(kwargs)
            return fn(*args, **kwargs)

        return checked

    return decorate


def refuse(called: str, strange: Iterable[str], habits: Mapping[str, str], known: Iterable[str]) -> NoReturn:
    """Refuse arguments.

    Raises:
        TypeError: Always. The message names the replacement of each, or else the nearest argument there is.
    """
    told = []
    for argument in strange:
        near = difflib.get_close_matches(argument, known, 1, 0.75)
        hint = f": did you mean {near[0]!r}?" if near else ""
        if argument in habits:
            hint = f": write {habits[argument]}"
        told.append(f"{argument!r}{hint}")
    raise TypeError(f"{called} has no argument {'; and no '.join(told)}")


class HintedType(type):
    """The class of classes with hints for names of theirs that do not exist; `{}` in a hint is the class's name."""

    def __dir__(cls) -> list[str]:
        return _without_hints(super().__dir__(), cls)


class Hinted(metaclass=HintedType):
    """An object and a class that say what to write for a name of other libraries, from the table `_elsewhere`.

    Each such name is an attribute that cannot be read. A `__getattr__` would do as well, and with one in its class each
    attribute of an object is read ten times as slowly.
    """

    __slots__ = ()

    _elsewhere: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, hint in cls.__dict__.get("_elsewhere", {}).items():
            if not hasattr(cls, name):
                setattr(cls, name, _NoSuchName(name, hint))

    def __dir__(self) -> list[str]:
        return _without_hints(super().__dir__(), type(self))


class _NoSuchName:
    """A name that users of other libraries write."""

    __slots__ = ("_hint", "_name")

    def __init__(self, name: str, hint: str) -> None:
        self._name = name
        self._hint = hint

    def __get__(self, one: object, cls: type) -> Any:
        for base in cls.__mro__:  # a class that is mixed in may have it
            found = base.__dict__.get(self._name, self)
            if not isinstance(found, _NoSuchName):
                return found.__get__(one, cls) if hasattr(found, "__get__") else found
        what = f"type object {cls.__name__!r}" if one is None else f"{cls.__name__!r} object"
        message = f"{what} has no attribute {self._name!r}: write {self._hint.replace('{}', cls.__name__)}"
        raise AttributeError(message, name=self._name, obj=cls if one is None else one)


def _without_hints(names: Iterable[str], cls: type) -> list[str]:
    return [name for name in names if not isinstance(inspect.getattr_static(cls, name, None), _NoSuchName)]


def check_dropped(set_to_none: bool) -> None:  # noqa: FBT001 - torch's argument
    """Check the argument of torch's `zero_grad`.

    Raises:
        ValueError: It is False.
    """
    if not set_to_none:
        raise ValueError("set_to_none=False: no critique is zero, so gradients can only be dropped; leave it out")
