"""`BatchLM`: requests that are collected and answered by a job of the provider, within a day and at half the price."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from promptgrad import aio
from promptgrad._files import write_text
from promptgrad.errors import DataError, LMError, LMReplyError, LMStatusError, PromptgradError, ServerTimeoutError
from promptgrad.lm._base import LM
from promptgrad.lm._batch_job import CHAT_PATH, BatchJob, BatchLine, is_answer, lines_of
from promptgrad.lm._completion import Completion
from promptgrad.lm._fork import reset_after_fork
from promptgrad.lm._habits import stopped, written_without
from promptgrad.lm._http import HTTP
from promptgrad.lm._job_state import JobState, owned
from promptgrad.lm._prices import Prices, cost
from promptgrad.lm._request import Request
from promptgrad.lm._request_body import encode_body
from promptgrad.lm._server_jobs import ServerJobs
from promptgrad.lm._transport import Transport

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
GROWTH = 1.3
"""Growth of the wait between two looks at a batch."""

LONGEST = 30.0
"""The longest of these waits, as a multiple of the first one."""

OUTAGES = 60
"""Looks in a row that may fail for reasons that may pass."""

LINES = "requests.jsonl"
REPLIES = "replies.jsonl"


class BatchLM(Transport):
    """Collect requests and have the provider answer them as one job, for half the price and within a day.

    `lm.BatchLM(pg.lm.HTTP("gpt-4o-mini", ...), "runs/batch")` is a language model as any other: evaluate with
    it, with as many calls in flight as there are examples. What comes within `idle` seconds of one another is one job:
    requests are written as JSON lines, uploaded, and looked for until the job has ended; a program of three calls one
    after another takes three jobs. It needs a server with OpenAI's `/files` and `/batches`.

    With a `folder`, a process that was killed and does the same again goes on: its requests are found in the jobs that
    were begun, which are neither uploaded nor created twice; replies stay there. What the server does with one request
    is the error of that call, of its kind: 400, 429, or `ServerTimeoutError` for one that was not reached in time. An
    error is not kept; a layer `Retry` around would send such a request again, in another job. A server that could not
    be reached is asked for the same job again. A budget of tokens or money is reserved for all that is collected: set
    `max_tokens`, or requests wait for one another, each in a job of its own.

    Prices are those of the LM, times `discount`, so that budgets and `track_usage` count what a batch costs. Identity
    and keys are those of the LM, so that a `Cache` around shares its replies with one around the LM itself.

    Cost: one call for each request. A caller that is cancelled does not end the job.
    Source: OpenAI's Batch API.

    Args:
        lm: The LM of a server; the layers of one that has some are left out: put a `Cache` around the batch.
        folder: Where jobs and replies are kept; None for nowhere, so that a killed process loses its jobs. One process
            at a time.
        idle: Seconds without another request after which the job is begun.
        max_requests: Most requests of a job.
        max_bytes: Most bytes of its lines.
        poll: Seconds before the first look at a job; later ones are up to 30 times as far apart.
        window: How long the provider may take, in its words.
        discount: What a call costs, as a share of its price without a batch.
        sleep: Function that waits; tests pass their own.

    Raises:
        TypeError: `lm` is not the LM of a server.
        ValueError: A number is not above zero.
        JobError: Another process uses the folder.
        DataError: The folder has files that are damaged.
    """

    in_place = True

    def __init__(
        self,
        lm: LM,
        folder: str | os.PathLike[str] | None = None,
        *,
        idle: float = 2.0,
        max_requests: int = 10_000,
        max_bytes: int = 100 * 2**20,
        poll: float = 10.0,
        window: str = "24h",
        discount: float = 0.5,
        sleep: Callable[[float], Awaitable[object]] = aio.sleep,
    ) -> None:
        http: Any = lm.transport if isinstance(lm, LM) else lm
        if not isinstance(http, HTTP):
            raise TypeError(f"a BatchLM is of an LM of a server (lm.HTTP, or a name such as 'openai/...'), not {lm!r}")
        for what, number in {"idle": idle, "max_requests": max_requests, "max_bytes": max_bytes, "poll": poll}.items():
            if not number > 0:
                raise ValueError(f"{what} is a number above 0, not {number!r}")
        super().__init__(http.name, adapter=http.adapter)
        self.http = http
        self.options = http.options
        self.folder = None if folder is None else Path(folder)
        self.idle = idle
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.poll = poll
        self.window = window
        self.discount = discount
        self._sleep = sleep
        self._server = ServerJobs(http, "batches", "batch", sleep)
        self._held = ExitStack()
        self._reset()
        reset_after_fork(self)
        if self.folder is not None:
            self._held.enter_context(owned(self.folder))
            self._find_jobs(self.folder)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, BatchLine] = {}
        self._pending: list[BatchLine] = []
        self._size = 0
        self._collecting = False
        self._jobs: list[BatchJob] = []

    def after_fork(self) -> None:
        """Start without jobs: they belong to the parent."""
        self._reset()

    def identity(self) -> str:
        """Return the identity of the LM."""
        return self.http.identity()

    @property
    def prices(self) -> Prices | None:
        """US dollars for a million input and a million output tokens, in a batch."""
        known = self.http.prices
        return None if known is None else (known[0] * self.discount, known[1] * self.discount)

    def stats(self) -> dict[str, Any]:
        """The requests of the server, `jobs` of this process, `waiting` requests, and `kept` replies."""
        with self._lock:
            kept = sum(line.reply is not None for line in self._entries.values())
            return {
                **self.http.stats(),
                "jobs": len(self._jobs),
                "waiting": len(self._entries) - kept,
                "kept": kept,
            }

    async def _send(self, request: Request, key: str) -> Completion:
        while True:
            lacks = self.http._habits.lacks
            asked = request if not lacks else written_without(request, lacks)
            body, size = encode_body(self.http.model, lacks, asked)
            digest = hashlib.blake2b(body, digest_size=4).hexdigest()
            try:
                reply = await self._answer(f"{request.digest(self.identity())}-{digest}", body, size)
                return stopped(reply, request, lacks)
            except LMStatusError as error:
                if not self.http._habits.learn(error, request, lacks):
                    raise

    async def _answer(self, name: str, body: bytes, size: int) -> Completion:
        started = perf_counter()
        with self._lock:
            line = self._entries.get(name)
            if line is None or line.lost:
                line = self._entries[name] = BatchLine(name)
                line.body = body
                self._add(line)
            done = line.done
            if line.job is not None:
                self._go_on(line.job)
        try:
            await done
            completion = self._read(line, size, perf_counter() - started)
        except PromptgradError:
            if line.job is None or line.job.ended:  # else it goes on where somebody asks again
                self._drop(line)
            raise
        if self.folder is None:
            self._drop(line)
        return completion

    def _read(self, line: BatchLine, size: int, seconds: float) -> Completion:
        reply = line.reply or {}
        response = reply.get("response")
        error = reply.get("error")
        if isinstance(response, Mapping) and response.get("status_code") == 200 and isinstance(response["body"], dict):
            found = self.http._read(response["body"], size, seconds)
            if line.delivered:
                return found.as_cached()
            line.delivered = True
            used = found.usage
            usd = cost(self.prices, used.input_tokens, used.output_tokens)
            return replace(found, usage=replace(used, usd=usd))
        if isinstance(response, Mapping):
            raw = json.dumps(response.get("body")).encode()
            raise self.http._status_error(int(response.get("status_code") or 0), raw, {}, asked="in a batch")
        told = error if isinstance(error, Mapping) else {}
        if "expired" in str(told.get("code")):
            raise ServerTimeoutError(f"{self.http.base_url} did not come to this request in time: {told}", status=504)
        raise LMError(f"{self.http.base_url} did not answer this request of a batch: {told or reply}")

    def _drop(self, line: BatchLine) -> None:
        with self._lock:
            if self._entries.get(line.name) is line:
                del self._entries[line.name]

    # ---- collecting

    def _add(self, line: BatchLine) -> None:
        """Put a line with those that wait; the lock is held."""
        if self._pending and (len(self._pending) >= self.max_requests or self._size + len(line.body) > self.max_bytes):
            self._begin()
        self._pending.append(line)
        self._size += len(line.body)
        if not self._collecting:
            self._collecting = True
            _in_background(self._collect)

    async def _collect(self) -> None:
        """Wait until no more requests come, and begin the job."""
        seen: list[BatchLine] | None = None
        try:
            while seen is None or self._pending[-1:] != seen:
                seen = self._pending[-1:]
                await self._sleep(self.idle)
        finally:
            with self._lock:
                self._collecting = False
                if self._pending:
                    self._begin()

    def _begin(self) -> None:
        """Make a job of the lines that wait; the lock is held."""
        lines, self._pending, self._size = self._pending, [], 0
        job = BatchJob({line.name: line for line in lines})
        for line in lines:
            line.job = job
        self._jobs.append(job)
        self._go_on(job)

    def _go_on(self, job: BatchJob) -> None:
        """Have somebody see to a job; the lock is held."""
        if not job.running and not job.ended:
            job.running = True
            _in_background(lambda: self._see_to(job))

    # ---- a job

    async def _see_to(self, job: BatchJob) -> None:
        failure: PromptgradError = LMError("nobody sees to the batch any more")
        try:
            failure = await self._run(job)
        except Exception as error:  # noqa: BLE001 - it is raised in every caller that waits for the job
            failure = error if isinstance(error, PromptgradError) else LMError(f"{type(error).__name__}: {error}")
        finally:
            with self._lock:  # whoever asks from here on finds that nobody sees to it
                left = job.leave()
            for done in left:
                done.fail(failure)

    async def _run(self, job: BatchJob) -> PromptgradError:
        """See to a job until it has ended; the error of those to which it has no reply."""
        state = job.state
        if state is None:
            place = None if self.folder is None else self._new_place(self.folder)
            state = job.state = JobState(place, self.identity(), lines=LINES)
            state.begin(job.lines_to_send(), requests=len(job.lines))
        mark = state.get("mark")
        if state.get("file") is None:
            perhaps = state.get("uploading", False)
            state.note(uploading=True)
            state.note(file=await self._server.upload(mark, state.data, perhaps=perhaps))
        if state.get("job") is None:
            perhaps = state.get("creating", False)
            state.note(creating=True)
            body = {"input_file_id": state.get("file"), "endpoint": CHAT_PATH, "completion_window": self.window}
            file = state.get("file")
            made = await self._server.create(
                mark, body, lambda known: known.get("input_file_id") == file, perhaps=perhaps
            )
            state.note(job=made["id"])
        shown = await self._wait(state.get("job"))
        files = [shown[name] for name in ("output_file_id", "error_file_id") if shown.get(name)]
        data = b"\n".join([await self._server.api.download(f"files/{file}/content") for file in files])
        replies = list(lines_of(data))
        if state.folder is not None:  # first, so that a reply which somebody used is there
            answers = [json.dumps(reply) + "\n" for reply in replies if is_answer(reply)]  # errors are asked for again
            write_text(state.folder / REPLIES, "".join(answers))
            state.note(ended=shown["status"])
        job.ended = True
        job.take(replies)
        return self._failure(shown)

    async def _wait(self, job: str) -> dict[str, Any]:
        """The batch as it is shown at its end."""
        wait, outages = self.poll, 0
        while True:
            try:
                shown = await self._server.look(job)
                outages = 0
                if str(shown.get("status")) in ENDED:
                    return shown
            except LMError as error:
                outages += 1
                if not error.transient or outages > OUTAGES:
                    raise
            await self._sleep(wait)
            wait = min(wait * GROWTH, self.poll * LONGEST)

    def _failure(self, shown: Mapping[str, Any]) -> PromptgradError:
        """The error of the requests that a batch which has ended has no answer to."""
        status = str(shown.get("status"))
        if status == "expired":
            return ServerTimeoutError(f"the batch {shown.get('id')} was not done in time", status=504)
        errors = shown.get("errors")
        listed = errors.get("data") if isinstance(errors, Mapping) else None
        first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], Mapping) else {}
        if status == "failed":
            raw = json.dumps({"error": {"message": first.get("message") or "it failed", "code": first.get("code")}})
            return self.http._status_error(400, raw.encode(), {}, asked=f"for the batch {shown.get('id')}")
        return LMReplyError(f"the batch {shown.get('id')} is {status} and has no answer to this request")

    # ---- the folder

    def _new_place(self, folder: Path) -> Path:
        with self._lock:
            number = 1 + max([int(path.name.rpartition("-")[2]) for path in _places(folder)], default=0)
            place = folder / f"batch-{number:05}"
            place.mkdir(mode=0o700)
        return place

    def _find_jobs(self, folder: Path) -> None:
        """Find the jobs of earlier processes; nothing is asked before one of their requests is."""
        for place in _places(folder):
            try:
                state = JobState(place, self.identity(), lines=LINES)
            except DataError as error:
                raise DataError(f"{folder} is of another LM, or damaged; give another folder ({error})") from None
            if "sha256" not in state.facts:
                continue  # the process ended before it was written
            job = BatchJob({})
            job.state = state
            for text in state.data.decode().splitlines():
                name = json.loads(text)["custom_id"]
                line = job.lines[name] = BatchLine(name)
                line.job = job
            if state.get("ended"):
                job.ended = True
                if (place / REPLIES).exists():
                    job.take(lines_of((place / REPLIES).read_bytes()))
            self._jobs.append(job)
            for name, line in job.lines.items():
                if not job.ended or line.reply is not None:
                    self._entries[name] = line

    def close(self) -> None:
        """Give the folder free for another process, and close the connections. Jobs go on at the provider."""
        self._held.close()
        self.http.close()

    def __repr__(self) -> str:
        where = "" if self.folder is None else f", {str(self.folder)!r}"
        return f"BatchLM({self.http!r}{where})"


def _places(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("batch-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found)


def _in_background(work: Callable[[], Any]) -> None:
    """Run a coroutine function in a thread of its own, outside of the caller's run, cassette and counts."""
    threading.Thread(target=lambda: aio.drive(work()), name="promptgrad-batch", daemon=True).start()
