"""`JobServer`: files and fine-tuning jobs of a server, in OpenAI's form, and what must not be done twice there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from promptgrad import aio, lm
from promptgrad.errors import (
    BadRequestError,
    JobError,
    LMError,
    LMTimeoutError,
    OverloadedError,
    RateLimitError,
)

T = TypeVar("T")

JOBS = "fine_tuning/jobs"

ATTEMPTS = 5
"""Most times that a file is uploaded or a job created whose answer was lost and that the server does not show."""

READY = 300
"""Most looks at a file that the server still reads."""

PAGES = 100
"""Most pages of a list that are read."""

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


class JobServer:
    """The files and jobs of one server.

    Args:
        http: The LM whose server is asked.
        sleep: Function that waits; tests pass their own.
    """

    def __init__(self, http: lm.HTTP, sleep: Callable[[float], Awaitable[object]] = aio.sleep) -> None:
        self.url = http.base_url
        self.api = lm.Api(http, sleep=sleep)
        self.pause = sleep
        self._has_events = True

    async def upload(self, mark: str, data: bytes, *, perhaps: bool) -> str:
        """Upload training data once, under a name with the mark, and return the file's id.

        Args:
            mark: A text that no other upload has.
            data: JSON lines.
            perhaps: Whether it may have been done before, so that the server's list is read first.
        """
        name = f"promptgrad-{mark}.jsonl"

        async def send() -> dict[str, Any]:
            return await self.api.upload("files", name, data, key=f"{mark}-file", purpose="fine-tune")

        async def find() -> dict[str, Any] | None:
            return await self._find("files", lambda file: file.get("filename") == name, purpose="fine-tune")

        file = await self._once(send, find, "the file", perhaps=perhaps)
        name_there = _id(file, "the upload")
        for _ in range(READY):
            if file.get("status") not in ("pending", "running"):  # Azure's, which no job may begin with
                break
            await self.pause(2.0)
            file = await self.api.get(f"files/{name_there}")
        return name_there

    async def create(self, mark: str, body: Mapping[str, Any], *, perhaps: bool) -> dict[str, Any]:
        """Create a job once; returns it as the server shows it. The file that `body` names is of this job alone."""
        tags: dict[str, Any] = {"metadata": {"promptgrad": mark}}

        async def send() -> dict[str, Any]:
            try:
                return await self.api.post(JOBS, {**body, **tags}, key=f"{mark}-job")
            except BadRequestError as error:
                if not tags or "metadata" not in error.body:
                    raise
                tags.clear()  # the file is mark enough
                return await self.api.post(JOBS, body, key=f"{mark}-job")

        def is_ours(job: Mapping[str, Any]) -> bool:
            given = job.get("metadata")
            marked = isinstance(given, Mapping) and given.get("promptgrad") == mark
            return marked or job.get("training_file") == body["training_file"]

        job = await self._once(send, lambda: self._find(JOBS, is_ours), "the job", perhaps=perhaps)
        _id(job, "the job")
        return job

    async def look(self, job: str) -> dict[str, Any]:
        """The job as the server shows it now."""
        return await self.api.get(f"{JOBS}/{job}")

    async def cancel(self, job: str) -> dict[str, Any]:
        """Ask the server to end a job."""
        return await self.api.post(f"{JOBS}/{job}/cancel")

    async def events(self, job: str, known: set[str]) -> list[JobEvent]:
        """The events of a job that are not known yet, the oldest first; none where the server has no events.

        The ids of the events are added to those that are known.
        """
        fresh: list[Mapping[str, Any]] = []
        after: str | None = None
        for _ in range(PAGES if self._has_events else 0):
            try:
                page = await self.api.get(f"{JOBS}/{job}/events", limit=100, after=after)
            except BadRequestError:
                self._has_events = False
                break
            items = _items(page)
            new = [item for item in items if item.get("id") not in known]
            fresh += new
            if len(new) < len(items) or not items or not page.get("has_more"):
                break
            after = str(items[-1].get("id"))
        known.update(str(item.get("id")) for item in fresh)
        return [_event(item) for item in reversed(fresh)]

    async def _once(
        self,
        send: Callable[[], Awaitable[dict[str, Any]]],
        find: Callable[[], Awaitable[dict[str, Any] | None]],
        what: str,
        *,
        perhaps: bool,
    ) -> dict[str, Any]:
        """Send what must not be done twice; where its answer was lost, it is looked up before it is sent again."""
        failure: LMError | None = None
        for attempt in range(ATTEMPTS):
            if perhaps:
                try:
                    found = await find()
                except BadRequestError as error:
                    raise JobError(
                        f"it is not known whether {what} was made at {self.url}: the answer was lost, and the server "
                        f"shows no list of them ({error}). Look there; finetune.attach(program, id) goes on with a job"
                    ) from failure
                if found is not None:
                    return found
            try:
                return await send()
            except LMError as error:
                if not _was_lost(error):
                    raise
                failure, perhaps = error, True
            await self.pause(2.0**attempt)
        raise failure or AssertionError

    async def _find(self, path: str, is_it: Callable[[Mapping[str, Any]], bool], **query: Any) -> dict[str, Any] | None:
        after: str | None = None
        for _ in range(PAGES):
            page = await self.api.get(path, limit=100, after=after, **query)
            items = _items(page)
            for item in items:
                if is_it(item):
                    return dict(item)
            if not items or not page.get("has_more"):
                break
            after = str(items[-1].get("id"))
        return None


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


def _was_lost(error: LMError) -> bool:
    """Whether what was asked for may have been done though there is no answer."""
    if isinstance(error, (RateLimitError, OverloadedError)):
        return False
    return error.transient or isinstance(error, LMTimeoutError)


def _items(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    items = page.get("data")
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _id(made: Mapping[str, Any], what: str) -> str:
    found = made.get("id")
    if not isinstance(found, str) or not found:
        raise JobError(f"the server's answer to {what} has no id: {str(made)[:200]}")
    return found


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
