"""What a run's folder holds besides the journal: settings, first values, examples. Written once, before the run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptgrad.data import Example
from promptgrad.errors import JournalError
from promptgrad.train._checkpoint import write_text

RUN = "run.json"
JOURNAL = "journal.jsonl"
FORMAT = "promptgrad.run"
VERSION = 1


@dataclass(frozen=True)
class SavedRun:
    """The contents of a run's folder.

    Attributes:
        settings: Seed, budget and the like.
        start: State of the program at the start.
        data: The examples by part; None if JSON could not hold them.
    """

    settings: Mapping[str, Any]
    start: Mapping[str, Any]
    data: dict[str, list[Example]] | None


def create(
    folder: Path, settings: Mapping[str, Any], start: Mapping[str, Any], data: Mapping[str, Sequence[Example]]
) -> None:
    """Write the files from which a run can be resumed.

    Raises:
        JournalError: The folder holds a run already.
    """
    if (folder / RUN).exists() or (folder / JOURNAL).exists():
        raise JournalError(
            f"{folder} holds a run already: go on with it by promptgrad.Trainer.resume({str(folder)!r}, model, "
            "optimizer, metric), or give another run_dir"
        )
    rows: dict[str, list[Any]] | None = {}
    for name, examples in data.items():
        kept = [_row(example) for example in examples]
        if rows is not None:
            rows = None if None in kept else {**rows, name: kept}
    whole = {"format": FORMAT, "version": VERSION, "settings": settings, "start": start, "data": rows}
    write_text(folder / RUN, json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read(folder: Path) -> SavedRun:
    """Read what `create` wrote.

    Raises:
        JournalError: There is no run in the folder, or it is of a newer version.
    """
    path = folder / RUN
    if not path.is_file():
        raise JournalError(
            f"{folder} holds no run: there is no {RUN} in it. Start one with Trainer(..., run_dir=...).fit"
        )
    try:
        whole = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except ValueError as error:
        raise JournalError(f"{path} cannot be read: {error}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise JournalError(f"{path} is not a run of promptgrad")
    if whole.get("version") != VERSION:
        raise JournalError(f"{path} has version {whole.get('version')!r} and this promptgrad reads {VERSION}")
    rows = whole["data"]
    data = None if rows is None else {name: [_example(row) for row in part] for name, part in rows.items()}
    return SavedRun(whole["settings"], whole["start"], data)


def _row(example: Example) -> list[Any] | None:
    """Fields and input marks, if the example survives the way through JSON unchanged."""
    fields = example.to_dict()
    try:
        back = json.loads(json.dumps(fields, allow_nan=False))
    except (TypeError, ValueError):
        return None
    inputs = None if example.input_keys is None else list(example.input_keys)
    return [fields, inputs] if Example(back).id == example.id else None


def _example(row: Sequence[Any]) -> Example:
    fields, inputs = row
    example = Example(fields)
    return example if inputs is None else example.with_inputs(*inputs)
