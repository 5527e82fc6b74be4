"""The parts of a message beside text: images, audio, files, tool calls and their results, reasoning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from promptgrad.content import IMAGE_TOKENS, Audio, File, Image
from promptgrad.errors import ParseError
from promptgrad.lm._codec import from_plain
from promptgrad.lm._tokens import likely_tokens, most_tokens

ImagePart = Image
AudioPart = Audio
FilePart = File

IMAGE_WEIGHT = 4_000
"""Size of an image of unknown size in estimates, in characters of text: about a thousand tokens."""


@dataclass(frozen=True, slots=True)
class DocumentMark:
    """That a text is a document which the reply may cite, for providers that take documents as such.

    Args:
        number: Its number in its list, from 1.
        title: Its title.
        start: Where its own words begin in the text; what is before them is its number and title.
    """

    number: int
    title: str = ""
    start: int = 0


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text, among other parts. A message or completion of text alone holds a plain `str` instead.

    Args:
        text: The text.
        document: That it is a document to be cited; None for any other text.
    """

    kind: ClassVar[str] = "text"
    text: str
    document: DocumentMark | None = None

    def __str__(self) -> str:
        return self.text


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


def flat(content: Content) -> Content:
    """Content without the marks of documents: one text where there is nothing but texts."""
    if isinstance(content, str) or not any(isinstance(part, TextPart) and part.document for part in content):
        return content
    if all(isinstance(part, TextPart) for part in content):
        return text_of(content)
    made: list[Part] = []
    for part in content:
        if isinstance(part, TextPart):
            last = made[-1] if made else None
            if isinstance(last, TextPart):
                made[-1] = TextPart(last.text + part.text)
            else:
                made.append(TextPart(part.text))
        else:
            made.append(part)
    return tuple(made)


def text_of(content: Content) -> str:
    """Return the text alone, without other parts."""
    if isinstance(content, str):
        return content
    return "".join([part.text for part in content if isinstance(part, TextPart)])


def show(content: Content) -> str:
    """Return content in readable form: parts other than text by their kind and size, a line each."""
    content = flat(content)
    return content if isinstance(content, str) else "\n".join(map(str, content))


def has_addresses(messages: Iterable[Any]) -> bool:
    """Whether a part of messages is an address that somebody has to load."""
    return any(
        isinstance(part, (ImagePart, AudioPart, FilePart)) and part.url.startswith(("http:", "https:"))
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
    )


def weigh(content: Content, model: str = "") -> int:
    """Estimate the size of content in a prompt, in characters of text (four are about a token).

    Args:
        content: The content.
        model: Name of the model, by whose provider's rule images count.
    """
    if isinstance(content, str):
        return len(content)
    size = 0
    for part in content:
        if isinstance(part, (TextPart, ReasoningPart)):
            size += len(part.text)
        elif isinstance(part, ToolCall):
            size += len(part.name) + len(part.arguments)
        elif isinstance(part, ToolResult):
            size += weigh(part.content, model)
        else:
            tokens = part.tokens(model)
            size += IMAGE_WEIGHT if tokens is None else 4 * tokens
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


def bound(content: Content, model: str = "") -> int:
    """Return a number of tokens that content does not exceed: for the reservation of a budget.

    Of an image whose size is not known, as of an address, it is a guess.

    Args:
        content: The content.
        model: Name of the model; without it, images count the most that they do with any provider.
    """
    if isinstance(content, str):
        return most_tokens(content)
    size = 0
    for part in content:
        if isinstance(part, (TextPart, ReasoningPart)):
            size += bound(part.text)
        elif isinstance(part, ToolCall):
            size += bound(part.name) + bound(part.arguments)
        elif isinstance(part, ToolResult):
            size += bound(part.content, model)
        else:
            size += part.tokens(model) or IMAGE_TOKENS
    return size


def expected_tokens(content: Content) -> int:
    """Estimate the tokens of content as `likely_tokens` does; images count the most that they do with any provider."""
    if isinstance(content, str):
        return likely_tokens(content)
    size = 0
    for part in content:
        if isinstance(part, (TextPart, ReasoningPart)):
            size += likely_tokens(part.text)
        elif isinstance(part, (ToolCall, ToolResult)):
            size += bound((part,))
        else:
            size += part.tokens() or IMAGE_TOKENS
    return size


def json_text(value: object) -> str:
    """Return the JSON text of a value, in ASCII and in its own order of keys, without blanks.

    Raises:
        TypeError: It holds something without a JSON form.
        ValueError: It holds NaN or an infinity.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
