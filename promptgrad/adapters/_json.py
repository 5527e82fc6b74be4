"""The JSON adapter: inputs in sections, the reply one JSON object."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from promptgrad.adapters._base import Adapter, Format, unreadable
from promptgrad.adapters._debris import check_call
from promptgrad.adapters._kinds import is_structure, members
from promptgrad.adapters._nearly_json import Odd, TooLong, has_torn_numbers, in_fence, loads, loads_nearly, values_in
from promptgrad.adapters._place import ValuePlace, place_in_object
from promptgrad.adapters._read import Reader, is_unsaid, reader
from promptgrad.adapters._sections import ESCAPING, sections_of
from promptgrad.adapters._shield import shield
from promptgrad.adapters._taken_back import takes_back, takes_back_by_name
from promptgrad.adapters._tool_fields import with_tools
from promptgrad.adapters._unclear import Unclear
from promptgrad.adapters._values import describe, tidy_schema
from promptgrad.errors import ParseError
from promptgrad.lm import Content
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.adapters._feed import ReplyFeed

_STRICT_LIMITS = frozenset(  # what OpenAI's strict mode refuses
    {"patternProperties", "propertyNames", "minProperties", "maxProperties", "uniqueItems", "oneOf", "allOf", "not",
     "prefixItems", "default"}
)  # fmt: skip
_ABSENT: Any = object()
_TWICE: Any = object()


class JSONFormat(Format):
    """One signature as a JSON object."""

    escaping = ESCAPING

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.inputs = sections_of(signature)
        self.reminder = f"{chr(10) * 2 if signature.inputs else ''}Reply with the JSON object only."
        self._readers = {name: self._reader_of(field) for name, field in signature.outputs.items()}
        self._lists = any(
            is_structure(kind) for field in signature.outputs.values() for kind in members(field.annotation)
        )
        self.single = next(iter(signature.outputs)) if len(signature.outputs) == 1 else None

    def _reader_of(self, field: Field) -> Callable[[Any], Any]:
        """The function that reads a value of an object."""
        if field.is_text:
            return partial(self._read_text, field)
        return Reader(field).part

    def _read_text(self, field: Field, value: Any) -> Any:
        if value is None:
            raise ParseError(
                f"output {field.name!r} is null", reason=f"`{field.name}` does not fit: it is null, not a text"
            )
        text = self.text_of(field.name, value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        read = reader(field)
        return text if read is None else read(text)

    def system(self, instruction: str) -> str:
        parts = [instruction] if instruction else []
        if self.signature.inputs:
            parts.append(self.inputs.describe())
        lines = [f"- `{name}`: {describe(field, as_json=True)}" for name, field in self.signature.outputs.items()]
        parts.append("\n".join(["Reply with one JSON object and nothing else. Its keys, in this order:", *lines]))
        return "\n\n".join(parts)

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        return self.inputs.write(inputs, self.reminder if remind else "")

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        return self.inputs.write_some(inputs, missing)

    def assistant(self, outputs: Mapping[str, Any]) -> str:
        pairs = []
        for name in self.signature.outputs:
            if name in outputs:
                pairs.append(f"{json.dumps(name, ensure_ascii=False)}: {self.write(name, outputs[name])}")
        return f"{{{', '.join(pairs)}}}"

    def place(self, reply: str, name: str) -> ValuePlace | None:
        return place_in_object(reply, name)

    def write(self, name: str, value: Any) -> str:
        field = self.signature.outputs[name]
        return json.dumps(shield(value), ensure_ascii=False) if field.is_text else field.dump_json(value)

    def read(self, reply: str) -> dict[str, Any]:
        text = in_fence(reply.strip())
        if not text:
            raise unreadable(reply, "it is not a JSON object: it is empty", self.signature)
        if self._lists and has_torn_numbers(text):
            reason = "it has commas that may stand within its numbers: write numbers without them"
            raise unreadable(reply, reason, self.signature)
        if text[-1:] not in "}]" and "}" in text and takes_back(text[text.rfind("}") + 1 :]):  # a comment, or words
            raise unreadable(reply, "what stands after its object may take it back: give it alone", self.signature)
        try:
            found = loads(text)
        except Odd:
            return self._read_loosely(reply, text)
        if self.single is not None and not _holds(found, self.single):
            found = self._bare(found)
        return self._values(reply, found)

    def _bare(self, value: Any) -> Any:
        """The object that a value without the key of the one output stands for: the bare value, or an object as text.

        An object or a list is not the text that was asked for: nobody meant its brackets.
        """
        name = self.single or ""
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                inner = loads(value)
            except Odd:
                inner = None
            if _holds(inner, name):
                return inner
        if isinstance(value, (dict, list)) and self.signature.outputs[name].is_text:
            return value if isinstance(value, dict) else None
        return {name: value}

    def feed(self) -> ReplyFeed:
        """What reads one reply as it is written."""
        from promptgrad.adapters._object_feed import ObjectFeed, ObjectFields

        return ObjectFeed(ObjectFields(self.signature.outputs, self._name_of, self._value_of))

    def _name_of(self, key: str) -> str:
        """The output that a key stands for; "" for none."""
        names = self.signature.outputs
        if key in names:
            return key
        wanted = _normal(key)
        return next((name for name in names if name.lower() == wanted), "")

    def _value_of(self, name: str, value: Any) -> Any:
        return self._readers[name](value)

    def _values(self, reply: str, found: Any) -> dict[str, Any]:
        """The outputs in an object."""
        if not isinstance(found, dict):
            raise unreadable(reply, "it is not a JSON object", self.signature)
        values: dict[str, Any] = {}
        faults = []
        for name in self.signature.outputs:
            value = _look_up(found, name, self.signature.outputs)
            if value is _ABSENT or value is _TWICE:
                what = "is missing" if value is _ABSENT else "comes twice, with different values"
                faults.append(f"the key `{name}` {what}")
                continue
            try:
                values[name] = self._readers[name](value)
            except ParseError as error:
                faults.append(error.reason)
        if not faults and len(found) > len(values):
            faults = self._other_versions(found)
        if faults:
            raise unreadable(reply, "; ".join(faults), self.signature)
        return values

    def _other_versions(self, found: Mapping[str, Any]) -> list[str]:
        """What is wrong with keys that nobody asked for: they correct what was asked for."""
        fields = {name.lower() for name in self.signature.fields}
        return [
            f"beside its keys stands `{key}`: give the final answer alone"
            for key, value in found.items()
            if key.strip().lower().replace(" ", "_").replace("-", "_") not in fields
            and takes_back_by_name(key, value, fields)
        ]

    def _read_loosely(self, reply: str, text: str) -> dict[str, Any]:
        """The outputs in a reply that is not JSON as it stands: in the only object in it that holds them."""
        outputs = self.signature.outputs
        places: list[tuple[int, int, Any]] = []
        try:
            objects = [loads_nearly(text)]
        except Odd as whole:
            try:
                places = values_in(reply, too_long=isinstance(whole, TooLong))
            except Odd as odd:
                if self.single is None or "{" in text:
                    raise unreadable(reply, f"it is not a JSON object: {odd}", self.signature) from None
            objects = [value for _, _, value in places]
        named = [
            value
            for value in objects
            if isinstance(value, dict) and any(_look_up(value, name, outputs) is not _ABSENT for name in outputs)
        ]
        if not named:
            if self.single is None or text.startswith("{"):
                raise unreadable(reply, "it is not a JSON object", self.signature)
            field = outputs[self.single]
            read = reader(field)
            bare = self.text_of(self.single, reply.strip()) if field.is_text else text
            if field.is_text and "[[ ##" in bare:
                raise unreadable(reply, "it is not a JSON object", self.signature)
            try:
                check_call(reply, field)
            except Unclear as unclear:
                raise unreadable(reply, str(unclear), self.signature) from None
            return {self.single: bare if read is None else read(bare)}
        framed = [(start, end) for start, end, value in places if value in named]
        if any(is_unsaid(reply, *place) for place in framed) or (framed and takes_back(reply[framed[-1][1] :])):
            raise unreadable(reply, "its object may be an example or a draft: give the object alone", self.signature)
        read_values: list[dict[str, Any]] = []
        blame: ParseError | None = None
        for value in named:
            try:
                values = self._values(reply, value)
            except ParseError as error:
                blame = error
                continue
            if values not in read_values:
                read_values.append(values)
        if len(read_values) > 1:
            raise unreadable(reply, "it holds several objects with different values: give one", self.signature)
        if not read_values:
            raise blame or unreadable(reply, "it is not a JSON object", self.signature)
        return read_values[0]


def _look_up(found: Mapping[str, Any], name: str, names: Collection[str]) -> Any:
    """The value of a key in any case, unless it is the name of another output."""
    if name in found and len(found) <= len(names):
        return found[name]
    wanted = name.lower()
    same = [value for key, value in found.items() if key == name or (key not in names and _normal(key) == wanted)]
    if not same:
        return _ABSENT
    return same[0] if all(value == same[0] for value in same) else _TWICE


def _holds(found: Any, name: str) -> bool:
    """Whether a value is an object with the key of an output."""
    return isinstance(found, dict) and _look_up(found, name, ()) is not _ABSENT


def _normal(key: str) -> str:
    return key.strip().lower().replace(" ", "_").replace("-", "_")


class JSONAdapter(Adapter):
    """The reply is one JSON object, asked for with `response_format` where the endpoint knows it.

    Inputs are written as the chat adapter writes them. Every value comes back as it was. A reply is read with
    tolerance: fences and prose around the object, nearly-JSON, keys in the wrong case, a bare value for the one output.

    Args:
        schema: "schema" asks the endpoint to enforce the JSON schema of the outputs, "object" to reply with some JSON
            object, None asks for nothing (for endpoints that refuse `response_format`).

    Raises:
        ValueError: `schema` has another value.
    """

    name = "json"

    def __init__(self, schema: str | None = "schema") -> None:
        super().__init__()
        if schema not in ("schema", "object", None):
            raise ValueError(f"schema is 'schema', 'object' or None, not {schema!r}")
        self.schema = schema

    def make_format(self, signature: Signature) -> Format:
        """How a signature is written as an object."""
        return with_tools(signature, JSONFormat)

    def response_format(self, signature: Signature) -> str | None:
        """JSON text of the `response_format` to ask of the endpoint."""
        if self.schema is None:
            return None
        if self.schema == "object":
            return json.dumps({"type": "json_object"})
        return json.dumps(response_schema(signature))

    def __repr__(self) -> str:
        return "JSONAdapter()" if self.schema == "schema" else f"JSONAdapter({self.schema!r})"


def response_schema(signature: Signature) -> dict[str, Any]:
    """The `response_format` of the outputs: strict where strict mode can express their types."""
    definitions: dict[str, Any] = {}
    properties = {}
    for name, field in signature.outputs.items():
        schema = tidy_schema(field.json_schema())
        own = schema.get("$defs", {})
        other = {key: f"{name}_{key}" for key, value in own.items() if definitions.get(key, value) != value}
        if other:  # classes of one name in two outputs
            schema = _renamed(schema, {f"#/$defs/{key}": f"#/$defs/{new}" for key, new in other.items()})
        definitions.update({other.get(key, key): value for key, value in schema.pop("$defs", {}).items()})
        properties[name] = schema
    whole: dict[str, Any] = {"type": "object", "properties": properties}
    if definitions:
        whole["$defs"] = definitions
    strict = _close_objects(whole)
    if not strict:
        whole = {**whole, "required": list(properties), "additionalProperties": False}
    name = re.sub(r"\W", "_", signature.name, flags=re.ASCII)[:64]
    return {"type": "json_schema", "json_schema": {"name": name, "schema": whole, "strict": strict}}


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """A schema whose references have other names."""
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: names.get(value, value) if key == "$ref" and isinstance(value, str) else _renamed(value, names)
        for key, value in schema.items()
    }


def _close_objects(schema: dict[str, Any]) -> bool:
    """Close every object of a schema, as strict mode asks; False where its types cannot be strict."""
    stack: list[Any] = [schema]
    strict = True
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack += node
            continue
        if not isinstance(node, dict):
            continue
        if not node.keys().isdisjoint(_STRICT_LIMITS) or not node:
            strict = False
        if "properties" in node:
            node["additionalProperties"] = False
            node["required"] = list(node["properties"])
            stack += node["properties"].values()
        elif node.get("type") == "object":
            strict = False
        stack += node.get("$defs", {}).values()
        stack += [node[key] for key in ("items", "anyOf") if key in node]
    return strict
