"""Language models: the protocol, the transports that reach a model, and the layers around them."""

from typing import TYPE_CHECKING

from promptgrad.lm._base import LM
from promptgrad.lm._base import register_maker as _register_maker
from promptgrad.lm._completion import CACHE_HIT, Completion, TokenLogprob, Usage
from promptgrad.lm._configure import configure, context, resolve_lm
from promptgrad.lm._function import FunctionLM
from promptgrad.lm._message import EMPTY_PREFIX, Message, Prefix, unmarked
from promptgrad.lm._parts import (
    AudioPart,
    Content,
    DocumentMark,
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
    bound,
    expected_tokens,
    weigh,
)
from promptgrad.lm._request import Request
from promptgrad.lm._resolve import resolve
from promptgrad.lm._settings import Replicated, Settings, current
from promptgrad.lm._stream import Delta, Event, Listener, ReasoningDelta, TextDelta, ToolCallDelta
from promptgrad.lm._thinking import without_thinking
from promptgrad.lm._time_limit import TimeLimit, deadline
from promptgrad.lm._transport import Transport
from promptgrad.lm._usage import UsageTracker, attribute, track_usage, usage

__all__ = [
    "CACHE_HIT",
    "EMPTY_PREFIX",
    "HTTP",
    "LM",
    "PAGES",
    "PART_TOKENS",
    "Api",
    "AudioPart",
    "BatchLM",
    "Cache",
    "CacheDiff",
    "CacheEntry",
    "Cassette",
    "Completion",
    "Content",
    "Delta",
    "DocumentMark",
    "Embedder",
    "Event",
    "Fallback",
    "FilePart",
    "FunctionLM",
    "Generation",
    "Hedge",
    "ImagePart",
    "JobState",
    "Layer",
    "Limit",
    "Listener",
    "LiteLLM",
    "Local",
    "LocalLora",
    "LocalPlan",
    "LocalSoft",
    "LocalTrace",
    "Message",
    "Part",
    "Prefix",
    "ReasoningDelta",
    "ReasoningPart",
    "Replicated",
    "Request",
    "Retry",
    "SampleGroup",
    "SamplesInOne",
    "Scored",
    "ServerJobs",
    "Settings",
    "SoftTokens",
    "TextDelta",
    "TextPart",
    "TimeLimit",
    "TokenLogprob",
    "Tokens",
    "ToolCall",
    "ToolCallDelta",
    "ToolResult",
    "Transport",
    "Usage",
    "UsageTracker",
    "attribute",
    "bound",
    "configure",
    "context",
    "current",
    "deadline",
    "expected_tokens",
    "items_of",
    "json_grammar",
    "json_rule",
    "layered",
    "lora_options",
    "owned",
    "passes",
    "passes_elsewhere",
    "pocket",
    "read_message",
    "record",
    "replay",
    "reply_logprobs",
    "resolve",
    "resolve_lm",
    "sampled",
    "track_usage",
    "unmarked",
    "usage",
    "weigh",
    "without_thinking",
    "write_messages",
]

if TYPE_CHECKING:
    from promptgrad.lm._api import Api
    from promptgrad.lm._batch_lm import BatchLM
    from promptgrad.lm._cache import Cache
    from promptgrad.lm._cache_entry import CacheDiff, CacheEntry
    from promptgrad.lm._cassette import Cassette, record
    from promptgrad.lm._dialect import read_message, write_messages
    from promptgrad.lm._embedder import Embedder
    from promptgrad.lm._fallback import Fallback, passes_elsewhere
    from promptgrad.lm._hedge import Hedge
    from promptgrad.lm._http import HTTP
    from promptgrad.lm._job_state import JobState, owned
    from promptgrad.lm._json_grammar import json_grammar, json_rule
    from promptgrad.lm._layer import Layer, layered
    from promptgrad.lm._likelihood import Scored, Tokens, passes, reply_logprobs
    from promptgrad.lm._limit import Limit
    from promptgrad.lm._litellm import LiteLLM
    from promptgrad.lm._local import Local
    from promptgrad.lm._local_engine import Generation
    from promptgrad.lm._local_lora import LocalLora, lora_options
    from promptgrad.lm._local_plan import LocalPlan
    from promptgrad.lm._local_soft import LocalSoft
    from promptgrad.lm._local_trace import LocalTrace
    from promptgrad.lm._pocket import pocket
    from promptgrad.lm._prefix_plan import PART_TOKENS
    from promptgrad.lm._replay import replay
    from promptgrad.lm._retry import Retry
    from promptgrad.lm._samples import SampleGroup, SamplesInOne, sampled
    from promptgrad.lm._server_jobs import PAGES, ServerJobs, items_of
    from promptgrad.lm._soft_tokens import SoftTokens
else:
    from promptgrad._late import late

    _LATE = {
        "Api": "_api",
        "BatchLM": "_batch_lm",
        "Cache": "_cache",
        "CacheDiff": "_cache_entry",
        "CacheEntry": "_cache_entry",
        "Cassette": "_cassette",
        "Embedder": "_embedder",
        "Fallback": "_fallback",
        "Generation": "_local_engine",
        "HTTP": "_http",
        "Hedge": "_hedge",
        "JobState": "_job_state",
        "Layer": "_layer",
        "Limit": "_limit",
        "LiteLLM": "_litellm",
        "Local": "_local",
        "LocalLora": "_local_lora",
        "LocalPlan": "_local_plan",
        "LocalSoft": "_local_soft",
        "LocalTrace": "_local_trace",
        "PAGES": "_server_jobs",
        "PART_TOKENS": "_prefix_plan",
        "Retry": "_retry",
        "SampleGroup": "_samples",
        "SamplesInOne": "_samples",
        "Scored": "_likelihood",
        "ServerJobs": "_server_jobs",
        "SoftTokens": "_soft_tokens",
        "Tokens": "_likelihood",
        "items_of": "_server_jobs",
        "json_grammar": "_json_grammar",
        "json_rule": "_json_grammar",
        "layered": "_layer",
        "lora_options": "_local_lora",
        "owned": "_job_state",
        "passes": "_likelihood",
        "passes_elsewhere": "_fallback",
        "pocket": "_pocket",
        "read_message": "_dialect",
        "record": "_cassette",
        "replay": "_replay",
        "reply_logprobs": "_likelihood",
        "sampled": "_samples",
        "write_messages": "_dialect",
    }

    def _make_lora(*args, **options):
        from promptgrad.lm._local_lora import LocalLora

        return LocalLora(*args, **options)

    _register_maker("LocalLora", _make_lora)

    __getattr__, __dir__ = late(__name__, _LATE, {"Function": "promptgrad.lm.FunctionLM"})
