"""The XML adapter: every field between tags of its name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from promptgrad._patterns import late_pattern
from promptgrad.adapters._base import Adapter, Format
from promptgrad.adapters._chat import ChatFormat
from promptgrad.adapters._grammars import quoted, value_rule
from promptgrad.adapters._pieces import Piece, escaped, has_pieces, joined, pieces
from promptgrad.adapters._place import ValuePlace, place_in_tags
from promptgrad.adapters._sections import left_out
from promptgrad.adapters._shield import guard, shield, unguard
from promptgrad.adapters._taken_back import takes_back_by_name
from promptgrad.adapters._tool_fields import with_tools
from promptgrad.adapters._unclear import Unclear, add_body
from promptgrad.adapters._values import describe, listed, missing_input, writer
from promptgrad.lm import Content
from promptgrad.signature import Signature

if TYPE_CHECKING:
    from promptgrad.adapters._feed import ReplyFeed

_OTHER_END = late_pattern(r"</(\w{1,60})>\s*\Z")
_MOST_TAGS = 2_000
"""A reply with as many tags of fields is not what was asked for."""
_CDATA = "<![CDATA["
_BLANK = "\n\n"
_UNSAID = late_pattern(
    r"(?:<(?:\w+_)?(?:examples?|drafts?|wrong|incorrect|template|format|old)>|<!--)\s*\Z", re.IGNORECASE
)
_OTHER = late_pattern(r"<(\w[\w-]{0,60})>([^<]{0,300})")


class XMLFormat(ChatFormat):
    """One signature between tags.

    Texts stand as they are, without entities. A tag of a field inside a value gets a backslash behind its `<`.
    """

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        names = sorted(signature.fields, key=len, reverse=True)
        any_name = "|".join(map(re.escape, names))
        rest = r"(?:[ \t][^<>\n]{0,200})?(?<!/)>"  # blanks, or attributes, which nobody asked for
        self.tag = re.compile(rf"<(/?)({any_name}){rest}", re.IGNORECASE)
        looks = rf"(?:/?(?:{any_name}){rest}|!\[CDATA\[)"
        self._empty_tag = re.compile(rf"<(?:{'|'.join(map(re.escape, signature.outputs))})[ \t]*/>", re.IGNORECASE)
        self._to_escape = re.compile(rf"<(\\*)(?={looks})", re.IGNORECASE)
        self.escaping = (f"(?i){self._to_escape.pattern}", r"<\\\1")
        self._escaped = re.compile(rf"<\\(\\*)(?={looks})", re.IGNORECASE)
        self.escaped_tag = re.compile(rf"<\\(\\*)({looks})", re.IGNORECASE)
        lowered = [name.lower() for name in signature.fields]
        self._all = {name: name for name in signature.fields}
        self._all.update({low: n for low, n in zip(lowered, signature.fields, strict=True) if lowered.count(low) == 1})
        self._mixed = {name: field for name, field in signature.inputs.items() if has_pieces(field.annotation)}
        self._given = [(name, writer(field)) for name, field in signature.inputs.items()]
        self.reminder = f"{chr(10) * 2 if signature.inputs else ''}Reply in the format above, from <{self.first}> on."
        self.begins = (f"<{self.first}>",)

    def escape(self, value: str) -> str:
        """A value in which no tag of a field stands; `unescape` gives it back."""
        return self._to_escape.sub(r"<\\\1", value) if "<" in value else value

    def unescape(self, value: str) -> str:
        """The value that `escape` was given."""
        return self._escaped.sub(r"<\1", value) if "<\\" in value else value

    def system(self, instruction: str) -> str:
        parts = [instruction] if instruction else []
        if self.signature.inputs:
            parts.append(self.inputs.describe())
        parts.append("Reply with these fields, each between its tags, in this order and with nothing else:")
        parts += [f"<{name}>{{{describe(field)}}}</{name}>" for name, field in self.signature.outputs.items()]
        return "\n\n".join(parts)

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        parts = []
        for name, write in self._given:
            if name not in inputs:
                raise missing_input(name, self.signature)
            if self._mixed:
                continue
            value = inputs[name]
            parts.append(f"<{name}>{self.escape(value if write is None else write(value))}</{name}>")
        note = self.reminder if remind else ""
        return self._in_pieces(inputs, note) if self._mixed else "\n\n".join(parts) + note

    def _in_pieces(self, inputs: Mapping[str, Any], note: str) -> Content:
        """The fields of which some hold images, and a note below them."""
        made: list[Piece] = []
        for name, write in self._given:
            if name in inputs:
                value = inputs[name]
                if name in self._mixed:
                    body = pieces(self._mixed[name], value)
                else:
                    body = [value if write is None else write(value)]
                made.append(f"{_BLANK if made else ''}<{name}>")
                made += [escaped(piece, self.escape) for piece in body]
                made.append(f"</{name}>")
        return joined([*made, note])

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        if not self._mixed.keys().isdisjoint(inputs):
            return self._in_pieces(inputs, left_out(missing) if missing else "")
        parts = [
            f"<{name}>{self.escape(inputs[name] if write is None else write(inputs[name]))}</{name}>"
            for name, write in self._given
            if name in inputs
        ]
        if missing:
            parts.append(f"(In this example, leave out {listed(missing)}.)")
        return "\n\n".join(parts)

    def assistant(self, outputs: Mapping[str, Any]) -> str:
        return "\n\n".join(
            f"<{name}>{self.escape(guard(shield(outputs[name]) if write is None else write(outputs[name])))}</{name}>"
            for name, _, write, _ in self.outputs
            if name in outputs
        )

    def grammar(self) -> str | None:
        """The fields in their order. One text alone is free, as each reply is its value."""
        if len(self.outputs) == 1 and self.signature.outputs[self.first].is_text:
            return None
        names = [*self.signature.outputs, ""]
        whole, rules = [r"/[ \n]{0,2}/", quoted(f"<{names[0]}>")], []
        for number, field in enumerate(self.signature.outputs.values()):
            rule = value_rule(field)
            behind = f"\n\n<{names[number + 1]}>" if names[number + 1] else ""
            if rule is None:
                whole.append(f"text_{number}")
                rules.append(rf"text_{number}[lazy]: /(?s:.*)<\/{field.name}>/")
            else:
                whole.append(f"value_{number}")
                rules.append(f"value_{number}: {rule}")
                behind = f"</{field.name}>{behind}"
            whole += [quoted(behind)] if behind else []
        return "\n".join([f"start: {' '.join(whole)}", *rules, ""])

    def place(self, reply: str, name: str) -> ValuePlace | None:
        return place_in_tags(reply, name)

    def feed(self) -> ReplyFeed:
        """What reads one reply as it is written."""
        from promptgrad.adapters._xml_feed import XMLFeed

        return XMLFeed(self)

    def field_of(self, name: str) -> str:
        """The field that a tag of this name is of; "" for none."""
        return self._all.get(name) or self._all.get(name.lower()) or ""

    def _as_asked(self, reply: str) -> dict[str, str] | None:
        if len(self.tag.findall(reply)) != 2 * len(self.outputs):
            return None
        found: dict[str, str] = {}
        at = 0
        for name, _, _, _ in self.outputs:
            head, tail = f"<{name}>", f"</{name}>"
            end = reply.find(tail, at)
            if end < 0 or not reply.startswith(head, at):
                return None
            found[name] = self._body(reply[at + len(head) : end])
            at = end + len(tail)
            if reply.startswith("\n\n<", at):
                at += 2
        return None if reply[at:].strip() else found

    def _body(self, body: str) -> str:
        body = body.strip()
        if body.startswith(_CDATA) and body.endswith("]]>") and body.count("]]>") == 1:
            return body[len(_CDATA) : -3]
        return unguard(self.unescape(body))

    def _found(self, reply: str) -> dict[str, str]:
        tags = [
            (match.start(), match.end(), bool(match[1]), self.field_of(match[2]))
            for _, match in zip(range(_MOST_TAGS + 1), self.tag.finditer(reply), strict=False)
        ]
        if len(tags) > _MOST_TAGS:
            raise Unclear("it holds too many tags of its fields")
        if not any(name in self.signature.outputs for _, _, _, name in tags):
            if "&lt;" in reply and self.tag.search(reply.replace("&lt;", "<").replace("&gt;", ">")):
                raise Unclear("its tags are written as entities: write < and >")
            if self._empty_tag.search(reply):
                raise Unclear("a field stands in a tag without an end: write its value between two tags")
            return super()._found(reply)
        return self._between(reply, tags)

    def _between(self, reply: str, tags: Sequence[tuple[int, int, bool, str]]) -> dict[str, str]:
        """Bodies by output name. What stands between the tags of a field is its body, whatever tags are in there."""
        outputs = self.signature.outputs
        last_end = {name: start for start, _, closes, name in tags if closes}
        found: dict[str, str] = {}
        within, begin, last = "", 0, 0
        for start, end, closes, name in tags:
            if not name:
                continue
            if within and not closes and last_end.get(within, -1) < begin:  # it has no end: the next one begins
                self._add(found, within, reply[begin:start])
                within, last = "", start
            if within:
                if closes and name == within:
                    self._add(found, within, reply[begin:start])
                    within, last = "", end
                continue
            if closes:
                if not found and name == self.first:  # its beginning was taken for that of the reply
                    self._add(found, name, reply[:start])
                    last = end
                continue
            if name not in outputs and len(found) == len(outputs):
                return found  # an input begins another example
            self._check_beside(reply[last:start])
            within, begin = name, end
        if within:
            body = reply[begin:].strip()
            if body.endswith("```") and reply[:begin].count("```") % 2:
                body = body[:-3]
            ends = _OTHER_END.search(body)
            if ends is not None and get_close_matches(ends[1], [within], 1) and f"<{ends[1]}" not in body:
                raise Unclear(f"`{within}` ends with </{ends[1]}>: end it with </{within}>")
            self._add(found, within, body)
            last = len(reply)
        self._check_beside(reply[last:])
        if len(found) == len(outputs):
            self._check_end(reply[last:], found)
        return found

    def _add(self, found: dict[str, str], name: str, body: str) -> None:
        if name in self.signature.outputs:
            add_body(found, name, self._body(body))

    def _check_beside(self, text: str) -> None:
        """Refuse a version of a field under another name, or within a tag of examples."""
        if _UNSAID.search(text):
            raise Unclear("its fields may be an example or a draft: give them alone")
        for match in _OTHER.finditer(text):
            if takes_back_by_name(match[1], match[2], self.names):
                raise Unclear(f"beside its fields stands `{match[1]}`: give the final answer alone")


class XMLAdapter(Adapter):
    """Fields between tags of their names: `<answer>Paris</answer>`.

    Texts stand as they are, other values as JSON. Nothing is an entity: `&` and `<` mean themselves. A tag of a field
    inside a value gets a backslash behind its `<`, so that no value can end its field or forge another. Every value
    comes back as it was.

    A reply is read with tolerance: prose, fences and other tags around the fields, wrong case, a missing last tag,
    `CDATA`, and without any tag what the chat adapter reads.
    """

    name = "xml"

    def make_format(self, signature: Signature) -> Format:
        """How a signature is written between tags."""
        return with_tools(signature, XMLFormat)
