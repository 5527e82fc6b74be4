"""What a proposed text must satisfy before anybody pays for trying it. Checked in code, rejected, never repaired."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from promptgrad.autograd._tokens import tokens
from promptgrad.errors import ConstraintError
from promptgrad.optim._edit import edit_ratio

Constraint = Callable[[Any], Any]
"""A rule for a value, as `Parameter` takes them: returns why it does not hold as text (or False), or raises."""

_PLACEHOLDER = re.compile(r"\{\{?\s*[A-Za-z_][\w.]*\s*\}?\}")


_CHAT = re.compile(
    r"^\W*(sure|certainly|of course|here(?: is|['\u2019]s)|i(?: a|['\u2019])m (?:sorry|unable)"
    r"|i can(?:no|['\u2019])t|as an ai)\b",
    re.IGNORECASE,
)
_WRAPPING = re.compile(
    r"\[\[ ?##|</?(?:think(?:ing)?|reasoning|analysis|new_?instruction|improved_\w+|proposed_\w+)\b", re.IGNORECASE
)


def placeholders(text: str) -> set[str]:
    """The `{name}` and `{{name}}` placeholders in a text.

    >>> sorted(placeholders("Translate {text} to {{ language }}, as {'json': 1}."))
    ['{text}', '{{ language }}']
    """
    return set(_PLACEHOLDER.findall(text))


def refusal(
    old: str,
    new: Any,
    *,
    max_edit: float = 1.0,
    max_tokens: int | None = None,
    constraints: Sequence[Constraint] = (),
    tried: Iterable[str] = (),
    verbatim: bool = False,
) -> str | None:
    """Why `new` may not replace `old`, or None if it may.

    Args:
        old: The present text.
        new: The proposal.
        max_edit: Largest edit distance, as a share of the longer text's tokens.
        max_tokens: Longest text, in words and punctuation marks.
        constraints: The user's own rules.
        tried: Texts that were rejected before.
        verbatim: Whether case and white space count and braces are no placeholders, as in a solution.
    """
    plain = str.strip if verbatim else _plain
    if not isinstance(new, str):
        return f"it is {type(new).__name__}, not text"
    if not new.strip():
        return "it is empty"
    if plain(new) == plain(old):
        return "it does not change the text"
    if any(plain(new) == plain(text) for text in tried):
        return "it was tried before and rejected"
    if _CHAT.search(new) and not _CHAT.search(old):
        return "it is a message to us, not the text itself"
    if (wrapping := _WRAPPING.search(new)) and not _WRAPPING.search(old):
        return f"it holds {wrapping.group()!r}, which is part of the reply's form"
    missing = set() if verbatim else placeholders(old) - placeholders(new)
    if missing:
        return f"it drops the placeholder{'s' if len(missing) > 1 else ''} {', '.join(sorted(missing))}"
    added = set() if verbatim else placeholders(new) - placeholders(old)
    if added:
        return f"it adds the placeholder{'s' if len(added) > 1 else ''} {', '.join(sorted(added))}, which nothing fills"
    if max_tokens is not None and (length := len(tokens(new))) > max_tokens:
        return f"it has {length} tokens, more than max_tokens={max_tokens}"
    if max_edit < 1 and (edit := edit_ratio(old, new)) > max_edit:
        return f"it edits {edit:.0%} of the text, more than max_edit={max_edit:g}"
    return broken(constraints, new)


def broken(constraints: Iterable[Constraint], value: Any) -> str | None:
    """The reason given by the first constraint that does not hold, or None."""
    for constraint in constraints:
        try:
            answer = constraint(value)
        except ConstraintError as error:
            return error.reason
        if isinstance(answer, str) and answer:
            return answer
        if answer is False:
            return f"the constraint {getattr(constraint, '__name__', repr(constraint))} does not hold"
    return None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
