"""Images, sounds and files: values of signature fields, and parts of messages as they are."""

from __future__ import annotations

import io
import os
import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from promptgrad._habits import Hinted
from promptgrad._patterns import late_pattern
from promptgrad.content._references import written
from promptgrad.content._sniff import media_type_of, pages_of, seconds_of, size_of
from promptgrad.content._sources import (
    MOST_BYTES,
    Source,
    checked_address,
    checked_type,
    encoded,
    from_json,
    public,
    read_data_url,
    read_file,
    size_text,
)
from promptgrad.content._tokens import audio_tokens, file_tokens, image_tokens

if TYPE_CHECKING:
    from typing_extensions import Self

SHOWN_BYTES = 500_000
"""Bytes up to which a notebook shows an image or a sound itself where no thumbnail can be made."""

_THUMBNAIL = (256, 256)
_MOST_PIXELS = 50_000_000
_MEDIA_TYPE = late_pattern(r"[\w.+-]+/[\w.+-]+", re.ASCII)


# What a user of DSPy may type out of habit, and what to write here.
_HABITS = {
    **dict.fromkeys(("from_file", "from_path", "open", "load"), "{}.read(path)"),
    "from_url": "{}('https://...'), an address, which the provider loads",
    "from_PIL": "{}(image), with an image of PIL",
    "from_bytes": "{}(data)",
    "from_array": "{}(data), with an encoded sound, such as the bytes of a WAV file",
    "from_file_id": "{}(url='file-...'), a file that was uploaded to the provider",
}


@dataclass(frozen=True, slots=True, repr=False, init=False)
class Media(Hinted):
    """Bytes with their media type, or an address from which the model's server can load them."""

    _elsewhere: ClassVar[Mapping[str, str]] = _HABITS

    data: bytes = b""
    media_type: str = ""
    url: str = ""

    kind: ClassVar[str] = ""
    family: ClassVar[str] = ""

    def __init__(self, data: Source = b"", media_type: str = "", url: str = "") -> None:
        what = type(self).__name__
        if isinstance(data, Media):
            raise TypeError(f"data of {what} is an {type(data).__name__} already")
        if isinstance(data, str):
            if url:
                raise ValueError(f"{what} takes either data= with media_type=, or url=")
            url = checked_address(what, data)
            data = b""
        elif isinstance(data, os.PathLike):
            data, media_type = read_file(data, media_type)
        elif hasattr(data, "save") and hasattr(data, "tobytes"):  # an image of PIL, which only its owner has loaded
            data, media_type = encoded(data, media_type)
        if isinstance(data, (bytearray, memoryview)):
            data = bytes(data)
        if not isinstance(data, bytes):
            raise TypeError(f"data of {what} is bytes, not {type(data).__name__}; {what}.read(path) takes a file")
        if not data and not url:
            raise ValueError(f"{what} needs bytes or an address, and was given none: {what}.read(path) takes a file")
        if data and url:
            raise ValueError(f"{what} takes either data= with media_type=, or url=")
        if url[:5].lower() == "data:":  # the same bytes are the same part in either form
            media_type, data = read_data_url(url)
            url = ""
            if not data:
                raise ValueError(f"the data: URL of {what} holds no bytes")
        if len(data) > MOST_BYTES:
            raise ValueError(
                f"{what} has {size_text(len(data))}, and {size_text(MOST_BYTES)} are the most: make it smaller"
            )
        if data and not media_type:
            media_type = media_type_of(data)
        if data and not media_type:
            begin = f"they begin with {data[:12]!r}, which is no kind that is known"
            raise ValueError(f"{what} of bytes needs a media_type, such as {self.family or 'application/'}...: {begin}")
        if media_type and not media_type.startswith(self.family):
            raise ValueError(f"media_type of {what} begins with {self.family!r}, not {media_type!r}")
        if media_type and _MEDIA_TYPE.fullmatch(media_type) is None:
            raise ValueError(f"media_type of {what} is a text such as 'image/png', not {media_type[:60]!r}")
        for name, value in (("data", data), ("media_type", media_type), ("url", url)):
            object.__setattr__(self, name, value)

    @classmethod
    def read(cls, path: str | os.PathLike[str], media_type: str = "", **more: str) -> Self:
        """Read a file.

        Args:
            path: The file.
            media_type: Its type; by default derived from the ending of its name, or from its first bytes.
            more: Further fields of the part.

        Raises:
            ValueError: The type is not known, or is of another kind of part; or it is a pipe or a device, or too large.
            OSError: The file cannot be read.
        """
        data, found = read_file(path, media_type)
        return cls(data, found, **more)

    @classmethod
    def of(cls, value: Any) -> Self:
        """Make one of whatever a field accepts; what is one already stays the same object.

        Args:
            value: One of these, or its JSON form; else what the constructor takes. A text is an address or a `data:`
                URL, never the name of a file, so that no data can name a file of this machine.

        Raises:
            ValueError: The value is none of these.
        """
        if isinstance(value, cls):
            return value
        try:
            if isinstance(value, Mapping):
                return cls(**from_json(cls.kind, value))
            return cls(value)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def dump(self) -> dict[str, Any]:
        """It in JSON types, with its bytes as base64; `of` reads it."""
        plain: dict[str, Any] = {"type": self.kind}
        for name in self.__match_args__:
            value = getattr(self, name)
            if value:
                plain[name] = b64encode(value).decode("ascii") if isinstance(value, bytes) else value
        return plain

    def fact(self) -> dict[str, Any]:
        """What a journal notes of it: its type and digest, by which equal ones are known, without its bytes."""
        return {"type": self.kind, "media_type": self.media_type, "digest": self.digest}

    def __content__(self) -> tuple[Any, ...]:
        """What makes it the value that it is, for digests: that of the bytes, and its other fields."""
        fields = [getattr(self, name) for name in self.__match_args__ if name != "data"]
        return (self.kind, self.digest, *fields)

    @property
    def data_url(self) -> str:
        """The bytes as a `data:` URL; the address itself where there is one."""
        return self.url or f"data:{self.media_type};base64,{b64encode(self.data).decode('ascii')}"

    @property
    def digest(self) -> str:
        """The digest of the bytes, or of the address: the same in every process."""
        return blake2b(self.data or self.url.encode(), digest_size=16).hexdigest()

    def tokens(self, model: str = "") -> int | None:
        """Tokens that it takes of a prompt, as far as the provider's rule is known.

        Args:
            model: Name of the model, such as `openai/gpt-4o`; by default the most that the known providers take.

        Returns:
            An estimate; None where nothing is known of its size, as of an address.
        """
        raise NotImplementedError

    def _details(self) -> list[str]:
        """What is said of the bytes, beside their type and number."""
        return []

    def _described(self) -> str:
        if self.url:
            return public(self.url)
        subtype = self.media_type.rpartition("/")[2]
        return ", ".join([subtype.removeprefix("x-"), *self._details(), size_text(len(self.data))])

    def __str__(self) -> str:
        return f"<{self.kind} {self._described()}>"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._described()})"

    def _repr_html_(self) -> str:
        """A small picture of it for a notebook, or its description; an address is not loaded."""
        import html

        shown = self._shown()
        caption = html.escape(repr(self))
        return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>" if shown else f"<code>{caption}</code>"

    def _shown(self) -> str:
        return ""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.of,
            serialization=core_schema.plain_serializer_function_ser_schema(written, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "contentEncoding": "base64", "contentMediaType": f"{cls.family or 'application/'}*"}


@dataclass(frozen=True, slots=True, repr=False, init=False)
class Image(Media):
    """An image, as the value of a field or as a part of a message.

    `Image(Path("cat.png"))`, `Image(data)`, `Image("https://...")`, `Image("data:image/png;base64,...")`, an image of
    PIL, or `Image.read("cat.png")`. It is shown as `Image(png, 640x480, 12 kB)`, never as its bytes; an address is
    shown without its possibly secret parts. An address is sent to the provider as it is; nothing is loaded from it.

    Args:
        data: The encoded image; or a `Path`, an address, a `data:` URL, an image of PIL.
        media_type: Its type, such as `image/png`; by default as the first bytes say.
        url: Its address, in place of the bytes. A `data:` URL is split into bytes and type.
        detail: The resolution at which the model sees it, where its provider offers a choice: `low`, `high`, `auto`.

    Raises:
        ValueError: There are both bytes and an address, or neither; or bytes of no known type, or too many; or a text
            that is no address.
    """

    kind: ClassVar[str] = "image"
    family: ClassVar[str] = "image/"
    detail: str = ""

    def __init__(self, data: Source = b"", media_type: str = "", url: str = "", detail: str = "") -> None:
        Media.__init__(self, data, media_type, url)
        object.__setattr__(self, "detail", detail)

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels, from the header; None where they are not known."""
        return size_of(self.data)

    def tokens(self, model: str = "") -> int | None:
        return None if self.size is None else image_tokens(*self.size, model, self.detail)

    def _details(self) -> list[str]:
        size = self.size
        return [] if size is None else [f"{size[0]}x{size[1]}"]

    def _thumbnail(self) -> bytes:
        """A small PNG, made by PIL; empty without PIL, and for what cannot be decoded safely."""
        size = self.size
        if size is None or size[0] * size[1] > _MOST_PIXELS:
            return b""
        try:
            made = import_module("PIL.Image").open(io.BytesIO(self.data))
            made.thumbnail(_THUMBNAIL)
            small = io.BytesIO()
            made.convert("RGBA").save(small, "PNG")
        except (ImportError, OSError, ValueError, SyntaxError):  # what PIL raises for broken files
            return b""
        return small.getvalue()

    def _repr_png_(self) -> bytes | None:
        """A thumbnail for a notebook; the image itself where it is a small PNG and PIL is not installed."""
        whole = self.data if self.media_type == "image/png" and len(self.data) <= SHOWN_BYTES else b""
        return self._thumbnail() or whole or None

    def _shown(self) -> str:
        import html

        small = self._thumbnail()
        if small:
            return f'<img alt="" src="data:image/png;base64,{b64encode(small).decode("ascii")}">'
        if not self.data or len(self.data) > SHOWN_BYTES:
            return ""
        return f'<img alt="" style="max-width:256px;max-height:256px" src="{html.escape(self.data_url)}">'


@dataclass(frozen=True, slots=True, repr=False, init=False)
class Audio(Media):
    """Sound, as the value of a field or as a part of a message.

    `Audio(Path("hello.wav"))`, `Audio(data)`, `Audio.read("hello.wav")`. It is shown as `Audio(wav, 2.5 s, 120 kB)`.

    Args:
        data: The encoded sound; or a `Path`, an address, a `data:` URL.
        media_type: Its type, such as `audio/wav` or `audio/mpeg`; by default as the first bytes say.
        url: Its address, in place of the bytes; vLLM accepts an address, OpenAI only bytes.

    Raises:
        ValueError: As of `Image`.
    """

    kind: ClassVar[str] = "audio"
    family: ClassVar[str] = "audio/"

    @property
    def seconds(self) -> float | None:
        """Its length, where it is a WAV file; None for others."""
        return seconds_of(self.data)

    def tokens(self, model: str = "") -> int | None:
        return audio_tokens(self.seconds, len(self.data), model)

    def _details(self) -> list[str]:
        return [] if self.seconds is None else [f"{self.seconds:.1f} s"]

    def _shown(self) -> str:
        import html

        if not self.data or len(self.data) > SHOWN_BYTES:
            return ""
        return f'<audio controls src="{html.escape(self.data_url)}"></audio>'


@dataclass(frozen=True, slots=True, repr=False, init=False)
class File(Media):
    """A file for the model to read, such as a PDF, as the value of a field or as a part of a message.

    `File(Path("report.pdf"))`, `File(data, name="report.pdf")`, `File.read("report.pdf")`. It is shown as
    `File(report.pdf, pdf, 3 pages, 80 kB)`.

    Args:
        data: The bytes; or a `Path`, an address, a `data:` URL.
        media_type: Their type, such as `application/pdf`; by default as the first bytes say, else as the name does.
        url: An address, or the id of a file that was uploaded to the provider, in place of the bytes.
        name: The name that the model sees; by default that of the path, if there is one.

    Raises:
        ValueError: As of `Image`.
    """

    kind: ClassVar[str] = "file"
    name: str = ""

    def __init__(self, data: Source = b"", media_type: str = "", url: str = "", name: str = "") -> None:
        if isinstance(data, os.PathLike) and not name:
            name = Path(data).name
        elif name and isinstance(data, bytes) and data and not (media_type or media_type_of(data)):
            media_type = checked_type(name, data)
        Media.__init__(self, data, media_type, url)
        object.__setattr__(self, "name", name)

    @property
    def pages(self) -> int | None:
        """Its pages, where it is a PDF that tells them; None for others."""
        return pages_of(self.data)

    def tokens(self, model: str = "") -> int | None:
        return file_tokens(self.pages, len(self.data), self.media_type, model)

    def _details(self) -> list[str]:
        pages = self.pages
        return [] if pages is None else ["1 page" if pages == 1 else f"{pages} pages"]

    def __repr__(self) -> str:
        named = f"{self.name}, " if self.name else ""
        return f"File({named}{self._described()})"


def captioned(value: Any, kept: Collection[str] = ()) -> Any:
    """A value with a caption in place of each image, sound and file, for a reader that takes text alone.

    Lists, tuples and mappings are looked into. What holds none is the same object.

    Args:
        value: The value.
        kept: Kinds that stay as they are: "image", "audio", "file".
    """
    if isinstance(value, Media):
        return value if value.kind in kept else str(value)
    if isinstance(value, Mapping):
        made: Any = {key: captioned(item, kept) for key, item in value.items()}
        return value if all(made[key] is item for key, item in value.items()) else made
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        made = [captioned(item, kept) for item in value]
        return value if all(one is other for one, other in zip(made, value, strict=True)) else type(value)(made)
    return value


def media_in(value: Any) -> Media | None:
    """The first image, sound or file in a value of lists, tuples and mappings; None if there is none."""
    if isinstance(value, Media):
        return value
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return None
    return next((found for item in value if (found := media_in(item)) is not None), None)
