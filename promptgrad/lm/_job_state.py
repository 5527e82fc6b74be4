"""`JobState`: how far a job is, in a file that is whole whenever the process is killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from promptgrad._files import locked, write_text
from promptgrad.errors import DataError, JobError

FILE = "job.json"


class JobState:
    """The facts of one job: in memory, and in a folder if there is one.

    What is about to be asked of the server is noted before it is asked, and its answer before anything else is done, so
    that another process knows what may have happened. No key, header or password is among the facts.

    Args:
        folder: The folder, which is made; None keeps the facts in memory alone.
        identity: What the job is about: data, program and settings. A folder with another job is refused.
        lines: Name of the file of what is sent.

    Attributes:
        facts: The facts. `mark` is a text of this job alone.

    Raises:
        DataError: The folder has another job, or its files are damaged.
    """

    def __init__(self, folder: Path | None, identity: str, *, lines: str = "train.jsonl") -> None:
        self.folder = folder
        self.lines = lines
        self.facts: dict[str, Any] = {"version": 1, "identity": identity, "mark": token_hex(8)}
        self.data = b""
        if folder is None or not (folder / FILE).exists():
            return
        try:
            found = json.loads((folder / FILE).read_text(encoding="utf-8"))
            if not isinstance(found, dict) or not isinstance(found["mark"], str) or found["version"] != 1:
                raise ValueError("it is not the state of a job")
            if found["identity"] == identity:
                self.data = (folder / lines).read_bytes()
                if hashlib.sha256(self.data).hexdigest() != found["sha256"]:
                    raise ValueError(f"{lines} was changed")
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder / FILE} cannot be read: {error}; give another checkpoint=") from None
        if found["identity"] != identity:
            raise DataError(
                f"{folder} has a job with other data, another program or other settings: give another checkpoint=, or "
                "the same arguments to go on with that one"
            )
        self.facts = found

    def begin(self, data: bytes, **facts: Any) -> None:
        """Keep the data that will be sent; from here on the job goes on rather than begins."""
        self.data = data
        if self.folder is not None:
            write_text(self.folder / self.lines, data.decode())
        self.note(sha256=hashlib.sha256(data).hexdigest(), **facts)

    def note(self, **facts: Any) -> None:
        """Add facts, and have them on the disk."""
        self.facts.update(facts)
        if self.folder is not None:
            write_text(self.folder / FILE, json.dumps(self.facts, indent=1) + "\n")

    def get(self, name: str, default: Any = None) -> Any:
        """A fact."""
        return self.facts.get(name, default)


@contextmanager
def owned(folder: Path | None) -> Iterator[None]:
    """Let one process at a time begin a job in a folder.

    Raises:
        JobError: Another one does.
    """
    if folder is None:
        yield
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with locked(folder, wait=False):
            yield
    except BlockingIOError:
        raise JobError(f"another process begins a job in {folder}: wait for it, or give another folder") from None
