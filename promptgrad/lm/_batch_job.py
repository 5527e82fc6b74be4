"""The requests of one job of a `BatchLM`, and their answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from promptgrad import aio
from promptgrad.lm._job_state import JobState

CHAT_PATH = "/v1/chat/completions"
"""What the requests of a batch are sent to, in the server's own words."""


class BatchLine:
    """One request of a batch.

    Attributes:
        name: Its `custom_id`.
        body: Its body; empty once it is in a file.
        job: The job that it is part of; None while it waits for one.
        done: Set when there is a reply; it fails where there is none.
        reply: Its line in the answers.
        delivered: Whether a caller got it, so that another one pays nothing.
    """

    __slots__ = ("body", "delivered", "done", "job", "name", "reply")

    def __init__(self, name: str) -> None:
        self.name = name
        self.body = b""
        self.job: BatchJob | None = None
        self.done: aio.Signal[None] = aio.Signal()
        self.reply: Mapping[str, Any] | None = None
        self.delivered = False

    @property
    def lost(self) -> bool:
        """Whether its job is over and had no reply to it."""
        return self.reply is None and self.job is not None and self.job.ended and not self.job.running


class BatchJob:
    """The requests that are one job.

    Attributes:
        lines: The requests by `custom_id`.
        state: How far the job is; None before it is written down.
        running: Whether a thread sees to it.
        ended: Whether it has ended at the server.
    """

    def __init__(self, lines: dict[str, BatchLine]) -> None:
        self.lines = lines
        self.state: JobState | None = None
        self.running = False
        self.ended = False

    def lines_to_send(self) -> bytes:
        """The file that is uploaded."""
        made = []
        for name, line in self.lines.items():
            head = json.dumps({"custom_id": name, "method": "POST", "url": CHAT_PATH})
            made.append(head[:-1].encode() + b', "body": ' + line.body + b"}\n")
            line.body = b""
        return b"".join(made)

    def take(self, replies: Iterable[Mapping[str, Any]]) -> None:
        """Give each reply to the one who waits for it."""
        for reply in replies:
            line = self.lines.get(str(reply.get("custom_id")))
            if line is not None and line.reply is None:
                line.reply = reply
                line.done.set(None)

    def leave(self) -> list[aio.Signal[None]]:
        """Nobody sees to it any more: what those wait for whose reply is not there. Who asks again waits anew."""
        self.running = False
        left = []
        for line in self.lines.values():
            if line.reply is None:
                left.append(line.done)
                line.done = aio.Signal()
        return left


def is_answer(reply: Mapping[str, Any]) -> bool:
    """Whether a line of the answers is no error."""
    response = reply.get("response")
    return isinstance(response, Mapping) and response.get("status_code") == 200


def lines_of(data: bytes) -> Iterator[Mapping[str, Any]]:
    """The lines of a file of answers that can be read."""
    for text in data.splitlines():
        try:
            found = json.loads(text) if text.strip() else None
        except (ValueError, RecursionError):
            continue  # its request has no answer, which is an error of its own
        if isinstance(found, Mapping):
            yield found
