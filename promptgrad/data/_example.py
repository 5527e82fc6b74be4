"""One row of data: named fields, some of which are inputs and the others labels."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any

from promptgrad.data._table import not_a_table
from promptgrad.errors import DataError

_DSPY_NAMES = {"toDict": "to_dict()", "with_input": "with_inputs(...)", "input_fields": "input_keys"}


class Example:
    """An immutable record of named values.

    Fields are read as attributes or by key; a field named like a method (`items`, `id`, ...) is read by key only.
    Two examples are equal when their fields have the same content, whatever is marked as input. An `Example` is
    deliberately not a `Mapping`: torch's `default_collate` would tear a batch of mappings into columns.

    Args:
        base: Fields to start from, a mapping or another example (whose input marks are kept).
        **fields: Fields by name; they win over those of `base`.

    Raises:
        DataError: `base` is not a mapping with string keys, or (on `==`, `hash` and `id`) a value has no content
            that could be compared across processes.

    >>> ex = Example(question="2 + 2?", answer="4").with_inputs("question")
    >>> ex.answer, ex["answer"], ex.inputs()
    ('4', '4', {'question': '2 + 2?'})
    """

    __slots__ = ("_fields", "_id", "_input_keys")
    _fields: dict[str, Any]
    _id: str | None
    _input_keys: tuple[str, ...] | None

    def __init__(self, base: "Mapping[str, Any] | Example | None" = None, /, **fields: Any) -> None:
        keys: tuple[str, ...] | None = None
        if base is not None:
            if isinstance(base, Example):
                keys = base._input_keys
                given: Any = base._fields
            elif isinstance(base, Mapping):
                given = base
            else:
                raise DataError(
                    f"Example(...) takes fields by name or one mapping, got {type(base).__name__}: "
                    "write Example(question=..., answer=...) or Example({'question': ..., 'answer': ...})"
                )
            wrong = [key for key in given if not isinstance(key, str)]
            if wrong:
                raise DataError(f"field names must be strings, got {wrong[0]!r}")
            fields = {**given, **fields}
        _set(self, fields, keys)

    @staticmethod
    def from_dicts(
        rows: Iterable[Mapping[str, Any]], *, inputs: "Sequence[str] | str | None" = None
    ) -> "list[Example]":
        """Examples from dicts, such as the rows of a table; the same as `promptgrad.data.from_dicts`.

        Args:
            rows: The dicts; for a pandas frame, `frame.to_dict("records")`.
            inputs: Names of the input fields.

        Raises:
            DataError: There is no row, a row is not a dict, or an input is missing in a row.
        """
        if table := not_a_table("from_dicts takes rows as dicts or", rows, rows=False):
            raise DataError(table)
        return examples_of(((f"row {number}", row) for number, row in enumerate(rows)), inputs, "there are no rows")

    @property
    def input_keys(self) -> tuple[str, ...] | None:
        """Names of the inputs in the order given, or None while `with_inputs` was not called."""
        return self._input_keys

    @property
    def id(self) -> str:
        """Digest of the content, the same in every process; journals and cells know the example by it."""
        if self._id is None:
            text = json.dumps(content(self._fields), ensure_ascii=False, separators=(",", ":"))
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
            object.__setattr__(self, "_id", digest)
            return digest
        return self._id

    def with_inputs(self, *names: str | Iterable[str]) -> "Example":
        """A copy in which these fields are the inputs and all others labels.

        Raises:
            DataError: A name is not a field.
        """
        keys: list[str] = []
        for name in names:
            keys += [name] if isinstance(name, str) else name
        for key in keys:
            if key not in self._fields:
                raise DataError(f"with_inputs: {self._unknown(key)}")
        return _new(self._fields, tuple(dict.fromkeys(keys)))

    def inputs(self) -> dict[str, Any]:
        """The input fields.

        Raises:
            DataError: `with_inputs` was not called.
        """
        return {name: self._fields[name] for name in self._marked("inputs")}

    def labels(self) -> dict[str, Any]:
        """The fields that are not inputs.

        Raises:
            DataError: `with_inputs` was not called.
        """
        marked = self._marked("labels")
        return {name: value for name, value in self._fields.items() if name not in marked}

    def copy(self, **changes: Any) -> "Example":
        """A copy with some fields changed or added; the input marks stay."""
        return _new({**self._fields, **changes}, self._input_keys)

    def without(self, *names: str) -> "Example":
        """A copy without these fields; names that are not there are ignored."""
        keys = self._input_keys
        return _new(
            {name: value for name, value in self._fields.items() if name not in names},
            None if keys is None else tuple(key for key in keys if key not in names),
        )

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` where there is none."""
        return self._fields.get(name, default)

    def keys(self) -> KeysView[str]:
        """Names of the fields in the order given."""
        return self._fields.keys()

    def values(self) -> ValuesView[Any]:
        """Values of the fields in the order given."""
        return self._fields.values()

    def items(self) -> ItemsView[str, Any]:
        """Pairs of name and value in the order given."""
        return self._fields.items()

    def to_dict(self) -> dict[str, Any]:
        """The fields as a new dict."""
        return dict(self._fields)

    def __record__(self) -> tuple[None, dict[str, Any]]:
        return None, self._fields

    def _marked(self, what: str) -> tuple[str, ...]:
        if self._input_keys is None:
            names = list(self._fields)
            shown = ", ".join(map(repr, names[:-1] or names))
            raise DataError(
                f"the {what} of this example are not known: its fields are {', '.join(names) or 'none'}; "
                f"mark the inputs with example.with_inputs({shown})"
            )
        return self._input_keys

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(str(name), self._fields, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"no field {name!r}{hint}; the fields are {', '.join(self._fields) or 'none'}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._fields[name]
        except KeyError:
            if name in _DSPY_NAMES:
                raise AttributeError(f"Example has no {name!r}: use {_DSPY_NAMES[name]}") from None
            raise AttributeError(f"Example has {self._unknown(name)}") from None

    def __getitem__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise KeyError(f"{self._unknown(name)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an Example does not change: use example.copy({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an Example does not change: use example.without({name!r})")

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Example):
            return NotImplemented
        return self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        parts = [f"{name}={_short(value)}" for name, value in self._fields.items()]
        marks = "" if self._input_keys is None else f".with_inputs({', '.join(map(repr, self._input_keys))})"
        return f"Example({', '.join(parts)}){marks}"

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._fields})

    def __reduce__(self) -> tuple[Any, ...]:
        return _new, (self._fields, self._input_keys)


def examples_of(rows: Iterable[tuple[str, Any]], inputs: Sequence[str] | str | None, empty: str) -> list[Example]:
    """Examples of places and rows, the errors with their place."""
    names = (inputs,) if isinstance(inputs, str) else inputs
    examples = []
    for where, row in rows:
        if not isinstance(row, (Mapping, Example)):
            raise DataError(
                f"{where}: a row is a mapping from field to value, not {type(row).__name__}"
                " (for a pandas frame: frame.to_dict('records'))"
            )
        try:
            example = Example(row)
            examples.append(example if names is None else example.with_inputs(*names))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
    if not examples:
        raise DataError(empty)
    return examples


def _set(example: Example, fields: dict[str, Any], keys: tuple[str, ...] | None) -> None:
    object.__setattr__(example, "_fields", fields)
    object.__setattr__(example, "_input_keys", keys)
    object.__setattr__(example, "_id", None)


def _new(fields: dict[str, Any], keys: tuple[str, ...] | None) -> Example:
    example = Example.__new__(Example)
    _set(example, dict(fields), keys)
    return example


def _short(value: Any, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 20]}... ({len(text)} characters)"


def content(value: Any) -> Any:
    """A JSON value that is equal for equal content in every process, whatever the order of dict keys.

    Raises:
        DataError: The value can only be described by its memory address.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return value if value == value and abs(value) != float("inf") else {"!float": repr(value)}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        pairs = [(content(key), content(item)) for key, item in value.items()]
        if all(isinstance(key, str) for key in value):
            return dict(sorted(pairs))
        return {"!dict": sorted(([key, item] for key, item in pairs), key=_dumped)}
    if isinstance(value, (list, tuple)):
        return [content(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {"!set": sorted((content(item) for item in value), key=_dumped)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"!bytes": hashlib.blake2b(bytes(value), digest_size=16).hexdigest()}
    if isinstance(value, Example):
        return {"!Example": content(value.to_dict())}
    name = f"!{kind.__module__}.{kind.__qualname__}"
    if callable(dump := getattr(value, "model_dump", None) or getattr(value, "__content__", None)):
        return {name: content(dump())}
    if hasattr(value, "dtype") and hasattr(value, "shape") and callable(getattr(value, "tolist", None)):
        return {"!array": [str(value.dtype), list(value.shape), content(value.tolist())]}
    if isinstance(value, Mapping):
        return {name: content(dict(value))}
    if (
        dataclasses.is_dataclass(value) and not kind.__dataclass_params__.repr
    ):  # its repr is its own, and may leave something out
        return {name: content({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})}
    described = repr(value)
    if " at 0x" not in described:
        return {name: described}
    state = getattr(value, "__dict__", None)
    if state:
        return {name: content({key: item for key, item in state.items() if not key.startswith("__")})}
    raise DataError(
        f"a {kind.__name__} has no content to compare by: give the class a __repr__ that shows its value, "
        "or keep text, numbers, lists and dicts in the example"
    )


def _dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
