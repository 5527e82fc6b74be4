"""`Text`: a `str` that remembers what produced it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, SupportsIndex, TypeVar

from promptgrad.autograd._handle import RemovableHandle
from promptgrad.autograd._mode import GRAD, mode
from promptgrad.autograd._node import GradFn, Join
from promptgrad.autograd._tape import current_tape
from promptgrad.errors import GraphError

V = TypeVar("V")

_new = str.__new__


class Text(str):
    """A `str` with `grad_fn`, which goes anywhere a `str` goes.

    Slices and the results of `str` methods keep `grad_fn`; a text made of several texts keeps that of each. f-strings,
    `str(text)`, `"".join`, `json`, `re` and validation give plain strings: there the graph finds the edge by content.
    Under `no_grad` results have no `grad_fn`. Copies and pickles carry the text, not the graph.

    Args:
        value: The text; a `Text` keeps its `grad_fn`.
        grad_fn: What produced it.
    """

    __slots__ = ("grad_fn",)

    grad_fn: GradFn | None

    def __new__(cls, value: object = "", grad_fn: GradFn | None = None) -> "Text":
        text = _new(cls, value)
        text.grad_fn = value.grad_fn if grad_fn is None and isinstance(value, Text) else grad_fn
        return text

    def detach(self) -> "Text":
        """The same text without a graph: no blame passes to what produced it.

        For the rest of the forward these words count as explained, so that no content edge finds them again either; and
        the call that produced them gets no control or order edge.
        """
        tape = current_tape()
        if tape is not None and self.grad_fn is not None:
            tape.detached.append((str(self), self.grad_fn))
        return Text(str(self))

    @property
    def requires_grad(self) -> bool:
        """Whether something produced this text that backward can follow."""
        return self.grad_fn is not None

    def register_hook(self, hook: "Callable[[tuple[str, ...]], Any]") -> RemovableHandle:
        """Call `hook(feedback)` in `backward()`, with the critiques of the call that produced this text.

        `feedback` is a tuple of texts, one from each user of the value. What the hook returns, if not None, replaces
        it: a text or a sequence of them; an empty one ends the blame here. It is called once in each backward pass that
        gets here, before the hooks of the call's module, in the order of registration. What it raises is raised by
        `backward()`.

        Raises:
            GraphError: The text has no `grad_fn`: it is a constant, detached, or made under `no_grad`.
        """
        if self.grad_fn is None:
            raise GraphError(
                "cannot register a hook on a text without grad_fn: it is a constant, was detached, or was made where "
                "nothing is recorded. Take the text as the call returned it, inside a recorded forward"
            )
        return self.grad_fn.register_hook(hook)

    def _produced_by(self, grad_fn: GradFn | None) -> "Text":
        """The same text, from `grad_fn`; a subclass keeps its facts."""
        return Text(str(self), grad_fn)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Text, (str(self),))

    def __copy__(self) -> "Text":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Text":
        return Text(str(self))

    def __add__(self, other: str) -> "Text":
        if not isinstance(other, str):
            return NotImplemented
        return _derive(str.__add__(self, other), _joined((self, other)))

    def __radd__(self, other: str) -> "Text":
        if not isinstance(other, str):
            return NotImplemented
        return _derive(str.__add__(other, self), _joined((other, self)))

    def __mul__(self, times: SupportsIndex) -> "Text":
        return _derive(str.__mul__(self, times), self.grad_fn)

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> "Text":
        return _derive(str.__mod__(self, values), _joined((self, *_parts(values))))

    def __rmod__(self, template: Any) -> "Text":
        if not isinstance(template, str):
            return NotImplemented
        return _derive(str.__mod__(template, self), _joined((template, self)))

    def __getitem__(self, key: SupportsIndex | slice) -> "Text":
        return _derive(str.__getitem__(self, key), self.grad_fn)

    def __format__(self, spec: str) -> "Text":
        return _derive(str.__format__(self, spec), self.grad_fn)

    def capitalize(self) -> "Text":
        return _derive(str.capitalize(self), self.grad_fn)

    def casefold(self) -> "Text":
        return _derive(str.casefold(self), self.grad_fn)

    def center(self, width: SupportsIndex, fill: str = " ", /) -> "Text":
        return _derive(str.center(self, width, fill), self.grad_fn)

    def expandtabs(self, tabsize: SupportsIndex = 8) -> "Text":
        return _derive(str.expandtabs(self, tabsize), self.grad_fn)

    def format(self, *args: Any, **kwargs: Any) -> "Text":
        return _derive(str.format(self, *args, **kwargs), _joined((self, *_parts(args), *_parts(kwargs))))

    def format_map(self, mapping: Any, /) -> "Text":
        return _derive(str.format_map(self, mapping), _joined((self, *_parts(mapping))))

    def join(self, parts: Iterable[str], /) -> "Text":
        parts = list(parts)
        return _derive(str.join(self, parts), _joined((self, *parts)))

    def ljust(self, width: SupportsIndex, fill: str = " ", /) -> "Text":
        return _derive(str.ljust(self, width, fill), self.grad_fn)

    def lower(self) -> "Text":
        return _derive(str.lower(self), self.grad_fn)

    def lstrip(self, chars: str | None = None, /) -> "Text":
        return _derive(str.lstrip(self, chars), self.grad_fn)

    def partition(self, sep: str, /) -> "tuple[Text, Text, Text]":
        head, mark, tail = str.partition(self, sep)
        fn = self.grad_fn
        return _derive(head, fn), _derive(mark, fn), _derive(tail, fn)

    def removeprefix(self, prefix: str, /) -> "Text":
        return _derive(str.removeprefix(self, prefix), self.grad_fn)

    def removesuffix(self, suffix: str, /) -> "Text":
        return _derive(str.removesuffix(self, suffix), self.grad_fn)

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> "Text":
        return _derive(str.replace(self, old, new, count), _joined((self, new)))

    def rjust(self, width: SupportsIndex, fill: str = " ", /) -> "Text":
        return _derive(str.rjust(self, width, fill), self.grad_fn)

    def rpartition(self, sep: str, /) -> "tuple[Text, Text, Text]":
        head, mark, tail = str.rpartition(self, sep)
        fn = self.grad_fn
        return _derive(head, fn), _derive(mark, fn), _derive(tail, fn)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> "list[Text]":  # type: ignore[override]
        fn = self.grad_fn
        return [_derive(part, fn) for part in str.rsplit(self, sep, maxsplit)]

    def rstrip(self, chars: str | None = None, /) -> "Text":
        return _derive(str.rstrip(self, chars), self.grad_fn)

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> "list[Text]":  # type: ignore[override]
        fn = self.grad_fn
        return [_derive(part, fn) for part in str.split(self, sep, maxsplit)]

    def splitlines(self, keepends: bool = False) -> "list[Text]":  # type: ignore[override]  # noqa: FBT001, FBT002
        fn = self.grad_fn
        return [_derive(part, fn) for part in str.splitlines(self, keepends)]

    def strip(self, chars: str | None = None, /) -> "Text":
        return _derive(str.strip(self, chars), self.grad_fn)

    def swapcase(self) -> "Text":
        return _derive(str.swapcase(self), self.grad_fn)

    def title(self) -> "Text":
        return _derive(str.title(self), self.grad_fn)

    def translate(self, table: Any, /) -> "Text":
        return _derive(str.translate(self, table), self.grad_fn)

    def upper(self) -> "Text":
        return _derive(str.upper(self), self.grad_fn)

    def zfill(self, width: SupportsIndex, /) -> "Text":
        return _derive(str.zfill(self, width), self.grad_fn)


def _derive(value: str, grad_fn: GradFn | None) -> Text:
    text = _new(Text, value)
    text.grad_fn = grad_fn if grad_fn is None or mode.get() == GRAD else None
    return text


def _joined(parts: Iterable[Any]) -> GradFn | None:
    """What produced a text made of these parts: one origin, or a `Join` of several in the order of the parts."""
    sources: dict[GradFn, None] = {}
    for part in parts:
        if isinstance(part, Text) and part.grad_fn is not None:
            sources[part.grad_fn] = None
    if len(sources) > 1:
        return Join(tuple(sources)) if mode.get() == GRAD else None
    return next(iter(sources), None)


def _parts(values: Any) -> Iterable[Any]:
    if isinstance(values, tuple):
        return values
    return values.values() if isinstance(values, Mapping) else (values,)


def attach(value: V, grad_fn: GradFn | None, *, objects: bool = True) -> V:
    """The value with every string in it made a `Text` that came from `grad_fn`.

    Lists, tuples and dicts are rebuilt; the fields of pydantic objects are written in place, past their validation, so
    pass objects that nothing else refers to, or leave them alone with `objects=False`. Everything else is returned as
    it is.
    """
    whole: Any = value
    if type(whole) is not dict or not objects:
        result: Any = _attach(whole, grad_fn, 0 if objects else _NO_OBJECTS)
    else:  # the outputs of a call: most of them are texts
        result = {}
        for key, item in whole.items():
            if type(item) is str:
                result[key] = text = _new(Text, item)
                text.grad_fn = grad_fn
            else:
                result[key] = _attach(item, grad_fn, 1)
    return result  # type: ignore[no-any-return]


_NO_OBJECTS = -1000


def _attach(value: Any, grad_fn: GradFn | None, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is Text:
        text = _new(Text, value)
        text.grad_fn = grad_fn
        return text
    if depth > 32 or _NO_OBJECTS + 32 < depth < 0:
        return value
    if kind is list:
        return [_attach(item, grad_fn, depth + 1) for item in value]
    if kind is dict:
        return {key: _attach(item, grad_fn, depth + 1) for key, item in value.items()}
    if kind is tuple:
        return tuple([_attach(item, grad_fn, depth + 1) for item in value])
    if isinstance(value, Text):
        return value._produced_by(grad_fn)
    if depth >= 0 and hasattr(kind, "model_fields") and hasattr(value, "__dict__"):
        fields: dict[str, Any] = value.__dict__
        for name, item in fields.items():
            fields[name] = _attach(item, grad_fn, depth + 1)
    return value
