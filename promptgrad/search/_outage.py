"""Errors that another attempt would meet again."""

from promptgrad.errors import (
    AuthenticationError,
    BillingError,
    BudgetExceeded,
    JournalError,
    NoLMError,
    UnknownPriceError,
)


def is_final(error: BaseException | None) -> bool:
    """True if asking again would bring the same error, so that the run cannot go on."""
    if isinstance(error, (BudgetExceeded, JournalError)):
        return True
    return isinstance(error, (NoLMError, AuthenticationError, BillingError, UnknownPriceError, ImportError))
