"""The specification of one call: an instruction, inputs, outputs."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterable, Mapping
from types import FunctionType, MappingProxyType
from typing import Any, ClassVar, NoReturn

from promptgrad.errors import SignatureError
from promptgrad.signature._field import Field, FieldSpec, suggest
from promptgrad.signature._parser import parse_fields
from promptgrad.signature._types import TYPING_NAMES

_ON_CLASS = (
    "append",
    "delete",
    "equals",
    "fields",
    "inputs",
    "insert",
    "instruction",
    "name",
    "outputs",
    "prepend",
    "replace_field",
    "with_instruction",
    "with_name",
)
_SPELT = {  # the names that users of DSPy and pydantic try first
    "instructions": "instruction",
    "with_instructions": "with_instruction",
    "input_fields": "inputs",
    "output_fields": "outputs",
    "model_fields": "fields",
}


def _spelling_error(owner: str, name: str) -> AttributeError:
    if name in _SPELT:
        return AttributeError(f"{owner} has no attribute {name!r}; promptgrad spells it {_SPELT[name]!r}")
    return AttributeError(f"{owner} has no attribute {name!r}{suggest(name, dir(Signature))}")


class _SignatureMeta(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _spelling_error(f"signature {cls.__name__}", name)

    def __repr__(cls) -> str:
        own = cls.__dict__.get("_of_class")
        return f"<signature {cls.__name__}: {own!r}>" if own is not None else super().__repr__()


_TURNS = ("History", "History | None")  # which stand as messages of their own, so that there is no field to speak of


def default_instruction(inputs: Mapping[str, Field], outputs: Iterable[str]) -> str:
    """The instruction of a signature that was made without one."""
    have = ", ".join(f"`{name}`" for name, field in inputs.items() if field.type_name not in _TURNS)
    want = ", ".join(f"`{name}`" for name in outputs)
    return f"Given the fields {have}, produce the fields {want}." if have else f"Produce the fields {want}."


class Signature(metaclass=_SignatureMeta):
    """The signature of one call: an instruction and typed fields. It is frozen; every edit gives a new one.

    It is made from text, with `types=` for types that are neither builtins nor from `typing`:

        Signature("question, context: list[str] -> answer: float", "Answer from the context.")

    or as a class, whose docstring is the instruction; calling it without arguments gives the signature:

        class QA(Signature):
            '''Answer from the context.'''
            question: str = Input()
            context: list[str] = Input(desc="may be irrelevant")
            answer: float = Output(desc="in metres", ge=0)

    The type names of a text are looked up, never evaluated or imported. A class body is Python; where its annotations
    are strings, they are evaluated among the module's names, `typing`, and `class QA(Signature, types={...})`.

    Attributes:
        name: The class's name, or "Signature".
        instruction: The task in words; by default a sentence made of the field names.
        fields: Every field by name, inputs first.
        inputs: The input fields by name, in order.
        outputs: The output fields by name, in order.

    Raises:
        SignatureError: A text that cannot be read, an unknown type, a name used twice, no output.
    """

    __slots__ = ("_hash", "fields", "inputs", "instruction", "name", "outputs")

    name: str
    instruction: str
    fields: Mapping[str, Field]
    inputs: Mapping[str, Field]
    outputs: Mapping[str, Field]
    _hash: int
    _of_class: ClassVar[Signature | None] = None

    def __new__(
        cls,
        fields: str | Iterable[Field] | None = None,
        instruction: str | None = None,
        *,
        name: str | None = None,
        types: Mapping[str, Any] | None = None,
    ) -> Signature:
        """Build from text or fields; a signature class without arguments gives its own signature."""
        if cls is not Signature:
            own = cls._of_class
            if own is None or fields is not None:
                raise SignatureError(f"{cls.__name__} has its fields in its class body; call it as {cls.__name__}()")
            return own if instruction is None else own._edit(instruction=instruction)
        if fields is None:
            raise SignatureError("a signature needs fields, such as Signature('question -> answer')")
        listed = parse_fields(fields, types) if isinstance(fields, str) else list(fields)
        return _make(listed, instruction, name or "Signature")

    def __init_subclass__(cls, types: Mapping[str, Any] | None = None) -> None:
        own = _from_class(cls, types or {})
        cls._of_class = own
        for shared in _ON_CLASS:  # QA.inputs and QA.append(...) are those of QA()
            setattr(cls, shared, getattr(own, shared))

    @staticmethod
    def parse(
        text: str,
        instruction: str | None = None,
        types: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> Signature:
        """The signature that a text describes: `"question, context: list[str] -> answer: float"`.

        Args:
            text: Inputs, `->`, outputs; a field without a type is `str`.
            instruction: The task in words; by default a sentence made of the field names.
            types: Types by name, beside the builtins and `typing`.
            name: The name of the signature.

        Raises:
            SignatureError: The text is not a signature; the message shows the place, and what to write.
        """
        if not isinstance(text, str):
            raise SignatureError(f"a signature is parsed from a str, not {type(text).__name__}")
        return Signature(text, instruction, name=name, types=types)

    def with_instruction(self, instruction: str) -> Signature:
        """A signature with this instruction."""
        return self._edit(instruction=instruction)

    def with_name(self, name: str) -> Signature:
        """A signature with this name."""
        return self._edit(name=name)

    def append(self, field: Field | str, spec: Any = None, annotation: Any = str) -> Signature:
        """A signature with one more field, after the others of its role.

        `sig.append(Field("unit", role="output"))`, or `sig.append("unit", Output(desc="SI"), str)`;
        a bare name is an output.

        Raises:
            SignatureError: There is a field of that name already.
        """
        return self.insert(sys.maxsize, field, spec, annotation)

    def prepend(self, field: Field | str, spec: Any = None, annotation: Any = str) -> Signature:
        """A signature with one more field, before the others of its role. The arguments are those of `append`.

        Raises:
            SignatureError: There is a field of that name already.
        """
        return self.insert(0, field, spec, annotation)

    def insert(self, index: int, field: Field | str, spec: Any = None, annotation: Any = str) -> Signature:
        """A signature with one more field at a place among those of its role. The arguments are those of `append`.

        Raises:
            SignatureError: There is a field of that name already.
        """
        if isinstance(field, str):
            spec = FieldSpec("output", "", {}) if spec is None else spec
            if not isinstance(spec, FieldSpec):
                raise SignatureError(f"the field {field!r} needs Input(...) or Output(...), not {spec!r}")
            field = spec.field(field, annotation)
        same = [*(self.inputs if field.role == "input" else self.outputs).values()]
        same.insert(index, field)
        other = self.outputs if field.role == "input" else self.inputs
        return self._edit(fields=[*same, *other.values()])

    def delete(self, name: str) -> Signature:
        """A signature without one field.

        Raises:
            SignatureError: There is no field of that name, or it is the last output.
        """
        if name not in self.fields:
            raise SignatureError(f"there is no field {name!r} to delete{suggest(name, self.fields)}")
        return self._edit(fields=[f for f in self.fields.values() if f.name != name])

    def replace_field(self, name: str, **changes: Any) -> Signature:
        """A signature with one field changed: `sig.replace_field("answer", description="one word")`.

        Raises:
            SignatureError: There is no field of that name.
        """
        if name not in self.fields:
            raise SignatureError(f"there is no field {name!r} to change{suggest(name, self.fields)}")
        return self._edit(fields=[f.replace(**changes) if f.name == name else f for f in self.fields.values()])

    def equals(self, other: object) -> bool:
        """Whether another signature has the same content: fields in order, their types and texts, and instruction.

        Unlike `==`, the name does not count.
        """
        if isinstance(other, type) and issubclass(other, Signature):
            other = other()
        return isinstance(other, Signature) and self._asks() == other._asks()

    def _asks(self) -> tuple[Any, ...]:
        return (self.instruction, *self.fields.values())

    def _edit(
        self, fields: Iterable[Field] | None = None, instruction: str | None = None, name: str | None = None
    ) -> Signature:
        return _make(
            self.fields.values() if fields is None else fields,
            self.instruction if instruction is None else instruction,
            self.name if name is None else name,
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"a Signature is frozen; {name!r} is changed by with_instruction, append, replace_field ..."
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Signature is frozen")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _spelling_error("a Signature", name)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Signature):
            return NotImplemented
        return self.name == other.name and self._asks() == other._asks()

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return (_make, (tuple(self.fields.values()), self.instruction, self.name))

    def __copy__(self) -> Signature:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature:
        return self

    def __repr__(self) -> str:
        return f"{_listed(self.inputs)} -> {_listed(self.outputs)}".lstrip()

    def __dir__(self) -> list[str]:
        return sorted(set(dir(type(self))))


def _listed(fields: Mapping[str, Field]) -> str:
    return ", ".join(name if f.annotation is str else f"{name}: {f.type_name}" for name, f in fields.items())


def _make(fields: Iterable[Field], instruction: str | None, name: str) -> Signature:
    """The one place where a signature is put together."""
    fields = list(fields)
    inputs: dict[str, Field] = {}
    outputs: dict[str, Field] = {}
    for field in fields:
        if not isinstance(field, Field):
            raise SignatureError(f"a signature is made of Field objects, not {field!r}")
        if field.name in inputs or field.name in outputs:
            raise SignatureError(f"the field {field.name!r} appears twice; inputs and outputs share one set of names")
        (inputs if field.role == "input" else outputs)[field.name] = field
    if not outputs:
        raise SignatureError(f"signature {name} has no output field; there would be nothing to ask for")
    if instruction is not None and not isinstance(instruction, str):
        raise SignatureError(f"the instruction is a str, not {type(instruction).__name__}")
    if instruction is None:
        instruction = default_instruction(inputs, outputs)
    made: Signature = object.__new__(Signature)
    put = object.__setattr__
    put(made, "fields", MappingProxyType({**inputs, **outputs}))
    put(made, "inputs", MappingProxyType(inputs))
    put(made, "outputs", MappingProxyType(outputs))
    put(made, "instruction", instruction)
    put(made, "name", name)
    put(made, "_hash", hash((name, instruction, tuple(inputs), tuple(outputs))))
    return made


def _from_class(cls: type[Signature], types: Mapping[str, Any]) -> Signature:
    """The signature that a class body describes."""
    base = next((b._of_class for b in cls.__bases__ if issubclass(b, Signature) and b._of_class is not None), None)
    raw: dict[str, Any] = dict(inspect.get_annotations(cls))
    resolved = _resolve(cls, raw, types)
    fields: dict[str, Field] = dict(base.fields) if base is not None else {}
    for name, value in list(cls.__dict__.items()):
        if isinstance(value, FieldSpec):
            fields[name] = value.field(name, resolved.pop(name, str))
            delattr(cls, name)
        elif name in resolved and typing.get_origin(resolved[name]) is not ClassVar and resolved[name] is not ClassVar:
            raise SignatureError(
                f"{cls.__name__}.{name} = {value!r}: a field has no default; "
                f"write `{name}: ... = Input(desc=...)` or `= Output(desc=...)`"
            )
        elif not name.startswith("_") and type(value).__name__ in ("FieldInfo", "ModelPrivateAttr"):
            raise SignatureError(f"{cls.__name__}.{name} is a pydantic field; write Input(...) or Output(...)")
        elif (
            not name.startswith("_")
            and not isinstance(value, (FunctionType, staticmethod, classmethod, property))
            and name not in resolved
            and not isinstance(value, type)
        ):
            raise SignatureError(f"{cls.__name__}.{name} = {value!r} is not a field; write Input(...) or Output(...)")
    for name, annotation in resolved.items():
        if typing.get_origin(annotation) is ClassVar or annotation is ClassVar:
            continue
        raise SignatureError(
            f"{cls.__name__}.{name}: is it an input or an output? Write `{name}: ... = Input()` or `= Output()`"
        )
    doc = cls.__dict__.get("__doc__")
    instruction = inspect.cleandoc(doc) if doc and doc.strip() else None
    if instruction is None and base is not None and base.instruction != default_instruction(base.inputs, base.outputs):
        instruction = base.instruction
    return _make(fields.values(), instruction, cls.__name__)


def _resolve(cls: type, raw: dict[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations of a class body as types.

    Strings (from `from __future__ import annotations`) are the body's own code, and are evaluated as Python would have
    done: among the names of the module where the class stands, with `typing` and `types=` beside.
    """
    if not any(isinstance(value, (str, typing.ForwardRef)) or "ForwardRef" in repr(value) for value in raw.values()):
        return raw
    module = sys.modules.get(cls.__module__)
    names = {**TYPING_NAMES, "ClassVar": ClassVar, **(vars(module) if module else {}), **types}
    holder = type(cls.__name__, (), {"__annotations__": raw, "__module__": cls.__module__})
    try:
        return typing.get_type_hints(holder, names, dict(types), include_extras=True)
    except NameError as error:
        missing = getattr(error, "name", None) or str(error)
        raise SignatureError(
            f"signature {cls.__name__}: the type {missing!r} is not a name of the module {cls.__module__}. A class "
            f"that is local to a function is passed: class {cls.__name__}(Signature, types={{{missing!r}: {missing}}})"
        ) from error
    except (TypeError, SyntaxError, AttributeError) as error:
        raise SignatureError(f"signature {cls.__name__}: an annotation cannot be read: {error}") from error


def make_signature(
    x: str | Signature | type[Signature],
    instruction: str | None = None,
    types: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
) -> Signature:
    """Make a signature of a text, a signature or a signature class.

    Args:
        x: The text, signature or class.
        instruction: Replaces its instruction.
        types: Types by name, for a text.
        name: Replaces its name.

    Raises:
        SignatureError: `x` is of another type, or a text that is not a signature.
    """
    if isinstance(x, str):
        return Signature(x, instruction, name=name, types=types)
    if isinstance(x, type) and issubclass(x, Signature):
        x = x()
    if not isinstance(x, Signature):
        raise SignatureError(
            f"a signature is a text such as 'question -> answer', a Signature, or a class of it; got {x!r}"
        )
    if instruction is not None:
        x = x.with_instruction(instruction)
    return x if name is None else x.with_name(name)
