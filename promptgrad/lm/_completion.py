"""What comes back from a language model: the completion and its usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptgrad._frozen import setters


@dataclass(frozen=True, slots=True, init=False)
class Usage:
    """What calls cost; usages add.

    Args:
        calls: Requests that were really answered by an LM.
        input_tokens: Tokens sent. Estimated (a quarter of the characters) where a server does not say.
        output_tokens: Tokens received, estimated in the same way.
        usd: Money in US dollars; None where some price is unknown, which a sum keeps.
        cached: Requests answered from a cache, at no cost.
        seconds: Time spent waiting for the LM, summed over calls (concurrent calls overlap).
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    cached: int = 0
    seconds: float = 0.0

    def __init__(
        self,
        calls: int = 0,
        input_tokens: int = 0,
        output_tokens: int = 0,
        usd: float | None = 0.0,
        cached: int = 0,
        seconds: float = 0.0,
    ) -> None:
        _set_calls(self, calls)
        _set_input_tokens(self, input_tokens)
        _set_output_tokens(self, output_tokens)
        _set_usd(self, usd)
        _set_cached(self, cached)
        _set_seconds(self, seconds)

    @property
    def tokens(self) -> int:
        """Tokens sent and received."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            None if self.usd is None or other.usd is None else self.usd + other.usd,
            self.cached + other.cached,
            self.seconds + other.seconds,
        )

    def __radd__(self, other: object) -> Usage:
        return self if other == 0 else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """Return the usage in JSON types."""
        return {
            "calls": self.calls,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "usd": self.usd,
            "cached": self.cached,
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Usage:
        """Make a usage from what `to_dict` returned; missing entries are zero."""
        return cls(**{name: data[name] for name in cls.__slots__ if name in data})


_set_calls, _set_input_tokens, _set_output_tokens, _set_usd, _set_cached, _set_seconds = setters(Usage)

NO_USAGE = Usage()
CACHE_HIT = Usage(cached=1)


@dataclass(frozen=True, slots=True, init=False)
class Completion:
    """The reply of a language model.

    Args:
        text: The reply; a plain `str`.
        usage: What it cost.
        model: The model that answered, as it names itself.
        finish_reason: `stop`, `length` (cut at `max_tokens`), `content_filter`, or what the provider says.
        cached: Whether a cache answered.
        trace: What `lm.Local` needs to send a gradient to its weights; None for every other LM.
    """

    text: str
    usage: Usage = NO_USAGE
    model: str = ""
    finish_reason: str = "stop"
    cached: bool = False
    trace: Any = field(default=None, compare=False, repr=False)

    def __init__(
        self,
        text: str,
        usage: Usage = NO_USAGE,
        model: str = "",
        finish_reason: str = "stop",
        cached: bool = False,  # noqa: FBT001, FBT002 - a field
        trace: Any = None,
    ) -> None:
        _set_text(self, text)
        _set_usage(self, usage)
        _set_model(self, model)
        _set_finish_reason(self, finish_reason)
        _set_was_cached(self, cached)
        _set_trace(self, trace)

    def to_dict(self) -> dict[str, Any]:
        """Return the reply in JSON types, without its trace."""
        return {
            "text": self.text,
            "usage": self.usage.to_dict(),
            "model": self.model,
            "finish_reason": self.finish_reason,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Completion:
        """Make a completion from what `to_dict` returned."""
        usage = Usage.from_dict(data.get("usage") or {})
        return cls(data["text"], usage, data.get("model", ""), data.get("finish_reason", "stop"), usage.cached > 0)

    def as_cached(self) -> Completion:
        """Return the reply as a cache gives it: one cached call, no cost, no trace."""
        return Completion(self.text, CACHE_HIT, self.model, self.finish_reason, True)  # noqa: FBT003 - a field


_set_text, _set_usage, _set_model, _set_finish_reason, _set_was_cached, _set_trace = setters(Completion)
