"""What a proposed text must satisfy before anybody pays for trying it. Checked in code, rejected, never repaired."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from promptgrad._patterns import late_pattern
from promptgrad.autograd import objection, tokens
from promptgrad.search._edit import lost_ratio

Constraint = Callable[[Any], Any]
"""A rule for a value, as in `Parameter`: it returns the reason why it does not hold (or False), or raises."""

_LATEX = r"\$[^$\n]+\$|\\[A-Za-z]+\*?(?:[_^]?\{\{?[^{}]*\}?\})*|\^\{[^{}]*\}"  # $x_{i}$, \boxed{x}, \sum_{i}^{n}, x^{n}
_PLACEHOLDER = late_pattern(rf"{_LATEX}|(?<!\{{)(\{{+)\s*[A-Za-z_][\w.]*\s*(\}}+)")

_ABOUT_IT = r"(?:instruction|prompt|version|rewrite|revision|rewritten|improved|revised|updated)"
_CHAT = late_pattern(
    rf"""^[\s>*_#"'`-]*(?:
        (?:sure|certainly|of\ course|absolutely|okay|ok)(?:\s*!|\W+(?:here|below|this\ is|i)\b)
        |(?:here\ (?:is|are)|here['\u2019]s|below\ is)\b[^\n:]*\b{_ABOUT_IT}\b[^\n:]*:
        |(?:the\ )?(?:new|improved|revised|rewritten|updated)[\ _](?:instruction|prompt)s?[*_"'`\ ]*:
        |i(?:\ a|['\u2019])m\ (?:sorry|unable)\b|i\ can(?:no|['\u2019])t\b|as\ an\ ai\b[^\n.]*\bi\b
        |i(?:\ ha|['\u2019])ve\ (?:rewritten|revised|improved|updated|changed|edited|kept)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_FENCED = late_pattern(r"^\s*(```|~~~)[^\n]*\n(?:(?!\1).)*\1\s*$", re.DOTALL)
_WRAPPING = late_pattern(
    r"\[\[ ?##|</?(?:new_?instruction|improved_\w+|proposed_\w+)\b|\A\s*</?(?:think(?:ing)?|reasoning|analysis)\b",
    re.IGNORECASE,
)
_QUOTED = late_pattern(r"""\A\s*(?:"([^"]*)"|\u201c([^\u201c\u201d]*)\u201d|`([^`]*)`|'([^']*)')\s*\Z""")

TOO_FAR = "more than max_edit"
"""What stands in the reason of a text that changes too much."""


def placeholders(text: str) -> set[str]:
    r"""The `{name}` and `{{name}}` placeholders in a text. The braces of a LaTeX command do not count.

    >>> sorted(placeholders(r"Translate {text} to {{ language }}, as {'json': 1}, in \boxed{answer}."))
    ['{text}', '{{ language }}']
    """
    found = _PLACEHOLDER.finditer(text)
    return {match.group() for match in found if match[1] and len(match[1]) == len(match[2])}


def unwrapped(old: str, new: str, *, verbatim: bool = False) -> str:
    """A text without the code fence, the quotes or the backticks around the whole of it, unless the old one has them.

    Args:
        old: The present text.
        new: The text as it was written.
        verbatim: Whether the text is a solution, of which quotes may be a part.

    >>> unwrapped("Answer.", '"Answer in one word."')
    'Answer in one word.'
    """
    if _FENCED.search(new) and not _FENCED.search(old):
        new = "\n".join(new.strip().splitlines()[1:-1])
    if not verbatim and (quoted := _QUOTED.search(new)) and not _QUOTED.search(old):
        new = next(part for part in quoted.groups() if part is not None)
    return new


def refusal(
    old: str,
    new: Any,
    *,
    max_edit: float = 1.0,
    max_tokens: int | None = None,
    constraints: Sequence[Constraint | str] = (),
    tried: Iterable[str] = (),
    verbatim: bool = False,
) -> str | None:
    """Why `new` may not replace `old`, or None if it may.

    Args:
        old: The present text.
        new: The proposal.
        max_edit: Largest share of the old text's tokens that is removed or replaced; what is added does not count.
        max_tokens: Longest text, in words and punctuation marks.
        constraints: The user's own rules.
        tried: Texts that were rejected before.
        verbatim: Whether the text is a solution: case and white space count, braces are no placeholders, and it may
            well be a message.
    """
    plain = str.rstrip if verbatim else _plain
    if not isinstance(new, str):
        return f"it is {type(new).__name__}, not text"
    if not new.strip():
        return "it is empty"
    if plain(new) == plain(old):
        return "it does not change the text"
    if any(plain(new) == plain(text) for text in tried):
        return "it was tried before and rejected"
    if not verbatim and _CHAT.search(new) and not _CHAT.search(old):
        return "it is a message to us, not the text itself"
    if _FENCED.search(new) and not _FENCED.search(old):
        return "it stands in a code fence"
    if (wrapping := _WRAPPING.search(new)) and not _WRAPPING.search(old):
        return f"it holds {wrapping.group()!r}, which is part of the reply's form"
    filled = set() if verbatim else placeholders(old)
    missing = filled - placeholders(new)
    if missing:
        return f"it drops the placeholder{'s' if len(missing) > 1 else ''} {', '.join(sorted(missing))}"
    added = placeholders(new) - filled
    if added and filled:  # otherwise nothing fills placeholders, and braces are ordinary text
        return f"it adds the placeholder{'s' if len(added) > 1 else ''} {', '.join(sorted(added))}, which nothing fills"
    if max_tokens is not None and (length := len(tokens(new))) > max_tokens:
        return f"it has {length} tokens, more than max_tokens={max_tokens}"
    if max_edit < 1 and (lost := lost_ratio(old, new)) > max_edit:
        return f"it removes or replaces {lost:.0%} of the text, {TOO_FAR}={max_edit:g}"
    return broken(constraints, new)


def broken(constraints: Iterable[Constraint | str], value: Any) -> str | None:
    """The reason given by the first constraint that does not hold or raises, or None. Rules in words hold."""
    for constraint in constraints:
        reason = "" if isinstance(constraint, str) else objection(constraint, value)[0]
        if reason:
            return reason
    return None


def checked_constraints(given: Any) -> "tuple[Constraint | str, ...]":
    """The constraints of a group: functions, which code checks, and rules in words, which only the proposer reads.

    One function or one text stands for a list of one.

    Raises:
        TypeError: One of them is neither a function nor a text.
    """
    if given is None:
        return ()
    each = (given,) if isinstance(given, str) or callable(given) else given
    if isinstance(each, Mapping) or not isinstance(each, Iterable):
        raise TypeError(f"constraints are functions of a text, or rules in words, not {type(given).__name__}")
    rules = tuple(each)
    for rule in rules:
        if not callable(rule) and not (isinstance(rule, str) and rule.strip()):
            raise TypeError(
                f"a constraint is a function that returns why a text is refused, or a rule in words, not {rule!r}"
            )
    return rules


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
