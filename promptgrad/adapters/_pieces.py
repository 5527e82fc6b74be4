"""Values that are written as parts of a message: images, sounds and files, among texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, get_args, get_type_hints

from promptgrad.adapters._kinds import bare, holds
from promptgrad.content import Audio, Document, File, Image, References
from promptgrad.lm import Content, DocumentMark, Part, TextPart
from promptgrad.signature import Field

MEDIA = (Image, Audio, File)
Piece = str | Part


def may_hold_media(annotation: Any, *, any_may: bool = True) -> bool:
    """Whether values of a type may be or hold an image, a sound or a file.

    Args:
        annotation: The type.
        any_may: The answer for `Any` and `object`.
    """
    waiting, seen = [annotation], set()
    while waiting:
        kind = bare(waiting.pop())
        if is_media(kind) or (any_may and (kind is Any or kind is object)):
            return True
        if isinstance(kind, type) and not get_args(kind):
            if kind in seen:
                continue
            seen.add(kind)
            fields = getattr(kind, "model_fields", None)
            if fields is not None:
                waiting += [entry.annotation for entry in fields.values()]
            elif dataclasses.is_dataclass(kind):
                waiting += get_type_hints(kind).values()
        else:
            waiting += [arg for arg in get_args(kind) if not isinstance(arg, str)]
    return False


def has_pieces(annotation: Any) -> bool:
    """Whether values of a type are written as pieces, and not as one text or JSON: media, and documents."""
    return holds(annotation, Document) or may_hold_media(annotation)


def is_media(kind: Any) -> bool:
    """Whether a type is that of images, sounds or files."""
    return isinstance(kind, type) and issubclass(kind, MEDIA)


def pieces(field: Field, value: Any) -> list[Piece]:
    """A value as texts and parts: an image as it is, several one after the other; documents with their numbers.

    What holds images among other things is JSON, in which "image 1" stands for the first one; they come after it.
    """
    if isinstance(value, MEDIA):
        return [value]
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, MEDIA) for item in value):
        return list(value)
    if isinstance(value, Document):
        return [str(value)]
    if isinstance(value, CitedDocument):
        return [value.part(numbered=False)]
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, CitedDocument) for item in value):
        return [value[0].part(), *(piece for item in value[1:] for piece in ("\n\n", item.part()))]
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Document) for item in value):
        return ["\n\n".join(f"document {number}: {document}" for number, document in enumerate(value, 1))]
    references = References()
    text = field.dump_json(_referred(value, references), references)
    made: list[Piece] = [text]
    for label, part in references:
        made += [f"\n\n{label}:\n", part]
    return made


@dataclasses.dataclass(frozen=True, slots=True)
class CitedDocument:
    """A document that the reply may cite, with its number."""

    number: int
    document: Document

    def part(self, *, numbered: bool = True) -> TextPart:
        """Its text, as that of any document, with a mark for providers that take documents as such."""
        document = self.document
        head = f"document {self.number}: " if numbered else ""
        head += f"{document.title}\n" if document.title else ""
        return TextPart(f"{head}{document.text}", DocumentMark(self.number, document.title, len(head)))


def cited(value: Any) -> Any:
    """A value of documents with their numbers, from 1; any other value as it is."""
    if isinstance(value, Document):
        return CitedDocument(1, value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Document) for item in value):
        return [CitedDocument(number, document) for number, document in enumerate(value, 1)]
    return value


def escaped(piece: Piece, escape: Callable[[str], str]) -> Piece:
    """A piece in which no text can be taken for the frame of the message."""
    if isinstance(piece, str):
        return escape(piece)
    if not isinstance(piece, TextPart) or piece.document is None:
        return piece
    text = escape(piece.text)
    if text == piece.text:
        return piece
    head = piece.text[: piece.document.start]
    start = len(head) if text.startswith(head) else 0
    return TextPart(text, dataclasses.replace(piece.document, start=start))


def _referred(value: Any, references: References) -> Any:
    """The value with a reference in place of each image; those in models are replaced as they are written."""
    if isinstance(value, MEDIA):
        return references.add(value)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_referred(item, references) for item in value)
    if type(value) is dict:
        return {key: _referred(item, references) for key, item in value.items()}
    return value


def joined(made: Iterable[Piece]) -> Content:
    """Texts and parts as the content of a message: a text where there is nothing else."""
    parts: list[Part] = []
    texts: list[str] = []
    for piece in made:
        if isinstance(piece, str):
            texts.append(piece)
            continue
        if text := "".join(texts):
            parts.append(TextPart(text))
        texts = []
        parts.append(piece)
    text = "".join(texts)
    if not parts:
        return text
    return (*parts, TextPart(text)) if text else tuple(parts)
