"""Readers: examples from JSON lines, CSV files and dicts."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from promptgrad._pipes import not_a_file
from promptgrad.data._example import Example, examples_of
from promptgrad.errors import DataError


def from_dicts(rows: Iterable[Mapping[str, Any]], *, inputs: Sequence[str] | str | None = None) -> list[Example]:
    """Examples from dicts, such as the rows of a Hugging Face dataset.

    Args:
        rows: The dicts; for a pandas frame, `frame.to_dict("records")`.
        inputs: Names of the input fields.

    Raises:
        DataError: There is no row, a row is not a dict, or an input is missing in a row.
    """
    return Example.from_dicts(rows, inputs=inputs)


def read_jsonl(path: str | os.PathLike[str], *, inputs: Sequence[str] | str | None = None) -> list[Example]:
    """Examples from a file with one JSON object a line; blank lines are skipped.

    Args:
        path: The file, in UTF-8.
        inputs: Names of the input fields.

    Raises:
        DataError: A line is not a JSON object or lacks an input, or the file has no row. The message has the line.
        OSError: The file cannot be read.
    """
    return examples_of(json_lines(path), inputs, f"{path} has no rows")


def json_lines(
    path: str | os.PathLike[str], *, on_bad: Callable[[DataError], object] | None = None
) -> Iterator[tuple[str, Any]]:
    """What each line of a file of JSON lines holds, with its place for messages; blank lines are skipped.

    Args:
        path: The file, in UTF-8.
        on_bad: Called with the error of a line that is not JSON, which is then skipped; None raises it.

    Raises:
        DataError: A line is not JSON. The message has the line.
        OSError: The file cannot be read.
    """
    with _opened(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line, object_pairs_hook=_row)
            except (ValueError, RecursionError) as error:
                bad = DataError(f"{path}:{number}: not JSON ({error}): {line.strip()[:80]!r}")
                if on_bad is None:
                    raise bad from None
                on_bad(bad)
            else:
                yield f"{path}:{number}", value


def _opened(path: str | os.PathLike[str], newline: str | None = None) -> TextIO:
    if odd := not_a_file(path):
        raise DataError(f"{path} cannot be read: {odd}. Copy what comes out of it into a file first")
    return Path(path).open(encoding="utf-8-sig", newline=newline)


def _row(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    for key, value in pairs if len(row) != len(pairs) else ():
        if row[key] != value:
            raise ValueError(f"the key {key!r} comes twice, with different values")
    return row


def _lines(lines: Iterable[Any], path: str | os.PathLike[str]) -> Iterator[Any]:
    """The lines of a file, or the rows of a CSV reader, of which errors are told with the path."""
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error})") from None
    except csv.Error as error:
        how = ": raise csv.field_size_limit(...)" if "limit" in str(error) else ""
        raise DataError(f"{path} is no CSV that can be read: {error}{how}") from None


def read_csv(
    path: str | os.PathLike[str], *, inputs: Sequence[str] | str | None = None, delimiter: str = ","
) -> list[Example]:
    """Examples from a CSV file whose first line names the columns; every value is text.

    Args:
        path: The file, in UTF-8.
        inputs: Names of the input columns.
        delimiter: What separates values, for example a tab.

    Raises:
        DataError: A row has too many or too few values, an input is not a column, or there is no row. The message has
            the line.
        OSError: The file cannot be read.
    """

    def rows() -> Iterator[tuple[str, Any]]:
        with _opened(path, newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            found = _lines(reader, path)
            columns = next(found, None)
            if columns is None:
                return
            twice = [column for column in columns if columns.count(column) > 1]
            if twice:
                raise DataError(f"{path}: the column {twice[0]!r} appears twice")
            for values in found:
                where = f"{path}:{reader.line_num}"
                if not values:
                    continue
                if len(values) != len(columns):
                    raise DataError(f"{where}: {len(values)} values for {len(columns)} columns ({', '.join(columns)})")
                yield where, dict(zip(columns, values, strict=True))

    return examples_of(rows(), inputs, f"{path} has no rows")
