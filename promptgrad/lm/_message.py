"""Messages, and the compiled prefix of a prompt: an immutable run of them, encoded and digested once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from json.encoder import encode_basestring_ascii
from typing import Any

from promptgrad._frozen import setters
from promptgrad.lm._codec import canonical_json, digested, inline, to_plain
from promptgrad.lm._parts import Content, Part, TextPart, ToolCall, bound, flat, show, text_of, to_content

DIGEST_SIZE = 16
"""Bytes of a request digest (32 hexadecimal characters)."""


@dataclass(frozen=True, slots=True, init=False)
class Message:
    """One chat message: the role of its author, and text or parts.

    Args:
        role: `system`, `user`, `assistant`, or `tool` for the results of tools.
        content: Text, or a tuple of parts: `Message("user", ("What is this?", ImagePart.read("cat.png")))` is made
            by `Request.of`, which turns texts among parts into `TextPart`; the constructor trusts its caller.
    """

    role: str
    content: Content

    def __init__(self, role: str, content: Content) -> None:
        _set_role(self, role)
        _set_content(self, content)

    @property
    def text(self) -> str:
        """The text alone."""
        return text_of(self.content)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts, even if it is text alone."""
        content = self.content
        return (TextPart(content),) if isinstance(content, str) else content

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of an assistant's message."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def preview(self) -> str:
        """The content in readable form: an image is `<image png, 12 kB>`."""
        return show(self.content)

    def to_dict(self, blob: Callable[[bytes], str] = inline) -> dict[str, Any]:
        """Return the message in JSON types. `Request.of` accepts it.

        Args:
            blob: Function that converts bytes to text, by default to base64.
        """
        return to_plain(self, blob)

    def __getitem__(self, key: str) -> Any:
        if key == "role":
            return self.role
        if key == "content":
            return self.content
        raise KeyError(key)


_set_role, _set_content = setters(Message)

MessageLike = Message | Mapping[str, Any]
"""A `Message`, or a mapping with the keys `role` and `content`."""


def to_message(item: MessageLike) -> Message:
    """Return a message as it is, or make one of a mapping.

    Raises:
        TypeError: It is neither, or its content is not text or parts.
        ValueError: The mapping has other keys.
    """
    if isinstance(item, Message):
        content = item.content
        if isinstance(content, str):
            return item
        checked = to_content(content)
        return item if checked == content else Message(item.role, checked)
    if not isinstance(item, Mapping):
        raise TypeError(f"a message is a Message or a mapping with 'role' and 'content', not {type(item).__name__}")
    unknown = sorted(set(item) - {"role", "content"})
    if unknown or len(item) != 2:
        found = ", ".join(repr(key) for key in item)
        raise ValueError(f"a message has exactly the keys 'role' and 'content', not {found or 'none'}")
    role = item["role"]
    if not isinstance(role, str):
        raise TypeError(f"'role' of a message is a str, not {type(role).__name__}")
    return Message(role, to_content(item["content"]))


def json_messages(messages: Iterable[Message]) -> str:
    """Return messages, in ASCII, as the inside of a JSON array, each one followed by a comma.

    The trailing comma makes the text of a conversation the concatenation of the texts of its pieces, so a digest does
    not depend on where it is cut into prefix and tail. Messages of text are encoded as servers expect them; images and
    other bytes are encoded as their digest.
    """
    written = ""
    for message in messages:
        content = message.content
        if isinstance(content, str):
            role = encode_basestring_ascii(message.role)
            written += f'{{"role":{role},"content":{encode_basestring_ascii(content)}}},'
        else:
            written += canonical_json(to_plain(message, digested)) + ","
    return written


def is_text(messages: Iterable[Message]) -> bool:
    """True if messages hold nothing but text."""
    for message in messages:  # noqa: SIM110 - once in each call: two frames less than with all()
        if not isinstance(message.content, str):
            return False
    return True


def unmarked(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The messages without the marks of documents to be cited, whose texts are then texts as any."""
    return tuple(
        [
            m if isinstance(m.content, str) or flat(m.content) is m.content else Message(m.role, flat(m.content))
            for m in messages
        ]
    )


class Prefix:
    """An immutable run of messages, encoded and digested once and shared by many requests.

    An adapter compiles the system message and the demos of a module into one prefix; each request then pays
    only for its own last message.

    Args:
        messages: The messages, as `Message` objects or mappings with `role` and `content`.
        begins: As of the attribute.

    Attributes:
        messages: The messages.
        begins: How a reply begins that is as they ask for, which is then no thought, as `<thinking>`. It is not sent.
        encoded: Their bytes, ASCII as `json_messages` gives it.
        is_text: True if they hold nothing but text.
        weight: The most tokens that they are.
    """

    __slots__ = ("__weakref__", "_state", "begins", "encoded", "is_text", "messages", "weight")

    messages: tuple[Message, ...]
    begins: tuple[str, ...]
    encoded: bytes
    is_text: bool
    weight: int
    _state: Any

    def __init__(self, messages: Iterable[MessageLike] = (), begins: tuple[str, ...] = ()) -> None:
        put = object.__setattr__
        put(self, "begins", begins)
        put(self, "messages", tuple(to_message(m) for m in messages))
        put(self, "encoded", json_messages(self.messages).encode("ascii"))
        put(self, "is_text", is_text(self.messages))
        put(self, "weight", sum([bound(m.content) for m in self.messages]))
        put(self, "_state", blake2b(self.encoded, digest_size=DIGEST_SIZE))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Prefix is immutable; make a new one instead of setting {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Prefix is immutable; {name!r} cannot be deleted")

    def copy(self) -> Any:
        """Return a copy of the running blake2b state, to be updated with what follows the prefix."""
        return self._state.copy()

    def __len__(self) -> int:
        return len(self.messages)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prefix):
            return NotImplemented
        return self is other or self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.encoded)

    def __reduce__(self) -> tuple[type[Prefix], tuple[tuple[Message, ...], tuple[str, ...]]]:
        return (Prefix, (self.messages, self.begins))

    def __repr__(self) -> str:
        return f"Prefix({len(self.messages)} messages, {self.copy().hexdigest()[:8]})"


EMPTY_PREFIX = Prefix()
"""The prefix of a request that has none."""
