"""Every exception of promptgrad, in one tree.

```
PromptgradError
├── SignatureError (ValueError)        a signature that cannot be built
├── InputError (TypeError)             a module was called with wrong inputs
├── ParseError (ValueError)            a reply that does not hold the fields asked for
├── LMError (RuntimeError)             a language model did not answer
│   ├── LMConnectionError              it cannot be reached
│   ├── LMTimeoutError                 it took too long
│   ├── LMStatusError                  it answered with an error status
│   │   ├── RateLimitError             429: too many requests
│   │   ├── AuthenticationError        no key, or a wrong one: 401, 403
│   │   └── ContextWindowError         the request is too long for the model
│   ├── LMReplyError                   a body that was cut or is not a completion
│   ├── NoLMError                      no language model is configured
│   │   └── ReplayError                a request that the replayed cassette does not hold
│   └── UnknownPriceError              a money budget, and a model without a price
├── BudgetExceeded                     the next call would not fit the budget
├── JournalError                       a journal that cannot be opened or does not fit the run
├── StateDictError (KeyError)          a state that does not fit the module
├── MetricError                        a metric raised, or gave no usable score
├── DataError (ValueError)             a data set or example that cannot be used
├── AsyncUsageError (RuntimeError)     a blocking call on an event loop, or the reverse
├── GraphError (RuntimeError)          the recorded graph cannot be used this way
├── ConstraintError (ValueError)       a value that a parameter may not take
├── HunkError (ValueError)             an edit that does not apply to its text
└── MissingExtraError (ImportError)    an optional dependency is not installed
```

Facts are attributes as well as part of the message, so that no code has to parse it.
"""

from collections.abc import Iterable, Mapping

__all__ = [
    "AsyncUsageError",
    "AuthenticationError",
    "BudgetExceeded",
    "ConstraintError",
    "ContextWindowError",
    "DataError",
    "GraphError",
    "HunkError",
    "InputError",
    "JournalError",
    "LMConnectionError",
    "LMError",
    "LMReplyError",
    "LMStatusError",
    "LMTimeoutError",
    "MetricError",
    "MissingExtraError",
    "NoLMError",
    "ParseError",
    "PromptgradError",
    "RateLimitError",
    "ReplayError",
    "SignatureError",
    "StateDictError",
    "UnknownPriceError",
    "is_outage",
]


class PromptgradError(Exception):
    """Base of every exception that promptgrad raises on purpose."""


class SignatureError(PromptgradError, ValueError):
    """A signature cannot be built from what was given."""


class InputError(PromptgradError, TypeError):
    """A module was called with a missing, unknown or wrongly typed input."""


class ParseError(PromptgradError, ValueError):
    """A reply does not hold the fields that were asked for.

    Attributes:
        reply: The reply, in full.
        reason: What is wrong with it, in the words that the model gets when it is asked again.
    """

    def __init__(self, message: str, *, reply: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.reply = reply
        self.reason = reason or message


class LMError(PromptgradError, RuntimeError):
    """A language model did not give an answer.

    Attributes:
        replayed: Whether it comes from a cassette, so that the same request brings it again.
    """

    replayed = False


class LMConnectionError(LMError):
    """The server cannot be reached, or closed the connection before it answered."""


class LMTimeoutError(LMError):
    """The answer did not come in time."""


class LMStatusError(LMError):
    """The server answered with an error status.

    Attributes:
        status: The HTTP status, 0 where there is none.
        body: The answer's body, as text.
        retry_after: Seconds that the server asks to wait; None when it does not say.
    """

    def __init__(self, message: str, *, status: int = 0, body: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.retry_after = retry_after


class RateLimitError(LMStatusError):
    """The server answers 429: too many requests."""


class AuthenticationError(LMStatusError):
    """There is no key, or one that the server does not accept: 401 or 403."""


class ContextWindowError(LMStatusError):
    """The request is longer than the model's context window."""


class LMReplyError(LMError):
    """The server answered 200 with a body that was cut or is not a completion.

    Attributes:
        body: The body, as far as it came.
    """

    def __init__(self, message: str, *, body: str = "") -> None:
        super().__init__(message)
        self.body = body


class NoLMError(LMError):
    """No language model is configured for this call."""


class ReplayError(NoLMError):
    """A cassette cannot be read, or does not hold the reply to a request.

    Attributes:
        request: The request, in JSON types; None where the error is not about a request.
    """

    def __init__(self, message: str, *, request: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.request = request


class UnknownPriceError(LMError):
    """A budget in money was asked for, and the model's price is not known."""


class BudgetExceeded(PromptgradError):
    """The next call would not fit the budget; it was not sent.

    Attributes:
        kind: What ran out: "calls", "tokens", "usd" or "seconds".
        limit: The budget.
        used: What is spent and reserved.
    """

    def __init__(self, message: str = "", *, kind: str = "", limit: float = 0, used: float = 0) -> None:
        super().__init__(message or f"the budget of {limit:g} {kind} is used up ({used:g} spent or reserved)")
        self.kind = kind
        self.limit = limit
        self.used = used


class JournalError(PromptgradError):
    """A journal cannot be opened, is held by another writer, or does not fit the run."""


class StateDictError(PromptgradError, KeyError):
    """A state does not fit the module it was loaded into. The message lists all misfits at once.

    Attributes:
        missing: Paths that the module has and the state lacks.
        unexpected: Paths that the state has and the module lacks.
        invalid: Paths whose value the module refuses, each with the reason.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        invalid: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.invalid = tuple(invalid)

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would show the repr, with every newline escaped


class MetricError(PromptgradError):
    """A metric raised, or returned something that is not a score."""


class DataError(PromptgradError, ValueError):
    """A data set or an example cannot be used."""


class AsyncUsageError(PromptgradError, RuntimeError):
    """A blocking call on one of our event loops, or an awaitable where no loop runs."""


class GraphError(PromptgradError, RuntimeError):
    """The recorded graph cannot be used this way, for instance because it was freed."""


class ConstraintError(PromptgradError, ValueError):
    """A parameter may not take this value; the old one stays.

    Attributes:
        value: The refused value.
        reason: Why.
    """

    def __init__(self, message: str, *, value: object = None, reason: str = "") -> None:
        super().__init__(message)
        self.value = value
        self.reason = reason or message


class HunkError(PromptgradError, ValueError):
    """A structured edit does not apply to its text, which stays as it was.

    Attributes:
        index: Place of the hunk that does not fit, from 0; None if there is no hunk at all.
        hunk: That hunk.
    """

    def __init__(self, message: str, *, index: int | None = None, hunk: object = None) -> None:
        super().__init__(message)
        self.index = index
        self.hunk = hunk


class MissingExtraError(PromptgradError, ImportError):
    """An optional dependency is not installed.

    Attributes:
        extra: The extra to install, as in `pip install -e '.[local]'`.
    """

    def __init__(self, message: str = "", *, extra: str = "", package: str = "") -> None:
        hint = f"install it with: pip install -e '.[{extra}]' in a checkout of promptgrad"
        super().__init__(message or f"this needs {package or 'a package that is not installed'}; {hint}")
        self.extra = extra


def is_outage(error: BaseException | None) -> bool:
    """Whether no prompt could have avoided this error: the language model, budget, journal or a package is unavailable.

    A request that is too long for the model is not an outage, since a prompt may be the cause.
    """
    if isinstance(error, ContextWindowError):
        return False
    return isinstance(error, (LMError, BudgetExceeded, JournalError, ImportError))
