"""What the reasons mean for which replies end, in the words of different providers."""

CUT = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_length",
        "max_length",
        "token_limit",
        "model_context_window_exceeded",
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
    }
)
"""A filter of the provider stopped the reply."""

BROKEN = frozenset(
    {
        "error",
        "insufficient_system_resource",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "interrupted",
        "network_error",
        "malformed_function_call",
        "refusal",
    }
)
"""The reply broke off, or the model declined to go on: what there is of it is no answer."""
