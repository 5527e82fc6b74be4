"""What the errors of a server say beside its own words: the cause, as far as it is known, and what to set."""

from __future__ import annotations

import errno
import json
import re
from typing import TYPE_CHECKING

from promptgrad._patterns import late_pattern
from promptgrad.errors import (
    AuthenticationError,
    BillingError,
    ContextWindowError,
    LMConnectionError,
    LMTimeoutError,
    OverloadedError,
    RateLimitError,
)
from promptgrad.lm._traffic import OTHERS

if TYPE_CHECKING:
    from promptgrad.lm._endpoint import Endpoint
    from promptgrad.lm._status import Fault


def advise(fault: Fault, model: str, variable: str | None, address: str = "") -> str:
    """What to do about an error, to be put behind its message.

    Args:
        fault: The error.
        model: The model's name.
        variable: The variable of the environment that holds the key; empty where it would not be sent, None for none.
        address: The address that was asked, where it is known.
    """
    kind, wait = fault.kind, fault.retry_after
    asked = "" if wait is None else f"; it asks to wait {wait:g} s"
    if kind is AuthenticationError:
        if variable is None:
            return "; pass api_key="
        if not variable:
            return "; a key from the environment is not sent over plain http: use https, or pass api_key="
        return f"; set {variable}, or pass api_key="
    if kind is BillingError:
        return "; the account has no money or quota left, and waiting does not help"
    if kind is RateLimitError:
        return f"{asked}; requests_per_minute=, tokens_per_minute= or a lower concurrency= keep below its rate"
    if kind is OverloadedError:
        return f"{asked}; lower concurrency= if it is too much at once"
    if kind is ContextWindowError:
        return "; use fewer or shorter demos or inputs, or a lower max_tokens="
    if fault.status == 404:
        if address.count("/") == 2:  # a host alone
            return f"; is {model!r} served there, and is its base_url {address}/v1?"
        return f"; is {model!r} served there, and does base_url end where /chat/completions begins?"
    if 300 <= fault.status < 400:
        return "; redirects are not followed: give base_url as the server wants it"
    return asked


def out_of_time(error: BaseException, where: str, timeout: float, passed_by: int) -> LMTimeoutError | LMConnectionError:
    """The error of a server that was silent for too long.

    Args:
        error: The client's own.
        where: The endpoint.
        timeout: The limit.
        passed_by: Number of later requests that were answered in the meantime.
    """
    if "connect" in type(error).__name__.lower() or "Connection timeout" in str(error):
        return LMConnectionError(f"cannot reach {where}: no connection in time; does the server run there?")
    whole = "timeout on reading" not in str(error).lower() and type(error).__name__ == "TimeoutError"
    limit = f"{6 * timeout:g} s, which is six times timeout=" if whole else f"{timeout:g} s of silence (timeout=)"
    failure = LMTimeoutError(
        f"no answer from {where} within {limit}; a slow model needs a longer one. It may still be running there"
    )
    failure.transient = passed_by >= OTHERS  # this one is lost, not slow
    return failure


def unreachable(error: BaseException, endpoint: Endpoint, reason: str) -> LMConnectionError:
    """The error of a server that cannot be reached; one that cannot be there at all is not tried again."""
    import socket  # not before a call went over HTTP

    cause = getattr(error, "os_error", None) or error
    reason = reason or type(error).__name__
    failure = LMConnectionError(f"cannot reach {endpoint.url}: {reason}; does the server run there?")
    if endpoint.here and isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
        failure = LMConnectionError(
            f"cannot reach {endpoint.url}: nothing listens there; does the server run there? Start it, or give its "
            "address as base_url="
        )
        failure.transient = False
    elif (
        (isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN)
        or "SSL" in type(error).__name__
        or "Certificate" in type(error).__name__
    ):
        failure.transient = False
    return failure


_NO_SUCH_HOST = late_pattern(r"name or service not known|nodename nor servname|no address associated", re.IGNORECASE)
_NOBODY = late_pattern(r"connect call failed|connection refused|all connection attempts failed", re.IGNORECASE)


def unreached(message: str, text: str, *, here: bool) -> LMConnectionError:
    """The error of a server that a client library could not reach, as `unreachable` is that of our own client.

    Args:
        message: The message.
        text: All that the library says.
        here: Whether the server is on this machine.
    """
    failure = LMConnectionError(f"{message}; does the server run there?")
    failure.transient = not (_NO_SUCH_HOST.search(text) or (here and _NOBODY.search(text)))
    return failure


def proxy_name(proxy: str | None) -> str:
    """A proxy's address as it can be shown."""
    return (proxy or "").rpartition("@")[2] or "of the environment"


def without_names(text: str) -> str:
    """The provider's words, without the names of litellm's own classes before them, which say what litellm guessed."""
    told = re.sub(r"\b(?:litellm\.)?\w+(?:Error|Exception)\b\s*[:-]?\s*", "", text)
    start = told.find("{")
    return told[start : told.rfind("}") + 1] if start >= 0 and _is_json(told[start : told.rfind("}") + 1]) else told


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
