"""The chat adapter: every field in a section of its own, under a marker line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptgrad._patterns import late_pattern
from promptgrad.adapters._base import Adapter, Format, unreadable
from promptgrad.adapters._debris import check_echo, is_echo, unmarked
from promptgrad.adapters._frames import is_courtesy, is_frame, without_fence
from promptgrad.adapters._grammars import quoted, value_rule
from promptgrad.adapters._nearly_json import Odd, TooLong, in_fence, loads, loads_nearly, values_in
from promptgrad.adapters._place import ValuePlace, place_in_sections, place_of_all
from promptgrad.adapters._read import is_unsaid, reader
from promptgrad.adapters._sections import (
    ESCAPING,
    as_text,
    ends_in_fence,
    escape,
    loose_body,
    marker,
    sections_of,
    unescape,
)
from promptgrad.adapters._shield import guard, shield, unguard
from promptgrad.adapters._taken_back import has_other_version, states_another, takes_back, takes_back_by_name
from promptgrad.adapters._tool_fields import with_tools
from promptgrad.adapters._unclear import Unclear, add_body
from promptgrad.adapters._values import describe, writer
from promptgrad.errors import ParseError
from promptgrad.lm import Content
from promptgrad.signature import Signature

if TYPE_CHECKING:
    from promptgrad.adapters._feed import ReplyFeed

END = "completed"
"""The marker after the last field of a reply."""

_NEXT = "\n\n[[ ## "
_LEAD = r"/[ \n]{0,2}/"
_TEXT = r"text[lazy]: /(\n(?s:.*))?\n[ \t]*\[\[[ \t]*##/"
_MARKER = late_pattern(
    r"^[ \t]*\[\[[ \t]*##[ \t]*(?![ \t])((?:[^\]\n# \t]+(?:[ \t]+[^\]\n# \t]+)*)?)[ \t]*##[ \t]*\]\]", re.MULTILINE
)
_MOST_MARKERS = 1_000
"""A reply with as many loose markers is not what was asked for."""


class ChatFormat(Format):
    """One signature in sections."""

    escaping: tuple[str, str] | None = ESCAPING

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.inputs = sections_of(signature)
        self.end = END
        while self.end in signature.fields:
            self.end += "_"
        self.first = next(iter(signature.outputs))
        self.last = marker(self.end)
        self.reminder = (
            f"{chr(10) * 2 if signature.inputs else ''}Reply in the format above, from {marker(self.first)} on."
        )
        self.outputs = [
            (name, f"{marker(name)}\n", writer(field), reader(field)) for name, field in signature.outputs.items()
        ]
        self.holds_texts = all(read is None for _, _, _, read in self.outputs)
        self.names = {name: name for name in signature.outputs}
        lowered = [name.lower() for name in signature.outputs]
        self.names |= {low: n for low, n in zip(lowered, signature.outputs, strict=True) if lowered.count(low) == 1}
        self._loose: list[re.Pattern[str]] | None = None

    def system(self, instruction: str) -> str:
        parts = [instruction] if instruction else []
        if self.signature.inputs:
            parts.append(self.inputs.describe())
        parts.append("Reply with these fields, each below its marker line, in this order and with nothing else:")
        parts += [f"{head}{{{describe(self.signature.outputs[name])}}}" for name, head, _, _ in self.outputs]
        parts.append(self.last)
        return "\n\n".join(parts)

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        return self.inputs.write(inputs, self.reminder if remind else "")

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        return self.inputs.write_some(inputs, missing)

    def assistant(self, outputs: Mapping[str, Any]) -> str:
        sections = [
            "".join((head, escape(guard(shield(outputs[name]) if write is None else write(outputs[name])))))
            for name, head, write, _ in self.outputs
            if name in outputs
        ]
        return "\n\n".join([*sections, self.last])

    def grammar(self) -> str | None:
        """The sections in their order. One text alone is free, as each reply is its value.

        A text goes on to the next line that begins like a marker, which then is the next one.
        """
        if len(self.outputs) == 1 and self.signature.outputs[self.first].is_text:
            return None
        names = [*self.signature.outputs, self.end]
        whole, rules = [_LEAD, quoted(f"[[ ## {names[0]} ## ]]")], []
        for number, field in enumerate(self.signature.outputs.values()):
            rule = value_rule(field)
            if rule is None:
                whole.append("text")
            else:
                whole += [quoted("\n"), f"value_{number}", quoted(_NEXT[:-1])]
                rules.append(f"value_{number}: {rule}")
            whole.append(quoted(f" {names[number + 1]} ## ]]"))
        return "\n".join([f"start: {' '.join(whole)}", *rules, *([_TEXT] if "text" in whole else []), ""])

    def place(self, reply: str, name: str) -> ValuePlace | None:
        found = place_in_sections(reply, _MARKER, self.names, name)
        if found is None and len(self.outputs) == 1 and "[[" not in reply:
            return place_of_all(reply, len(reply), None)
        return found

    def read(self, reply: str) -> dict[str, Any]:
        found = asked = self._as_asked(reply)
        if found is None:
            if self.is_announced_as_other(reply):
                raise unreadable(reply, "its fields may be an example or a draft: give them alone", self.signature)
            try:
                found = self._found(reply)
            except Unclear as unclear:
                raise unreadable(reply, str(unclear), self.signature) from None
        if "think" in reply or "THINK" in reply or "<|channel" in reply or "{" in reply:
            found = self._without_thoughts(reply, found)
        if asked is not None and self.holds_texts:
            return found
        values, faults = dict[str, Any](), list[str]()
        for name, _, _, read in self.outputs:
            if name not in found:
                faults.append(f"the field `{name}` is missing")
                continue
            try:
                values[name] = found[name] if read is None else read(found[name])
            except ParseError as error:
                faults.append(error.reason)
        if faults:
            raise unreadable(reply, "; ".join(faults), self.signature)
        return values

    def is_announced_as_other(self, reply: str) -> bool:
        """Whether the line above the first field says that it is an example, a draft or wrong."""
        before, colon, after = reply[:300].partition(":\n")
        opens = after.lstrip(" \t>*#_`<[\n").lower().startswith(tuple(name.lower() for name in self.names))
        return (
            bool(colon) and opens and "[[" not in before and is_unsaid(f"{before}:", len(before) + 1, len(before) + 1)
        )

    def _without_thoughts(self, reply: str, found: dict[str, str]) -> dict[str, str]:
        """Bodies without thoughts at the beginning of texts, none of which is the form that was asked for."""
        fields = self.signature.outputs
        for name, body in found.items():
            if is_echo(body, fields[name]):
                raise unreadable(
                    reply, f"`{name}` repeats what was asked for: put a value in its place", self.signature
                )
        try:
            check_echo(found, fields)
            return {name: self.text_of(name, body) if fields[name].is_text else body for name, body in found.items()}
        except (ParseError, Unclear) as error:
            raise unreadable(reply, getattr(error, "reason", str(error)), self.signature) from None

    def _found(self, reply: str) -> dict[str, str]:
        """Bodies by output name, in the first way that gives the most of them."""
        found = self._sections(reply)
        for attempt in _LOOSER:
            if len(found) == len(self.outputs):
                break
            looser = attempt(self, reply)
            if len(looser) > len(found):
                if attempt is not _LOOSER[0] and any(
                    looser.get(name, body) not in body for name, body in found.items()
                ):
                    raise Unclear("it holds different values of a field: give the fields once")
                found = looser
        if len(self.outputs) == 1 and found == {self.first: ""} and self.end not in reply.lower():
            return {} if self.signature.outputs[self.first].is_text else found  # it ends before its answer
        return found

    def _as_asked(self, reply: str) -> dict[str, str] | None:
        """The result of `_sections` for a reply written exactly as asked for, in half the time; None for others."""
        if reply.count("[[") != len(self.outputs) + 1 or "`" in reply:
            return None
        found: dict[str, str] = {}
        at = 0
        for name, head, _, _ in self.outputs:
            end = reply.find(_NEXT, at + 1)
            if end < 0 or not reply.startswith(head, at):
                return None
            found[name] = unguard(reply[at + len(head) : end].strip())
            at = end + 2
        return found if reply[at:].rstrip() == self.last else None

    def _sections(self, reply: str) -> dict[str, str]:
        """Bodies by output name, as `assistant` writes them; those of a name that hold something must be the same."""
        parts = _MARKER.split(reply)
        found: dict[str, str] = {}
        for i in range(1, len(parts), 2):
            name = parts[i]
            known = self.known(name)
            if not known:
                if name.lower() == self.end and found:
                    self._check_rest(parts[i + 1 :], found)
                    break
                if found and name not in self.signature.inputs and takes_back_by_name(name, parts[i + 1], self.names):
                    raise Unclear(f"beside its fields stands `{name}`: give the final answer alone")
                continue
            body = parts[i + 1].lstrip(" \t").removeprefix(":").strip()  # a value begins in a line of its own
            if i + 2 >= len(parts):
                if body.endswith("```") and ends_in_fence(parts[0]):
                    body = body[:-3].rstrip()
                body = self._without_end(body)
            add_body(found, known, unguard(unescape(body)))
        return found

    def _check_rest(self, rest: Sequence[str], found: Mapping[str, str]) -> None:
        """What comes after the last marker: a second version, unless an input begins another example, or it has no end.

        Raises:
            Unclear: It has other values, so that the first ones may be a draft, or words that take them back.
        """
        self._check_end(rest[0], found)
        other = ""
        for name, body in zip(rest[1::2], rest[2::2], strict=True):
            if name in self.signature.inputs:
                return
            if name.lower() == self.end and other:
                raise Unclear.twice(other)
            known = self.names.get(name, "")
            if known in found and body.strip() and unguard(unescape(body.strip())) != found[known]:
                other = known

    def _check_end(self, rest: str, found: Mapping[str, str]) -> None:
        """What a model still says when it has come to the end.

        Raises:
            Unclear: It takes back what it said before, or says what is right instead.
        """
        if rest.strip() and (takes_back(rest) or states_another(rest, list(found.values()))):
            raise Unclear("what stands after its end may take the answer back: give the final answer alone")

    def _without_end(self, body: str) -> str:
        """The last body of a reply that lacks its last line: without that marker behind it, or the first half of it."""
        whole = body.removesuffix(self.last).rstrip()
        rest, _, line = whole.rpartition("\n")
        return rest.rstrip() if len(line) > 1 and self.last.startswith(line) else whole

    # --- replies that are still being written ---

    def feed(self) -> ReplyFeed | None:
        """What reads one reply as it is written."""
        from promptgrad.adapters._chat_feed import ChatFeed

        return ChatFeed(self)

    def known(self, name: str) -> str:
        """The output that a marker of this name begins; "" for none."""
        return self.names.get(name) or self.names.get(name.lower().replace(" ", "_").replace("-", "_")) or ""

    def is_output(self, name: str) -> str:
        """The output that a marker in another form begins; "" for none."""
        return self.names.get(self._key(name), "")

    def is_end(self, name: str) -> bool:
        """Whether a marker of this name is the last one."""
        return self._key(name) == self.end

    @property
    def readers(self) -> dict[str, Callable[[str], Any] | None]:
        """The function that reads each output; None for a plain text."""
        return {name: read for name, _, _, read in self.outputs}

    @property
    def marker(self) -> re.Pattern[str]:
        """A marker as it is asked for."""
        return _MARKER

    @property
    def loose_marker(self) -> re.Pattern[str]:
        """A marker of a field inside a line, or with some of its signs missing."""
        return self._loose_patterns()[0]

    # --- what language models write instead, in the order in which it is tried ---

    def _loose_markers(self, reply: str) -> dict[str, str]:
        """Markers inside a line, in bold, as headings, with some of their signs missing."""
        best: dict[str, str] = {}
        for pattern in self._loose_patterns():
            parts = pattern.split(reply, _MOST_MARKERS)
            if len(parts) > 2 * _MOST_MARKERS:
                continue
            fenced = ends_in_fence(parts[0])
            found: dict[str, str] = {}
            for name, body in zip(parts[1::2], parts[2::2], strict=True):
                key = self._key(name)
                if key in self.names:
                    if has_other_version(body, self.names[key]):
                        raise Unclear(
                            f"beside `{self.names[key]}` stands another version of it: give the final one alone"
                        )
                    body, end, rest = body.partition(self.last)
                    add_body(found, self.names[key], loose_body(body, fenced=fenced))
                    if end:
                        self._check_end(rest, found)
                        break
                elif key == self.end:
                    self._check_end(body, found)
                    break
            best = found if len(found) > len(best) else best
        return best

    def _loose_patterns(self) -> list[re.Pattern[str]]:
        if self._loose is None:
            known = sorted({*self.signature.fields, self.end}, key=len, reverse=True)
            name = "|".join(re.escape(n).replace("_", "[ _-]") for n in known)
            decoration = r"[ \t>*#_`~-]*"
            self._loose = [
                re.compile(pattern, re.IGNORECASE | re.MULTILINE)
                for pattern in (
                    rf"(?:\\?\[|【){{2}}[ \t#]*({name})[ \t#]*(?:\\?\]|】){{2}}[*_` \t:]*",
                    rf"^{decoration}({name})[*_` \t]*:[*_` \t]*",
                    rf"^[ \t]*(?:#+[ \t]*|\*\*)({name})[ \t*]*$",
                )
            ]
        return self._loose

    def _tags(self, reply: str) -> dict[str, str]:
        """XML-like tags: `<answer>...</answer>`."""
        found: dict[str, str] = {}
        folded = reply.casefold() if len(reply.casefold()) == len(reply) else reply
        last = 0
        for name in self.signature.outputs:
            opens, closes = f"<{name.casefold()}>", f"</{name.casefold()}>"
            at = folded.find(opens)
            while at >= 0:
                end = folded.find(closes, at)
                if end < 0:
                    break
                add_body(found, name, reply[at + len(opens) : end].strip())
                last = max(last, end + len(closes))
                at = folded.find(opens, end)
        if len(found) == len(self.outputs):
            self._check_end(reply[last:], found)
        return found

    def _object(self, reply: str) -> dict[str, str]:
        """A JSON object with the outputs as keys: the whole reply, or the only one in it."""
        text = in_fence(reply.strip())
        if "{" not in text:
            return {}
        found: dict[str, str] = {}
        for value in self._objects(text):
            for key, item in value.items():
                name = key if key in self.signature.outputs else self.names.get(self._key(str(key)))
                if name is None and key not in self.signature.inputs and takes_back_by_name(str(key), item, self.names):
                    raise Unclear(f"beside its fields stands `{key}`: give the final answer alone")
                if name is not None and (item is not None or not self.signature.outputs[name].is_text):
                    add_body(found, name, as_text(self.signature.outputs[name], item))
        return found

    def _objects(self, text: str) -> list[dict[Any, Any]]:
        too_long = False
        for load in (loads, loads_nearly):
            try:
                whole = load(text)
            except Odd as odd:
                too_long = isinstance(odd, TooLong)
                continue
            return [whole] if isinstance(whole, dict) else []
        try:
            found = [place for place in values_in(text, too_long=too_long) if isinstance(place[2], dict)]
        except Odd:
            return []
        if any(is_unsaid(text, start, end) for start, end, _ in found) or (found and takes_back(text[found[-1][1] :])):
            return []
        if len(self.outputs) == 1 and self.signature.outputs[self.first].is_text:  # which may hold any object
            found = [place for place in found if self._is_reply(text, *place)]
        return [value for _, _, value in found]

    def _is_reply(self, text: str, start: int, end: int, value: dict[Any, Any]) -> bool:
        """Whether an object in the reply to a question for one text is the reply, and not a part of that text.

        Raises:
            Unclear: It stands on lines of its own and holds that output alone, but what stands beside it is no frame.
        """
        before, after = text[:start], text[end:]
        if is_frame(before, ends=(":", "json", "```")) and is_frame(after, ends=("```",)):
            return True
        before, after = without_fence(before, after)
        if [self.is_output(str(key)) for key in value] != [self.first]:
            return False
        if is_courtesy(before) and is_courtesy(after):
            return True
        if before.rpartition("\n")[2].strip() or after.partition("\n")[0].strip():
            return False
        raise Unclear(f"beside an object with `{self.first}` stands other text: give the object or the field alone")

    def _unmarked(self, reply: str) -> dict[str, str]:
        """The text without a marker: the value of the only output, or of the first one before other markers."""
        parts = _MARKER.split(reply)
        if len(self.outputs) == 1:
            body = reply.split(self.last)[0].strip()
            own = re.search(rf'(?:\A|:\s*(?:```\w*\s*)?)\{{\s*"{re.escape(self.first)}"\s*:', body)
            if own is not None or any(name.lower() != self.end for name in parts[1::2]):
                return {}  # an object that was cut or is an example, or sections of other fields
            body = unmarked(body, self.signature.outputs[self.first])
            return {self.first: body} if body else {}
        found, before = self._sections(reply), parts[0].strip()
        if self.first not in found and len(parts) > 1 and before and self._key(parts[1]) != self.first.lower():
            found[self.first] = before
        return found

    def _key(self, name: str) -> str:
        return re.sub(r"[ -]", "_", name.strip().lower())


_LOOSER: tuple[Callable[[ChatFormat, str], dict[str, str]], ...] = (
    ChatFormat._loose_markers,
    ChatFormat._object,
    ChatFormat._tags,
    ChatFormat._unmarked,
)


class ChatAdapter(Adapter):
    """Sections under marker lines (`[[ ## answer ## ]]`), for any chat model.

    Texts stand as they are, other values as JSON. A line of a value that looks like a marker is escaped with a
    backslash, so that no value can end its section or forge another; blanks at the edges of an output are shown behind
    a `␣`. Every value comes back as it was.

    A reply is read with tolerance: prose and code fences around it, bold or cut-down markers, wrong case, headings, a
    JSON object, tags, a missing last marker; where there is one output and no marker, the reply is its value.
    """

    name = "chat"

    def make_format(self, signature: Signature) -> Format:
        """How a signature is written in sections."""
        return with_tools(signature, ChatFormat)
