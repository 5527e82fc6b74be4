"""The file of a journal: sealed lines, one writer, and what is left of a write that was interrupted."""

import contextlib
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from promptgrad._pipes import not_a_file
from promptgrad.errors import JournalError
from promptgrad.run._event import BEGINNING, SCHEMA, encode, is_sealed, parse, show
from promptgrad.run._observers import Observer, Observers, Subscription

F = TypeVar("F", bound="JournalFile")


class JournalFile:
    """An append-only file of events, one JSON line each, and those who observe it; what they say is `Journal`'s.

    Args:
        path: File to open or create, with its folder; None keeps the lines in memory.
        readonly: Only read.
        clock: Function that returns seconds.

    Raises:
        JournalError: The file is not a journal, is damaged, has a newer schema, or has a writer.
    """

    def __init__(self, path: "str | os.PathLike[str] | None", *, readonly: bool, clock: Callable[[], float]) -> None:
        self.path = None if path is None else Path(path)
        self.readonly = readonly
        self._lock = threading.RLock()
        self._fd: int | None = None
        self._pid = os.getpid()
        self._size = 0
        self._dirty = False
        self._sealed_from: int | None = None  # the byte from which on each line must have a checksum
        self._lines: list[bytes] = []
        self._observers = Observers()
        self._before = 0.0
        self._begun_by = ""  # the version of promptgrad that began a resumed run
        self._begun_as = SCHEMA  # the version of the format that it wrote
        self._clock = clock
        self._started = clock()
        if readonly and self.path is None:
            raise JournalError("a journal in memory cannot be opened for reading only: give a path")
        if self.path is not None:
            self._open(self.path)
        _open_journals.add(self)

    def _index(self, event: dict[str, Any], offset: int, length: int) -> None:
        """Take note of an event that is in the file, at these bytes of it."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------- reading

    def events(self) -> Iterator[dict[str, Any]]:
        """All events, oldest first, as they are written."""
        if self.path is None:
            yield from map(parse, list(self._lines))
            return
        with self.path.open("rb") as file:
            place = 0
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield self._parse(line, place)
                place += len(line)

    def _event(self, where: tuple[int, int]) -> dict[str, Any]:
        return self._parse(self._line(where), where[0])

    def _line(self, where: tuple[int, int]) -> bytes:
        offset, length = where
        if self.path is None:
            return self._lines[offset]
        with self._lock:
            if self._fd is not None and hasattr(os, "pread"):
                return os.pread(self._fd, length, offset)
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(length)

    @property
    def elapsed(self) -> float:
        """Seconds of the run: of this process, plus those of earlier ones up to their end, if killed their last event.

        They are rounded up, so that the time of an event is no earlier than what was decided before it.
        """
        return math.ceil((self._before + self._clock() - self._started) * 1000) / 1000

    def __len__(self) -> int:
        return sum(1 for _ in self.events())

    # ---------------------------------------------------------------------------------------------- opening

    def _open(self, path: Path) -> None:
        if odd := not_a_file(path):
            raise JournalError(f"{path} is not a journal: {odd}")
        try:
            if not self.readonly:
                path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDONLY if self.readonly else os.O_RDWR | os.O_CREAT | os.O_APPEND
            self._fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be opened: {error.strerror or error}") from error
        try:
            if not self.readonly and not _lock_file(self._fd):
                raise JournalError(
                    f"the journal {path} has a writer already: another process (or another Journal in this one) runs "
                    "with it. Wait for it, stop it, or use another folder"
                )
            self._load()
        except BaseException:
            self._release()
            raise

    def _load(self) -> None:
        """Read what comes after the part that is known, and cut a torn last line."""
        path = self.path
        if path is None or self._fd is None:
            return
        with path.open("rb") as file:
            file.seek(self._size)
            while line := file.readline():
                if not line.endswith(b"\n"):
                    if is_sealed(line[:-1] + b"\n"):  # no write is torn there: its last byte is another one
                        raise self._damage(self._size, line, "it does not end as a line does")
                    if self._size == 0 and not (BEGINNING.startswith(line) or line.startswith(BEGINNING)):
                        raise self._no_journal(line)
                    if not self.readonly:
                        os.ftruncate(self._fd, self._size)
                    break
                event = self._parse(line, self._size)
                if self._size == 0:
                    self._check_header(event)
                self._index(event, self._size, len(line))
                self._before = max(self._before, float(event.get("t", 0.0)))
                self._size += len(line)

    def _parse(self, line: bytes, place: int) -> dict[str, Any]:
        """The event in a line of the file; `place` is its first byte."""
        try:
            return parse(line, sealed=self._sealed_from is not None and place >= self._sealed_from)
        except ValueError as error:
            if place == 0 and not line.startswith(BEGINNING):
                raise self._no_journal(line) from None
            raise self._damage(place, line, str(error)) from None

    def _no_journal(self, line: bytes) -> JournalError:
        return JournalError(f"{self.path} is not a journal: it begins with {line[:80]!r}")

    def _damage(self, place: int, line: bytes, reason: str) -> JournalError:
        before = b"" if self.path is None else self.path.read_bytes()[:place]
        number = before.count(b"\n") + 1
        return JournalError(f"{self.path} is damaged at byte {place}, line {number}: {reason}. It is {line[:80]!r}")

    def _check_header(self, event: dict[str, Any]) -> None:
        if event["kind"] != "header":
            raise JournalError(f"{self.path} is not a journal: its first line is {show(event)}")
        self._begun_by = str(event.get("promptgrad", ""))
        self._begun_as = event["schema"]

    def _check_schema(self, event: dict[str, Any]) -> None:
        """Check the schema of the header, and of each later process, which may have been of a newer version."""
        if event["schema"] > SCHEMA:
            raise JournalError(
                f"{self.path} has schema {event['schema']} and this version reads up to {SCHEMA}: upgrade promptgrad"
            )

    # ---------------------------------------------------------------------------------------------- writing

    def _write(self, event: dict[str, Any]) -> None:
        line = encode(event)
        with self._lock:
            fd = self._check_writable()
            if fd is None:
                offset = len(self._lines)
                self._lines.append(line)
                self._size += len(line)
                self._index(event, offset, len(line))
                if self._observers.subscriptions:
                    self._observers.put(line)
                return
            self._repair()
            self._dirty = True
            try:
                view = memoryview(line)
                while view:
                    view = view[os.write(fd, view) :]
            except OSError as error:
                os.ftruncate(fd, self._size)
                self._dirty = False
                raise JournalError(f"cannot write to the journal {self.path}: {error.strerror or error}") from error
            self._index(event, self._size, len(line))
            self._size += len(line)
            self._dirty = False
            if self._observers.subscriptions:
                self._observers.put(line)

    def _check_writable(self) -> int | None:
        """The open file, None for a journal in memory."""
        if self._observers.subscriptions and self._observers.is_handing_over():
            raise JournalError("an observer may not write to the journal that it observes, nor call code that does")
        if self.path is None:
            return None
        if self.readonly:
            raise JournalError(f"the journal {self.path} is open for reading only")
        if self._pid != os.getpid():
            raise JournalError(
                f"the journal {self.path} belongs to process {self._pid}; a forked child may not write to it"
            )
        if self._fd is None:
            raise JournalError(f"the journal {self.path} is closed")
        return self._fd

    def _repair(self) -> None:
        """After a write that was interrupted (Ctrl-C), keep the line if it is complete, and cut it if it is torn."""
        if self._dirty:
            self._load()
            self._dirty = False

    def close(self) -> None:
        """Release the file for another writer. Further events are errors; what is recorded can still be read.

        What was written ends with the time, so that a run which goes on in another process has what is left of it.
        """
        if self._fd is not None and not self.readonly:
            with contextlib.suppress(JournalError):  # as on a full disk: the last event's time stands
                self._write({"kind": "closed", "t": self.elapsed})
        self._hand_over(wait=True)
        self._release()

    def _release(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, None
            if fd is not None:
                os.close(fd)

    def __enter__(self: F) -> F:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        fd = getattr(self, "_fd", None)
        if fd is not None and self._pid == os.getpid():
            self._fd = None
            os.close(fd)

    # ------------------------------------------------------------------------------------------- observing

    def subscribe(self, observer: Observer, *, name: str = "") -> Subscription:
        """Hand every later event to a function, in the order of the file; call the returned subscription to end it.

        The function gets a read-only mapping, a copy of its own: `kind`, the fields of the event, and `replayed`, which
        is true where a resumed run comes to an event of an earlier process again. So an observer of a resumed run sees
        the whole run: ordered events, keyed events and paid calls, the replayed ones once.

        The function is called after the event is in the file, in the thread that wrote it or in another one that is
        handing over already, one event at a time and never while the journal is locked; and in the context (of context
        variables) in which it was subscribed. Language-model calls that it makes are therefore not part of the run. A
        function that blocks delays a part of the run.

        An exception in an observer never ends the run and changes nothing in the journal. A warning names the first
        exception of each type, and `Subscription.failures` keeps them. An observer that writes to the journal that it
        observes gets such an exception.

        Args:
            observer: A plain function of one event.
            name: Its name in reports; by default the name of the function.

        Raises:
            TypeError: The observer cannot be called, or is a coroutine function.
        """
        return self._observers.add(observer, name)

    def _hand_over(self, *, wait: bool = False) -> None:
        if self._observers.subscriptions:
            self._observers.hand_over(wait=wait)


def version() -> str:
    """The version of promptgrad, without an import of its front door."""
    return str(getattr(sys.modules.get("promptgrad"), "__version__", ""))


def _lock_file(fd: int) -> bool:
    """Lock the file for this process alone; the lock ends with the process, however that ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(fd, 0x7FFF0000, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


_open_journals: "weakref.WeakSet[JournalFile]" = weakref.WeakSet()


def _after_fork() -> None:
    """Close the files in a forked child, which would keep the journal locked after its parent's death."""
    for journal in list(_open_journals):
        fd, journal._fd = journal._fd, None
        journal._lock = threading.RLock()
        journal._observers.after_fork()
        if fd is not None:
            os.close(fd)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
