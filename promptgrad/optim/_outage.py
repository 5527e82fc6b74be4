"""Errors that are no fault of a program or prompt: the language model, the budget or the journal gave out."""

from promptgrad.errors import (
    AuthenticationError,
    BudgetExceeded,
    ContextWindowError,
    JournalError,
    LMError,
    NoLMError,
    UnknownPriceError,
)


def is_outage(error: BaseException | None) -> bool:
    """Whether no wording of a prompt could have avoided this."""
    if isinstance(error, ContextWindowError):
        return False
    return isinstance(error, (LMError, BudgetExceeded, JournalError, ImportError))


def is_final(error: BaseException | None) -> bool:
    """Whether asking again would bring the same: nothing to go on with."""
    if isinstance(error, (BudgetExceeded, JournalError)):
        return True
    return isinstance(error, (NoLMError, AuthenticationError, UnknownPriceError, ImportError))
