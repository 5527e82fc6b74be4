"""`error_kind`: the error class of an HTTP status."""

from __future__ import annotations

from promptgrad.errors import AuthenticationError, ContextWindowError, LMStatusError, RateLimitError

_TOO_LONG = ("context_length", "context length", "context window", "maximum context")


def error_kind(status: int, body: str) -> type[LMStatusError]:
    """Return the error class for a status and the body of the answer."""
    if status == 429:
        return RateLimitError
    if status in {401, 403}:
        return AuthenticationError
    text = body.lower()
    if status in {400, 413, 422} and any(hint in text for hint in _TOO_LONG):
        return ContextWindowError
    return LMStatusError
