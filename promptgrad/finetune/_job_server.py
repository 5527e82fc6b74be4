"""`JobServer`: files and fine-tuning jobs of a server, in OpenAI's form, and what must not be done twice there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from promptgrad import aio, lm
from promptgrad.errors import BadRequestError

T = TypeVar("T")

JOBS = "fine_tuning/jobs"

WAYS_OF_SAYING = {
    "success": "succeeded",
    "completed": "succeeded",
    "canceled": "cancelled",
    "failed_validation": "failed",
    "error": "failed",
    "timeout_exceeded": "failed",
}
"""What servers say in place of OpenAI's statuses."""

ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What a provider tells of a job.

    Attributes:
        message: Its words.
        level: "info", "warn" or "error".
        step: The step of the training; None if it is about none.
        steps: The number of steps; None if it is not said.
        loss: The training loss of that step; None if it is not said.
    """

    message: str
    level: str = "info"
    step: int | None = None
    steps: int | None = None
    loss: float | None = None


class JobServer(lm.ServerJobs):
    """The files and fine-tuning jobs of one server.

    Args:
        http: The LM whose server is asked.
        sleep: Function that waits; tests pass their own.
    """

    advice = "Look there; finetune.attach(program, id) goes on with a job"

    def __init__(self, http: lm.HTTP, sleep: Callable[[float], Awaitable[object]] = aio.sleep) -> None:
        super().__init__(http, JOBS, "fine-tune", sleep)
        self._has_events = True

    async def begin(self, mark: str, body: Mapping[str, Any], *, perhaps: bool) -> dict[str, Any]:
        """Create a job once; returns it as the server shows it. The file that `body` names is of this job alone."""
        file = body["training_file"]
        return await self.create(mark, body, lambda job: job.get("training_file") == file, perhaps=perhaps)

    async def events(self, job: str, known: set[str]) -> list[JobEvent]:
        """The events of a job that are not known yet, the oldest first; none where the server has no events.

        The ids of the events are added to those that are known.
        """
        fresh: list[Mapping[str, Any]] = []
        after: str | None = None
        for _ in range(lm.PAGES if self._has_events else 0):
            try:
                page = await self.api.get(f"{JOBS}/{job}/events", limit=100, after=after)
            except BadRequestError:
                self._has_events = False
                break
            items = lm.items_of(page)
            new = [item for item in items if item.get("id") not in known]
            fresh += new
            if len(new) < len(items) or not items or not page.get("has_more"):
                break
            after = str(items[-1].get("id"))
        known.update(str(item.get("id")) for item in fresh)
        return [_event(item) for item in reversed(fresh)]


def status_of(job: Mapping[str, Any]) -> str:
    """A job's status in OpenAI's words, or as the server says it."""
    told = str(job.get("status") or "unknown").lower()
    return WAYS_OF_SAYING.get(told, told)


def reason_of(job: Mapping[str, Any]) -> str:
    """Why a job failed, in the provider's words."""
    error = job.get("error")
    if not isinstance(error, Mapping):
        return str(error or "")
    told = str(error.get("message") or error.get("code") or "")
    where = error.get("param")
    return f"{told} ({where})" if told and where and str(where) not in told else told


def _event(item: Mapping[str, Any]) -> JobEvent:
    data = item.get("data")
    data = data if isinstance(data, Mapping) else {}
    return JobEvent(
        str(item.get("message") or ""),
        str(item.get("level") or "info"),
        _number(data.get("step"), int),
        _number(data.get("total_steps"), int),
        _number(data.get("train_loss"), float),
    )


def _number(value: Any, kind: Callable[[Any], T]) -> T | None:
    return kind(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value else None
