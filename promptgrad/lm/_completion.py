"""The reply of a language model: the completion and its usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, NoReturn

from promptgrad._frozen import changer, opened, setters
from promptgrad._habits import Hinted
from promptgrad.content import Citation
from promptgrad.lm._codec import from_plain, to_plain
from promptgrad.lm._finish import BROKEN, CUT, FILTERED
from promptgrad.lm._message import Message
from promptgrad.lm._parts import PARTS, Content, Part, ReasoningPart, TextPart, ToolCall, count_bytes, show, text_of


@dataclass(frozen=True, slots=True, init=False)
class Usage:
    """The cost of calls; usages add.

    Args:
        calls: Requests that an LM answered, without those from a cache.
        input_tokens: Tokens sent. Estimated (a quarter of the characters) where a server does not report them.
        output_tokens: Tokens received, estimated in the same way.
        usd: Money in US dollars; None where some price is unknown, also in sums.
        cached: Requests answered from a cache, at no cost.
        seconds: Time spent waiting for the LM, summed over calls (concurrent calls overlap).
        cached_input_tokens: Tokens sent that the provider had in a cache of its own, as far as it tells; a part of
            `input_tokens`.
    """

    written_in_full: ClassVar[bool] = True
    written_if_set: ClassVar[frozenset[str]] = frozenset({"cached_input_tokens"})

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    cached: int = 0
    seconds: float = 0.0
    cached_input_tokens: int = 0

    def __init__(
        self,
        calls: int = 0,
        input_tokens: int = 0,
        output_tokens: int = 0,
        usd: float | None = 0.0,
        cached: int = 0,
        seconds: float = 0.0,
        cached_input_tokens: int = 0,
    ) -> None:
        _set_calls(self, calls)
        _set_input_tokens(self, input_tokens)
        _set_output_tokens(self, output_tokens)
        _set_usd(self, usd)
        _set_cached(self, cached)
        _set_seconds(self, seconds)
        _set_cached_input_tokens(self, cached_input_tokens)

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
            self.cached_input_tokens + other.cached_input_tokens,
        )

    def __radd__(self, other: object) -> Usage:
        return self if other == 0 else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """Return the usage in JSON types."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Usage:
        """Make a usage from what `to_dict` returned; missing entries are zero."""
        return from_plain(cls, data)


(
    _set_calls,
    _set_input_tokens,
    _set_output_tokens,
    _set_usd,
    _set_cached,
    _set_seconds,
    _set_cached_input_tokens,
) = setters(Usage)

_OpenUsage = opened(Usage)


def make_usage(
    input_tokens: int, output_tokens: int, usd: float | None, seconds: float, cached_input_tokens: int = 0
) -> Usage:
    """The usage of one call."""
    made = _OpenUsage()
    made.calls = 1
    made.input_tokens = input_tokens
    made.output_tokens = output_tokens
    made.usd = usd
    made.cached = 0
    made.seconds = seconds
    made.cached_input_tokens = cached_input_tokens
    made.__class__ = Usage
    return made  # type: ignore[no-any-return]


NO_USAGE = Usage()
CACHE_HIT = Usage(cached=1)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The probability of a token of a reply.

    Args:
        token: Its text.
        logprob: Its log-probability.
        top: The likeliest tokens in its place with their log-probabilities, as many as were requested.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


# What a user of OpenAI's client or DSPy may type out of habit, and what to write here.
_ELSEWHERE = {
    **dict.fromkeys(("choices", "outputs"), "completion.text, or completion.samples where several were asked for"),
    **dict.fromkeys(("output_text", "strip", "split", "lower"), "completion.text"),
    "reasoning_content": "completion.reasoning",
}


@dataclass(frozen=True, slots=True, init=False)
class Completion(Hinted):
    """The reply of a language model.

    Args:
        content: The reply: a plain `str`, or parts where it is more than text.
        usage: Its cost.
        model: The model that answered, as it names itself.
        finish_reason: `stop`, `length` (cut at `max_tokens`), `tool_calls`, `content_filter`, or a reason of the
            provider's own.
        cached: True if it comes from a cache.
        refusal: The model's refusal in its own words, where its provider separates refusals from answers.
        logprobs: The probability of each token; empty unless the request sets `logprobs`.
        trace: The trace by which `lm.Local` sends a gradient to its weights; None for every other LM.
        answered_by: Name of the LM that answered in place of the one that was asked, where a `Fallback` went on to it.
        more: The further samples of a request that asked for several. The cost of all is the first one's.
        citations: What the reply cites, as its provider tells it: passages of documents, pages that were searched.
    """

    text_names: ClassVar[Mapping[str, str]] = {"content": "text"}
    _elsewhere: ClassVar[Mapping[str, str]] = _ELSEWHERE

    content: Content
    usage: Usage = NO_USAGE
    model: str = ""
    finish_reason: str = "stop"
    cached: bool = False
    refusal: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    trace: Any = field(default=None, compare=False, repr=False)
    more: tuple[Completion, ...] = ()
    answered_by: str = ""
    citations: tuple[Citation, ...] = ()

    def __init__(
        self,
        content: Content,
        usage: Usage = NO_USAGE,
        model: str = "",
        finish_reason: str = "stop",
        cached: bool = False,  # noqa: FBT001, FBT002 - a field
        refusal: str = "",
        logprobs: tuple[TokenLogprob, ...] = (),
        trace: Any = None,
        more: tuple[Completion, ...] = (),
        answered_by: str = "",
        citations: tuple[Citation, ...] = (),
    ) -> None:
        _set_content(self, content)
        _set_usage(self, usage)
        _set_model(self, model)
        _set_finish_reason(self, finish_reason)
        _set_is_cached(self, cached)
        _set_refusal(self, refusal)
        _set_logprobs(self, logprobs)
        _set_trace(self, trace)
        _set_more(self, more)
        _set_answered_by(self, answered_by)
        _set_citations(self, citations)

    @property
    def text(self) -> str:
        """The text alone; empty where the reply consists of tool calls."""
        content = self.content
        return content if isinstance(content, str) else text_of(content)

    def __getitem__(self, place: object) -> NoReturn:
        raise TypeError("a completion is one reply and no list of replies: write completion.text")

    @property
    def nbytes(self) -> int:
        """About how many bytes the reply takes."""
        return count_bytes(self.content) + sum([other.nbytes for other in self.more])

    @property
    def samples(self) -> tuple[Completion, ...]:
        """All samples of a request that asked for several; of any other, the reply alone."""
        return (self, *self.more)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The reply as parts, even if it is text alone."""
        content = self.content
        if isinstance(content, str):
            return (TextPart(content),) if content else ()
        return content

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the reply, in the model's order."""
        content = self.content
        return () if isinstance(content, str) else tuple(part for part in content if isinstance(part, ToolCall))

    @property
    def reasoning(self) -> str:
        """The model's reasoning before its answer, as far as its provider shows it."""
        content = self.content
        if isinstance(content, str):
            return ""
        return "".join(part.text for part in content if isinstance(part, ReasoningPart))

    @property
    def is_cut(self) -> bool:
        """True if the reply ran out of tokens, in any provider's words."""
        return self.finish_reason != "stop" and self.finish_reason.lower() in CUT

    @property
    def is_filtered(self) -> bool:
        """True if a filter of the provider stopped the reply."""
        return self.finish_reason != "stop" and self.finish_reason.lower() in FILTERED

    @property
    def is_broken(self) -> bool:
        """True if the reply broke off for another reason, such as a fault of the server."""
        return self.finish_reason != "stop" and self.finish_reason.lower() in BROKEN

    @property
    def preview(self) -> str:
        """The reply as people read it: with its reasoning, its calls of tools and its refusal, each on a line."""
        shown = show(self.content)
        return f"{shown}\n<refusal {self.refusal}>".lstrip("\n") if self.refusal else shown

    @property
    def message(self) -> Message:
        """The reply as a message, to continue the conversation: with its tool calls and its sealed reasoning."""
        return Message("assistant", self.content)

    def to_dict(self) -> dict[str, Any]:
        """Return the reply in JSON types, without its trace: `text`, or `content` where it is more than text."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Completion:
        """Make a completion from what `to_dict` returned, in this version or in 0.1.

        Raises:
            ValueError: The data is of a later version, or not a completion.
        """
        if "trace" in data:  # of a local model, which reads it
            data = {name: value for name, value in data.items() if name != "trace"}
        found = from_plain(cls, data)
        content: object = found.content
        if not isinstance(content, str) and not (isinstance(content, tuple) and all(map(_is_part, content))):
            raise ValueError(f"the content of a completion is a text or parts, not {content!r:.80}")
        return replace(found, cached=True) if found.usage.cached and not found.cached else found  # 0.1 did not write it

    def as_cached(self) -> Completion:
        """Return the reply as a cache returns it: one cached call, no cost, no trace."""
        cls: Any = self.__class__
        completion: Completion = _as_cached(cls)(self, CACHE_HIT, True, None)  # noqa: FBT003 - a field
        return completion


(
    _set_content,
    _set_usage,
    _set_model,
    _set_finish_reason,
    _set_is_cached,
    _set_refusal,
    _set_logprobs,
    _set_trace,
    _set_more,
    _set_answered_by,
    _set_citations,
) = setters(Completion)

_OpenCompletion = opened(Completion)


def make_completion(
    content: Content, usage: Usage, model: str, finish_reason: str = "stop", refusal: str = ""
) -> Completion:
    """A completion as most come from a model."""
    made = _OpenCompletion()
    made.content = content
    made.usage = usage
    made.model = model
    made.finish_reason = finish_reason
    made.cached = False
    made.refusal = refusal
    made.answered_by = ""
    made.trace = None
    made.logprobs = made.more = made.citations = ()
    made.__class__ = Completion
    return made  # type: ignore[no-any-return]


def _is_part(item: object) -> bool:
    return isinstance(item, tuple(PARTS.values()))


@cache
def _as_cached(cls: Any) -> Callable[..., Any]:
    return changer(cls, "usage", "cached", "trace")
