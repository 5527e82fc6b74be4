"""Tables of pandas, polars, pyarrow and Hugging Face, told from lists of examples without importing any of them."""

from collections.abc import Mapping
from inspect import getattr_static
from typing import Any

_RATHER = "promptgrad.Example.from_dicts({rows}, inputs=[...])"


def table_hint(data: object, *, rows: bool = True) -> str:
    """What to write for a table; "" for anything else.

    Args:
        data: Anything.
        rows: Whether tables that give rows as dicts or by index, such as a Hugging Face dataset, count as tables.
    """
    if isinstance(data, (str, bytes, Mapping, list, tuple)):
        return ""
    if _has(data, "columns") and _has(data, "to_dicts"):
        how = "table.to_dicts()"
    elif _has(data, "columns") and _has(data, "to_dict"):
        how = 'table.to_dict("records")'
    elif _has(data, "column_names") and _has(data, "to_pylist"):
        how = "table.to_pylist()"
    elif rows and _has(data, "column_names"):
        how = "table"
    elif rows and not _has(data, "__iter__") and _has(data, "__len__") and _has(data, "__getitem__"):
        how = "[table[i] for i in range(len(table))]"
    else:
        return ""
    return _RATHER.format(rows=how)


def not_a_table(what: str, data: object, *, rows: bool = True) -> str:
    """The message about a table where a list of examples is wanted; "" if the data is no table."""
    hint = table_hint(data, rows=rows)
    return f"{what} a list of examples, not a table ({type(data).__name__}): write {hint}" if hint else ""


def not_a_list(what: str, data: object, *, rows: bool = True) -> str:
    """The message about what is no list of examples: a table, a text, bytes, one example, a number; "" otherwise."""
    if table := not_a_table(what, data, rows=rows):
        return table
    listed = hasattr(data, "__iter__") or hasattr(data, "__getitem__")
    if (
        listed
        and not isinstance(data, (str, bytes, bytearray, memoryview, Mapping))
        and not hasattr(data, "with_inputs")
    ):
        return ""
    return f"{what} a list of examples, not one {type(data).__name__}"


def _has(data: Any, name: str) -> bool:
    return getattr_static(data, name, None) is not None
