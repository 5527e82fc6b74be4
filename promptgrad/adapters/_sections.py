"""Fields in sections, each below its marker line, and values that can stand there: of the chat and the JSON adapter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promptgrad._patterns import late_pattern
from promptgrad.adapters._pieces import Piece, escaped, has_pieces, joined, pieces
from promptgrad.adapters._values import describe, listed, missing_input, writer
from promptgrad.lm import Content
from promptgrad.signature import Field, Signature

# A line of a value that looks like a marker gets a backslash, one that already has some gets one more.
ESCAPING = (r"(?m)^([ \t]*)(\\*)(?=\[\[[ \t]*##)", r"\1\\\2")
"""How `escape` replaces what looks like a marker."""
_TO_ESCAPE = late_pattern(r"^([ \t]*)(\\*)(?=\[\[[ \t]*##)", re.MULTILINE)
_ESCAPED = late_pattern(r"^([ \t]*)\\(\\*)(?=\[\[[ \t]*##)", re.MULTILINE)


def marker(name: str) -> str:
    """The line above a field's value."""
    return f"[[ ## {name} ## ]]"


def escape(value: str) -> str:
    """A value in which no line is a marker; `unescape` gives it back."""
    return _TO_ESCAPE.sub(r"\1\\\2", value) if "[[" in value else value


def unescape(value: str) -> str:
    """The value that `escape` was given."""
    return _ESCAPED.sub(r"\1\2", value) if "[[" in value else value


def loose_body(body: str, *, fenced: bool) -> str:
    """The text below a marker in another form, without what belongs to the next one or to a fence around the reply."""
    body = _without_block(_without_decoration(body.strip()))
    if body.endswith("**") and body.count("**") % 2:
        body = body[:-2].rstrip()
    return body[:-3].rstrip() if fenced and body.endswith("```") else body


_BLOCK = late_pattern(r"([|>])[-+]?\d?[ \t]*\n(?=[ \t])")


def _without_block(body: str) -> str:
    """A text as it stands in YAML below `|` or `>`, without its indentation."""
    sign = _BLOCK.match(body)
    if sign is None:
        return body
    from textwrap import dedent

    text = dedent(body[sign.end() :])
    return text if sign[1] == "|" else re.sub(r"(?<=\S)\n(?=\S)", " ", text)


def ends_in_fence(before: str) -> bool:
    """Whether the last line before the first marker opens a code fence."""
    return any(line.strip().startswith("```") for line in before.splitlines()[-1:])


def opens_fence(before: str) -> bool:
    """Whether the last line before the first label, or the one above a blank rest, opens a code fence."""
    return before.rstrip().endswith("```") or before.rpartition("\n")[0].rstrip().endswith("```")


def _without_decoration(body: str) -> str:
    """A body without a last line of nothing but decoration, which belongs to the marker after it."""
    rest, _, last = body.rpartition("\n")
    return body if last.strip(" \t>*#_`~-") or not rest else rest.rstrip()


def as_text(field: Field, value: Any) -> str:
    """A value of a JSON object as the text of a section."""
    import json

    return value if isinstance(value, str) and field.is_text else json.dumps(value, ensure_ascii=False)


class Sections:
    """Input fields in sections, as the chat and the JSON adapter write them."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.parts = [
            (name, f"{marker(name)}\n" if i == 0 else f"\n\n{marker(name)}\n", writer(field))
            for i, (name, field) in enumerate(signature.inputs.items())
        ]

    def describe(self) -> str:
        """The list of fields, for the system message."""
        lines = [f"- `{name}`: {describe(field)}" for name, field in self.signature.inputs.items()]
        return "\n".join(["You are given these fields:", *lines])

    def write(self, inputs: Mapping[str, Any], note: str = "") -> Content:
        """The sections of a message that has every input, and a note below them."""
        parts: list[str] = []
        for name, head, write in self.parts:
            try:
                value = inputs[name]
            except KeyError:
                raise missing_input(name, self.signature) from None
            text = value if write is None else write(value)
            parts += (head, escape(text) if "[[" in text else text)
        if note:
            parts.append(note)
        return "".join(parts)

    def write_some(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        """The sections of a demo, and a note on what its reply leaves out."""
        parts: list[str] = []
        for name, head, write in self.parts:
            if name in inputs:
                value = inputs[name]
                parts += (head, escape(value if write is None else write(value)))
        if missing:
            parts.append(left_out(missing))
        return "".join(parts).lstrip("\n")


class MixedSections(Sections):
    """Sections some of which hold images, sounds or files, as parts between the texts."""

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.mixed = {name: field for name, field in signature.inputs.items() if has_pieces(field.annotation)}

    def write(self, inputs: Mapping[str, Any], note: str = "") -> Content:
        made: list[Piece] = []
        for name, head, write in self.parts:
            if name not in inputs:
                raise missing_input(name, self.signature)
            made += self._section(name, head, write, inputs[name])
        return joined([*made, note])

    def write_some(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        made: list[Piece] = []
        for name, head, write in self.parts:
            if name in inputs:
                made += self._section(name, head if made else head.lstrip("\n"), write, inputs[name])
        return joined([*made, left_out(missing)] if missing else made)

    def _section(self, name: str, head: str, write: Callable[[Any], str] | None, value: Any) -> list[Piece]:
        if name not in self.mixed:
            return [head, escape(value if write is None else write(value))]
        made = pieces(self.mixed[name], value)
        return [head, *(escaped(piece, escape) for piece in made)]


def sections_of(signature: Signature) -> Sections:
    """The inputs of a signature in sections."""
    mixed = any(has_pieces(field.annotation) for field in signature.inputs.values())
    return MixedSections(signature) if mixed else Sections(signature)


def left_out(missing: Sequence[str]) -> str:
    """The note on what the reply of a demo leaves out."""
    return f"\n\n(In this example, leave out {listed(missing)}.)"
