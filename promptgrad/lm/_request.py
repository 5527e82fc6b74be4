"""What is sent to a language model: messages, the compiled prefix, the request and its digest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from json.encoder import encode_basestring_ascii
from typing import Any

from promptgrad._frozen import setters

DIGEST_SIZE = 16
"""Bytes of a request digest (32 hexadecimal characters)."""

_SECRETS = frozenset({"api_key", "apikey", "authorization", "headers", "extra_headers", "access_token", "secret"})


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message: who speaks (`system`, `user` or `assistant`) and what is said."""

    role: str
    content: str

    def __getitem__(self, key: str) -> str:
        if key == "role":
            return self.role
        if key == "content":
            return self.content
        raise KeyError(key)


MessageLike = Message | Mapping[str, Any]
"""A `Message`, or a mapping with the keys `role` and `content`."""


def _message(item: MessageLike) -> Message:
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping):
        raise TypeError(f"a message is a Message or a mapping with 'role' and 'content', not {type(item).__name__}")
    unknown = sorted(set(item) - {"role", "content"})
    if unknown or len(item) != 2:
        found = ", ".join(repr(key) for key in item)
        raise ValueError(f"a message has exactly the keys 'role' and 'content', not {found or 'none'}")
    role, content = item["role"], item["content"]
    if not isinstance(role, str) or not isinstance(content, str):
        raise TypeError(
            f"'role' and 'content' of a message are str, not {type(role).__name__} and {type(content).__name__}"
        )
    return Message(role, content)


def encode_messages(messages: Iterable[Message]) -> bytes:
    """Encode messages as the inside of a JSON array, each one followed by a comma.

    The trailing comma makes the bytes of a whole the concatenation of the bytes of its parts, so a digest
    does not depend on where a conversation is cut into prefix and tail.
    """
    return "".join(
        [
            f'{{"role":{encode_basestring_ascii(m.role)},"content":{encode_basestring_ascii(m.content)}}},'
            for m in messages
        ]
    ).encode("ascii")


class Prefix:
    """An immutable run of messages, encoded and digested once and shared by many requests.

    An adapter compiles the system message and the demos of a module into one prefix; each request then pays
    only for its own last message.

    Args:
        messages: The messages, as `Message` objects or mappings with `role` and `content`.
    """

    __slots__ = ("__weakref__", "_state", "encoded", "messages")

    messages: tuple[Message, ...]
    encoded: bytes

    def __init__(self, messages: Iterable[MessageLike] = ()) -> None:
        put = object.__setattr__
        put(self, "messages", tuple(_message(m) for m in messages))
        put(self, "encoded", encode_messages(self.messages))
        put(self, "_state", blake2b(self.encoded, digest_size=DIGEST_SIZE))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Prefix is immutable; make a new one instead of setting {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Prefix is immutable; {name!r} cannot be deleted")

    def copy(self) -> Any:
        """Return a copy of the running blake2b state, to be updated with what follows the prefix."""
        return self._state.copy()  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.messages)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prefix):
            return NotImplemented
        return self is other or self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.encoded)

    def __reduce__(self) -> tuple[type[Prefix], tuple[tuple[Message, ...]]]:
        return (Prefix, (self.messages,))

    def __repr__(self) -> str:
        return f"Prefix({len(self.messages)} messages, {self.copy().hexdigest()[:8]})"


EMPTY_PREFIX = Prefix()
"""The prefix of a request that has none."""


@lru_cache(maxsize=4096, typed=True)
def _encode_options(
    temperature: float | None,
    max_tokens: int | None,
    top_p: float | None,
    stop: tuple[str, ...],
    seed: int | None,
    response_format: str | None,
    replicate: int,
    extra: tuple[tuple[str, str], ...],
) -> bytes:
    values = [
        None if temperature is None else float(temperature),
        max_tokens,
        None if top_p is None else float(top_p),
        stop,
        seed,
        response_format,
        replicate,
        extra,
    ]
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def canonical_json(value: object) -> str:
    """Return the JSON text of `value` with sorted keys and no blanks.

    Raises:
        TypeError: `value` holds something JSON has no form for.
        ValueError: `value` holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _number(name: str, value: object, low: float, high: float | None = None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number, not {type(value).__name__}")
    if not value >= low or (high is not None and value > high):
        bound = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} is {bound}, not {value!r}")


def normalize_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check sampling options and bring them into the form in which `Request` holds them.

    Names that are not fields of `Request` are provider options and are collected, as JSON text, in `extra`.

    Raises:
        TypeError: An option has the wrong type, or cannot be written as JSON.
        ValueError: An option is out of its range, or is a secret (which would end up in keys and journals).
    """
    known: dict[str, Any] = {}
    extra: dict[str, str] = dict(options.get("extra", ()))
    for name, value in options.items():
        if name.lower() in _SECRETS:
            raise ValueError(
                f"{name!r} is not an option of a request, because requests are digested and journalled; "
                f"give it to the LM instead, for example promptgrad.lm.HTTP(..., api_key=...)"
            )
        if name in _OPTIONS:
            known[name] = value
        else:
            extra[name] = canonical_json(value)
    if extra:
        known["extra"] = tuple(sorted(extra.items()))
    stop = known.get("stop")
    if "stop" in known:
        stops = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(isinstance(s, str) and s for s in stops):
            raise ValueError(f"stop is a non-empty str or a sequence of them, not {stop!r}")
        known["stop"] = stops
    form = known.get("response_format")
    if form is not None and not isinstance(form, str):
        known["response_format"] = canonical_json(form)
    _number("temperature", known.get("temperature"), 0)
    _number("top_p", known.get("top_p"), 0, 1)
    for name in ("temperature", "top_p"):
        if known.get(name) is not None:
            known[name] = float(known[name])
    for name, low in (("max_tokens", 1), ("replicate", 0), ("seed", -(2**63))):
        value = known.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name} is an int, not {type(value).__name__}")
        _number(name, value, low)
    return known


@dataclass(frozen=True, slots=True, init=False)
class Request:
    """One request to a language model; frozen, hashable and digestible.

    `Request.of(...)` is the checked way to make one; the constructor trusts its caller and is meant for code
    that runs once per call.

    Args:
        prefix: The compiled first part of the conversation.
        tail: The messages that follow it.
        temperature: Sampling temperature; None leaves it to the LM.
        max_tokens: Largest number of tokens of the reply; None leaves it to the LM.
        top_p: Nucleus mass; None leaves it to the LM.
        stop: Texts at which the reply ends.
        seed: Sampling seed, where the LM knows one.
        response_format: JSON text of an OpenAI `response_format`.
        replicate: Which of several independent replies to the same prompt is meant; part of the digest.
        extra: Options of one provider: name and JSON text, sorted by name.
    """

    prefix: Prefix = EMPTY_PREFIX
    tail: tuple[Message, ...] = ()
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: str | None = None
    replicate: int = 0
    extra: tuple[tuple[str, str], ...] = ()

    def __init__(
        self,
        prefix: Prefix = EMPTY_PREFIX,
        tail: tuple[Message, ...] = (),
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: tuple[str, ...] = (),
        seed: int | None = None,
        response_format: str | None = None,
        replicate: int = 0,
        extra: tuple[tuple[str, str], ...] = (),
    ) -> None:
        _set_prefix(self, prefix)
        _set_tail(self, tail)
        _set_temperature(self, temperature)
        _set_max_tokens(self, max_tokens)
        _set_top_p(self, top_p)
        _set_stop(self, stop)
        _set_seed(self, seed)
        _set_response_format(self, response_format)
        _set_replicate(self, replicate)
        _set_extra(self, extra)

    @classmethod
    def of(cls, prompt: Prompt, **options: Any) -> Request:
        """Make a request from a prompt, from messages, from a prefix or from another request.

        Raises:
            TypeError: The prompt or an option has the wrong type.
            ValueError: There is no message, or an option is out of its range or secret.
        """
        if isinstance(prompt, Request):
            return prompt.replace(**options) if options else prompt
        prefix = EMPTY_PREFIX
        tail: tuple[Message, ...] = ()
        if isinstance(prompt, Prefix):
            prefix = prompt
        elif isinstance(prompt, str):
            tail = (Message("user", prompt),)
        elif isinstance(prompt, (Message, Mapping)):
            tail = (_message(prompt),)
        elif isinstance(prompt, (list, tuple)):
            tail = tuple(_message(m) for m in prompt)
        else:
            raise TypeError(
                f"a prompt is a str, a list of messages, a Prefix or a Request, not {type(prompt).__name__}"
            )
        if not tail and not prefix.messages:
            raise ValueError("a request needs at least one message")
        return cls(prefix, tail, **normalize_options(options))

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, in order."""
        return self.prefix.messages + self.tail

    def replace(self, **changes: Any) -> Request:
        """Return a copy with other options (checked), another `tail` or another `prefix`; unknown names go to `extra`.

        Raises:
            TypeError: An option has the wrong type.
            ValueError: An option is out of its range or secret.
        """
        values = {name: getattr(self, name) for name in _FIELDS}
        for name in ("prefix", "tail"):
            if name in changes:
                values[name] = changes.pop(name)
        if not isinstance(values["prefix"], Prefix):
            raise TypeError(f"prefix is a Prefix, not {type(values['prefix']).__name__}")
        values["tail"] = tuple(_message(m) for m in values["tail"])
        if any(name not in _OPTIONS for name in changes):
            changes["extra"] = (*self.extra, *changes.get("extra", ()))
        values.update(normalize_options(changes))
        return Request(**values)

    def options(self) -> dict[str, Any]:
        """Return the options that are set, without the messages."""
        return {name: value for name, default in _DEFAULTS.items() if (value := getattr(self, name)) != default}

    def digest(self, identity: str = "") -> str:
        """Return the hexadecimal digest of everything that is sent, and of `identity` (the LM it is sent to).

        Equal requests have equal digests in every process, wherever prefix and tail meet.
        """
        state = self.prefix.copy()
        tail = self.tail
        if len(tail) == 1:
            role, content = tail[0].role, tail[0].content
            state.update(
                f'{{"role":{encode_basestring_ascii(role)},"content":{encode_basestring_ascii(content)}}},'.encode(
                    "ascii"
                )
            )
        else:
            state.update(encode_messages(tail))
        state.update(
            _encode_options(
                self.temperature,
                self.max_tokens,
                self.top_p,
                self.stop,
                self.seed,
                self.response_format,
                self.replicate,
                self.extra,
            )
        )
        if identity:
            state.update(identity.encode("utf-8", "surrogatepass"))
        digest: str = state.hexdigest()
        return digest

    def to_dict(self) -> dict[str, Any]:
        """Return the request in JSON types, as it is shown and journalled."""
        return {
            "messages": [{"role": m.role, "content": m.content} for m in self.messages],
            **{k: [list(x) for x in v] if k == "extra" else v for k, v in self.options().items()},
        }


(
    _set_prefix,
    _set_tail,
    _set_temperature,
    _set_max_tokens,
    _set_top_p,
    _set_stop,
    _set_seed,
    _set_response_format,
    _set_replicate,
    _set_extra,
) = setters(Request)
_FIELDS = tuple(f.name for f in fields(Request))
_DEFAULTS = {f.name: f.default for f in fields(Request) if f.name not in {"prefix", "tail"}}
_OPTIONS = frozenset(_DEFAULTS)

Prompt = (
    str
    | MessageLike
    | list[MessageLike]
    | list[Message]
    | list[dict[str, str]]
    | tuple[Message, ...]
    | Prefix
    | Request
)
"""What `Request.of` makes a request from."""
