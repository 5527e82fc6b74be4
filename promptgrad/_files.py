"""Files that are there whole or not at all, whenever a process is killed; and folders with one writer."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def write_text(path: Path, text: str) -> None:
    """Write a file completely or not at all, for its owner alone; through a symbolic link that stands in its place.

    Raises:
        OSError: It cannot be written; the error has this path, and the file is as it was.
    """
    given, path = path, Path(os.path.realpath(path))
    try:
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        _write(path, text)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(given)) from error


def _write(path: Path, text: str) -> None:
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    prefix = f".{path.name}.{os.getpid()}-"
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def as_os_errors(path: Path) -> Iterator[None]:
    """Raise what safetensors says of the system, such as of a full disk, as an `OSError` that names the file."""
    try:
        yield
    except Exception as error:  # safetensors has kinds of its own
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write files into, which take their place in another one once all of them are written, or not at all.

    The same weights are the same bytes.

    What a process leaves that dies meanwhile is swept by the next one. Files of other names stay.
    """
    import shutil
    import tempfile

    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path / path.name if path.is_dir() else path  # what is there may be a disk of its own, as volumes are
    _sweep(beside)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}.{os.getpid()}-", suffix=".tmp", dir=beside.parent))
    try:
        with as_os_errors(path):
            yield made
        for file in sorted(made.rglob("*")):
            if file.is_file():
                with file.open("rb+") as opened:
                    if file.suffix == ".safetensors":
                        _order_metadata(opened)
                    os.fsync(opened.fileno())
        for file in sorted(made.rglob("*"), reverse=True):  # weights before what says how to read them
            if file.is_file():
                place = path / file.relative_to(made)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _order_metadata(file: BinaryIO) -> None:
    """Give the metadata of a safetensors file an order, which are in any: the same weights are the same bytes."""
    import json

    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) <= size:
        file.seek(8)
        file.write(text.ljust(size))
        file.flush()


def _sweep(path: Path) -> None:
    """Remove what processes left that died while they wrote this file."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)-\w+\.tmp")
    for name in os.listdir(path.parent):
        found = pattern.fullmatch(name)
        if found and not _is_alive(int(found[1])):
            left = path.parent / name
            if left.is_dir() and not left.is_symlink():
                import shutil

                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # there is no question to a process that does not end it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Let one process at a time write into a folder, or some read it; where folders have no locks, all of them.

    Raises:
        BlockingIOError: Another one has it, and `wait` is off.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise
        yield
    finally:
        os.close(descriptor)


def settle(file: Path) -> None:
    """Make a file private, and have it on the disk, before another file names it."""
    file.chmod(0o600)
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
