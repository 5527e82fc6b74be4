"""The pocket adapter: the compact prompts of the embedded model, in its own words and one-token markers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from promptgrad._patterns import late_pattern
from promptgrad.adapters._base import Adapter, Format, unreadable
from promptgrad.adapters._grammars import one_of, quoted
from promptgrad.adapters._place import ValuePlace, place_in_sections, place_of_all
from promptgrad.adapters._read import reader
from promptgrad.adapters._values import choices, missing_input
from promptgrad.content import Audio, File, History, Image
from promptgrad.data import Example, pocket
from promptgrad.data.pocket import IT_IS_RIGHT, say_unknown
from promptgrad.errors import InputError, ParseError, SignatureError
from promptgrad.lm import Completion, Message
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.adapters._feed import ReplyFeed

VAGUE_INSTRUCTION = "do the task"
"""The instruction in place of one that only lists the names of the fields."""

_MARKER = late_pattern(r"\[\[(\w+)\]\]")
_DEFAULT = late_pattern(r"(Given the fields `.*`, p|P)roduce the fields `.*`\.")
_NAMES = tuple(marker.strip("[]") for marker in pocket.MARKERS)
_BLAMES_INPUT = "critique_of_"


class Phrase(NamedTuple):
    """The form in which the model was taught a signature: the wording, and the inputs that it reads."""

    instruction: str
    inputs: tuple[str, ...]


def phrase_of(signature: Signature) -> Phrase | None:
    """The wording of a signature that the model was trained for; None for any other."""
    if signature.name == "Critique":
        blames_input = any(name.startswith(_BLAMES_INPUT) for name in signature.outputs)
        wording = pocket.CRITIQUE_WITH_INPUT_INSTRUCTION if blames_input else pocket.CRITIQUE_INSTRUCTION
        return Phrase(wording, ("instruction", "inputs", "outputs", "feedback"))
    if signature.name == "Improve":
        return Phrase(pocket.IMPROVE_INSTRUCTION, ("instruction", "critiques"))
    if signature.name == "ProposeInstruction":
        return Phrase(pocket.INDUCT_INSTRUCTION, ("examples",))
    return None


def _critiques(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What critics said in rows, the most frequent first: the form in which the model improves an instruction."""
    said: dict[str, int] = {}
    texts: dict[int, str] = {}
    for row in rows:
        if text := row.get("critique"):
            first = _AS_IN_ROW.fullmatch(text)
            text = texts.get(int(first[1]), "") if first else text
            texts[row.get("row", 0)] = text
            for line in text.splitlines():
                said[line] = said.get(line, 0) + 1
    return {"critiques": sorted(said, key=lambda text: -said[text])[:_MOST]}


def _examples(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Inputs with their right outputs, as far as rows show them: the form in which the model finds an instruction."""
    found = []
    for row in rows:
        is_right = row.get("score", 0) >= row.get("best", 1)
        answer = row.get("expected") or (row.get("outputs", {}) if is_right else {})
        if answer:
            found.append({**row.get("inputs", {}), **answer})
    return {"examples": found}


_FROM_ROWS = {"Improve": _critiques, "ProposeInstruction": _examples}
_AS_IN_ROW = late_pattern(r"as in row (\d+)")
_MOST = 6  # what it was trained on


def marker_name(name: str) -> str | None:
    """The marker of a field, or None: by its own name, by an alias, by its singular."""
    if name in _NAMES:
        return name
    if name.endswith("_instruction"):
        return "instruction"
    if name.startswith(_BLAMES_INPUT):
        return "input_critique"
    return name[:-1] if name.endswith("s") and name[:-1] in _NAMES else None


class PocketFormat(Format):
    """One signature in the model's own shape."""

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.phrase = phrase_of(signature)
        self.from_rows = signature.name in _FROM_ROWS and "rows" in signature.inputs
        kept = signature.inputs if self.phrase is None else self.phrase.inputs
        self.inputs = [name for name in kept if name in signature.inputs or self.from_rows]
        self.markers: dict[str, str] = {}
        for name in self.inputs if self.from_rows else ():
            self.markers[name] = marker_name(name) or ""
        for name, field in signature.fields.items():
            if field.role == "input" and (name not in self.inputs or _is_nested(field)):
                continue
            found = marker_name(name)
            if found is None and self.phrase is not None and field.role == "output":
                continue  # the model writes nothing about demos and descriptions
            if found is None:
                raise SignatureError(_unknown(name))
            self.markers[name] = found
        self.readers = {name: reader(field) for name, field in signature.outputs.items()}
        self.first = next((name for name in signature.outputs if name in self.markers), "")
        self._warned = False

    def system(self, instruction: str) -> str:
        words = _words(instruction)
        if self.phrase is not None:
            return words if words and pocket.inside(words) else self.phrase.instruction
        if _DEFAULT.fullmatch(instruction):
            return VAGUE_INSTRUCTION
        self._check(words)
        return words

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> str:
        if self.from_rows and "rows" in inputs:
            inputs = {**inputs, **_FROM_ROWS[self.signature.name](inputs["rows"])}
        for name in self.inputs:
            if name not in inputs:
                raise missing_input(name, self.signature)
        return self._ask(inputs, self.first)

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> str:
        return self._ask(inputs, next(name for name in self.signature.outputs if name not in missing))

    def _ask(self, inputs: Mapping[str, Any], output: str) -> str:
        parts: list[str] = []
        for name in self.inputs:
            if name in inputs:
                _write(parts, self.markers.get(name, ""), name, inputs[name])
        parts.append(f"[[{self.markers[output]}]]")
        text = " ".join(parts)
        self._check(text)
        return text

    def assistant(self, outputs: Mapping[str, Any]) -> str:
        parts: list[str] = []
        for name in self.signature.outputs:
            if name in outputs:
                _write(parts, self.markers[name], name, outputs[name])
        text = _MARKER.sub("", " ".join(parts), count=1).lstrip()  # the first marker closes the user message
        self._check(text)
        return text

    def grammar(self) -> str | None:
        """Words, and the words of choices, truth values and whole numbers; None where all outputs are texts.

        None too where an output is of another type, or a choice has a word that the model cannot write. A word of this
        model has its blank behind it.
        """
        if self.phrase is not None or all(field.is_text for field in self.signature.outputs.values()):
            return None
        whole: list[str] = []
        for name, field in self.signature.outputs.items():
            rule = self._value_rule(field)
            if rule is None:
                return None
            marker = [quoted(f"[[{self.markers[name]}]] ")] if whole else []
            whole += [*marker, f"({rule})"]
        return f"start: {' '.join(whole)}\n"

    def place(self, reply: str, name: str) -> ValuePlace | None:
        if name == self.first:
            mark = _MARKER.search(reply)
            return place_of_all(reply, len(reply) if mark is None else mark.start(), mark and mark.end())
        names = {marker: name for name, marker in self.markers.items() if name in self.signature.outputs}
        return place_in_sections(reply, _MARKER, names, name)

    def write(self, name: str, value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return _words(super().write(name, value))

    def _value_rule(self, field: Field) -> str | None:
        if field.is_text:
            return r"/([^\[\] ]+ )*/"
        options = choices(field)
        if options is not None:
            self._check(" ".join(options))
            return None if pocket.unknown_words(" ".join(options)) else one_of(f"{_words(text)} " for text in options)
        if field.annotation is bool:
            return one_of(("yes ", "no "))
        return "/[0-9]+ /" if field.annotation is int and not field.constraints else None

    def read(self, reply: str) -> dict[str, Any]:
        parts = _MARKER.split(reply)
        sections = list(zip(parts[1::2], (_words(part) for part in parts[2::2]), strict=True))
        head = _words(parts[0])
        if head or not sections or sections[0][0] != self.markers[self.first]:
            sections.insert(0, (self.markers[self.first], head))
        values: dict[str, Any] = {}
        faults = []
        said: Any = ""
        for name, field in self.signature.outputs.items():
            if name not in self.markers:
                if field.annotation is bool:  # it says in its critique whether the part is to blame
                    values[name] = said not in ("", IT_IS_RIGHT)
                else:
                    values[name] = said = ""
                continue
            want = self.markers[name]
            place = next((i for i, (found, _) in enumerate(sections) if found == want), None)
            if place is None:
                if field.is_text and name.startswith(_BLAMES_INPUT):
                    values[name] = said = ""  # no critique of this input
                else:
                    faults.append(f"[[{want}]] is missing")
                continue
            if _is_list(field):
                items = [text for found, text in sections if found == want]
                sections = [section for section in sections if section[0] != want]
                text: Any = [item for item in items if item]
            else:
                text = sections.pop(place)[1]
            read = self.readers[name]
            try:
                values[name] = field.validate(text) if isinstance(text, list) else text if read is None else read(text)
                said = values[name]
            except ParseError as error:
                faults.append(error.reason)
        if faults:
            raise unreadable(reply, "; ".join(faults), self.signature)
        return values

    def feed(self) -> ReplyFeed:
        """What reads one reply as it is written: those texts whose marker is that of no other field."""
        from promptgrad.adapters._pocket_feed import PocketFeed

        outputs = self.signature.outputs
        marks = [self.markers.get(name) for name in outputs]
        texts = {
            mark: name
            for name, mark in zip(outputs, marks, strict=True)
            if mark and marks.count(mark) == 1 and outputs[name].is_plain
        }
        return PocketFeed(self.markers.get(self.first, ""), texts)

    def _check(self, text: str) -> None:
        """Warn once of words that the model cannot read."""
        if self._warned:
            return
        unknown = pocket.unknown_words(text)
        if unknown:
            self._warned = True
            warnings.warn(
                f"{say_unknown(unknown)} It lives in a small world (promptgrad.data.pocket.words()); for other texts "
                "use another model",
                stacklevel=2,
            )


def _unknown(name: str) -> str:
    return (
        f"the pocket model has no field {name!r}: its fields are {', '.join(_NAMES)}. Rename the field, or use "
        "another model"
    )


def _is_list(field: Field) -> bool:
    return field.type_name.startswith(("list", "tuple", "Sequence"))


def _is_nested(field: Field) -> bool:
    """Whether the keys of the value, rather than the field's name, become markers."""
    return "dict" in field.type_name or field.name in ("inputs", "outputs", "examples")


def _words(text: str) -> str:
    return " ".join(text.split())


def _write(parts: list[str], marker: str, name: str, value: Any) -> None:
    """Append the markers and words of one value: a list repeats its marker, a mapping brings its own."""
    if value is None:
        return
    if isinstance(value, (Mapping, Example)):
        for key, item in value.items():
            found = marker_name(str(key)) or ("answer" if key == "reply" else "")  # a reply that no field was read from
            if not found and not isinstance(item, (Mapping, Example, list, tuple)):
                raise InputError(f"in {name!r}: {_unknown(str(key))}")
            _write(parts, found, str(key), item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _write(parts, marker, name, item)
    elif not marker:
        raise InputError(_unknown(name))
    elif isinstance(value, (Image, Audio, File, History)):
        raise InputError(f"{name!r} holds {value!r}, and the pocket model takes words alone: use another model")
    else:
        text = _words(value if isinstance(value, str) else str(value))
        if "[[" in text:
            text = _MARKER.sub(r"\1", text)  # a marker inside a value would end it
        parts.append(f"[[{marker}]] {text}" if text else f"[[{marker}]]")


class PocketAdapter(Adapter):
    """The prompts of the embedded model: the instruction, then `[[text]] cat dog [[answer]]`, words and markers only.

    The user message ends with the marker of the first output, and the reply is its value. Known fields: text, question,
    answer, reasoning, instruction, critique, feedback, verdict, input_critique. A list repeats the singular marker
    (`critiques`), a mapping (`inputs`, `outputs`) or a list of them (`examples`) brings the markers of its keys,
    `new_instruction` is [[instruction]] and `critique_of_...` is [[input_critique]].

    The signatures named Critique, Improve and ProposeInstruction are put in the words that the model was trained with;
    an instruction that is only the default sentence becomes "do the task". Blanks are normalised, and a marker inside a
    value loses its brackets: words come back as they were, blanks may not. A warning reports words outside the model's
    world, once for each signature. Asking again is of no use here, as the model would reply the same.
    """

    name = "pocket"
    narrow = True

    def make_format(self, signature: Signature) -> Format:
        """How a signature is written for the pocket model.

        Raises:
            SignatureError: It has a field for which there is no marker.
        """
        return PocketFormat(signature)

    def repair_messages(self, completion: Completion, error: ParseError) -> tuple[Message, ...]:
        """No messages: the model was not trained on conversations about formats."""
        return ()
