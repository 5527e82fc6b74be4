"""Errors that another attempt would meet again."""

from promptgrad.errors import FATAL


def is_final(error: BaseException | None) -> bool:
    """True if asking again would bring the same error, so that the run cannot go on."""
    return isinstance(error, (*FATAL, ImportError))
