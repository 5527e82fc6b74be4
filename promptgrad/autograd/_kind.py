"""`Kind`: the traits and methods that all parameters of one kind share; and the registry of kinds.

The rest of the package asks a kind what it wants to know (`kind.is_text`, `kind.exact`, `kind.to_json(...)`) and never
compares names, so a new kind is one class here or in anybody's code, and one call of `register_kind`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from promptgrad.autograd._fits import fits
from promptgrad.autograd._tokens import tokens
from promptgrad.autograd._values import Keyed

_TRAITS = ("trained", "is_text", "instructs", "exact", "is_demos", "has_options", "is_weights")


@runtime_checkable
class Selector(Protocol):
    """A value of demos that chooses them by the inputs of each call, such as `nn.Neighbours`. It is immutable.

    Equal selectors are equal by `==`, and have the same `id` in every process; digests of values use the `id`.
    """

    @property
    def id(self) -> str:
        """Digest of all that the choice depends on."""
        ...

    @property
    def examples(self) -> tuple[Any, ...]:
        """The examples to choose from."""
        ...

    @property
    def k(self) -> int:
        """How many are chosen for a call, at most."""
        ...

    def select(self, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The demos for a call with these inputs."""
        ...

    def to_json(self, write: Callable[[Any], Any]) -> dict[str, Any]:
        """The value in JSON types, its kind of selector under "selector"; `write` makes JSON of an example."""
        ...


_selectors: dict[str, Callable[[Mapping[str, Any], Callable[[Any], Any]], Selector]] = {}


def register_selector(name: str, from_json: "Callable[[Mapping[str, Any], Callable[[Any], Any]], Selector]") -> None:
    """Register how a kind of selector is read from a state.

    Args:
        name: What its `to_json` writes under "selector".
        from_json: A function of that mapping, and of a function that makes an example of its JSON form. It raises
            ValueError with the reason if the selector cannot be read.
    """
    _selectors[name] = from_json


class Kind(str):
    """A kind of parameter. It is a `str`, its name: `parameter.kind == "demos"` holds, and JSON has it as text.

    A kind of your own is a subclass with other traits and methods, and an instance of it that is registered:

    ```
    class Playbook(autograd.Kind):
        trained = True

        def normal(self, value, options=None):
            if isinstance(value, str) or not all(isinstance(line, str) for line in value):
                raise ValueError("a playbook is a sequence of lines")
            return tuple(value)

    autograd.register_kind(Playbook("playbook"))
    pg.Parameter(["Ask first."], "playbook")
    ```

    Attributes:
        trained: Whether a parameter requires a gradient by default.
        is_text: Whether the value is a text that a critic may blame and a rewriter rewrites.
        instructs: Whether it is the text that states the task of a call: a critic always judges that one.
        exact: Whether the value is the answer itself, not part of a prompt. It is then judged by all checks rather than
            by a sample of them, and its text counts to the letter.
        is_demos: Whether the value is a sequence of examples, or a `Selector` of them; its gradient is the scored
            traces of the calls that read it.
        has_options: Whether a parameter is made with `options`, one of which is its value.
        is_weights: Whether the value is weights, which torch's optimizers change in place.
        place: The one name that it has in a module, and only in one that asks for it; "" for any.
    """

    __slots__ = ()

    trained: ClassVar[bool] = False
    is_text: ClassVar[bool] = False
    instructs: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    is_demos: ClassVar[bool] = False
    has_options: ClassVar[bool] = False
    is_weights: ClassVar[bool] = False
    place: ClassVar[str] = ""

    def normal(self, value: Any, options: tuple[Any, ...] | None = None) -> Any:
        """The value in the immutable form in which it is stored.

        Args:
            value: The value that is assigned, or was read from a state.
            options: The parameter's options, if it has any.

        Raises:
            ValueError: It is not a value of this kind; the message gives the reason, such as "it must be a str, not
                int".
        """
        return value

    def shape(self, value: Any) -> tuple[int, ...]:
        """`()` for one thing, `(k,)` for a sequence of k."""
        return ()

    def numel(self, value: Any) -> int:
        """How many pieces there are in a value."""
        return 1

    def show(self, value: Any) -> str:
        """The value in one line, for `print(parameter)`."""
        text = repr(value)
        return text if len(text) <= 200 else text[:197] + "..."

    def to_json(self, value: Any, write: Callable[[Any], Any]) -> Any:
        """The value for `state_dict()`, in JSON types.

        Args:
            value: The value.
            write: Makes JSON of anything that has a JSON form; of an example by the fields of its module.
        """
        return write(value)

    def from_json(self, value: Any, read: Callable[[Any], Any]) -> Any:
        """The value from a state; it is validated afterwards.

        Args:
            value: What `to_json` returned, perhaps by way of JSON.
            read: Makes an example of its JSON form.

        Raises:
            ValueError: The value cannot be read; the message gives the reason.
        """
        return value

    def answers_to(self, kinds: Collection[str]) -> bool:
        """Whether the kind is among those given by name or trait, such as `("demos", "is_text")`."""
        return self in kinds or any(trait in kinds and bool(getattr(self, trait)) for trait in _TRAITS)

    def __reduce__(self) -> tuple[Any, ...]:
        return (as_kind, (str(self),))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Kind":
        return self

    def __copy__(self) -> "Kind":
        return self


class _TextKind(Kind):
    __slots__ = ()

    trained = True
    is_text = True

    def normal(self, value: Any, options: tuple[Any, ...] | None = None) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"it must be a str, not {type(value).__name__}")
        return str(value)

    def numel(self, value: Any) -> int:
        return len(tokens(value))


class _Instruction(_TextKind):
    __slots__ = ()

    instructs = True


class _Description(_TextKind):
    __slots__ = ()

    trained = False


class _Solution(_TextKind):
    __slots__ = ()

    exact = True


class _Choice(Kind):
    __slots__ = ()

    has_options = True

    def normal(self, value: Any, options: tuple[Any, ...] | None = None) -> Any:
        for option in options or ():
            if option is value or (type(option) is type(value) and option == value):
                return option
        raise ValueError(f"it is not one of {list(options or ())!r}")


class _Demos(Kind):
    __slots__ = ()

    trained = True
    is_demos = True

    def normal(self, value: Any, options: tuple[Any, ...] | None = None) -> Any:
        selector = fits(value, Selector)
        if isinstance(value, (str, Mapping)) or not (selector or isinstance(value, Iterable)):
            raise ValueError("demos are a sequence of examples")
        demos = value.examples if fits(value, Selector) else tuple(value)
        for demo in demos:
            if not issubclass(type(demo), Keyed):
                raise ValueError(f"a demo is an Example or a dict, not {demo!r}")
        return value if selector else demos

    def shape(self, value: Any) -> tuple[int, ...]:
        return (self.numel(value),)

    def numel(self, value: Any) -> int:
        return value.k if fits(value, Selector) else len(value)

    def show(self, value: Any) -> str:
        return repr(value) if fits(value, Selector) else f"{len(value)} demos"

    def to_json(self, value: Any, write: Callable[[Any], Any]) -> Any:
        return value.to_json(write) if fits(value, Selector) else [write(demo) for demo in value]

    def from_json(self, value: Any, read: Callable[[Any], Any]) -> Any:
        if isinstance(value, Mapping) and "selector" in value:
            name = value["selector"]
            if name not in _selectors:
                raise ValueError(f"its selector {name!r} is not known here: import what defines it, before loading")
            return _selectors[name](value, read)
        if isinstance(value, (str, Mapping)) or not isinstance(value, Collection):
            raise ValueError(f"must be a list of examples, not {type(value).__name__}")
        return tuple(read(demo) for demo in value)


def demos_for(value: Any, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The demos to show to a call with these inputs."""
    return value.select(inputs) if fits(value, Selector) else tuple(value)


async def ademos_for(value: Any, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """As `demos_for`, from a coroutine: a selector that has a coroutine `aselect` chooses by it."""
    aselect = getattr(value, "aselect", None)
    if aselect is None:
        return demos_for(value, inputs)
    chosen: tuple[Any, ...] = await aselect(inputs)
    return chosen


def demos_in(value: Any) -> tuple[Any, ...]:
    """The examples in a value of demos: all those that a selector chooses from, else the demos themselves."""
    return value.examples if fits(value, Selector) else tuple(value)


_kinds: dict[str, Kind] = {}


def register_kind(kind: Kind) -> Kind:
    """Register a kind in this process, so that `Parameter(value, kind)` accepts its name, and return it.

    Raises:
        TypeError: `kind` is not a `Kind`.
        ValueError: The name belongs to another kind, or is not a word in lower case.
    """
    if not isinstance(kind, Kind):
        raise TypeError(f"register_kind takes a Kind, such as Playbook('playbook'), not {kind!r}")
    if not kind.isidentifier() or kind != kind.lower() or kind in ("input", *_TRAITS):
        raise ValueError(f"the name of a kind is a word in lower case, and not that of a trait, not {str(kind)!r}")
    known = _kinds.get(kind)
    if known is not None and type(known).__qualname__ != type(kind).__qualname__:
        raise ValueError(
            f"the kind {str(kind)!r} is registered already, as {type(known).__name__}: choose another name"
        )
    _kinds[str(kind)] = kind
    return kind


for _kind in (
    _Instruction("instruction"),
    _Demos("demos"),
    _Description("description"),
    _Choice("choice"),
    _Solution("solution"),
):
    register_kind(_kind)


def as_kind(name: str) -> Kind:
    """The registered kind of this name; for any other name, such as "input", a kind without traits."""
    if isinstance(name, Kind):
        return name
    return _kinds.get(name) or Kind(name)


def kinds_of(names: Iterable[str] | None = None) -> tuple[Kind, ...]:
    """The registered kinds with one of these names or traits; all of them if none is given."""
    wanted = None if names is None else tuple(names)
    return tuple(kind for kind in _kinds.values() if wanted is None or kind.answers_to(wanted))
