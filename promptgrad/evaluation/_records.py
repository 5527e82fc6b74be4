"""The rows of a report as flat records, as cells of a table, and as JSON."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from promptgrad.data import Example
from promptgrad.errors import DataError
from promptgrad.evaluation._row import ReportRow

_WIDTH = 60


def identity_of(example: Any) -> str:
    """By what an example is known in two reports."""
    try:
        return example.id if isinstance(example, Example) else repr(example)
    except DataError:
        return repr(example)


def fields_in(value: Any) -> dict[str, Any] | None:
    """The fields of a record; None for a plain value."""
    if isinstance(value, Mapping) or (hasattr(value, "keys") and hasattr(value, "__getitem__")):
        return {str(name): value[name] for name in value.keys()}  # noqa: SIM118 - not every record iterates over names
    for method in ("model_dump", "to_dict"):
        if not isinstance(value, type) and callable(getattr(value, method, None)):
            return {str(name): item for name, item in getattr(value, method)().items()}
    return None


def record_of(row: ReportRow) -> dict[str, Any]:
    """A row as flat named values: the fields of the example and of the output (`output.NAME`), and the figures."""
    example, output = fields_in(row.example), fields_in(row.output)
    record: dict[str, Any] = {"example": row.example} if example is None else dict(example)
    if output is None:
        record["output"] = row.output
    else:
        record.update({f"output.{name}": value for name, value in output.items()})
    record["score"] = row.score
    record["feedback"] = row.feedback
    record["error"] = "" if row.error is None else line_of(row.error)
    record.update({f"part.{name}": value for name, value in (row.parts or {}).items()})
    record["replicate"] = row.replicate
    record["calls"] = row.usage.calls
    record["tokens"] = row.usage.tokens
    record["usd"] = row.usage.usd
    record["seconds"] = row.seconds
    return record


def cells_of(row: ReportRow) -> dict[str, Any]:
    """The cells of a row in a table."""
    record = record_of(row)
    for name in ("replicate", "calls", "tokens", "usd", "seconds"):
        del record[name]
    error = record.pop("error")
    record["score"] = "error" if row.error is not None else f"{row.score:.3g}"
    record["feedback"] = error or record["feedback"]
    if row.error is not None:
        record.pop("output", None)
    return record


def columns_of(rows: Iterable[ReportRow]) -> list[str]:
    """Names of the columns of a table of rows."""
    names = dict.fromkeys(name for row in rows for name in cells_of(row))
    last = [name for name in names if name in ("score", "feedback") or name.startswith("part.")]
    return [*(name for name in names if name not in last), *last]


def short(value: Any, width: int = _WIDTH) -> str:
    """A value in one short line."""
    text = "" if value is None else value if isinstance(value, str) else flat(value)
    text = " ".join(str(text).split())
    return text if len(text) <= width else text[: width - 3] + "..."


def flat(value: Any) -> Any:
    """A value for a table cell: text and numbers as they are, anything else as JSON."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return "" if math.isnan(value) else value
    return json.dumps(jsonable(value), ensure_ascii=False)


def jsonable(value: Any) -> Any:
    """A value in JSON types."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    fields = fields_in(value)
    return repr(value) if fields is None else {name: jsonable(item) for name, item in fields.items()}


def counted(number: int, word: str) -> str:
    """A number of things."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def finite(value: float) -> float | None:
    """A number that JSON can hold, or None."""
    return value if math.isfinite(value) else None


def line_of(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else text[:197] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
