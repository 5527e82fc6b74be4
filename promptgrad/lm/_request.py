"""The input of a language model: the request, and its digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from promptgrad._frozen import opened, setters
from promptgrad.lm._codec import inline
from promptgrad.lm._message import EMPTY_PREFIX, Message, MessageLike, Prefix, json_messages, to_message
from promptgrad.lm._options import check_request
from promptgrad.lm._parts import count_bytes, json_text

if TYPE_CHECKING:
    from promptgrad.lm._stream import Listener

_SECRETS = frozenset({"api_key", "apikey", "authorization", "headers", "extra_headers", "access_token", "secret"})


def _number(name: str, value: object, low: float, high: float | None = None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number, not {type(value).__name__}")
    if not value >= low or (high is not None and value > high):
        bound = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} is {bound}, not {value!r}")


def normalize_options(options: Mapping[str, Any], cls: type[Request] | None = None) -> dict[str, Any]:
    """Check sampling options and convert them to the fields of `Request`.

    Names that are not fields of `Request` but of many servers are collected, as JSON text, in `extra`, and so are all
    those in `extra_body`.

    Raises:
        TypeError: An option is not known, has the wrong type, or cannot be written as JSON.
        ValueError: An option is out of its range, or is a secret (which would end up in keys and journals).
    """
    known: dict[str, Any] = {}
    fields_of_it = _shape(cls or Request).defaults
    extra: dict[str, str] = dict(options.get("extra", ()))
    for name, value in options.items():
        if name in fields_of_it:
            known[name] = value
        elif name == "max_completion_tokens" and "max_tokens" not in options:
            known["max_tokens"] = value
        elif name == "extra_body":
            for field_name, field_value in _body(value or {}).items():
                _refuse_secret(field_name)
                extra[field_name] = json_text(field_value)
        else:
            _refuse_secret(name)
            check_request(name)
            extra[name] = json_text(value)
    if extra:
        known["extra"] = tuple(sorted(extra.items()))
    stop = known.get("stop")
    if "stop" in known:
        stops = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(isinstance(s, str) and s for s in stops):
            raise ValueError(f"stop is a non-empty str or a sequence of them, not {stop!r}")
        known["stop"] = stops
    grammar = known.get("grammar")
    if grammar is not None and (not isinstance(grammar, str) or not grammar.strip()):
        raise TypeError(f"grammar is a text in llguidance's dialect of Lark, not {grammar!r:.80}")
    form = known.get("response_format")
    if form is not None and not isinstance(form, str):
        known["response_format"] = json_text(form)
    _number("temperature", known.get("temperature"), 0)
    _number("top_p", known.get("top_p"), 0, 1)
    for name in ("temperature", "top_p"):
        if known.get(name) is not None:
            known[name] = float(known[name])
    for name, low in (("max_tokens", 1), ("replicate", 0), ("samples", 1), ("seed", -(2**63))):
        value = known.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name} is an int, not {type(value).__name__}")
        _number(name, value, low)
    return known


def _body(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError("extra_body is a dict of the fields that only your provider knows")
    return value


def _refuse_secret(name: str) -> None:
    if name.lower() in _SECRETS:
        raise ValueError(
            f"{name!r} is not an option of a request, because requests are digested and journalled; "
            f"give it to the LM instead, for example promptgrad.lm.HTTP(..., api_key=...)"
        )


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
        replicate: Number of the reply among several independent ones to the same prompt; part of the digest.
        extra: Options of one provider: name and JSON text, sorted by name. `tools`, `tool_choice` and `logprobs` are
            among them.
        grammar: What the reply must fit, in llguidance's dialect of Lark, for `lm.Local`, which enforces it; servers
            refuse it. A vocabulary of words has a blank behind each word.
        listener: Receiver of the pieces of the reply, for `LM.stream`; not part of the request's value.
        samples: How many replies to ask for at once, where the endpoint can (`n` in OpenAI's dialect): the further ones
            are `Completion.more`. An LM that cannot gives one.
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
    grammar: str | None = None
    listener: Listener | None = field(default=None, compare=False, repr=False)
    samples: int = 1

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
        grammar: str | None = None,
        listener: Listener | None = None,
        samples: int = 1,
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
        _set_grammar(self, grammar)
        _set_listener(self, listener)
        _set_samples(self, samples)

    @staticmethod
    def bare(prefix: Prefix, tail: tuple[Message, ...]) -> Request:
        """`Request(prefix, tail)`, in a third of the time: most calls make a request without options."""
        made = _OpenRequest()
        made.prefix = prefix
        made.tail = tail
        made.temperature = made.max_tokens = made.top_p = made.seed = made.response_format = None
        made.grammar = made.listener = None
        made.stop = made.extra = ()
        made.replicate = 0
        made.samples = 1
        made.__class__ = Request
        return made  # type: ignore[no-any-return]

    @classmethod
    def of(cls, prompt: Prompt = (), **options: Any) -> Request:
        """Make a request from a prompt, from messages, from a prefix or from another request.

        `messages=` is another word for the prompt.

        Raises:
            TypeError: The prompt or an option has the wrong type, or there are a prompt and messages.
            ValueError: There is no message, or an option is out of its range or secret.
        """
        if "messages" in options:
            if prompt != ():
                raise TypeError("a prompt and messages= say the same: pass one of them")
            prompt = options.pop("messages")
        if isinstance(prompt, Request):
            return prompt.replace(**options) if options else prompt
        prefix = EMPTY_PREFIX
        tail: tuple[Message, ...] = ()
        if isinstance(prompt, Prefix):
            prefix = prompt
        elif isinstance(prompt, str):
            tail = (Message("user", prompt),)
        elif isinstance(prompt, (Message, Mapping)):
            tail = (to_message(prompt),)
        elif isinstance(prompt, (list, tuple)):
            tail = tuple(to_message(m) for m in prompt)
        else:
            raise TypeError(
                f"a prompt is a str, a list of messages, a Prefix or a Request, not {type(prompt).__name__}"
            )
        if not tail and not prefix.messages:
            raise ValueError("a request needs at least one message")
        if not options and cls is Request:
            return Request.bare(prefix, tail)
        return cls(prefix, tail, **normalize_options(options, cls))

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
        cls = type(self)
        values = {name: getattr(self, name) for name in _shape(cls).fields}
        for name in ("prefix", "tail", "listener"):
            if name in changes:
                values[name] = changes.pop(name)
        if not isinstance(values["prefix"], Prefix):
            raise TypeError(f"prefix is a Prefix, not {type(values['prefix']).__name__}")
        values["tail"] = tuple(to_message(m) for m in values["tail"])
        if any(name not in _shape(cls).defaults for name in changes):
            changes["extra"] = (*self.extra, *changes.get("extra", ()))
        values.update(normalize_options(changes, cls))
        return cls(**values)

    def with_defaults(self, options: Mapping[str, Any]) -> Request:
        """Return the request with options, in the form of `options()`, where it leaves them open."""
        cls = type(self)
        merged = {**options, **self.options()}
        merged["extra"] = tuple(sorted((dict(options.get("extra", ())) | dict(self.extra)).items()))
        return cls(prefix=self.prefix, tail=self.tail, listener=self.listener, **merged)

    @property
    def nbytes(self) -> int:
        """About how many bytes its messages take; parts of the prefix that are not text are not counted."""
        return len(self.prefix.encoded) + sum([count_bytes(message.content) for message in self.tail])

    def options(self) -> dict[str, Any]:
        """Return the options that are set, without the messages."""
        cls = self.__class__
        shape = _shapes.get(cls) or _shape(cls)
        values = shape.values(self)
        if values == shape.unset:
            return {}
        options = zip(shape.defaults, values, shape.unset, strict=True)
        return {name: value for name, value, default in options if value != default}

    def digest(self, identity: str = "") -> str:
        """Return the hexadecimal digest of the complete request, and of `identity` (the LM it is sent to).

        Equal requests have equal digests in every process, wherever prefix and tail meet.
        """
        state = self.prefix._state.copy()
        tail = self.tail
        said = tail[0] if len(tail) == 1 else None
        if said is not None and said.role == "user" and (content := said.content).__class__ is str:
            text = f'{{"role":"user","content":{encode_basestring_ascii(content)}}},'
        else:
            text = json_messages(tail)
        shape = _shapes.get(self.__class__) or _shape(self.__class__)
        values = shape.values(self)
        options = shape.nothing if values == shape.unset else shape.encode(*values)
        state.update(f"{text}{options}{identity}".encode("utf-8", "surrogatepass"))
        digest: str = state.hexdigest()
        return digest

    def to_dict(self, blob: Callable[[bytes], str] = inline) -> dict[str, Any]:
        """Return the request in JSON types, for display and the journal.

        Args:
            blob: Function that converts bytes to text, by default to base64.
        """
        return {
            "messages": [m.to_dict(blob) for m in self.messages],
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
    _set_grammar,
    _set_listener,
    _set_samples,
) = setters(Request)

_OpenRequest = opened(Request)


class _Shape:
    """The options of a class of requests: all fields except the messages and those that do not compare.

    Attributes:
        fields: Names of all fields.
        defaults: The options with their defaults.
        unset: The defaults alone, which are the values of a request without options.
        values: Function that returns the options of a request, in the same order.
        encode: Function that encodes such values for the digest; it remembers them.
        nothing: What it returns for a request without options.
    """

    def __init__(self, cls: Any) -> None:
        self.fields = tuple(f.name for f in fields(cls))
        self.defaults = {f.name: f.default for f in fields(cls) if f.compare and f.name not in {"prefix", "tail"}}
        self.unset = tuple(self.defaults.values())
        self.values = attrgetter(*self.defaults)
        self.encode = lru_cache(maxsize=4096, typed=True)(self._encode)
        self.nothing = self._encode(*self.unset)

    def _encode(self, *values: Any) -> str:
        """Encode options for the digest: those of the first version by place, later ones by name where they are set."""
        options = list(zip(self.defaults.items(), values, strict=True))
        encoded: list[Any] = [
            float(value) if name in _FLOATS and value is not None else value for (name, _), value in options[:_BY_PLACE]
        ]
        encoded += [[name, value] for (name, default), value in options[_BY_PLACE:] if value != default]
        return json.dumps(encoded, separators=(",", ":"))


_FLOATS = ("temperature", "top_p")
_BY_PLACE = 8  # from temperature to extra

_shapes: dict[Any, _Shape] = {}


def _shape(cls: Any) -> _Shape:
    found = _shapes.get(cls)
    if found is None:
        found = _shapes[cls] = _Shape(cls)
    return found


Prompt = (
    str
    | MessageLike
    | list[MessageLike]
    | list[Message]
    | list[dict[str, str]]
    | list[dict[str, Any]]
    | tuple[Message, ...]
    | Prefix
    | Request
)
"""The argument from which `Request.of` makes a request."""
