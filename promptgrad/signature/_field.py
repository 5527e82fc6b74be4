"""One typed input or output of a signature."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args, get_origin

from promptgrad._patterns import late_pattern
from promptgrad.errors import InputError, ParseError, SignatureError
from promptgrad.signature._json_schema import generator
from promptgrad.signature._sets import may_hold_sets, with_sorted_sets
from promptgrad.signature._types import is_known_good, type_name
from promptgrad.signature._unreadable import unreadable

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

Role = Literal["input", "output"]

_ON_NUMBER = ("ge", "gt", "le", "lt", "multiple_of")
_ON_TEXT = ("min_length", "max_length", "pattern")
CONSTRAINTS = (*_ON_NUMBER, *_ON_TEXT)
_HALF = late_pattern("[\ud800-\udfff]")  # half of a character, as in an emoji that a server cut
_LONE = late_pattern(r"\\u[dD][89a-fA-F]")  # the same as JSON writes it
_RESERVED = frozenset({"False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue",
                       "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in",
                       "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with",
                       "yield"})  # fmt: skip


def check_name(name: str) -> str | None:
    """Why a field cannot have this name; None if it can."""
    if not name.isidentifier():
        return f"{name!r} is not a Python identifier, and a field is passed as a keyword argument"
    if name in _RESERVED:
        return f"{name!r} is a Python keyword, and a field is passed as a keyword argument; try {name + '_text'!r}"
    if name.startswith("_"):
        return f"{name!r} starts with an underscore, which is kept for private names"
    return None


class Field:
    """One input or output: a name, a type, a description, constraints. Frozen.

    Attributes:
        name: The name of the keyword argument (an input) or attribute (an output).
        annotation: Its type.
        description: A text about it for the language model; "" for none.
        role: "input" or "output".
        constraints: Any of `ge`, `gt`, `le`, `lt`, `multiple_of`, `min_length`, `max_length`, `pattern`. They are
            shown to the model, and checked.
        is_text: Whether the type is `str`, so that the value is written as it is rather than as JSON.

    Raises:
        SignatureError: The name is not allowed, a constraint is unknown or does not fit the type,
            pydantic cannot check the type, or no reply can ever be read as an output of it.
    """

    __slots__ = ("_adapter", "_may_hold_sets", "annotation", "constraints", "description", "is_text", "name", "role")

    name: str
    annotation: Any
    description: str
    role: Role
    constraints: Mapping[str, Any]
    is_text: bool
    _adapter: TypeAdapter[Any] | None
    _may_hold_sets: bool

    def __init__(
        self,
        name: str,
        annotation: Any = str,
        description: str = "",
        role: Role = "input",
        constraints: Mapping[str, Any] | None = None,
    ) -> None:
        problem = check_name(name)
        if problem:
            raise SignatureError(f"a field cannot have this name: {problem}")
        if role not in ("input", "output"):
            raise SignatureError(f"field {name!r}: the role is 'input' or 'output', not {role!r}")
        annotation = type(None) if annotation is None else getattr(annotation, "__text__", annotation)
        put = object.__setattr__
        put(self, "name", name)
        put(self, "annotation", annotation)
        put(self, "description", description)
        put(self, "role", role)
        put(self, "constraints", dict(sorted((constraints or {}).items())))
        base = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
        put(self, "is_text", base is str)
        put(self, "_adapter", None)
        put(self, "_may_hold_sets", False)  # noqa: FBT003
        for key in self.constraints:
            if key not in CONSTRAINTS:
                raise SignatureError(f"field {name!r}: unknown constraint {key!r}{suggest(key, CONSTRAINTS)}")
            if key not in (_ON_TEXT if base is str else _ON_NUMBER if base in (int, float) else CONSTRAINTS):
                raise SignatureError(f"field {name!r}: the constraint {key!r} has no meaning for {type_name(base)}")
        if self.constraints or not is_known_good(annotation):
            adapter = self.adapter  # built here, so that a type which cannot be checked is an error at once
            if role == "output" and (problem := unreadable(adapter.core_schema)):
                raise SignatureError(f"field {name!r}: {problem}")

    @property
    def adapter(self) -> TypeAdapter[Any]:
        """The pydantic validator of this field, built when it is first needed."""
        if self._adapter is None:
            adapter = self._build()
            object.__setattr__(self, "_may_hold_sets", may_hold_sets(adapter.core_schema))
            object.__setattr__(self, "_adapter", adapter)
        return self._adapter  # type: ignore[return-value]

    def _build(self) -> TypeAdapter[Any]:
        import pydantic

        annotation = self.annotation
        if self.constraints:
            annotation = Annotated[annotation, pydantic.Field(**self.constraints)]
        config = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")
        try:
            try:
                return pydantic.TypeAdapter(annotation, config=config)
            except pydantic.PydanticUserError as error:
                if error.code != "type-adapter-config-unused":
                    raise
                return pydantic.TypeAdapter(annotation)  # models, dataclasses and TypedDicts bring their own settings
        except Exception as error:
            what = f"type {type_name(self.annotation)}"
            if self.constraints:
                what += f" with {', '.join(self.constraints)}"
            raise SignatureError(f"field {self.name!r}: pydantic cannot check {what}: {error}") from error

    @property
    def is_plain(self) -> bool:
        """Whether this is a `str` without constraints, of which only the type is checked, without pydantic."""
        return self.annotation is str and not self.constraints

    @property
    def type_name(self) -> str:
        """The type as one would write it, such as `list[str]`."""
        return type_name(self.annotation)

    def validate(self, value: Any) -> Any:
        """The value as the field's type.

        A `str` stays the object it is (so a `Text` keeps its graph); other types go through pydantic, which converts
        where nothing is lost (`"3"` to `3`, a dict to a model).

        Raises:
            InputError: The value does not fit, and the field is an input.
            ParseError: The value does not fit, and the field is an output.
        """
        if self.annotation is str and not self.constraints:
            if isinstance(value, str):
                return value
            self._refuse(f"must be str, not {type(value).__name__}", value)
        import pydantic

        try:
            checked = self.adapter.validate_python(value)
        except pydantic.ValidationError as error:
            self._refuse(_reasons(error), value, error)
        return value if self.is_text and checked == value else checked

    def validate_json(self, text: str, *, strict: bool = False) -> Any:
        """The value that a JSON text stands for; under `strict`, only as `dump_json` writes it.

        Raises:
            InputError: The value does not fit, and the field is an input.
            ParseError: The value does not fit, and the field is an output.
        """
        import pydantic

        try:
            return self.adapter.validate_json(text, strict=strict or None)
        except pydantic.ValidationError as error:
            if _LONE.search(text):  # half of a character, which pydantic's reader refuses
                with suppress(ValueError):
                    return self.adapter.validate_python(json.loads(text), strict=strict or None)
            self._refuse(_reasons(error), text, error)

    def dump_json(self, value: Any, context: Any = None) -> str:
        """A value as one line of JSON that `validate_json` reads back; the same in every process, as sets are sorted.

        Args:
            value: The value.
            context: What pydantic passes to the serializers of types, as `content.References` for images.

        Raises:
            InputError: The value cannot be written as JSON.
        """
        try:
            if context is None:
                text = self.adapter.dump_json(value, warnings=False).decode()
            else:
                text = self.adapter.serializer.to_json(value, warnings=False, context=context).decode()
        except ValueError as error:
            text = self._dump_by_python(value, error, context)
        if "\ufffd" in text:  # what pydantic's writer makes of such a text as a key, without an error
            text = self._dump_by_python(value, None, context)
        if not self._may_hold_sets:
            return text
        return _as_json(with_sorted_sets(value, json.loads(text)))

    def _dump_by_python(self, value: Any, cause: ValueError | None, context: Any) -> str:
        """The result of `dump_json` for a text with half of a character in it, which pydantic's writer refuses."""
        write = self.adapter.serializer.to_python
        try:
            python = write(value, warnings=False, context=context)
            try:
                plain = _with_keys(write(value, mode="json", warnings=False, context=context), python)
            except UnicodeError:
                plain = python
            return _as_json(plain)
        except (ValueError, TypeError) as error:
            raise InputError(f"field {self.name!r}: the value cannot be written as JSON: {cause or error}") from cause

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of the type and its constraints, with the description where there is one."""
        if self.is_plain:
            schema: dict[str, Any] = {"type": "string"}
        else:
            schema = self.adapter.json_schema(schema_generator=generator())
        if self.description:
            schema["description"] = self.description
        return schema

    def _refuse(self, reason: str, value: Any, cause: BaseException | None = None) -> NoReturn:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        message = f"{self.role} {self.name!r} ({self.type_name}): {reason}; got {shown}"
        if self.role == "input":
            raise InputError(message) from cause
        reply = value if isinstance(value, str) else ""
        raise ParseError(message, reply=reply, reason=f"`{self.name}` {reason}") from cause

    def replace(self, **changes: Any) -> Field:
        """A copy with some attributes changed."""
        parts = {key: getattr(self, key) for key in ("name", "annotation", "description", "role", "constraints")}
        return Field(**{**parts, **changes})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Field is frozen; use field.replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Field is frozen")

    def _key(self) -> tuple[Any, ...]:
        return (self.name, self.annotation, self.description, self.role, self.constraints)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Field):
            return NotImplemented
        mine, theirs = self._key(), other._key()
        return mine == theirs or (
            mine[0] == theirs[0] and mine[2:] == theirs[2:] and _same_annotated(mine[1], theirs[1])
        )

    def __hash__(self) -> int:
        return hash((self.name, self.role, self.description))

    def __reduce__(self) -> tuple[type[Field], tuple[Any, ...]]:
        return (Field, (*self._key()[:4], dict(self.constraints)))

    def __copy__(self) -> Field:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Field:
        return self

    def __repr__(self) -> str:
        parts = [repr(self.name), self.type_name, f"role={self.role!r}"]
        if self.description:
            parts.append(f"description={self.description!r}")
        parts += [f"{key}={value!r}" for key, value in self.constraints.items()]
        return f"Field({', '.join(parts)})"


def _as_json(data: Any) -> str:
    """JSON as pydantic writes it, with half characters escaped."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return _HALF.sub(lambda half: f"\\u{ord(half.group()):04x}", text)


def _with_keys(plain: Any, value: Any) -> Any:
    """A value in JSON types with the keys that it really has: pydantic replaces half of a character in a key."""
    if isinstance(plain, dict) and isinstance(value, dict):
        if len(plain) != len(value):
            raise ValueError("two of its keys differ in half of a character only")
        return {
            real if isinstance(real, str) and "\ufffd" in key else key: _with_keys(item, value[real])
            for (key, item), real in zip(plain.items(), value, strict=True)
        }
    if isinstance(plain, list) and isinstance(value, (list, tuple)):
        return [_with_keys(item, real) for item, real in zip(plain, value, strict=True)]
    return plain


def _same_annotated(a: Any, b: Any) -> bool:
    """Whether two types with `Annotated` inside are the same; pydantic's FieldInfo compares by identity."""
    return "Annotated[" in repr(a) and repr(a) == repr(b)


class FieldSpec:
    """The value of `Input(...)` and `Output(...)` in a class body, until the class is made."""

    __slots__ = ("constraints", "description", "role")

    def __init__(self, role: Role, description: str, constraints: Mapping[str, Any]) -> None:
        self.role = role
        self.description = description
        self.constraints = constraints

    def field(self, name: str, annotation: Any) -> Field:
        """The field, now that its name and type are known."""
        return Field(name, annotation, self.description, self.role, self.constraints)

    def __repr__(self) -> str:
        parts = [f"desc={self.description!r}"] if self.description else []
        parts += [f"{key}={value!r}" for key, value in self.constraints.items()]
        return f"{self.role.capitalize()}({', '.join(parts)})"


def Input(desc: str = "", **constraints: Any) -> Any:
    """Declare an input in a class signature.

    `question: str = Input(desc="...")`.

    Args:
        desc: A text about the field for the language model.
        constraints: Any of `ge`, `gt`, `le`, `lt`, `multiple_of`, `min_length`, `max_length`, `pattern`.

    Raises:
        SignatureError: An unknown constraint; a default, which a signature cannot have.
    """
    return _spec("input", desc, constraints)


def Output(desc: str = "", **constraints: Any) -> Any:
    """Declare an output in a class signature.

    `answer: float = Output(desc="...", ge=0)`.

    Args:
        desc: A text about the field for the language model.
        constraints: Any of `ge`, `gt`, `le`, `lt`, `multiple_of`, `min_length`, `max_length`, `pattern`. They are
            shown to the model, and a reply that breaks one does not parse.

    Raises:
        SignatureError: An unknown constraint; a default, which a signature cannot have.
    """
    return _spec("output", desc, constraints)


def _spec(role: Role, desc: str, constraints: dict[str, Any]) -> FieldSpec:
    called = role.capitalize()
    if not isinstance(desc, str):
        raise SignatureError(f"{called}(desc) is a str, not {desc!r}")
    given = {key: value for key, value in constraints.items() if value is not None}
    for key in given:
        if key in ("default", "default_factory"):
            raise SignatureError(
                f"{called}({key}=...): a field has no default; give an optional field the type `... | None` "
                "and pass None"
            )
        if key not in CONSTRAINTS:
            raise SignatureError(
                f"{called}() knows no {key!r}{suggest(key, ('desc', *CONSTRAINTS))}; it takes desc and the constraints "
                f"{', '.join(CONSTRAINTS)}"
            )
    return FieldSpec(role, desc, given)


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when a known name is close, else ""."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _reasons(error: ValidationError) -> str:
    """The first three errors that pydantic found, in one line."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = []
    for item in found[:3]:
        where = ".".join(str(part) for part in item["loc"])
        lines.append(f"at {where}: {item['msg']}" if where else item["msg"])
    if len(found) > 3:
        lines.append(f"and {len(found) - 3} more")
    return "does not fit: " + "; ".join(lines)
