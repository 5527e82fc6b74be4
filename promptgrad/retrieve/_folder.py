"""Folders of indexes: written whole or not at all, read only if they are what was written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from promptgrad import _files
from promptgrad._pipes import not_a_file
from promptgrad.errors import DataError

FORMAT = "promptgrad.retrieve"
VERSION = 1
MANIFEST = "index.json"
_AT_ONCE = 1 << 22


def write_folder(
    place: str | os.PathLike[str], kind: str, settings: Mapping[str, Any], write: Callable[[Path], object]
) -> None:
    """Write an index: its files into a new folder inside of `place`, then the page that names them, in one step.

    A process that is killed leaves the index that was there before. Where there is one, it is replaced, and its files
    are removed; who has them open reads on, except on Windows, where they stay.

    Args:
        place: The folder; it is made.
        kind: What kind of index it is.
        settings: What the index is made of besides its files, in JSON types.
        write: Writes the files into the folder that it gets.
    """
    folder = Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    with _files.locked(folder):
        there = {path for path in folder.iterdir() if _is_data(path)}
        data = folder / f"data-{1 + max((int(path.name[5:]) for path in there), default=0)}"
        try:
            data.mkdir(mode=0o700)
            write(data)
            files = {}
            for path in sorted(path for path in data.rglob("*") if path.is_file()):
                _files.settle(path)
                files[path.relative_to(data).as_posix()] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
            page = {"format": FORMAT, "version": VERSION, "kind": kind, "settings": dict(settings), "data": data.name}
            _files.write_text(folder / MANIFEST, json.dumps({**page, "files": files}, indent=1) + "\n")
        except BaseException:
            shutil.rmtree(data, ignore_errors=True)
            raise
        for path in there:
            shutil.rmtree(path, ignore_errors=True)


def read_folder(place: str | os.PathLike[str], *, verify: bool = True) -> tuple[str, dict[str, Any], Path]:
    """The kind of a written index, its settings, and the folder with its files.

    Args:
        place: The folder.
        verify: Compare the content of the files with what was written, which reads them once; else only their sizes.

    Raises:
        DataError: There is no index, it was written by a later version, or a file is missing or damaged.
    """
    folder = Path(place)
    page = _page(folder)
    kind, settings, files, name = (page.get(key) for key in ("kind", "settings", "files", "data"))
    whole = isinstance(kind, str) and isinstance(settings, dict) and isinstance(files, dict) and isinstance(name, str)
    if not whole or not _is_data(folder / str(name)):
        raise _damaged(folder, f"{MANIFEST} lacks what belongs there")
    data = folder / str(name)
    for relative, facts in (files or {}).items():
        path = data / relative
        if ".." in Path(relative).parts or Path(relative).is_absolute():
            raise _damaged(folder, f"{MANIFEST} names {relative!r}, which is outside of the folder")
        if odd := not_a_file(path):
            raise _damaged(folder, f"{name}/{relative}: {odd}")
        if not path.is_file():
            raise _damaged(folder, f"{name}/{relative} is missing")
        if not isinstance(facts, dict) or path.stat().st_size != facts.get("bytes"):
            known = facts.get("bytes") if isinstance(facts, dict) else "?"
            raise _damaged(folder, f"{name}/{relative} has {path.stat().st_size:,} bytes, and {known} were written")
        if verify and _digest(path) != facts.get("sha256"):
            raise _damaged(folder, f"the content of {name}/{relative} is not what was written")
    return str(kind), dict(settings or {}), data


def _page(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if odd := not_a_file(path):
        raise DataError(f"{folder} holds no index: {odd}")
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} holds no index: there is no {MANIFEST}; index.save(folder) writes one") from None
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST} is not JSON ({error})") from None
    if not isinstance(page, dict) or page.get("format") != FORMAT:
        raise DataError(f"{path} is not of an index that promptgrad wrote")
    version = page.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise DataError(
            f"{folder} was written in version {version!r} of the format, and this promptgrad knows {VERSION}: update it"
        )
    return page


def _damaged(folder: Path, reason: str) -> DataError:
    return DataError(f"the index in {folder} is damaged: {reason}. Build it anew from its passages")


def _is_data(path: Path) -> bool:
    return path.name.startswith("data-") and path.name[5:].isdigit()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        while piece := file.read(_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()
