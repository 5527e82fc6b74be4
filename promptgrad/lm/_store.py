"""`Store`: completions in a SQLite file that many processes share."""

from __future__ import annotations

import atexit
import json
import os
import sqlite3
import threading
import warnings
import weakref
from pathlib import Path
from queue import SimpleQueue

from promptgrad.lm._completion import Completion
from promptgrad.lm._fork import keep_forever, reset_after_fork

SCHEMA = 2
"""Version of the file. Files of version 1, whose replies are text alone in arrays, can still be read."""
BATCH = 256
"""Most entries that are written in one transaction."""
LOG_PAGES = 250
"""Pages of SQLite's write-ahead log after which it is folded in: 1 MB, a quarter of what SQLite lets it grow to."""

_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


class Store:
    """Completions by digest, in a file. The caller reads, and a separate thread writes.

    An entry is readable at once by the process that put it, and by the others as soon as it is written, which is
    within milliseconds unless the disk is slow. A process that is killed loses at most the entries not yet written;
    the file stays intact.

    Args:
        path: The file, made with its folder if it is not there.

    Raises:
        ValueError: The file is not a cache of promptgrad, or is of a newer version.
        OSError: The folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._reset()
        try:
            self._here()
        except sqlite3.Error as error:
            raise ValueError(f"{path} cannot be used as a cache file: {error}") from None
        _open_stores.add(self)
        reset_after_fork(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[str, Completion | None] = {}
        self._queue: SimpleQueue[tuple[str, Completion | None] | threading.Event | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._reader: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._warned = False

    def after_fork(self) -> None:
        """Start without connections: they belong to the parent."""
        keep_forever((self._reader, self._writer, self._queue, self._writing))
        self._reset()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
        try:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise ValueError(
                    f"{self.path} was written by a newer version of promptgrad: upgrade, or use another cache file"
                )
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
            if version < SCHEMA:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS completion (key BLOB PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID"
                )
                database.execute(f"PRAGMA user_version={SCHEMA}")
        except BaseException:
            database.close()
            raise
        return database

    def _here(self) -> sqlite3.Connection:
        """Return the connection for reading."""
        if self._reader is None:
            self._reader = self._connect()
        return self._reader

    def get(self, key: str) -> Completion | None:
        """Return the completion stored under a digest, marked as cached; None if there is none."""
        if key in self._pending:
            found = self._pending.get(key)
            return None if found is None else found.as_cached()
        try:
            reader = self._here()
            with self._lock:
                row = reader.execute("SELECT reply FROM completion WHERE key=?", (bytes.fromhex(key),)).fetchone()
            return None if row is None else _decode(row[0])
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            self._warn("read", error)
            return None

    def put(self, key: str, completion: Completion) -> None:
        """Store a completion, without waiting for the disk."""
        self._change(key, completion)

    def drop(self, key: str) -> None:
        """Remove a completion, without waiting for the disk."""
        self._change(key, None)

    def _change(self, key: str, completion: Completion | None) -> None:
        self._pending[key] = completion
        self._queue.put((key, completion))
        if self._writer is None:
            with self._lock:
                if self._writer is None:
                    self._writer = threading.Thread(target=self._write, name="promptgrad-cache", daemon=True)
                    self._writer.start()

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until everything put so far is in the file."""
        if self._writer is not None and self._writer.is_alive():
            written = threading.Event()
            self._queue.put(written)
            written.wait(timeout)

    def close(self) -> None:
        """Write the remaining entries and close the file; using the store opens it again."""
        self.flush()
        writer, self._writer = self._writer, None
        if writer is not None:
            self._queue.put(None)
            writer.join(10.0)
        with self._lock:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    def __len__(self) -> int:
        self.flush()
        reader = self._here()
        with self._lock:
            return int(reader.execute("SELECT count(*) FROM completion").fetchone()[0])

    def _write(self) -> None:
        queue = self._queue
        while True:
            items = [queue.get()]
            while len(items) < BATCH and not queue.empty():
                items.append(queue.get())
            entries = [item for item in items if isinstance(item, tuple)]
            try:
                if rows := self._rows(entries):
                    self._writing = self._writing or self._connect()
                    _insert(self._writing, rows)
            except (sqlite3.Error, ValueError) as error:
                self._warn("write", error)
            for key, completion in entries:
                if key in self._pending and self._pending[key] is completion:
                    del self._pending[key]
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()
            if None in items:
                break
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def _rows(self, entries: list[tuple[str, Completion | None]]) -> list[tuple[bytes, str | None]]:
        """The entries in written form, without those that have no JSON form; None for those to remove."""
        rows: list[tuple[bytes, str | None]] = []
        for key, completion in entries:
            try:
                rows.append((bytes.fromhex(key), None if completion is None else _encode(completion)))
            except (TypeError, ValueError) as error:
                self._warn("write a reply to", error)
        return rows

    def _warn(self, what: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"cannot {what} the cache {self.path}: {error}; going on without it", RuntimeWarning, 2)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"


def _insert(database: sqlite3.Connection, rows: list[tuple[bytes, str | None]]) -> None:
    latest = dict(rows)
    database.execute("BEGIN IMMEDIATE")
    try:
        database.executemany(
            "INSERT OR REPLACE INTO completion VALUES (?, ?)", [row for row in latest.items() if row[1] is not None]
        )
        gone = [(key,) for key, reply in latest.items() if reply is None]
        if gone:
            database.executemany("DELETE FROM completion WHERE key=?", gone)
        database.execute("COMMIT")
    except sqlite3.Error:
        database.execute("ROLLBACK")
        raise


def _encode(completion: Completion) -> str:
    plain = completion.to_dict()
    plain.pop("usage", None)  # a reply from a cache costs nothing
    return json.dumps(plain, separators=(",", ":"))


def _decode(reply: str) -> Completion:
    found = json.loads(reply)
    if isinstance(found, list):
        text, model, reason = found[:3]
        return Completion(text, model=model, finish_reason=reason).as_cached()
    return Completion.from_dict(found).as_cached()


def _flush_all() -> None:
    for store in list(_open_stores):
        store.flush(5.0)


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    # SQLite keeps its locks by process: a child that is born in the middle of a transaction would inherit them as held,
    # and what it writes could be lost
    os.register_at_fork(before=_flush_all)
