"""`ServerJobs`: files and jobs of a server, in OpenAI's form, each made once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from promptgrad import aio
from promptgrad.errors import BadRequestError, JobError, LMError, LMTimeoutError, OverloadedError, RateLimitError
from promptgrad.lm._api import Api
from promptgrad.lm._http import HTTP

ONCE_ATTEMPTS = 5
"""Most times that a file is uploaded or a job created whose answer was lost and that the server does not show."""

READY = 300
"""Most looks at a file that the server still reads."""

PAGES = 100
"""Most pages of a list that are read."""


class ServerJobs:
    """The files and jobs of one server, and what must not be done twice there.

    What is made has a mark that nothing else has, in the name of a file and in the metadata of a job. Where an answer
    was lost, the server's list is read before anything is sent again.

    Args:
        http: The LM whose server is asked.
        path: Where the jobs are, such as "batches".
        purpose: What uploaded files are for, in the server's words.
        sleep: Function that waits; tests pass their own.

    Attributes:
        url: Address of the server.
        api: What asks it.
        pause: Function that waits.
        advice: What to do where it is not known whether something was made.
    """

    advice = "Look there, and begin anew if there is none"

    def __init__(
        self, http: HTTP, path: str, purpose: str, sleep: Callable[[float], Awaitable[object]] = aio.sleep
    ) -> None:
        self.url = http.base_url
        self.path = path
        self.purpose = purpose
        self.api = Api(http, sleep=sleep)
        self.pause = sleep

    async def upload(self, mark: str, data: bytes, *, perhaps: bool) -> str:
        """Upload a file once, under a name with the mark, and return its id.

        Args:
            mark: A text that no other upload has.
            data: JSON lines.
            perhaps: Whether it may have been done before, so that the server's list is read first.

        Raises:
            LMError: The server refuses it, or cannot be reached.
            JobError: It is not known whether it was done.
        """
        name = f"promptgrad-{mark}.jsonl"

        async def send() -> dict[str, Any]:
            return await self.api.upload("files", name, data, key=f"{mark}-file", purpose=self.purpose)

        async def find() -> dict[str, Any] | None:
            return await self._find("files", lambda file: file.get("filename") == name, purpose=self.purpose)

        file = await self._once(send, find, "the file", perhaps=perhaps)
        name_there = _id(file, "the upload")
        for _ in range(READY):
            if file.get("status") not in ("pending", "running"):  # Azure's, which no job may begin with
                break
            await self.pause(2.0)
            file = await self.api.get(f"files/{name_there}")
        return name_there

    async def create(
        self, mark: str, body: Mapping[str, Any], is_ours: Callable[[Mapping[str, Any]], bool], *, perhaps: bool
    ) -> dict[str, Any]:
        """Create a job once; returns it as the server shows it.

        Args:
            mark: A text that no other job has, for its metadata.
            body: What the job is. Its file is of this job alone.
            is_ours: Whether a job of the server's list is this one, where the server keeps no metadata.
            perhaps: Whether it may have been done before.

        Raises:
            LMError, JobError: As `upload`.
        """
        tags: dict[str, Any] = {"metadata": {"promptgrad": mark}}

        async def send() -> dict[str, Any]:
            try:
                return await self.api.post(self.path, {**body, **tags}, key=f"{mark}-job")
            except BadRequestError as error:
                if not tags or "metadata" not in error.body:
                    raise
                tags.clear()  # the file is mark enough
                return await self.api.post(self.path, body, key=f"{mark}-job")

        def is_it(job: Mapping[str, Any]) -> bool:
            given = job.get("metadata")
            return (isinstance(given, Mapping) and given.get("promptgrad") == mark) or is_ours(job)

        job = await self._once(send, lambda: self._find(self.path, is_it), "the job", perhaps=perhaps)
        _id(job, "the job")
        return job

    async def look(self, job: str) -> dict[str, Any]:
        """The job as the server shows it now."""
        return await self.api.get(f"{self.path}/{job}")

    async def cancel(self, job: str) -> dict[str, Any]:
        """Ask the server to end a job."""
        return await self.api.post(f"{self.path}/{job}/cancel")

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
        for attempt in range(ONCE_ATTEMPTS):
            if perhaps:
                try:
                    found = await find()
                except BadRequestError as error:
                    raise JobError(
                        f"it is not known whether {what} was made at {self.url}: the answer was lost, and the server "
                        f"shows no list of them ({error}). {self.advice}"
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
            items = items_of(page)
            for item in items:
                if is_it(item):
                    return dict(item)
            if not items or not page.get("has_more"):
                break
            after = str(items[-1].get("id"))
        return None


def _was_lost(error: LMError) -> bool:
    """Whether what was asked for may have been done though there is no answer."""
    if isinstance(error, (RateLimitError, OverloadedError)):
        return False
    return error.transient or isinstance(error, LMTimeoutError)


def items_of(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The objects of a page of a list."""
    items = page.get("data")
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _id(made: Mapping[str, Any], what: str) -> str:
    found = made.get("id")
    if not isinstance(found, str) or not found:
        raise JobError(f"the server's answer to {what} has no id: {str(made)[:200]}")
    return found
