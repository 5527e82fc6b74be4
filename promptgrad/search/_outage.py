"""Errors after which there is nothing to go on with."""

from promptgrad.errors import AuthenticationError, BudgetExceeded, JournalError, NoLMError, UnknownPriceError


def is_final(error: BaseException | None) -> bool:
    """Whether asking again would bring the same: nothing to go on with."""
    if isinstance(error, (BudgetExceeded, JournalError)):
        return True
    return isinstance(error, (NoLMError, AuthenticationError, UnknownPriceError, ImportError))
