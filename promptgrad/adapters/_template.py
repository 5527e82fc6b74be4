"""The template adapter: prompts in the user's own words, with places for the fields."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from string import Formatter
from typing import TYPE_CHECKING, Any

from promptgrad.adapters._base import Adapter, Format, unreadable
from promptgrad.adapters._read import Reader, reader
from promptgrad.adapters._shield import guard, shield, unguard
from promptgrad.adapters._values import listed, missing_input, writer
from promptgrad.errors import InputError, ParseError, SignatureError
from promptgrad.lm import Completion, Message
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.adapters._feed import ReplyFeed

Parse = Callable[[str], Any]
_INSTRUCTION = "instruction"


def _pieces(text: str, what: str) -> tuple[tuple[str, str], ...]:
    """The literal texts of a template, each with the name of the place behind it; "" behind the last."""
    try:
        found = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{what} is no template: {error}. A brace that is no place is written twice: {{{{") from None
    made: list[tuple[str, str]] = []
    literal = ""
    for before, name, spec, conversion in found:
        literal += before
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(
                f"{what} has the place {{{shown}}}, and a place is the name of a field alone, such as {{question}}. "
                "A brace that is no place is written twice: {{"
            )
        made.append((literal, name))
        literal = ""
    return (*made, (literal, ""))


def _names(pieces: Iterable[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for _, name in pieces if name))


class TemplateFormat(Format):
    """One signature in a template."""

    def __init__(self, adapter: TemplateAdapter, signature: Signature, instruction: str) -> None:
        super().__init__(signature)
        self._adapter = adapter
        self._instruction = instruction
        self._writers = {name: writer(field) for name, field in signature.fields.items()}
        outputs = signature.outputs
        self._readers = {name: Reader(field) for name, field in outputs.items() if not field.is_text}
        self._texts = {name: reader(field) for name, field in outputs.items() if field.is_text}
        names = _names(adapter.user_pieces)
        places = [name for name in names if name != _INSTRUCTION or name in signature.inputs]
        _check_places(places, signature.inputs, "the template", "input")
        self._shows_instruction = _INSTRUCTION in names and _INSTRUCTION not in signature.inputs
        self.reply = adapter.reply_pieces
        if self.reply is None and len(outputs) == 1:
            self.reply = (("", next(iter(outputs))), ("", ""))
        if self.reply is not None:
            _check_places(_names(self.reply), outputs, "reply=", "output")
        elif adapter.rule is None:
            example = "\n".join(f"{name}: {{{name}}}" for name in outputs)
            raise SignatureError(
                f"the template does not say how a reply holds {listed(list(outputs))}: pass reply={example!r}, "
                "or parse="
            )
        groups = adapter.rule.groupindex if isinstance(adapter.rule, re.Pattern) else None
        if groups is not None:
            _check_places(list(groups), outputs, "the pattern parse=", "output")
        self._marks = [] if self.reply is None else [_mark(literal) for literal, _ in self.reply]
        self.begins = tuple(literal.strip() for literal, _ in (self.reply or ())[:1] if literal.strip())

    escaping = ("", "")

    def system(self, instruction: str) -> str:
        pieces = self._adapter.system_pieces
        if pieces is None:
            return "" if self._shows_instruction else instruction
        return "".join(literal + (instruction if name else "") for literal, name in pieces)

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> str:
        for name in self.signature.inputs:
            if name not in inputs:
                raise missing_input(name, self.signature)
        return self._user(inputs)

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> str:
        text = self._user(inputs)
        return f"{text}\n\n(In this example, leave out {listed(missing)}.)" if missing else text

    def _user(self, inputs: Mapping[str, Any]) -> str:
        parts = []
        for literal, name in self._adapter.user_pieces:
            parts.append(literal)
            if name in self.signature.inputs:
                parts.append(self._written(name, inputs[name]) if name in inputs else "")
            elif name:
                parts.append(self._instruction)
        return "".join(parts)

    def _written(self, name: str, value: Any) -> str:
        write = self._writers[name]
        return str(value if write is None else write(value))

    def _shown(self, name: str, value: Any) -> str:
        written = self._written(name, value)
        return shield(written) if self.signature.outputs[name].is_text else written

    def assistant(self, outputs: Mapping[str, Any]) -> str:
        if self.reply is None:
            raise InputError("a template with parse= and without reply= cannot show demos: pass reply= as well")
        parts = []
        for literal, name in self.reply:
            parts += [literal, guard(self._shown(name, outputs[name])) if name in outputs else ""]
        text = "".join(parts).strip()
        if len(outputs) == len(self.signature.outputs):
            try:
                read = self.parse_whole(text)
            except ParseError as error:
                reason = error.reason
            else:
                if read == dict(outputs):
                    return text
                reason = "it would be read as other values"
            raise InputError(f"the template cannot show the reply of a demo, {text[:200]!r}: {reason}")
        return text

    def read(self, reply: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        faults = []
        found = self._found(reply)
        for name, field in self.signature.outputs.items():
            if name not in found:
                faults.append(f"the field `{name}` is missing")
                continue
            try:
                values[name] = self._value(field, found[name])
            except ParseError as error:
                faults.append(error.reason)
        if faults:
            raise unreadable(reply, "; ".join(faults), self.signature)
        return values

    def feed(self) -> ReplyFeed | None:
        """What reads one reply as it is written; None where `parse=` reads replies."""
        if self._adapter.rule is not None or self.reply is None:
            return None
        from promptgrad.adapters._template_feed import TemplateFeed

        pieces = [(text, mark, name) for (text, name), mark in zip(self.reply, self._marks, strict=True)]
        return TemplateFeed(pieces, dict(self.signature.outputs), self._value)

    def _value(self, field: Field, value: Any) -> Any:
        read = self._readers.get(field.name)
        if read is not None:
            return read(value) if isinstance(value, str) else read.value(value)
        if not isinstance(value, str):
            return field.validate(value)
        text, check = self.text_of(field.name, value), self._texts[field.name]
        return text if check is None else check(text)

    def _found(self, reply: str) -> Mapping[str, Any]:
        parse = self._adapter.rule
        if parse is None:
            return self._between(reply)
        if isinstance(parse, re.Pattern):
            return self._matched(parse, reply)
        found = parse(reply)
        if isinstance(found, Mapping):
            return found
        if len(self.signature.outputs) == 1 and found is not None:
            return {next(iter(self.signature.outputs)): found}
        raise unreadable(reply, "parse= found nothing in it", self.signature)

    def _matched(self, pattern: re.Pattern[str], reply: str) -> dict[str, str]:
        matches = (match.groupdict() for match in pattern.finditer(reply))
        found = {tuple((name, body.strip()) for name, body in m.items() if body is not None): None for m in matches}
        if len(found) != 1:
            what = f"holds {len(found)} different values" if found else "is not what"
            raise unreadable(reply, f"it {what} the pattern {pattern.pattern!r} looks for", self.signature)
        return dict(next(iter(found)))

    def _between(self, reply: str) -> dict[str, str]:
        """What stands between the literal texts of `reply=`, each of which must stand there once."""
        pieces = self.reply or ()
        found: dict[str, str] = {}
        at, within = 0, ""
        for number, ((_, name), mark) in enumerate(zip(pieces, self._marks, strict=True)):
            if mark is not None:
                places = [match for match, _ in zip(mark.finditer(reply, at), range(2), strict=False)]
                is_edge = number in (0, len(pieces) - 1)  # models leave out what frames their reply
                if len(places) != 1 and not (is_edge and not places):
                    often = "comes twice" if places else "is missing"
                    raise unreadable(reply, f"the text {pieces[number][0].strip()!r} {often}", self.signature)
                if places:
                    if within:
                        found[within] = unguard(reply[at : places[0].start()].strip())
                        within = ""
                    at = places[0].end()
            if within and not name:
                found[within] = unguard(reply[at:].strip())
            within = name
        empty = [name for name, body in found.items() if not body and self.signature.outputs[name].is_text]
        for name in empty:
            if len(found) == 1:
                del found[name]
        return found


def _mark(literal: str) -> re.Pattern[str] | None:
    words = literal.split()
    if not words:
        return None
    first = r"^[ \t]*" if literal.lstrip(" \t").startswith("\n") else ""
    return re.compile(first + r"\s+".join(map(re.escape, words)), re.IGNORECASE | re.MULTILINE)


def _check_places(names: Sequence[str], fields: Mapping[str, Field], what: str, role: str) -> None:
    """Check that places are fields, all of them.

    Raises:
        SignatureError: They are not.
    """
    for name in names:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f" (did you mean {{{near[0]}}}?)" if near else ""
            raise SignatureError(
                f"{what} has the place {{{name}}}{hint}, and the {role}s of the signature are {', '.join(fields)}"
            )
    lost = [name for name in fields if name not in names]
    if lost:
        raise SignatureError(f"{what} has no place for the {role} {listed(lost)}: write {{{lost[0]}}} where it goes")


class TemplateAdapter(Adapter):
    r"""Prompts in words of your own: `template("Q: {question}\nA:")`.

    Args:
        text: The user message, with `{name}` where an input goes. Texts stand as they are, other values as JSON. With
            `{instruction}` it also holds the instruction, which else is the system message.
        system: The system message, in which `{instruction}` may stand; "" for none, and then no optimizer of
            instructions has an effect unless `text` shows it.
        reply: The reply, with `{name}` where an output goes: `"{reasoning}\nAnswer: {answer}"`. It is how demos are
            shown, and, without `parse`, how replies are read: each text between places must stand in a reply once,
            in any case; what stands before the first place and behind the last may be missing. By default the reply is
            the value of the only output.
        parse: How replies are read: a regular expression with a group for each output, `r"Answer: (?P<answer>.*)"`,
            all of whose matches must be the same; or a function of the reply's text that returns values by name, or the
            value of the only output. Values are then read and checked as those of any adapter.

    Raises:
        ValueError: A text is no template, or a pattern no pattern with named groups.
    """

    name = "template"

    def __init__(
        self,
        text: str,
        *,
        system: str | None = None,
        reply: str | None = None,
        parse: str | re.Pattern[str] | Parse | None = None,
    ) -> None:
        super().__init__()
        self.text = text
        self.reply = reply
        self.user_pieces = _pieces(text, "the template")
        self.system_pieces = None if system is None else _pieces(system, "system=")
        self.reply_pieces = None if reply is None else _pieces(reply, "reply=")
        odd = [name for name in _names(self.system_pieces or ()) if name != _INSTRUCTION]
        if odd:
            raise ValueError(
                f"system= has the place {{{odd[0]}}}: it is the same in every call, so that inputs go into the template"
            )
        if self.reply_pieces is not None:
            _check_reply(self.reply_pieces)
        if isinstance(parse, str):
            try:
                parse = re.compile(parse)
            except re.error as error:
                raise ValueError(f"parse= is no regular expression: {error}; it was {parse!r}") from None
        if isinstance(parse, re.Pattern) and not parse.groupindex:
            raise ValueError(f"parse= has no named group, such as (?P<answer>.*), in {parse.pattern!r}")
        self.rule = parse

    def make_format(self, signature: Signature) -> Format:
        """How a signature is written in this template.

        Raises:
            SignatureError: A place is no field of it, or a field has no place.
        """
        return TemplateFormat(self, signature, signature.instruction)

    def format_with(self, signature: Signature, instruction: str) -> Format:
        """The same with another instruction."""
        return TemplateFormat(self, signature, instruction)

    def repair_messages(self, completion: Completion, error: ParseError) -> tuple[Message, ...]:
        """The messages that ask again, with the form of `reply=`."""
        *said, last = super().repair_messages(completion, error)
        if self.reply is None:
            return (*said, last)
        form = f"Reply again, in full, in this form:\n{self.reply}"
        return (*said, Message("user", f"That reply could not be read: {error.reason}.\n{form}"))

    def __repr__(self) -> str:
        shown = self.text if len(self.text) <= 60 else f"{self.text[:57]}..."
        return f"template({shown!r})"


def _check_reply(pieces: Sequence[tuple[str, str]]) -> None:
    """Check that the places of a reply can be told apart.

    Raises:
        ValueError: They cannot.
    """
    names = [name for _, name in pieces if name]
    if not names:
        raise ValueError("reply= has no place for an output, such as {answer}")
    if len(set(names)) < len(names):
        raise ValueError("reply= has a place twice")
    for (_, before), (literal, name) in pairwise(pieces):
        if name and not literal.strip():
            raise ValueError(f"reply= has nothing between {{{before}}} and {{{name}}} that tells them apart")


template = TemplateAdapter
"""The name by which templates are made."""
