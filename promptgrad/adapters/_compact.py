"""The compact adapter: a line for each field, and types in few tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from promptgrad.adapters._base import Adapter, Format
from promptgrad.adapters._chat import ChatFormat
from promptgrad.adapters._grammars import quoted, value_rule
from promptgrad.adapters._pieces import Piece, escaped, has_pieces, joined, pieces
from promptgrad.adapters._place import ValuePlace, place_in_sections
from promptgrad.adapters._sections import left_out, opens_fence
from promptgrad.adapters._shield import guard, shield, unguard
from promptgrad.adapters._tool_fields import with_tools
from promptgrad.adapters._unclear import Unclear, add_body
from promptgrad.adapters._values import choices, describe, missing_input, tidy_schema, writer
from promptgrad.lm import Content
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.adapters._feed import ReplyFeed

_MOST_LABELS = 1_000
_TYPES = {"string": "text", "integer": "int", "number": "number", "boolean": "true|false", "null": "null"}


class CompactFormat(ChatFormat):
    """One signature in labelled lines. A line of a value that looks like a label gets a backslash."""

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        names = sorted(signature.fields, key=len, reverse=True)
        label = rf"(?:{'|'.join(map(re.escape, names))})[ \t]*:"
        self.label = re.compile(rf"^[ \t]*({'|'.join(map(re.escape, names))})[ \t]*:", re.IGNORECASE | re.MULTILINE)
        self._to_escape = re.compile(rf"^([ \t]*)(\\*)(?={label})", re.IGNORECASE | re.MULTILINE)
        self.escaping = (f"(?im){self._to_escape.pattern}", r"\1\\\2")
        self._escaped = re.compile(rf"^([ \t]*)\\(\\*)(?={label})", re.IGNORECASE | re.MULTILINE)
        lowered = [name.lower() for name in signature.fields]
        self._all = {name: name for name in signature.fields}
        self._all.update({low: n for low, n in zip(lowered, signature.fields, strict=True) if lowered.count(low) == 1})
        self._given = [
            (name, writer(field), field if has_pieces(field.annotation) else None)
            for name, field in signature.inputs.items()
        ]
        self.reminder = ""
        self.begins = (f"{self.first}:",)

    def escape(self, value: str) -> str:
        """A value in which no line is a label; `unescape` gives it back."""
        return self._to_escape.sub(r"\1\\\2", value) if ":" in value else value

    def unescape(self, value: str) -> str:
        """The value that `escape` was given."""
        return self._escaped.sub(r"\1\2", value) if "\\" in value else value

    def system(self, instruction: str) -> str:
        parts = [instruction] if instruction else []
        told = [f"{name}: {field.description}" for name, field in self.signature.inputs.items() if field.description]
        if told:
            parts.append("\n".join(["Given:", *told]))
        lines = [f"{name}: {short_type(field)}" for name, field in self.signature.outputs.items()]
        parts.append("\n".join(["Reply with these lines:" if len(lines) > 1 else "Reply with this line:", *lines]))
        return "\n\n".join(parts)

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        for name in self.signature.inputs:
            if name not in inputs:
                raise missing_input(name, self.signature)
        return self._lines(inputs, "")

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        return self._lines(inputs, left_out(missing) if missing else "")

    def _lines(self, inputs: Mapping[str, Any], note: str) -> Content:
        made: list[Piece] = []
        for name, write, mixed in self._given:
            if name not in inputs:
                continue
            value = inputs[name]
            found = [value if write is None else write(value)] if mixed is None else pieces(mixed, value)
            made.append(f"\n{name}: " if made else f"{name}: ")
            made += [escaped(piece, self.escape) for piece in found]
        return joined([*made, note])

    def assistant(self, outputs: Mapping[str, Any]) -> str:
        return "\n".join(
            f"{name}: {self.escape(guard(shield(outputs[name]) if write is None else write(outputs[name])))}"
            for name, _, write, _ in self.outputs
            if name in outputs
        )

    def grammar(self) -> str | None:
        """The lines in their order. One text alone is free, as each reply is its value.

        A text goes on to the next line that is the label of an output, which then is the next one.
        """
        if len(self.outputs) == 1 and self.signature.outputs[self.first].is_text:
            return None
        names = list(self.signature.outputs)
        whole, rules = [r"/[ \n]{0,2}/", quoted(f"{names[0]}:")], []
        for number, field in enumerate(self.signature.outputs.values()):
            rule = value_rule(field)
            head = f"\n{names[number + 1]}:" if number + 1 < len(names) else ""
            if rule is not None:
                whole += [quoted(" "), f"value_{number}", *([quoted(head)] if head else [])]
                rules.append(f"value_{number}: {rule}")
            elif head:
                whole.append(f"text_{number}")
                rules.append(f"text_{number}[lazy]: TEXT {quoted(head)}")
            else:
                whole.append("TEXT")
        if any(value_rule(field) is None for field in self.signature.outputs.values()):
            label = "|".join(map(re.escape, names))
            rules.append(rf"TEXT: /(?s:.*)/ & ~/(?s:.*)\n[ \t]*(?i:{label})[ \t]*:(?s:.*)/")
        return "\n".join([f"start: {' '.join(whole)}", *rules, ""])

    def place(self, reply: str, name: str) -> ValuePlace | None:
        return place_in_sections(reply, self.label, self._all, name)

    def feed(self) -> ReplyFeed | None:
        """What reads one reply as it is written."""
        from promptgrad.adapters._compact_feed import CompactFeed

        return CompactFeed(self)

    def field_of(self, label: str) -> str:
        """The field that a label names; "" for none."""
        return self._all.get(label) or self._all.get(label.lower(), "")

    def _as_asked(self, reply: str) -> dict[str, str] | None:
        return None

    def is_announced_as_other(self, reply: str) -> bool:
        before = self.label.split(reply, 1)[0]
        return bool(before.strip()) and super().is_announced_as_other(reply)

    def _found(self, reply: str) -> dict[str, str]:
        labels = [(mark, self.field_of(mark[1])) for mark in islice(self.label.finditer(reply), _MOST_LABELS + 1)]
        if len(labels) > _MOST_LABELS:
            raise Unclear("it holds too many labels of its fields")
        outputs = self.signature.outputs
        labels_of_outputs = [name for _, name in labels if name in outputs]
        if not labels_of_outputs:
            return super()._found(reply)
        fenced = opens_fence(reply[: labels[0][0].start()])
        found: dict[str, str] = {}
        within, begin, end = "", 0, len(reply)
        for mark, name in labels:
            if name in outputs:
                if within:
                    add_body(found, within, self._body(reply[begin : mark.start()], fenced=False))
                within, begin = name, mark.end()
            elif within and len({*found, within}) == len(outputs):
                end = mark.start()  # an input begins another example
                break
        add_body(found, within, self._body(reply[begin:end], fenced=fenced))
        return found

    def _body(self, body: str, *, fenced: bool) -> str:
        body = body.strip()
        if fenced and body.endswith("```"):
            body = body[:-3].rstrip()
        return unguard(self.unescape(body))


def short_type(field: Field) -> str:
    """The type of a field in few tokens: `int`, `"a"|"b"`, `[{name: text, age: int?}]`."""
    if field.is_text or choices(field) is not None:
        return describe(field)
    schema = tidy_schema({key: value for key, value in field.json_schema().items() if key != "description"})
    words = _short(schema, schema.get("$defs", {}), ())
    return f"{words} ({field.description})" if field.description else words


def _short(schema: Any, known: Mapping[str, Any], within: tuple[str, ...]) -> str:
    if not isinstance(schema, dict) or not schema:
        return "JSON"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return name if name in within or name not in known else _short(known[name], known, (*within, name))
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return _short(schema["allOf"][0], known, within)
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return "|".join(json.dumps(value, ensure_ascii=False) for value in values)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        rest = [option for option in options if option != {"type": "null"}]
        words = "|".join(_short(option, known, within) for option in rest)
        return f"{words}|null" if len(rest) < len(options) else words
    if "properties" in schema:
        needed = schema.get("required", ())
        pairs = []
        for name, inner in schema["properties"].items():
            about = f" ({inner['description']})" if isinstance(inner, dict) and "description" in inner else ""
            pairs.append(f"{name}{'' if name in needed else '?'}: {_short(inner, known, within)}{about}")
        return f"{{{', '.join(pairs)}}}"
    kind = schema.get("type")
    if kind == "array":
        inner = [_short(item, known, within) for item in schema.get("prefixItems", ())]
        return f"[{', '.join(inner)}]" if inner else f"[{_short(schema.get('items'), known, within)}, ...]"
    if kind == "object":
        return f"{{text: {_short(schema.get('additionalProperties'), known, within)}, ...}}"
    words = _TYPES.get(str(kind), "JSON")
    if kind == "string":
        words = f'"{schema["format"]}"' if "format" in schema else '"text"'
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        words = f"{words} {'' if low is None else low}..{'' if high is None else high}"
    return words


class CompactAdapter(Adapter):
    """A line for each field, and types in few tokens, for small models and short windows.

    Inputs are `question: ...`, the reply is `answer: ...`, and a type is `[{name: "text", age: int|null}]` in place of
    a JSON schema. Inputs without a description are not described. Values that are no texts are JSON. A line of
    a value that looks like a label gets a backslash, so that every value comes back as it was.

    A reply is read with the tolerance of the chat adapter. It streams, a line at a time held only as long as it may be
    a label, and `lm.Local` holds it to its form.
    """

    name = "compact"

    def make_format(self, signature: Signature) -> Format:
        """How a signature is written in lines."""
        return with_tools(signature, CompactFormat)
