"""Files and fine-tuning jobs of the loopback server, in the form of OpenAI's."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from promptgrad.testing._protocol import Answer, Cut, Drop, Garbage, ReceivedRequest, Status

_ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass
class LoopbackJobs:
    """The files and fine-tuning jobs of a `LoopbackLM(jobs=...)`: uploads, jobs, events, lists and cancellation.

    Nothing is trained. A job goes on by one status each time that it is looked at, the last of which stays.

        jobs = LoopbackJobs(statuses=["queued", "running", "failed"], error="the file has too few rows")
        with LoopbackLM("ok", jobs=jobs) as server:
            ...
        assert len(jobs.files) == 1

    Args:
        statuses: The statuses of a job, one for each look.
        losses: The training loss of each step, told in events: all of them, once the job has begun.
        error: Why a job fails.
        trained_tokens: Tokens that a job which succeeded reports.
        refuses: Fields of a new job that this server does not take, such as "metadata".
        lists: Whether files and jobs can be listed.
        events: Whether a job has events.
        before: Function of each request, called before it is answered.
        after: Function of each request, called when it has been carried out, before the answer is sent.

    Attributes:
        files: The uploaded files by id: name, purpose and content.
        jobs: The jobs by id, as the server shows them.
        requests: Method and path of every request.
    """

    statuses: Sequence[str] = ("validating_files", "queued", "running", "succeeded")
    losses: Sequence[float] = (2.0, 1.0, 0.5)
    error: str = "the training failed"
    trained_tokens: int = 1234
    refuses: Sequence[str] = ()
    lists: bool = True
    events: bool = True
    before: Callable[[str], None] = lambda request: None
    after: Callable[[str], None] = lambda request: None
    files: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    _answers: deque[Answer | None] = field(default_factory=deque, repr=False)
    _looks: dict[str, int] = field(default_factory=dict, repr=False)

    def script(self, *answers: Answer | None) -> LoopbackJobs:
        """Queue what happens to the next requests: an error, a lost connection, None to carry one out.

        A `Cut` carries it out and sends only a part of the answer.
        """
        self._answers.extend(answers)
        return self

    def serves(self, path: str) -> bool:
        """Whether a path is that of a file or a job."""
        return re.search(r"/(?:files|fine_tuning/jobs)(?:[/?]|$)", path) is not None

    def answer(self, request: ReceivedRequest) -> tuple[int, bytes, Answer | None]:
        """Carry a request out: status and body of the answer, and what happens to it instead of being sent whole."""
        path, _, query = request.path.partition("?")
        told = f"{request.method} {path.partition('/v1/')[2]}"
        self.requests.append(told)
        self.before(told)
        planned = self._answers.popleft() if self._answers else None
        if isinstance(planned, (Status, Drop, Garbage)):
            return 0, b"", planned
        code, value = self._do(request, told, parse_qs(query))
        self.after(told)
        return code, json.dumps(value).encode(), planned if isinstance(planned, Cut) else None

    def _do(self, request: ReceivedRequest, told: str, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        method, *parts = re.split(r"[ /]", told)
        listed = method == "GET" and parts in (["files"], ["fine_tuning", "jobs"])
        if listed and not self.lists:
            return 404, _error("there is no list", "not_found")
        if told == "POST files":
            return self._upload(request)
        if told == "GET files":
            return 200, {"object": "list", "data": [self._file(name) for name in self.files], "has_more": False}
        if told == "POST fine_tuning/jobs":
            return self._create(request.json)
        if told == "GET fine_tuning/jobs":
            return 200, _page(list(self.jobs.values()), query)
        name = parts[2] if len(parts) > 2 else ""
        if name not in self.jobs:
            return 404, _error(f"no job {name}", "not_found")
        job = self.jobs[name]
        if parts[3:] == ["cancel"]:
            if job["status"] in _ENDED:
                return 400, _error(f"the job is {job['status']}", "invalid_request")
            job.update(status="cancelled", finished_at=1700000900)
        elif parts[3:] == ["events"]:
            return (200, _page(self._events(job), query)) if self.events else (404, _error("no events", "not_found"))
        else:
            self._go_on(job)
        return 200, job

    def _upload(self, request: ReceivedRequest) -> tuple[int, dict[str, Any]]:
        form = _read_form(request.headers.get("content-type", ""), request.body)
        if "file" not in form or "purpose" not in form:
            return 400, _error("a form with file and purpose is needed", "invalid_request_error")
        name = f"file-{len(self.files) + 1}"
        self.files[name] = (form["file"][0], form["purpose"][1].decode(), form["file"][1])
        return 200, self._file(name)

    def _file(self, name: str) -> dict[str, Any]:
        filename, purpose, data = self.files[name]
        return {
            "id": name,
            "object": "file",
            "bytes": len(data),
            "created_at": 1700000000,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        for refused in self.refuses:
            if refused in asked:
                return 400, _error(f"Unknown parameter: '{refused}'", "unknown_parameter", refused)
        if asked.get("training_file") not in self.files:
            return 400, _error(f"no file {asked.get('training_file')}", "invalid_request_error")
        name = f"ftjob-{len(self.jobs) + 1}"
        self.jobs[name] = {
            "id": name,
            "object": "fine_tuning.job",
            "created_at": 1700000000,
            "status": self.statuses[0],
            "fine_tuned_model": None,
            "error": {},
            "trained_tokens": None,
            "finished_at": None,
            **asked,
        }
        return 200, self.jobs[name]

    def _go_on(self, job: dict[str, Any]) -> None:
        if job["status"] in _ENDED:
            return
        look = self._looks[job["id"]] = self._looks.get(job["id"], 0) + 1
        job["status"] = self.statuses[min(look, len(self.statuses)) - 1]
        if job["status"] == "succeeded":
            suffix = job.get("suffix") or ""
            job.update(fine_tuned_model=f"ft:{job['model']}:loopback:{suffix}:{job['id'].partition('-')[2]}")
            job.update(trained_tokens=self.trained_tokens, finished_at=1700000900)
        elif job["status"] == "failed":
            job.update(error={"code": "invalid_training_file", "message": self.error, "param": "training_file"})

    def _events(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        if job["status"] not in ("running", *_ENDED):
            return []
        return [
            {
                "id": f"{job['id']}-{step}",
                "object": "fine_tuning.job.event",
                "created_at": 1700000000 + step,
                "level": "info",
                "message": f"Step {step}/{len(self.losses)}: training loss={loss}",
                "type": "metrics",
                "data": {"step": step, "train_loss": loss, "total_steps": len(self.losses)},
            }
            for step, loss in enumerate(self.losses, 1)
        ]


def _page(items: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, Any]:
    """One page of a list, the newest first."""
    newest = items[::-1]
    after = query.get("after", [""])[0]
    start = next((place + 1 for place, item in enumerate(newest) if item["id"] == after), 0)
    end = start + int(query.get("limit", ["20"])[0])
    return {"object": "list", "data": newest[start:end], "has_more": end < len(newest)}


def _error(message: str, code: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code, "param": param}}


def _read_form(kind: str, body: bytes) -> dict[str, tuple[str, bytes]]:
    """The fields of a form: file name and content of each."""
    border = re.search(r"boundary=([^;]+)", kind)
    if border is None:
        return {}
    fields = {}
    for part in body.split(b"--" + border[1].strip('"').encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        file = re.search(rb'filename="([^"]*)"', head)
        if name:
            fields[name[1].decode()] = (file[1].decode() if file else "", content.removesuffix(b"\r\n"))
    return fields
