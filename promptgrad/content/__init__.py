"""Values of fields that are more than text: images, sounds, files, conversations, code, the reasoning of a model."""

from typing import TYPE_CHECKING

__all__ = [
    "IMAGE_TOKENS",
    "MOST_BYTES",
    "ROLES",
    "SHOWN_BYTES",
    "Audio",
    "Citation",
    "Code",
    "Document",
    "File",
    "History",
    "Image",
    "Language",
    "MediaPlaces",
    "Reasoning",
    "References",
    "Source",
    "Thinking",
    "Turn",
    "apart",
    "captioned",
    "is_reasoning",
    "language_of",
    "media_in",
    "read_in",
    "restored",
    "together",
    "written_out",
]

if TYPE_CHECKING:
    from promptgrad.content._blobs import apart, together
    from promptgrad.content._document import Citation, Document
    from promptgrad.content._history import ROLES, History, Turn, restored
    from promptgrad.content._json import read_in, written_out
    from promptgrad.content._media import SHOWN_BYTES, Audio, File, Image, captioned, media_in
    from promptgrad.content._references import MediaPlaces, References
    from promptgrad.content._sources import MOST_BYTES, Source
    from promptgrad.content._texts import Code, Language, Reasoning, Thinking, is_reasoning, language_of
    from promptgrad.content._tokens import IMAGE_TOKENS
else:
    from promptgrad._late import late

    _LATE = {
        "Audio": "_media",
        "Citation": "_document",
        "Code": "_texts",
        "Document": "_document",
        "File": "_media",
        "History": "_history",
        "IMAGE_TOKENS": "_tokens",
        "Image": "_media",
        "Language": "_texts",
        "MOST_BYTES": "_sources",
        "MediaPlaces": "_references",
        "ROLES": "_history",
        "Reasoning": "_texts",
        "References": "_references",
        "SHOWN_BYTES": "_media",
        "Source": "_sources",
        "Thinking": "_texts",
        "Turn": "_history",
        "apart": "_blobs",
        "captioned": "_media",
        "is_reasoning": "_texts",
        "language_of": "_texts",
        "media_in": "_media",
        "read_in": "_json",
        "restored": "_history",
        "together": "_blobs",
        "written_out": "_json",
    }

    __getattr__, __dir__ = late(__name__, _LATE)
