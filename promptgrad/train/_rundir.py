"""A run's folder: the journal, and settings, first values and examples, which are written once, before the run."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptgrad._files import write_text
from promptgrad.content import apart, read_in, together, written_out
from promptgrad.data import Example
from promptgrad.errors import DataError, JournalError
from promptgrad.run import Journal
from promptgrad.train._json_file import read_json

RUN = "run.json"
JOURNAL = "journal.jsonl"
FORMAT = "promptgrad.run"
VERSION = 2
"""Version of the file; 1 has no images and documents, and a run without them is written as that, which older versions
read."""
_RICH = "content"
"""What marks a row whose images, documents and conversations are in their JSON form."""


@dataclass(frozen=True)
class SavedRun:
    """The contents of a run's folder.

    Attributes:
        settings: Seed, budget and the like.
        start: State of the program at the start.
        data: The examples by part; None if JSON could not hold them.
        sources: Digests of what the sources of program and metric consist of; empty in a folder of an older version.
    """

    settings: Mapping[str, Any]
    start: Mapping[str, Any]
    data: dict[str, list[Example]] | None
    sources: Mapping[str, Mapping[str, str]]


def exists(folder: Path) -> bool:
    """Whether a folder holds a run: one whose process died before anything was decided does not."""
    return (folder / RUN).exists()


def create(
    folder: Path,
    settings: Mapping[str, Any],
    start: Mapping[str, Any],
    data: Mapping[str, Sequence[Example]],
    sources: Mapping[str, Mapping[str, str]],
) -> Journal:
    """Write the files from which a run can be resumed, and return its journal, which keeps other processes out.

    The journal is locked before anything is written, so of several processes that begin a run in one folder a single
    one does.

    Raises:
        JournalError: The folder holds a run already, or another process begins one.
    """
    if exists(folder):
        raise _holds_a_run(folder)
    journal = Journal(folder / JOURNAL)
    try:
        if exists(folder) or journal.replaying or journal.paid:
            raise _holds_a_run(folder)
        rows: dict[str, list[Any]] | None = {}
        for name, examples in data.items():
            kept = [_row(example) for example in examples]
            if rows is not None:
                rows = None if None in kept else {**rows, name: kept}
        whole = {**_whole(settings, start, rows), "sources": sources}
        write_text(folder / RUN, json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    except BaseException:
        journal.close()
        raise
    return journal


def _whole(settings: Mapping[str, Any], start: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """The contents of the file; the bytes of each image once, at the end."""
    blobs: dict[str, str] = {}
    shared = apart({"start": start, "data": rows}, blobs)
    rich = blobs or any(len(row) > 2 for part in (rows or {}).values() for row in part)
    head = {"format": FORMAT, "version": VERSION if rich else 1, "settings": settings}
    return {**head, **shared, "blobs": blobs} if rich else {**head, "start": start, "data": rows}


def _holds_a_run(folder: Path) -> JournalError:
    return JournalError(
        f"{folder} holds a run already: go on with it by promptgrad.Trainer.resume({str(folder)!r}, model, "
        "optimizer, metric), or give another run_dir"
    )


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
        whole = read_json(path)
    except ValueError as error:
        raise JournalError(f"{path} cannot be read: {error}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise JournalError(f"{path} is not a run of promptgrad")
    if whole.get("version") not in (1, VERSION):
        raise JournalError(f"{path} has version {whole.get('version')!r} and this promptgrad reads up to {VERSION}")
    try:
        if blobs := whole.get("blobs"):
            whole = {**whole, **together({name: whole.get(name) for name in ("start", "data")}, blobs.get)}
        settings, start, rows = whole.get("settings"), whole.get("start"), whole.get("data")
        if not isinstance(settings, dict) or not isinstance(start, dict):
            raise TypeError("its settings and first values are objects")
        data = None if rows is None else {name: [_example(row) for row in part] for name, part in rows.items()}
    except (TypeError, ValueError, AttributeError, DataError) as error:
        raise JournalError(f"{path} is damaged: {error}") from error
    return SavedRun(settings, start, data, _sources(whole.get("sources")))


def _sources(known: Any) -> dict[str, dict[str, str]]:
    """The digests of sources, as far as they are such."""
    kept = known.items() if isinstance(known, dict) else ()
    return {name: parts for name, parts in kept if isinstance(parts, dict)}


def _row(example: Example) -> list[Any] | None:
    """Fields and input marks, if the example survives the way through JSON unchanged."""
    fields = example.to_dict()
    inputs = None if example.input_keys is None else list(example.input_keys)
    if _survives(fields, example):
        return [fields, inputs]
    rich = written_out(fields)
    return [rich, inputs, _RICH] if _survives(rich, example, read_in) else None


def _survives(form: Mapping[str, Any], example: Example, read: Callable[[Any], Any] | None = None) -> bool:
    try:
        back = json.loads(json.dumps(form, allow_nan=False))
        return Example(back if read is None else read(back)).id == example.id
    except (TypeError, ValueError):
        return False


def _example(row: Sequence[Any]) -> Example:
    fields, inputs, *rich = row
    if rich not in ([], [_RICH]):
        raise ValueError(f"a row is of the kind {rich[0]!r}")
    example = Example(read_in(fields) if rich else fields)
    return example if inputs is None else example.with_inputs(*inputs)
