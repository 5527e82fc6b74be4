"""The values of a demo, as a prompt shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptgrad.errors import InputError, ParseError
from promptgrad.signature import Field


def demo_values(demo: Any, fields: Mapping[str, Field], number: int) -> dict[str, Any]:
    """The values of a demo for some fields, checked; a text may be given as any plain value."""
    values = {}
    for name, field in fields.items():
        if name not in demo:
            continue
        value = demo[name]
        if field.is_text:
            if value is None:
                continue
            value = "".join(("", value)) if isinstance(value, str) else str(value)  # a plain str, without a graph
        try:
            values[name] = field.validate(value)
        except (InputError, ParseError) as error:
            raise InputError(f"demo {number} does not fit the signature: {error}") from error
    return values
