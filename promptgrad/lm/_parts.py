"""The parts of a message beside text: images, audio, files, tool calls and their results, reasoning."""

from __future__ import annotations

import json
import mimetypes
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from urllib.parse import unquote_to_bytes

from promptgrad._pipes import not_a_file
from promptgrad.errors import ParseError
from promptgrad.lm._codec import from_plain
from promptgrad.lm._tokens import most_tokens

if TYPE_CHECKING:
    from typing_extensions import Self

IMAGE_WEIGHT = 4_000
"""Size of an image in estimates, in characters of text: about a thousand tokens."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text, among other parts. A message or completion of text alone holds a plain `str` instead.

    Args:
        text: The text.
    """

    kind: ClassVar[str] = "text"
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, repr=False)
class _Media:
    """Bytes with their media type, or an address from which the model's server can load them."""

    data: bytes = b""
    media_type: str = ""
    url: str = ""

    kind: ClassVar[str] = ""
    family: ClassVar[str] = ""

    def __post_init__(self) -> None:
        what = type(self).__name__
        data: Any = self.data
        media_type, url = self.media_type, self.url
        if isinstance(data, (bytearray, memoryview)):
            data = bytes(data)
        if not isinstance(data, bytes):
            raise TypeError(f"data of {what} is bytes, not {type(data).__name__}; {what}.read(path) takes a file")
        if bool(data) == bool(url):
            raise ValueError(f"{what} takes either data= with media_type=, or url=")
        if url.startswith("data:"):  # the same bytes are the same part in either form
            media_type, data = _read_data_url(url)
            url = ""
        if data and not media_type:
            raise ValueError(f"{what} of bytes needs a media_type, such as {self.family or 'application/'}...")
        if media_type and not media_type.startswith(self.family):
            raise ValueError(f"media_type of {what} begins with {self.family!r}, not {media_type!r}")
        for name, value in (("data", data), ("media_type", media_type), ("url", url)):
            object.__setattr__(self, name, value)

    @classmethod
    def read(cls, path: str | os.PathLike[str], media_type: str = "", **more: str) -> Self:
        """Read a file.

        Args:
            path: The file.
            media_type: Its type; by default derived from the ending of its name.
            more: Further fields of the part.

        Raises:
            ValueError: The type is not known from the name, or is of another kind of part; or it is a pipe or a device.
            OSError: The file cannot be read.
        """
        found = media_type or mimetypes.guess_type(os.fspath(path))[0]
        if not found:
            raise ValueError(f"the media type of {os.fspath(path)!r} is not known from its name: pass media_type=")
        if odd := not_a_file(path):
            raise ValueError(f"{os.fspath(path)} cannot be read: {odd}")
        return cls(Path(path).read_bytes(), found, **more)

    @property
    def data_url(self) -> str:
        """The bytes as a `data:` URL; the address itself where there is one."""
        return self.url or f"data:{self.media_type};base64,{b64encode(self.data).decode('ascii')}"

    def __str__(self) -> str:
        if self.url:
            return f"<{self.kind} {_public(self.url)}>"
        return f"<{self.kind} {self.media_type.rpartition('/')[2]}, {_size(len(self.data))}>"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


@dataclass(frozen=True, slots=True, repr=False)
class ImagePart(_Media):
    """An image: `ImagePart(data, "image/png")`, `ImagePart(url="https://...")` or `ImagePart.read("cat.png")`.

    It is shown as `<image png, 12 kB>`, never as its bytes; an address is shown without its possibly secret parts.

    Args:
        data: The encoded image.
        media_type: Its type, such as `image/png`.
        url: Its address, in place of the bytes. A `data:` URL is split into bytes and type.
        detail: The resolution at which the model sees it, where its provider offers a choice: `low`, `high`, `auto`.

    Raises:
        ValueError: There are both bytes and an address, or neither, or bytes without a type.
    """

    kind: ClassVar[str] = "image"
    family: ClassVar[str] = "image/"
    detail: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class AudioPart(_Media):
    """Sound: `AudioPart(data, "audio/wav")`, `AudioPart(url=...)` or `AudioPart.read("hello.wav")`.

    It is shown as `<audio wav, 120 kB>`.

    Args:
        data: The encoded sound.
        media_type: Its type, such as `audio/wav` or `audio/mpeg`.
        url: Its address, in place of the bytes; vLLM accepts an address, OpenAI only bytes.

    Raises:
        ValueError: There are both bytes and an address, or neither, or bytes without a type.
    """

    kind: ClassVar[str] = "audio"
    family: ClassVar[str] = "audio/"


@dataclass(frozen=True, slots=True, repr=False)
class FilePart(_Media):
    """A document: `FilePart(data, "application/pdf", name="report.pdf")` or `FilePart.read("report.pdf")`.

    It is shown as `<file pdf, 80 kB>`.

    Args:
        data: The bytes.
        media_type: Their type, such as `application/pdf`.
        url: An address, or the id of a file that was uploaded to the provider, in place of the bytes.
        name: The name that the model sees.

    Raises:
        ValueError: There are both bytes and an address, or neither, or bytes without a type.
    """

    kind: ClassVar[str] = "file"
    name: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's request to call a tool. Its result goes back as a `ToolResult` with the same `id`.

    Args:
        id: The identifier that the result refers to.
        name: Name of the tool.
        arguments: JSON text, exactly as the model wrote it; a mapping is converted to JSON text.
        data: Further data of the provider that must go back unchanged, as JSON text.
    """

    kind: ClassVar[str] = "tool_call"
    id: str
    name: str
    arguments: str = "{}"
    data: str = ""

    def __post_init__(self) -> None:
        arguments: Any = self.arguments
        if not isinstance(arguments, str):
            object.__setattr__(self, "arguments", json.dumps(arguments, ensure_ascii=False, allow_nan=False))

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments by name.

        Raises:
            ParseError: The model's text is not a JSON object.
        """
        try:
            found = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError) as error:
            found, reason = None, f"it is not JSON ({error})"
        else:
            reason = "it is not a JSON object"
        if not isinstance(found, dict):
            raise ParseError(
                f"the arguments of tool call {self.name!r} cannot be read: {reason}; they are {self.arguments!r}",
                reply=self.arguments,
                reason=reason,
            )
        return found

    def __str__(self) -> str:
        return f"<call {self.name}({self.arguments})>"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool call, for the model.

    Args:
        id: The `id` of the `ToolCall`.
        content: Text, or parts where the provider accepts them.
        is_error: True if the tool failed; the text then explains the failure.
    """

    kind: ClassVar[str] = "tool_result"
    id: str
    content: Content
    is_error: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", to_content(self.content))

    def __str__(self) -> str:
        return f"<{'error' if self.is_error else 'result'} {show(self.content)}>"


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """The model's reasoning before its answer, as far as its provider shows it.

    Args:
        text: The reasoning, or a summary of it.
        signature: The provider's seal on the reasoning; both go back in the next turn.
        data: Further data of the provider that must go back unchanged, as JSON text: a hidden block, or the details of
            this one.
    """

    kind: ClassVar[str] = "reasoning"
    text: str = ""
    signature: str = ""
    data: str = ""

    def __str__(self) -> str:
        return f"<reasoning {self.text}>" if self.text else "<reasoning, hidden>"


Part: TypeAlias = TextPart | ImagePart | AudioPart | FilePart | ToolCall | ToolResult | ReasoningPart
"""One part of a message or completion."""

Content: TypeAlias = str | tuple[Part, ...]
"""The content of a message or completion: text, or parts."""

_PART_TYPES = (TextPart, ImagePart, AudioPart, FilePart, ToolCall, ToolResult, ReasoningPart)
PARTS: dict[str, type[Part]] = {part.kind: part for part in _PART_TYPES}


def to_content(value: object) -> Content:
    """Return text as it is, and a sequence of parts as a tuple; a `str` among parts becomes a `TextPart`.

    Raises:
        TypeError: It is neither, or one of the parts is not a part.
        ValueError: A mapping is not the JSON form of a part.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, _PART_TYPES):
        return (value,)
    if isinstance(value, (Mapping, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"'content' of a message is a str or a sequence of parts, not {type(value).__name__}")
    return tuple(_to_part(item) for item in value)


def _to_part(item: object) -> Part:
    if isinstance(item, str):
        return TextPart(item)
    if isinstance(item, _PART_TYPES):
        return item
    if isinstance(item, Mapping):
        kind = PARTS.get(str(item.get("type")))
        if kind is None:
            raise ValueError(f"a part has one of the types {', '.join(PARTS)}, not {item.get('type')!r}")
        return from_plain(kind, item)
    raise TypeError(f"a part is one of {', '.join(p.__name__ for p in _PART_TYPES)}, not {type(item).__name__}")


def text_of(content: Content) -> str:
    """Return the text alone, without other parts."""
    if isinstance(content, str):
        return content
    return "".join([part.text for part in content if isinstance(part, TextPart)])


def show(content: Content) -> str:
    """Return content in readable form: parts other than text by their kind and size, a line each."""
    return content if isinstance(content, str) else "\n".join(map(str, content))


def weigh(content: Content) -> int:
    """Estimate the size of content in a prompt, in characters of text (four are about a token)."""
    if isinstance(content, str):
        return len(content)
    size = 0
    for part in content:
        if isinstance(part, (TextPart, ReasoningPart)):
            size += len(part.text)
        elif isinstance(part, ToolCall):
            size += len(part.name) + len(part.arguments)
        elif isinstance(part, ToolResult):
            size += weigh(part.content)
        elif isinstance(part, ImagePart):
            size += IMAGE_WEIGHT
        else:  # a page of a document, or some seconds of sound, takes tens of kilobytes
            size += max(IMAGE_WEIGHT, len(part.data) // 8)
    return size


def count_bytes(content: Content) -> int:
    """Return about how many bytes of memory content takes: its characters, and the data of its parts."""
    if isinstance(content, str):
        return len(content)
    size = 0
    for part in content:
        if isinstance(part, ToolResult):
            size += count_bytes(part.content)
        else:
            size += sum([len(held) for name in _HELD if isinstance(held := getattr(part, name, None), (str, bytes))])
    return size


_HELD = ("text", "data", "url", "arguments")


def bound(content: Content) -> int:
    """Return a number of tokens that content does not exceed: for the reservation of a budget."""
    if isinstance(content, str):
        return most_tokens(content)
    size = 0
    for part in content:
        if isinstance(part, (TextPart, ReasoningPart)):
            size += bound(part.text)
        elif isinstance(part, ToolCall):
            size += bound(part.name) + bound(part.arguments)
        elif isinstance(part, ToolResult):
            size += bound(part.content)
        else:
            size += weigh((part,)) // 3
    return size


def json_text(value: object) -> str:
    """Return the JSON text of a value, in ASCII and in its own order of keys, without blanks.

    Raises:
        TypeError: It holds something without a JSON form.
        ValueError: It holds NaN or an infinity.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _read_data_url(url: str) -> tuple[str, bytes]:
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise ValueError(f"a data: URL has a comma before its data, and {url[:40]!r} has none")
    kind, *flags = head.split(";")
    return kind or "text/plain", b64decode(body) if "base64" in flags else unquote_to_bytes(body)


def _public(url: str) -> str:
    """An address without its possibly secret parts: user, password, query and fragment."""
    before, mark, rest = url.partition("://")
    shown = rest.partition("?")[0].partition("#")[0]
    place, slash, path = shown.partition("/")
    return f"{before}{mark}{place.rpartition('@')[2]}{slash}{path}" if mark else before


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"
