"""What the value of one field may be, in llguidance's dialect of Lark, where its type says more than "a text"."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal

from promptgrad.adapters._kinds import bare
from promptgrad.adapters._values import choices
from promptgrad.lm import json_rule
from promptgrad.signature import Field

_INTEGER = "/-?(0|[1-9][0-9]{0,30})/"
_NUMBER = r"/-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?/"


def quoted(text: str) -> str:
    """A text as a grammar quotes it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def one_of(texts: Iterable[str]) -> str:
    """The rule of one of several texts."""
    return " | ".join(map(quoted, texts))


def value_rule(field: Field) -> str | None:
    """The rule of a value as `writer` writes it; None for a text.

    Numbers without bounds are as long as a number can be that is read: 1e999 is infinite.
    """
    if field.is_text:
        return None
    options = choices(field)
    if options is not None:
        return one_of(options)
    annotation = bare(field.annotation)
    if annotation is bool:
        return one_of(("true", "false"))
    if annotation in (int, float, Decimal) and not field.constraints and annotation is field.annotation:
        return _INTEGER if annotation is int else _NUMBER
    return json_rule(field.json_schema(), spaced=True)
