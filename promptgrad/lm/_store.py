"""`Store`: completions in a SQLite file that many processes share."""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from promptgrad._pipes import not_a_file
from promptgrad.lm._cache_entry import CacheEntry
from promptgrad.lm._completion import Completion
from promptgrad.lm._fork import keep_forever, reset_after_fork
from promptgrad.lm._store_table import (
    ENTRIES,
    EXCESS,
    FIND,
    IS_THERE,
    NO_BOUND,
    TABLE,
    TOUCH,
    Row,
    decode_reply,
    encode_reply,
    insert_rows,
    tell_of_all,
)

SCHEMA = 3
"""Version of the file. Entries of version 1, whose replies are text alone in arrays, and of version 2, which have no
checksum, can still be read."""
_MARK = 0x70670000 + SCHEMA
"""The version again, as the id of the application, so that a damaged version is not taken for a newer one."""
BATCH = 256
"""Most entries that are written in one transaction."""
LOG_PAGES = 250
"""Pages of SQLite's write-ahead log after which it is folded in: 1 MB, a quarter of what SQLite lets it grow to."""


class _Used:
    """Says that an entry was used."""


USED = _Used()
Change = tuple[str, "Completion | _Used | None", float]
"""A key; its reply, None to remove it, or that it was used; and when."""

_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


class Store:
    """Completions by digest, in a file. The caller reads, and a separate thread writes.

    An entry is readable at once by the process that put it, and by the others as soon as it is written, which is
    within milliseconds unless the disk is slow. A process that is killed loses at most the entries not yet written;
    the file stays intact. Each entry has a checksum; one that is damaged is a miss.

    No state of the file ends a program: each is a warning. A damaged one is renamed to `.broken`, and a new one begun;
    one that cannot be written is only read; where no file can be, nothing is kept.

    Args:
        path: The file, made with its folder if it is not there, for its owner alone.
        most: The most entries; the least recently used go. None for no bound.
        most_bytes: The most bytes of replies, likewise.
        clock: Function that returns seconds since 1970; tests pass their own.

    Raises:
        ValueError: The file is of a newer version.
    """

    def __init__(
        self,
        path: Path,
        most: int | None = None,
        most_bytes: int | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.most = most
        self.most_bytes = most_bytes
        self._clock = clock
        self._unchecked = self._unchecked_bytes = 0  # written since the bounds were checked; the first one checks them
        self._checked = False
        self._usable = True
        self._readonly = False
        self._reset()
        try:
            self._make()
            self._here()
        except (sqlite3.Error, OSError) as error:
            self._usable = _is_damage(error) and self._set_aside(error)
            if not self._usable and not _is_damage(error):
                self._warn("use", error)
        _open_stores.add(self)
        reset_after_fork(self)

    def _make(self) -> None:
        """Make the file, whose mode SQLite gives its other files, unless it is there."""
        if odd := not_a_file(self.path):
            raise OSError(odd)
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[str, Completion | None] = {}
        self._queue: SimpleQueue[Change | threading.Event | None] = SimpleQueue()
        self._has_entries = False
        self._writer: threading.Thread | None = None
        self._reader: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # which file the reader has open
        self._written = 0  # the value of `renewed` when the writer opened the file
        self._renewed = 0  # how often the file was set aside
        self._warned: set[str] = set()

    def after_fork(self) -> None:
        """Start without connections: they belong to the parent."""
        keep_forever((self._reader, self._writer, self._queue, self._writing))
        self._reset()

    def _connect(self) -> sqlite3.Connection:
        """Open the file; where it cannot be written, to read."""
        try:
            return self._open(self.path)
        except sqlite3.OperationalError as error:
            if self.path.exists() and ("readonly" in str(error) or "unable to open" in str(error)):
                for mode in ("mode=ro", "immutable=1"):  # the second where SQLite cannot make its files for locks
                    with suppress(sqlite3.OperationalError):
                        database = self._open(f"{self.path.absolute().as_uri()}?{mode}", reading=True)
                        self._readonly = True
                        self._warn("write", error, "only reading it")
                        return database
            raise

    def _open(self, place: Path | str, *, reading: bool = False) -> sqlite3.Connection:
        database = sqlite3.connect(place, timeout=30.0, isolation_level=None, check_same_thread=False, uri=reading)
        try:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA and database.execute("PRAGMA application_id").fetchone()[0] != _MARK:
                raise ValueError(
                    f"{self.path} was written by a newer version of promptgrad: upgrade, or use another cache file"
                )
            if not reading:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=NORMAL")
                database.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
                if version < SCHEMA:
                    database.execute(TABLE)
                    database.execute(f"PRAGMA application_id={_MARK}")
                    database.execute(f"PRAGMA user_version={SCHEMA}")
                if not database.execute(IS_THERE).fetchone():
                    database.execute(ENTRIES)
            database.execute("SELECT 1 FROM completion LIMIT 1")
            self._has_entries = database.execute(IS_THERE).fetchone() is not None
        except UnicodeDecodeError as error:  # the message quotes what is damaged
            database.close()
            raise sqlite3.DatabaseError(f"its schema cannot be read: {error}") from error
        except BaseException:
            database.close()
            raise
        return database

    def _here(self) -> sqlite3.Connection:
        """Return the connection for reading."""
        if self._reader is None:
            self._reader = self._connect()
            self._file = _file(self.path)
        return self._reader

    def _set_aside(self, error: Exception) -> bool:
        """Rename a damaged file and begin a new one. Returns whether there is one now."""
        with self._lock:
            reader, self._reader = self._reader, None
            if reader is not None:
                with suppress(sqlite3.Error):
                    reader.close()
            broken = f"{self.path}.broken"
            try:
                if self._file in (None, _file(self.path)):  # else another process has done it
                    self._warn("use", error, f"it is {broken} now, and a new one is begun")
                    for end in ("-wal", "-shm", ""):
                        with suppress(FileNotFoundError):
                            os.replace(f"{self.path}{end}", f"{broken}{end}")
                self._renewed += 1
                self._make()
                self._here()
            except (sqlite3.Error, OSError, ValueError) as new:
                self._usable = False
                self._warn("renew", new)
        return self._usable

    def get(self, key: str) -> Completion | None:
        """Return the completion stored under a digest, marked as cached; None if there is none."""
        if key in self._pending:
            found = self._pending.get(key)
            return None if found is None else found.as_cached()
        if not self._usable:
            return None
        try:
            with self._lock:
                here = self._here()
                row = here.execute(FIND[self._has_entries], (bytes.fromhex(key),)).fetchone()
            if row is None:
                return None
            reply, used = row
            found = decode_reply(key, reply)
            if not self._readonly and not (isinstance(used, float) and self._clock() - used < TOUCH):
                self._enqueue(key, USED)
            return found
        except (sqlite3.Error, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            if _is_damage(error):
                self._set_aside(error)
            else:
                self._warn("read", error)
            return None

    def put(self, key: str, completion: Completion) -> None:
        """Store a completion, without waiting for the disk."""
        self._change(key, completion)

    def drop(self, key: str) -> None:
        """Remove a completion, without waiting for the disk."""
        self._change(key, None)

    def _change(self, key: str, completion: Completion | None) -> None:
        if not self._usable or self._readonly:
            if completion is None:
                self._pending[key] = None  # stays: what is in the file is not to be read again
            return
        self._pending[key] = completion
        self._enqueue(key, completion)

    def _enqueue(self, key: str, what: Completion | _Used | None) -> None:
        self._queue.put((key, what, self._clock()))
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
        if not self._usable:
            return 0
        with self._lock:
            return int(self._here().execute("SELECT count(*) FROM completion").fetchone()[0])

    def entries(self) -> list[CacheEntry]:
        """What is told of the entries, the least recently used first."""
        self.flush()
        if not self._usable:
            return []
        with self._lock:
            here = self._here()
            if not self._has_entries:
                rows = here.execute("SELECT key, '', length(reply), 0.0, 0.0 FROM completion").fetchall()
            else:
                if not self._readonly:
                    tell_of_all(here)
                rows = here.execute(
                    "SELECT key, model, size, made, used FROM entry ORDER BY used, made, key"
                ).fetchall()
        return [CacheEntry(key.hex(), model, size, made, used) for key, model, size, made, used in rows]

    def items(self) -> Iterator[tuple[CacheEntry, Completion]]:
        """The entries with their replies; those that are damaged are left out."""
        for entry in self.entries():
            with self._lock:
                query = "SELECT reply FROM completion WHERE key=?"
                row = self._here().execute(query, (bytes.fromhex(entry.key),)).fetchone()
            try:
                if row is not None:
                    yield entry, decode_reply(entry.key, row[0])
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                self._warn("read an entry of", error)

    def shrink(self) -> None:
        """Give the space of removed entries back to the disk."""
        self.flush()
        with suppress(sqlite3.Error), self._lock:  # another process may be in the middle of a transaction
            self._here().execute("VACUUM")

    def _keep_bounds(self, database: sqlite3.Connection, rows: list[Row]) -> None:
        """Remove the least recently used entries, now and then, if there are more than there may be."""
        if self.most is None and self.most_bytes is None:
            return
        self._unchecked += len(rows)
        self._unchecked_bytes += sum([0 if told is None else told[2] for _, told in rows])
        few = self.most is None or self._unchecked < max(1, self.most // 100)
        small = self.most_bytes is None or self._unchecked_bytes < max(1, self.most_bytes // 100)
        if self._checked and few and small:
            return
        self._unchecked, self._unchecked_bytes, self._checked = 0, 0, True
        tell_of_all(database)
        bounds = (self.most_bytes or NO_BOUND, self.most or NO_BOUND)
        gone = database.execute(EXCESS, bounds).fetchall()
        if gone:
            insert_rows(database, [(key, None) for (key,) in gone])

    def _write(self) -> None:
        queue = self._queue
        while True:
            items = [queue.get()]
            while len(items) < BATCH and not queue.empty():
                items.append(queue.get())
            entries = [item for item in items if isinstance(item, tuple)]
            rows, touched = self._rows(entries)
            try:
                self._insert(rows, touched)
            except (sqlite3.Error, ValueError) as error:
                if _is_damage(error) and self._set_aside(error):
                    with suppress(sqlite3.Error):
                        self._insert(rows, touched)
                elif self._usable:
                    self._warn("write", error)
            for key, completion, _ in entries:
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

    def _insert(self, rows: list[Row], touched: list[tuple[float, bytes]]) -> None:
        """Write rows into the file that is there now."""
        if not rows and not touched:
            return
        if self._writing is not None and self._written != self._renewed:
            with suppress(sqlite3.Error):
                self._writing.close()
            self._writing = None
        if self._writing is None:
            self._written = self._renewed
            self._writing = self._connect()
        insert_rows(self._writing, rows, touched)
        self._keep_bounds(self._writing, rows)

    def _rows(self, changes: list[Change]) -> tuple[list[Row], list[tuple[float, bytes]]]:
        """The changes in written form, without replies that have no JSON form; and when others were used."""
        rows: list[Row] = []
        touched: list[tuple[float, bytes]] = []
        for key, what, when in changes:
            try:
                if isinstance(what, _Used):
                    touched.append((when, bytes.fromhex(key)))
                elif what is None:
                    rows.append((bytes.fromhex(key), None))
                else:
                    reply = encode_reply(key, what)
                    rows.append((bytes.fromhex(key), (reply, when, len(reply), what.model)))
            except (TypeError, ValueError) as error:
                self._warn("write a reply to", error)
        return rows, touched

    def _warn(self, what: str, error: Exception, then: str = "going on without it") -> None:
        if then not in self._warned:
            self._warned.add(then)
            warnings.warn(f"cannot {what} the cache {self.path}: {error}; {then}", RuntimeWarning, 2)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"


def _is_damage(error: Exception) -> bool:
    """Whether SQLite says that the file is damaged or not a database; its other errors are subclasses."""
    return type(error) is sqlite3.DatabaseError


def _file(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _flush_all() -> None:
    for store in list(_open_stores):
        store.flush(5.0)


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    # SQLite keeps its locks by process: a child that is born in the middle of a transaction would inherit them as held,
    # and what it writes could be lost
    os.register_at_fork(before=_flush_all)
