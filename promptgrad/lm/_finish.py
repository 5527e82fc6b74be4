"""What the reasons mean for which replies end, in the words of different providers."""

from collections.abc import Mapping
from typing import Any

CUT = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_length",
        "max_length",
        "token_limit",
        "model_context_window_exceeded",
        "incomplete",
        "length_limit",
        "error_limit",
        "maxpredictedtokensreached",
        "contextlengthreached",
    }
)
"""The reply ran out of tokens."""

FILTERED = frozenset(
    {
        "content_filter",
        "content_filtered",
        "safety",
        "image_safety",
        "recitation",
        "prohibited_content",
        "blocklist",
        "spii",
        "guardrail_intervened",
        "sensitive",
        "error_toxic",
        "language",
        "image_prohibited_content",
        "image_recitation",
    }
)
"""A filter of the provider stopped the reply."""

BROKEN = frozenset(
    {
        "error",
        "insufficient_system_resource",
        "load",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "interrupted",
        "network_error",
        "malformed_function_call",
        "malformed_response",
        "malformed_model_output",
        "malformed_tool_use",
        "unexpected_tool_call",
        "too_many_tool_calls",
        "missing_thought_signature",
        "pause_turn",
        "user_cancel",
        "userstopped",
        "failed",
        "timeout",
        "unload",
        "modelunloaded",
        "refusal",
    }
)
"""The reply broke off, or the model declined to go on: what there is of it is no answer."""


_BAD = CUT | FILTERED | BROKEN


def reason_of(choice: Mapping[str, Any]) -> str:
    """Why a choice of a reply ends; the provider's own word where a router makes a plain stop of it."""
    reason, native = choice.get("finish_reason"), choice.get("native_finish_reason")
    if native is not None and reason in (None, "stop") and isinstance(native, str) and native.lower() in _BAD:
        return native
    return reason if isinstance(reason, str) else "stop"


def message_of(choice: Mapping[str, Any], reason: str) -> Any:
    """The message of a choice; an empty one where there is none and the reason why it ends says so."""
    if reason == "stop" or reason.lower() not in _BAD:
        return choice["message"]
    message = choice.get("message")
    return {"content": None, **message} if isinstance(message, Mapping) else message or {"content": None}
