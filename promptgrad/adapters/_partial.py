"""What is complete of a list or an object while its JSON is being written, each part checked against its type."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

from promptgrad.adapters._fit_object import Misfit
from promptgrad.adapters._kinds import bare, has_fields, is_list, is_mapping, is_named_tuple, members
from promptgrad.adapters._nearly_json import Odd, loads
from promptgrad.adapters._read import Reader
from promptgrad.errors import ParseError, SignatureError
from promptgrad.signature import Field

_EXACT = 16_384
"""Characters up to which each complete part is shown; beyond them a part waits until the text is 1/64 longer."""
_LONGEST_HEAD = 100
"""Most characters of a fence's first line."""
_DEEPEST = 60
_CLOSES = {"[": "]", "{": "}"}

NOTHING: Any = object()
"""Nothing is complete."""


class PartialReader:
    """Reads the JSON of one field as it is written, and gives what is complete of it each time that there is more.

    What is complete of a list is a list; of an object it is a dict by field name, since a model cannot be
    made without all its fields. An object inside that is not complete is a dict as well, and the last of what is there.

    Cost: no LM call. Each part is checked once for each container that it is in. A part is shown with all before it, so
    in texts over 16,384 characters several parts come together.
    """

    def __init__(self, shape: _Shape) -> None:
        self._shape = shape
        self._head = ""
        self._size = 0
        self._shown = 0
        self._open: list[_Open] = []
        self._state = "start"  # then "value", "key", "colon", "after"; "off" at the end
        self._token: list[str] = []
        self._is_quoted = self._is_escaped = False

    @staticmethod
    def of(field: Field) -> PartialReader | None:
        """The reader of a field; None where its values are no lists and no objects."""
        try:
            shape = _Shape(field.annotation)
        except (TypeError, NameError):  # annotations that cannot be evaluated
            return None
        return None if shape.kind == "leaf" else PartialReader(shape)

    def feed(self, text: str) -> Iterator[Any]:
        """What is complete now that `text` has come, if it is more than before."""
        if self._state == "start":
            text = self._begin(text)
        if self._state == "off":
            return
        grown = False
        try:
            for sign in text:
                grown |= self._step(sign)
                if self._state == "off":
                    return  # complete, and read as a whole
        except (Odd, Misfit, ParseError, RecursionError):
            self._state = "off"  # it will be read as a whole, with tolerance
            return
        self._size += len(text)
        if grown and self._size - self._shown >= (self._size >> 6 if self._size > _EXACT else 1):
            self._shown = self._size
            part = NOTHING
            for opened in reversed(self._open):
                part = opened.with_part(part)
            if part is not NOTHING:
                yield part

    def _begin(self, text: str) -> str:
        """What is to be scanned: a fence and blanks before the first bracket are dropped."""
        self._head = start = (self._head + text).lstrip()
        if start.startswith("`"):
            if not start.startswith("```"[: len(start)]):
                self._state = "off"
            head, found, start = start.partition("\n")
            start = start.lstrip() if found else ""
            self._head = f"{head}{found}{start}"
            if len(head) > _LONGEST_HEAD:
                self._state = "off"
        if not start:
            return ""
        self._state = "value" if start[0] in _CLOSES else "off"
        return start

    def _step(self, sign: str) -> bool:
        """Read one character; whether a part is complete with it."""
        token = self._token
        if self._is_quoted:
            token.append(sign)
            if self._is_escaped:
                self._is_escaped = False
            elif sign == "\\":
                self._is_escaped = True
            elif sign == '"':
                self._is_quoted = False
                return self._end_token()
            return False
        if sign == '"':
            if token or self._state not in ("key", "value"):
                raise Odd("a quote in the wrong place")
            token.append(sign)
            self._is_quoted = True
        elif sign in " \t\r\n":
            return bool(token) and self._end_token()
        elif sign in _CLOSES:
            if token or self._state != "value" or len(self._open) >= _DEEPEST:
                raise Odd("a bracket in the wrong place")
            self._open.append(_Open(sign, self._open[-1].under() if self._open else self._shape))
            self._state = "key" if sign == "{" else "value"
        elif sign == ":":
            if self._state != "colon":
                raise Odd("a colon in the wrong place")
            self._state = "value"
        elif sign in ",]}":
            grown = bool(token) and self._end_token()
            opened = self._open[-1]
            if sign == ",":
                self._state = "key" if opened.sign == "{" else "value"
                return grown
            if _CLOSES[opened.sign] != sign:
                raise Odd("the wrong bracket closes")
            self._open.pop()
            if not self._open:
                self._state = "off"
                return False
            self._open[-1].add(opened.plain)
            self._state = "after"
            return grown or opened.changes_at_its_end()
        else:
            if self._state != "value":
                raise Odd("a word in the wrong place")
            token.append(sign)
        return False

    def _end_token(self) -> bool:
        value = loads("".join(self._token))
        self._token.clear()
        if self._state == "key":
            self._open[-1].key = value
            self._state = "colon"
            return False
        self._open[-1].add(value)
        self._state = "after"
        return True


class _Open:
    """A list or an object that is not complete.

    Attributes:
        sign: Its bracket.
        plain: What is there, as in JSON.
        key: The key of the present value, in an object.
    """

    __slots__ = ("_parts", "_shape", "key", "plain", "sign")

    def __init__(self, sign: str, shape: _Shape | None) -> None:
        if shape is not None and shape.kind != "leaf" and (sign == "[") is (shape.kind in ("mapping", "fields")):
            raise Misfit("is of another kind")
        self.sign = sign
        self.key: Any = ""
        self.plain: Any = [] if sign == "[" else {}
        self._shape = None if shape is None or shape.kind == "leaf" else shape
        self._parts: Any = [] if sign == "[" else {}

    def under(self) -> _Shape | None:
        """The shape of the present value; None where it is not known."""
        return None if self._shape is None else self._shape.under(self._place())[1]

    def _place(self) -> Any:
        return len(self.plain) if self.sign == "[" else self.key

    def add(self, value: Any) -> None:
        """The present value is complete.

        Raises:
            ParseError, Misfit: It does not fit.
        """
        name, shape = (None, None) if self._shape is None else self._shape.under(self._place())
        if self.sign == "[":
            self.plain.append(value)
            if shape is not None:
                self._parts.append(shape.check(value))
            return
        if self.key in self.plain:
            raise Misfit("has a key twice")
        self.plain[self.key] = value
        if shape is not None:
            self._parts[name] = shape.check(value)

    def changes_at_its_end(self) -> bool:
        """Whether the value looks otherwise once it is complete: a model, or one without parts."""
        return not self.plain or (self._shape is not None and self._shape.kind in ("fields", "places"))

    def with_part(self, part: Any) -> Any:
        """What is complete, with the part of the present value, if any; else `NOTHING`."""
        if self._shape is None:
            return NOTHING
        if self.sign == "[":
            found: Any = [*self._parts] if part is NOTHING else [*self._parts, part]
        else:
            found = self._parts if part is NOTHING else {**self._parts, self._shape.under(self.key)[0]: part}
            found = dict(found)
        return found or NOTHING


class _Shape:
    """How the parts of a type are checked."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        kinds = [kind for kind in members(annotation) if kind is not type(None)]
        only = bare(kinds[0]) if len(kinds) == 1 else None
        origin, args = get_origin(only) or only, get_args(only)
        self.kind = "leaf"
        self._items: tuple[Any, ...] = ()
        self._names: dict[str, tuple[str, Any]] = {}
        if only is None or not isinstance(origin, type):
            pass
        elif origin is tuple and args and not (len(args) == 2 and args[1] is ...):
            self.kind, self._items = "places", args
        elif is_list(origin):
            self.kind, self._items = "list", args[:1] or (Any,)
        elif is_mapping(origin):
            self.kind, self._items = "mapping", args[1:2] or (Any,)
        elif has_fields(origin):
            self.kind, self._names = "fields", _fields_of(origin)
        self._made: dict[str | int, _Shape] = {}
        self._reader: Reader | None = None

    def check(self, value: Any) -> Any:
        """A complete value as its type.

        Raises:
            ParseError: It does not fit.
        """
        if self.annotation is Any:
            return value
        if self._reader is None:
            self._reader = Reader(_as_field(self.annotation))
        return self._reader.value(value)

    def under(self, place: Any) -> tuple[Any, _Shape | None]:
        """The name and the shape of a part; None for a key that is no field.

        Raises:
            Misfit: There is no such place.
        """
        if self.kind in ("list", "mapping"):
            return place, self._shape(0, self._items[0])
        if self.kind == "places":
            if place >= len(self._items):
                raise Misfit("has more items than its type")
            return place, self._shape(place, self._items[place])
        name, annotation = self._names.get(place, (place, None))
        return name, None if place not in self._names else self._shape(name, annotation)

    def _shape(self, key: str | int, annotation: Any) -> _Shape:
        if key not in self._made:
            self._made[key] = _Shape(annotation)
        return self._made[key]


def _as_field(annotation: Any) -> Field:
    try:
        return Field("part", annotation, role="output")
    except SignatureError as error:
        raise Misfit(str(error)) from None


def _fields_of(kind: Any) -> dict[str, tuple[str, Any]]:
    """Name and type of each field of a model, by the key that it has in JSON."""
    found: dict[str, tuple[str, Any]] = {}
    if hasattr(kind, "model_fields"):
        for name, info in kind.model_fields.items():
            annotation = info.rebuild_annotation()
            found[name] = found[info.alias or name] = name, annotation
        return found
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(hints)
    if is_named_tuple(kind):
        names = list(kind._fields)
    return {name: (name, hints.get(name, Any)) for name in names}
