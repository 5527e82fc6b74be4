"""The state of a program in JSON types: values by path, and what describes them."""

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, NamedTuple

from promptgrad.autograd import Parameter, demos_in
from promptgrad.content import Audio, File, History, Image, restored
from promptgrad.data import Example
from promptgrad.errors import ConstraintError, DataError, InputError, ParseError, StateDictError
from promptgrad.nn._prediction import Prediction, fields_of
from promptgrad.nn._state_dict import metadata_of
from promptgrad.signature import Field

SCHEMA = 1
"""Version of the format of states."""

_INPUTS = "__inputs__"
_PART = "__part__"  # the only key of an image, a sound, a file or a history


DEPTH = 200
"""Levels of nesting in a state, above which code that goes through a value would end in a RecursionError."""


def flaw_of(value: Any) -> str:
    """Why a value cannot be a part of a state, which may be written to a file; "" if it can."""
    level = [value]
    for _ in range(DEPTH):  # what holds itself is on every level
        below: list[Any] = []
        seen: set[int] = set()
        for item in level:
            if isinstance(item, float) and not math.isfinite(item):
                return f"holds {item}, which is no number that JSON can hold"
            if isinstance(item, (Mapping, list, tuple)) and id(item) not in seen:
                seen.add(id(item))
                below += item.values() if isinstance(item, Mapping) else item
        if not below:
            return ""
        level = below
    return "is nested too deeply"


class Misfits(NamedTuple):
    """Where a state does not fit a module.

    Attributes:
        missing: Paths that the module has and the state lacks.
        unexpected: Paths that the state has and the module lacks.
        invalid: Paths whose value or fields do not fit, each with the reason.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    invalid: Mapping[str, str] = {}

    @property
    def missing_keys(self) -> tuple[str, ...]:
        """The same as `missing`, as torch calls it."""
        return self.missing

    @property
    def unexpected_keys(self) -> tuple[str, ...]:
        """The same as `unexpected`, as torch calls it."""
        return self.unexpected


def not_a_state(given: object) -> str:
    """The message about something that is not a state, with what to write."""
    hint = ": write load_state_dict(promptgrad.load(path))" if isinstance(given, (str, PathLike)) else ""
    return f"load_state_dict takes the mapping that state_dict() returned, not {type(given).__name__}{hint}"


def to_json(path: str, value: Any) -> Any:
    """A value in JSON types, all its parts copied.

    Raises:
        StateDictError: The value has no JSON form.
    """
    if isinstance(value, str):
        return str.__str__(value)  # a Text leaves its graph behind
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Example):
        fields = {name: to_json(path, item) for name, item in value.items()}
        return fields if value.input_keys is None else {**fields, _INPUTS: list(value.input_keys)}
    if isinstance(value, Mapping):
        return {str(key): to_json(path, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(path, item) for item in value]
    if isinstance(value, (Image, Audio, File, History)):
        return {_PART: value.dump()}
    if isinstance(value, Prediction):
        return to_json(path, fields_of(value))  # which the graph does not note as a read of the program
    dump = getattr(value, "model_dump", None)  # a pydantic model
    if dump is not None:
        return to_json(path, dump(mode="json"))
    own = getattr(value, "to_dict", None)
    if own is not None:
        return to_json(path, own())
    raise StateDictError(
        f"{path} holds a {type(value).__name__}, which has no JSON form: keep str, numbers, lists, dicts and Examples",
        invalid=[path],
    )


def encode(path: str, parameter: Parameter, fields: Mapping[str, Field]) -> Any:
    """The value of a parameter in JSON types; values in demos without a JSON form by their fields' types."""
    return parameter.kind.to_json(parameter.read().value, lambda item: to_json(path, _written(path, item, fields)))


def _written(path: str, demo: Any, fields: Mapping[str, Field]) -> Any:
    """A demo whose values all have a JSON form."""
    if not isinstance(demo, (Mapping, Example)):
        return demo
    changed: dict[str, Any] = {}
    for name, value in demo.items():
        if name in fields and _holds_model(value):
            changed[name] = _dumped(path, fields[name], value)
            continue
        try:
            to_json(path, value)
        except StateDictError:
            if name not in fields:
                raise
            changed[name] = _dumped(path, fields[name], value)
    if not changed:
        return demo
    return demo.copy(**changed) if isinstance(demo, Example) else {**demo, **changed}


def _holds_model(value: Any) -> bool:
    """Whether a value is or holds a pydantic model, whose sets its field writes in the same order in every process."""
    if isinstance(value, (list, tuple)):
        return any(map(_holds_model, value))
    if isinstance(value, Mapping) and not isinstance(value, Example):
        return any(map(_holds_model, value.values()))
    return hasattr(value, "model_dump")


def _dumped(path: str, field: Field, value: Any) -> Any:
    try:
        return json.loads(field.dump_json(value))
    except InputError as error:
        raise StateDictError(f"{path} holds what has no JSON form: {error}", invalid=[path]) from error


def _as_typed(name: str, value: Any, fields: Mapping[str, Field]) -> Any:
    """A value of a demo from JSON, converted to the type of its field if a prompt shows both in the same way."""
    field = fields.get(name)
    if field is None or field.is_text:
        return value
    try:
        typed = field.validate_json(json.dumps(value), strict=True)
        return typed if typed != value and field.dump_json(typed) == field.dump_json(value) else value
    except (InputError, ParseError, TypeError):
        return value


def decode(parameter: Parameter, value: Any, kind: str | None, fields: Mapping[str, Field]) -> tuple[Any, str]:
    """The value of a parameter from a state, and why it cannot be loaded (an empty str if it can)."""
    if kind is not None and kind != parameter.kind:
        return None, f"is of kind {kind} in the state and of kind {parameter.kind} here"
    if flaw := flaw_of(value):
        return None, flaw
    try:
        value = parameter.kind.from_json(value, lambda item: _example(item, fields))
        if parameter.kind.is_demos:
            _check_demos(demos_in(value), fields)
        return parameter.validate(value), ""
    except ConstraintError as error:
        return None, error.reason
    except (DataError, TypeError, ValueError, LookupError, InputError, ParseError) as error:
        return None, str(error)
    except RecursionError:
        return None, "is nested too deeply"


def _check_demos(demos: Iterable[Any], fields: Mapping[str, Field]) -> None:
    """Refuse demos that no prompt could show, which is else found at each call."""
    for number, demo in enumerate(demos, 1):
        for name, field in fields.items():
            value = demo.get(name)
            if name not in demo or (field.is_text and value is None):
                continue
            try:
                field.validate(str(value) if field.is_text else value)
            except (InputError, ParseError) as error:
                raise ValueError(f"demo {number} does not fit the signature: {error}") from error


def _with_parts(value: Any) -> Any:
    """A value from JSON, with the images, sounds, files and histories in it."""
    if isinstance(value, Mapping):
        if [*value] == [_PART]:
            return restored(value[_PART])
        return {key: _with_parts(item) for key, item in value.items()}
    return [_with_parts(item) for item in value] if isinstance(value, list) else value


def _example(item: Any, fields: Mapping[str, Field]) -> Example:
    if isinstance(item, Example):
        return item
    if not isinstance(item, Mapping):
        raise TypeError(f"a demo is an object of fields, not {type(item).__name__}")
    values = {name: _with_parts(value) for name, value in item.items() if name != _INPUTS}
    example = Example({name: _as_typed(name, value, fields) for name, value in values.items()})
    return example.with_inputs(*item[_INPUTS]) if _INPUTS in item else example


def read_meta(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The "_meta" of a state.

    Raises:
        StateDictError: The state has a later format than this version reads.
    """
    meta = metadata_of(state)
    if meta is None:
        return {}
    if not isinstance(meta, Mapping):
        raise StateDictError(f"_meta of a state is an object, not {type(meta).__name__}", invalid=["_meta"])
    schema = meta.get("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StateDictError(
            f"the state has schema version {schema!r}, and this version of promptgrad reads up to {SCHEMA}: update it",
            invalid=["_meta"],
        )
    return meta


def kind_of(meta: Mapping[str, Any], path: str) -> str | None:
    """The kind of a parameter according to the state; None if the state has none."""
    kinds = meta.get("kinds")
    kind = kinds.get(path) if isinstance(kinds, Mapping) else None
    return kind if isinstance(kind, str) else None


def trained_names(meta: Mapping[str, Any]) -> dict[str, str]:
    """Names of the local language models whose weights were trained, by the path of the module on each."""
    trained = meta.get("trained")
    return {str(path): str(name) for path, name in trained.items()} if isinstance(trained, Mapping) else {}


def lost_weights(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The message about trained weights behind a state that the module lacks (an empty str if it has them)."""
    here = trained_names(ours)
    lost = {name: None for path, name in trained_names(theirs).items() if here.get(path) != name}
    if not lost:
        return ""
    return (
        f"the state was made with the trained weights of {', '.join(map(repr, lost))}, which it does not hold and this "
        "program does not have: save the program into a folder, promptgrad.save(model, 'folder'), and read it with "
        "promptgrad.load('folder', model)"
    )


def different_fields(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, str]:
    """Modules that both sides have and whose inputs or outputs differ in names or types."""
    found: dict[str, str] = {}
    fields = theirs.get("fields")
    if isinstance(fields, Mapping):
        for path, here in ours["fields"].items():
            there = fields.get(path)
            if isinstance(there, Mapping) and there != here:
                found[path] = f"has the fields {_shown(there)} in the state and {_shown(here)} here"
    return found


def _shown(fields: Mapping[str, Any]) -> str:
    sides = []
    for role in ("inputs", "outputs"):
        side = fields.get(role)
        items = side.items() if isinstance(side, Mapping) else ()
        sides.append(", ".join(name if kind == "str" else f"{name}: {kind}" for name, kind in items))
    return f"'{sides[0]} -> {sides[1]}'"


def advice(state: Mapping[str, Any], *, strange: bool = True, invalid: bool = False) -> str:
    """What to do about a state that does not fit.

    Args:
        state: The state.
        strange: Whether keys are missing or unexpected.
        invalid: Whether values do not fit.
    """
    if any(isinstance(value, Mapping) and "demos" in value for key, value in state.items() if key != "_meta"):
        return "DSPy writes such states: read its file with promptgrad.load_dspy(path, program)."
    mend = " and ".join(["rename the keys"] * strange + ["correct the values"] * invalid) or "mend the state"
    return f"{mend.capitalize()}, or pass strict=False to load only those that match."


def misfit_message(
    program: str,
    what: str,
    missing: Iterable[str],
    unexpected: Iterable[str],
    invalid: Mapping[str, str],
    known: Iterable[str],
) -> str:
    """All misfits in one text, with the nearest name beside each unexpected one."""
    known = list(known)
    lines = [f"{what} does not fit {program}:"]
    lines += [f"  missing     {path}" for path in missing]
    for path in unexpected:
        near = difflib.get_close_matches(path, known, 1)
        lines.append(f"  unexpected  {path}" + (f" (is it {near[0]!r}?)" if near else ""))
    lines += [f"  invalid     {path or 'the program'}: {reason}" for path, reason in invalid.items()]
    return "\n".join(lines)
