"""Every exception of promptgrad, in one tree.

```
PromptgradError
├── SignatureError (ValueError)        a signature that cannot be built
├── InputError (TypeError)             a module was called with wrong inputs
├── ParseError (ValueError)            a reply that does not hold the fields asked for
│   ├── CutReplyError                  it ran out of tokens before its end
│   ├── RefusalError                   the model refused to answer
│   └── ToolCallError                  it calls a tool that is not there, or with arguments that do not fit
├── LMError (RuntimeError)             a language model did not answer
│   ├── LMConnectionError              it cannot be reached
│   ├── LMTimeoutError                 it was silent for too long
│   │   └── ServerTimeoutError         it answers that it took too long itself: 408, 504
│   ├── LMStatusError                  it answered with an error
│   │   ├── RateLimitError             too many requests or tokens a minute: wait
│   │   ├── OverloadedError            the server has no room, or is still loading: wait
│   │   ├── AuthenticationError        no key, a wrong one, or one that may not do this
│   │   ├── BillingError               no money or quota left in the account
│   │   ├── BadRequestError            it refuses the request as it is written
│   │   ├── ContextWindowError         the request is too long
│   │   └── ContentFilterError         a filter of the provider stopped the prompt or the reply
│   ├── LMReplyError                   a body that was cut or is not a completion
│   ├── NoLMError                      no language model is configured
│   │   └── ReplayError                a request that the replayed cassette does not hold
│   └── UnknownPriceError              a money budget, and a model without a price
├── JobError (RuntimeError)            a fine-tuning job at a provider ended without a model
├── DeadlineError (TimeoutError)       the time of a `deadline` is over
├── BudgetExceeded                     the next call would not fit the budget
├── JournalError                       a journal that cannot be opened or does not fit the run
├── StateDictError (KeyError)          a state that does not fit the module
├── MetricError                        a metric raised, or gave no usable score
├── DataError (ValueError)             a data set or example that cannot be used
├── AsyncUsageError (RuntimeError)     a blocking call on an event loop, or the reverse
├── GraphError (RuntimeError)          the recorded graph cannot be used this way
├── ConstraintError (ValueError)       a value that a parameter may not take
├── CheckError (AssertionError)        what a program asserts does not hold
├── StepLimitError (RuntimeError)      a model that calls tools did not finish in time
├── SandboxError (RuntimeError)        a machine on which code cannot be run safely
├── ToolError (RuntimeError)           a tool reports that it failed
│   ├── ToolTimeoutError (TimeoutError)  it gave no result in its time
│   └── ToolServerError                its server cannot be started or reached, or has ended
├── HunkError (ValueError)             an edit that does not apply to its text
├── OutOfMemoryError (MemoryError)     a training that does not fit into memory
└── MissingExtraError (ImportError)    an optional dependency is not installed
```

Facts are attributes as well as part of the message, so that no code has to parse it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "FATAL",
    "AsyncUsageError",
    "AuthenticationError",
    "BadRequestError",
    "BillingError",
    "BudgetExceeded",
    "CheckError",
    "ConstraintError",
    "ContentFilterError",
    "ContextWindowError",
    "CutReplyError",
    "DataError",
    "DeadlineError",
    "GraphError",
    "HunkError",
    "InputError",
    "JobError",
    "JournalError",
    "LMConnectionError",
    "LMError",
    "LMReplyError",
    "LMStatusError",
    "LMTimeoutError",
    "MetricError",
    "MissingExtraError",
    "NoLMError",
    "OutOfMemoryError",
    "OverloadedError",
    "ParseError",
    "PromptgradError",
    "RateLimitError",
    "RefusalError",
    "ReplayError",
    "SandboxError",
    "ServerTimeoutError",
    "SignatureError",
    "StateDictError",
    "StepLimitError",
    "ToolCallError",
    "ToolError",
    "ToolServerError",
    "ToolTimeoutError",
    "UnknownPriceError",
    "is_outage",
    "kind_of",
    "may_be_paid",
    "recall",
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


class CutReplyError(ParseError):
    """A reply ran out of tokens, so its end is missing.

    It is not mended, and not asked for again with the same limit.

    Attributes:
        max_tokens: The limit of the request; None where the language model's own limit counted.
    """

    def __init__(self, message: str, *, reply: str = "", reason: str = "", max_tokens: int | None = None) -> None:
        super().__init__(message, reply=reply, reason=reason)
        self.max_tokens = max_tokens


class RefusalError(ParseError):
    """The model declined to answer, in words that its provider keeps apart from answers.

    Attributes:
        refusal: What it said, also in `reply`.
    """

    def __init__(self, message: str, *, refusal: str = "", reply: str = "", reason: str = "") -> None:
        super().__init__(message, reply=reply or refusal, reason=reason)
        self.refusal = refusal or reply


class ToolCallError(ParseError):
    """A reply calls a tool that is not there, or with arguments that do not fit.

    The model is asked again in the form of its provider: each call gets the reason as its result.
    """


class LMError(PromptgradError, RuntimeError):
    """A language model did not give an answer.

    Attributes:
        transient: Whether the same request may succeed a little later; `Retry` sends it again then, and only then.
        replayed: Whether it comes from a cassette or the journal of a run, so that the same request brings it again.
        call: Key of the failed call in the journal of the run; empty outside of a run.
        billed: The cost of a request that brought no reply, where the server says one: a mapping with `input_tokens`,
            `output_tokens` and `usd` (None if the price is unknown). Budgets count it.
    """

    transient: bool = False
    replayed: bool = False
    call: str = ""
    billed: Mapping[str, int | float | None] | None = None


class LMConnectionError(LMError):
    """The server cannot be reached, or closed the connection before it answered."""

    transient = True


class LMTimeoutError(LMError):
    """The server was silent for too long. What it was asked may still be running, and be billed."""


_PASSING = frozenset({408, 409, 424, 425, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses that may pass by themselves, where nothing says what they mean."""


class LMStatusError(LMError):
    """The server answered with an error.

    Attributes:
        status: The HTTP status, or the one that the answer names; 0 where there is none.
        body: The answer's body, as text.
        retry_after: Seconds that the server asks to wait; None when it does not say.
    """

    def __init__(self, message: str, *, status: int = 0, body: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.retry_after = retry_after
        if type(self) is LMStatusError:  # its kinds say themselves whether they pass
            self.transient = status in _PASSING


class ServerTimeoutError(LMTimeoutError, LMStatusError):
    """The server, or a gateway before it, answers that the reply took too long: 408, 504, 524."""

    transient = True


class RateLimitError(LMStatusError):
    """More requests or tokens than the account, or the server, takes at a time."""

    transient = True


class OverloadedError(LMStatusError):
    """The server has no room for the request now, or still loads the model."""

    transient = True


class AuthenticationError(LMStatusError):
    """There is no key, the server does not accept it, or it may not be used for this."""


class BillingError(LMStatusError):
    """The account has no money or no quota left; waiting does not help."""


class BadRequestError(LMStatusError):
    """The server refuses the request as it is written: an unknown model, a field or a value that it does not take."""


class ContextWindowError(LMStatusError):
    """The request, with the room for its reply, is longer than the model reads or the account may send."""


class ContentFilterError(LMStatusError):
    """A filter of the provider stopped the prompt or the reply; `body` has what there is of it."""


class LMReplyError(LMError):
    """The server answered 200 with a body that was cut, is too large, or is not a completion.

    Attributes:
        body: The body, as far as it came.
    """

    transient = True

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


class JobError(PromptgradError, RuntimeError):
    """A fine-tuning job at a provider ended without a model, or it is not known whether there is one.

    Attributes:
        job: The job's id; "" where it is not known.
        status: Its status, such as "failed" or "cancelled"; "" where it is not known.
        reason: Why, in the provider's words.
    """

    def __init__(self, message: str, *, job: str = "", status: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.job = job
        self.status = status
        self.reason = reason


class DeadlineError(PromptgradError, TimeoutError):
    """The time of a `deadline` is over; the call was cancelled, or not sent.

    Attributes:
        seconds: The time that there was.
        replayed: Whether it comes from the journal of a run, in which there was no time for this call.
        call: Key of the call in the journal of the run; empty outside of a run.
    """

    replayed: bool = False
    call: str = ""

    def __init__(self, message: str = "", *, seconds: float = 0.0) -> None:
        super().__init__(message or f"the {seconds:g} seconds of a deadline are over")
        self.seconds = seconds


class BudgetExceeded(PromptgradError):
    """The next call would not fit the budget; it was not sent.

    Attributes:
        kind: What ran out: "calls", "tokens", "usd" or "seconds".
        limit: The budget.
        used: What is spent and reserved.
    """

    def __init__(self, message: str = "", *, kind: str = "", limit: float = 0, used: float = 0) -> None:
        amount = "" if kind == "seconds" else f" ({used:g} spent or reserved)"  # a resumed run says the same of time
        super().__init__(message or f"the budget of {limit:g} {kind} is used up{amount}")
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


class CheckError(PromptgradError, AssertionError):
    """What a program states with `nn.Assert` does not hold.

    Attributes:
        reason: What should hold, in words.
        node: The recorded call that it is about; None where nothing was recorded.
    """

    def __init__(self, message: str, *, reason: str = "", node: Any = None) -> None:
        super().__init__(message)
        self.reason = reason or message
        self.node = node


class StepLimitError(PromptgradError, RuntimeError):
    """A model that calls tools did not finish within its steps.

    Attributes:
        steps: How many it had.
    """

    def __init__(self, message: str, *, steps: int = 0) -> None:
        super().__init__(message)
        self.steps = steps


class SandboxError(PromptgradError, RuntimeError):
    """Code cannot be run safely on this machine: an interpreter does not start, or cannot be confined.

    What goes wrong in the code itself is no exception but the `error` of its `sandbox.Execution`.
    """


class ToolError(PromptgradError, RuntimeError):
    """A tool reports that it failed; to a model that called it this is a result like others.

    Attributes:
        tool: Name of the tool.
    """

    def __init__(self, message: str, *, tool: str = "") -> None:
        super().__init__(message)
        self.tool = tool


class ToolTimeoutError(ToolError, TimeoutError):
    """A tool gave no result in its time.

    Attributes:
        seconds: The time that it had.
    """

    def __init__(self, message: str, *, tool: str = "", seconds: float = 0.0) -> None:
        super().__init__(message, tool=tool)
        self.seconds = seconds


class ToolServerError(ToolError):
    """A server of tools cannot be started or reached, or ended during a call.

    Attributes:
        server: Its name.
        stderr: The last that it wrote there, where it is a process of ours.
    """

    def __init__(self, message: str, *, tool: str = "", server: str = "", stderr: str = "") -> None:
        super().__init__(message, tool=tool)
        self.server = server
        self.stderr = stderr


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


class OutOfMemoryError(PromptgradError, MemoryError):
    """A training of a local model does not fit into memory, also in the smallest parts; the weights are whole."""


class MissingExtraError(PromptgradError, ImportError):
    """An optional dependency is not installed.

    Attributes:
        extra: The extra to install, as in `pip install -e '.[local]'`.
    """

    def __init__(self, message: str = "", *, extra: str = "", package: str = "") -> None:
        hint = f"install it with: pip install -e '.[{extra}]' in a checkout of promptgrad"
        super().__init__(message or f"this needs {package or 'a package that is not installed'}; {hint}")
        self.extra = extra


FATAL = (
    NoLMError,
    MissingExtraError,
    AsyncUsageError,
    AuthenticationError,
    BillingError,
    BudgetExceeded,
    JournalError,
    UnknownPriceError,
)
"""Errors that are no fault of the tool, row, attempt or metric that meets them: the next one meets them as well."""


def is_outage(error: BaseException | None) -> bool:
    """Whether no prompt could have avoided this error: the language model, budget, journal or a package is unavailable.

    A request that is too long, filtered, refused or not accepted as it is written is not an outage, since a prompt may
    be the cause; a model that the server does not have is one.
    """
    if isinstance(error, BadRequestError):
        return error.status == 404
    if isinstance(error, (ContextWindowError, ContentFilterError, RefusalError)):
        return False
    return isinstance(error, (LMError, DeadlineError, BudgetExceeded, JournalError, SandboxError, ImportError))


def may_be_paid(error: BaseException) -> bool:
    """Whether a call that ended so was given up by this side, so that its server may still answer it, and charge.

    It was cancelled or too late for a `deadline`, its stream was left, or the server was silent for too long. A server
    that failed or refused itself is another matter: what it charged is in `billed`, where it says so.
    """
    if isinstance(error, Exception):
        return isinstance(error, LMTimeoutError) and not isinstance(error, LMStatusError)
    return True


def kind_of(error: LMError | DeadlineError) -> str:
    """The name under which `recall` makes an error again: that of the nearest class in this module."""
    return next(base.__name__ for base in type(error).__mro__ if base.__module__ == __name__)


def recall(fact: Mapping[str, object]) -> LMError | DeadlineError:
    """The error of a call that is on record: `type`, `message`, and its own facts, such as `status`."""
    kind = globals().get(str(fact.get("type")))
    if not (isinstance(kind, type) and issubclass(kind, (LMError, DeadlineError))):
        kind = LMError
    error: LMError | DeadlineError = kind(str(fact.get("message", "")))
    error.replayed = True
    for name in ("status", "body", "retry_after", "seconds"):
        if name in fact and hasattr(error, name):
            setattr(error, name, fact[name])
    return error
