"""Arguments and names that users of other libraries write out of habit: an error that names what to write here."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, ParamSpec, TypeVar

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

    _elsewhere: Mapping[str, str]

    if not TYPE_CHECKING:  # otherwise a type checker would see Any for a misspelt name

        def __getattr__(cls, name):
            raise _no_such_name(cls, cls, f"type object {cls.__name__!r}", name)


class Hinted(metaclass=HintedType):
    """An object and a class that say what to write for a name of other libraries, from the table `_elsewhere`."""

    __slots__ = ()

    _elsewhere: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            cls = type(self)
            raise _no_such_name(self, cls, f"{cls.__name__!r} object", name)


def _no_such_name(owner: Any, cls: type[Hinted], what: str, name: str) -> AttributeError:
    hint = f": write {cls._elsewhere[name].replace('{}', cls.__name__)}" if name in cls._elsewhere else ""
    return AttributeError(f"{what} has no attribute {name!r}{hint}", name=name, obj=owner)


def check_dropped(set_to_none: bool) -> None:  # noqa: FBT001 - torch's argument
    """Check the argument of torch's `zero_grad`.

    Raises:
        ValueError: It is False.
    """
    if not set_to_none:
        raise ValueError("set_to_none=False: no critique is zero, so gradients can only be dropped; leave it out")
