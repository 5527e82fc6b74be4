"""The report of an evaluation, and the comparison of two."""

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, overload

from promptgrad.errors import DataError, MissingExtraError
from promptgrad.evaluation._comparison import Comparison
from promptgrad.evaluation._records import (
    cells_of,
    columns_of,
    counted,
    finite,
    flat,
    identity_of,
    jsonable,
    line_of,
    record_of,
    short,
)
from promptgrad.evaluation._row import ReportRow
from promptgrad.evaluation._statistics import mean_interval, paired_interval, paired_test
from promptgrad.lm import Usage
from promptgrad.nn import Checks

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 10


class Report(Sequence[ReportRow]):
    """The result of an evaluation: the mean score, its interval, and every row.

    Rows where the program or the metric failed are errors: they have no score and do not enter the mean.
    With replicates, the score of an example is the mean of its rows, and examples, not rows, are resampled.

    `print(report)` shows a summary, `report.show()` a table with the worst rows in the terminal; in a notebook the
    report shows itself as a table.

    Attributes:
        rows: All rows, in the order of the data; those of one example together.
        metric: Name of the metric.
        program: Name of the program.
        best: The highest score.
        seconds: How long the evaluation took.
        seed: Seed of the intervals.
        complete: False for the partial report of an evaluation that was stopped.
    """

    def __init__(
        self,
        rows: Iterable[ReportRow],
        *,
        metric: str = "metric",
        program: str = "program",
        best: float = 1.0,
        seconds: float = 0.0,
        seed: int = 0,
        complete: bool = True,
    ) -> None:
        self.rows = list(rows)
        self.metric = metric
        self.program = program
        self.best = best
        self.seconds = seconds
        self.seed = seed
        self.complete = complete

    # ------------------------------------------------------------------------------------------------- figures

    @property
    def score(self) -> float:
        """Mean score over the rows without error; NaN if there are no such rows."""
        scores = self._means()
        return fmean(scores) if scores else math.nan

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the score; see `mean_interval`."""
        return mean_interval(self._means(), seed=self.seed, best=self.best)

    @property
    def errors(self) -> list[ReportRow]:
        """The rows where the program or the metric failed."""
        return [row for row in self.rows if row.error is not None]

    @property
    def usage(self) -> Usage:
        """The cost of all rows together."""
        return sum((row.usage for row in self.rows), Usage())

    @property
    def parts(self) -> dict[str, float]:
        """Mean of each named part of the scores."""
        values: dict[str, list[float]] = {}
        for row in self.rows:
            for name, value in (row.parts or {}).items():
                values.setdefault(name, []).append(value)
        return {name: fmean(found) for name, found in values.items()}

    @property
    def checks(self) -> Checks:
        """The conditions of `nn.Assert` and `nn.Suggest` that were looked at in all rows, with their counts."""
        return Checks(check for row in self.rows for check in row.checks)

    def _means(self) -> list[float]:
        """The mean score of each example that has one."""
        if len({row.replicate for row in self.rows}) < 2:  # one run of each: nothing to look for
            return [row.score for row in self.rows if row.error is None]
        return [fmean(scores) for scores in self._by_example().values()]

    def _by_example(self) -> dict[tuple[str, int], list[float]]:
        """Scores of each example. An example that is in the data twice counts as two."""
        groups: dict[tuple[str, int], list[float]] = {}
        seen: Counter[tuple[str, int]] = Counter()
        for row in self.rows:
            name = identity_of(row.example)
            place = seen[name, row.replicate]
            seen[name, row.replicate] += 1
            if row.error is None:
                groups.setdefault((name, place), []).append(row.score)
        return groups

    # --------------------------------------------------------------------------------------------- comparisons

    def slices(self, by: str | Callable[[Any], object]) -> "Slices":
        """A report for each value of a field of the examples, or of a function of them.

        Raises:
            DataError: An example lacks the field.
        """
        groups: dict[Any, list[ReportRow]] = {}
        for row in self.rows:
            if callable(by):
                value = by(row.example)
            else:
                try:
                    value = row.example[by]
                except (KeyError, TypeError):
                    raise DataError(f"slices by {by!r}: an example has no such field: {row.example!r:.200}") from None
            groups.setdefault(value if value.__hash__ is not None else repr(value), []).append(row)
        return Slices((value, self._with(rows)) for value, rows in groups.items())

    def _with(self, rows: list[ReportRow]) -> "Report":
        return Report(
            rows, metric=self.metric, program=self.program, best=self.best, seed=self.seed, complete=self.complete
        )

    def compare(self, other: "Report") -> "Comparison":
        """How much better this report is than another on the same examples: `after.compare(before)`.

        Examples are paired by content, and those with an error on either side are left out.

        Raises:
            DataError: The two have no example in common, or come from different metrics.
        """
        if self.best != other.best or self.metric != other.metric:
            raise DataError(
                f"reports of different metrics cannot be compared: {self.metric} (best {self.best:g}) "
                f"and {other.metric} (best {other.best:g})"
            )
        mine, theirs = self._by_example(), other._by_example()
        shared = [name for name in mine if name in theirs]
        if not shared:
            raise DataError("the two reports have no example in common that both scored, so they cannot be compared")
        after = [fmean(mine[name]) for name in shared]
        before = [fmean(theirs[name]) for name in shared]
        gains = [new - old for old, new in zip(before, after, strict=True)]
        return Comparison(
            score=fmean(after),
            other=fmean(before),
            interval=paired_interval(before, after, seed=self.seed, best=self.best),
            p=paired_test(before, after, seed=self.seed),
            pairs=len(shared),
            better=sum(gain > 0 for gain in gains),
            worse=sum(gain < 0 for gain in gains),
            left_out=len({*self._names(), *other._names()}) - len(shared),
        )

    def _names(self) -> set[tuple[str, int]]:
        seen: Counter[tuple[str, int]] = Counter()
        names = set()
        for row in self.rows:
            name = identity_of(row.example)
            names.add((name, seen[name, row.replicate]))
            seen[name, row.replicate] += 1
        return names

    # ------------------------------------------------------------------------------------------------- showing

    def __repr__(self) -> str:
        return "\n".join(self._summary())

    def _summary(self) -> list[str]:
        low, high = self.interval
        scored = len(self.rows) - len(self.errors)
        head = f"{self.metric} of {self.program}: {self.score:.3f} [{low:.3f}, {high:.3f}] on {counted(scored, 'row')}"
        if not self.complete:
            head += ", stopped before the end"
        lines = [head + (f", {counted(len(self.errors), 'error')} apart" if self.errors else "")]
        usage = self.usage
        cost = [counted(usage.calls, "call"), counted(usage.tokens, "token")]
        if usage.usd:
            cost.append(f"${usage.usd:.4f}")
        elif usage.usd is None:
            cost.append("price unknown")
        if usage.cached:
            cost.append(f"{usage.cached:,} cached")
        lines.append("  " + ", ".join([*cost, f"{self.seconds:.1f} s"]))
        if self.parts:
            lines.append("  " + ", ".join(f"{name} {value:.3f}" for name, value in self.parts.items()))
        lines += [
            f"  {unmet} of {of} times not met: {short(reason)}"
            for reason, (unmet, of) in self.checks.by_reason().items()
        ]
        kinds = Counter(line_of(row.error) for row in self.errors if row.error is not None)
        lines += [f"  {count} x {text}" for text, count in kinds.most_common(3)]
        if len(kinds) > 3:
            lines.append(f"  and {len(kinds) - 3} other errors")
        return lines

    def table(self, limit: int = _SHOWN) -> "Table":
        """A rich table of rows: errors first, then the lowest scores.

        Args:
            limit: How many rows.
        """
        from rich.markup import escape
        from rich.table import Table

        rows = self._worst(limit)
        title = "\n".join(escape(line) for line in self._summary())
        table = Table(title=title, title_justify="left", title_style="")
        names = columns_of(rows)
        for name in names:
            table.add_column(escape(name), overflow="fold")
        for row in rows:
            cells = cells_of(row)
            table.add_row(*(escape(short(cells.get(name))) for name in names))
        if len(rows) < len(self.rows):
            table.caption = f"{len(rows)} of {len(self.rows)} rows, the worst first"
        return table

    def show(self, limit: int = _SHOWN) -> None:
        """Print the table in the terminal."""
        from rich.console import Console

        Console().print(self.table(limit))

    def __rich__(self) -> "Table":
        return self.table()

    def _repr_html_(self) -> str:
        from html import escape

        rows = self._worst(2 * _SHOWN)
        names = columns_of(rows)
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(short(cells_of(row).get(name), 200))}</td>" for name in names) + "</tr>"
            for row in rows
        )
        summary = escape("\n".join(self._summary()))
        more = f"<p>{len(rows)} of {len(self.rows)} rows, the worst first</p>" if len(rows) < len(self.rows) else ""
        return f"<pre>{summary}</pre><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

    def _worst(self, limit: int) -> list[ReportRow]:
        return sorted(self.rows, key=lambda row: -1.0 if row.error is not None else row.score)[:limit]

    # ----------------------------------------------------------------------------------------------- exporting

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON types: the figures, and a flat record for each row. NaN becomes None."""
        low, high = self.interval
        usage = self.usage.to_dict()
        return {
            "program": self.program,
            "metric": self.metric,
            "best": self.best,
            "score": finite(self.score),
            "interval": [finite(low), finite(high)],
            "count": len(self.rows),
            "errors": len(self.errors),
            "complete": self.complete,
            "seconds": self.seconds,
            "seed": self.seed,
            "usage": usage,
            "parts": self.parts,
            "checks": {reason: list(counts) for reason, counts in self.checks.by_reason().items()},
            "rows": [jsonable(record_of(row)) for row in self.rows],
        }

    def to_json(self, path: "str | os.PathLike[str] | None" = None) -> str:
        """The report as JSON text, which is also written to `path` if one is given."""
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=1)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_csv(self, path: "str | os.PathLike[str] | None" = None) -> str:
        """The rows as CSV text, which is also written to `path` if one is given. Values other than text are JSON."""
        records = [record_of(row) for row in self.rows]
        file = io.StringIO()
        writer = csv.DictWriter(file, list(dict.fromkeys(name for record in records for name in record)))
        writer.writeheader()
        for record in records:
            writer.writerow({name: flat(value) for name, value in record.items()})
        if path is not None:
            Path(path).write_text(file.getvalue(), encoding="utf-8", newline="")
        return file.getvalue()

    def to_pandas(self) -> Any:
        """The rows as a pandas frame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingExtraError(
                "to_pandas needs pandas, which is not installed: pip install pandas (to_csv and to_json need nothing)",
                package="pandas",
            ) from None
        return pandas.DataFrame([record_of(row) for row in self.rows])

    # ---------------------------------------------------------------------------------------------- a sequence

    @overload
    def __getitem__(self, index: int) -> ReportRow: ...
    @overload
    def __getitem__(self, index: slice) -> "Report": ...
    def __getitem__(self, index: int | slice) -> "ReportRow | Report":
        return self._with(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ReportRow]:
        return iter(self.rows)

    def __float__(self) -> float:
        return self.score


class Slices(dict[Any, Report]):
    """Reports by the value of a field; prints as a table."""

    def __repr__(self) -> str:
        names = [short(value, 30) for value in self]
        width = max(map(len, names), default=0)
        lines = []
        for name, report in zip(names, self.values(), strict=True):
            low, high = report.interval
            errors = f", {counted(len(report.errors), 'error')}" if report.errors else ""
            lines.append(
                f"{name:<{width}}  {report.score:.3f} [{low:.3f}, {high:.3f}]  {counted(len(report), 'row')}{errors}"
            )
        return "\n".join(lines)
