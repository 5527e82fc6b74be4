"""Files, fine-tuning jobs and batches of the loopback server, in the form of OpenAI's."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from promptgrad.testing._answers import (
    Answer,
    Cut,
    Drop,
    Garbage,
    Messages,
    ReceivedRequest,
    Reply,
    Status,
)
from promptgrad.testing._wire import completion

_ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass
class LoopbackJobs:
    """The files, fine-tuning jobs and batches of a `LoopbackLM(jobs=...)`: uploads, events, lists and cancellation.

    Nothing is trained. A job goes on by one status each time that it is looked at, the last of which stays. So does a
    batch, whose requests are answered by `respond` when it is completed.

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
        respond: The answer to each request of a batch: a text, or a function of its messages; a `Status` is a line with
            an error, None a line that is missing.
        batch_statuses: The statuses of a batch, one for each look.
        before: Function of each request, called before it is answered.
        after: Function of each request, called when it has been carried out, before the answer is sent.

    Attributes:
        files: The uploaded files by id: name, purpose and content.
        jobs: The jobs by id, as the server shows them.
        batches: The batches by id, as the server shows them.
        requests: Method and path of every request.
    """

    statuses: Sequence[str] = ("validating_files", "queued", "running", "succeeded")
    losses: Sequence[float] = (2.0, 1.0, 0.5)
    error: str = "the training failed"
    trained_tokens: int = 1234
    refuses: Sequence[str] = ()
    lists: bool = True
    events: bool = True
    respond: Answer | Callable[[Messages], Answer | None] = "ok"
    batch_statuses: Sequence[str] = ("validating", "in_progress", "completed")
    before: Callable[[str], None] = lambda request: None
    after: Callable[[str], None] = lambda request: None
    files: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
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
        """Whether a path is that of a file, a job or a batch."""
        return re.search(r"/(?:files|batches|fine_tuning/jobs)(?:[/?]|$)", path) is not None

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
        return (
            code,
            value if isinstance(value, bytes) else json.dumps(value).encode(),
            planned if isinstance(planned, Cut) else None,
        )

    def _do(
        self, request: ReceivedRequest, told: str, query: dict[str, list[str]]
    ) -> tuple[int, dict[str, Any] | bytes]:
        method, *parts = re.split(r"[ /]", told)
        listed = method == "GET" and parts in (["files"], ["batches"], ["fine_tuning", "jobs"])
        if listed and not self.lists:
            return 404, _error("there is no list", "not_found")
        if told == "POST files":
            return self._upload(request)
        if told == "GET files":
            return 200, {"object": "list", "data": [self._file(name) for name in self.files], "has_more": False}
        if parts[0] == "files":
            known = len(parts) > 1 and parts[1] in self.files
            return (200, self.files[parts[1]][2]) if known else (404, _error("no such file", "not_found"))
        if parts[0] == "batches":
            return self._do_batch(request, method, parts[1:], query)
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

    def _do_batch(
        self, request: ReceivedRequest, method: str, parts: list[str], query: dict[str, list[str]]
    ) -> tuple[int, dict[str, Any]]:
        if not parts and method == "GET":
            return 200, _page(list(self.batches.values()), query)
        if not parts:
            asked = request.json
            for refused in self.refuses:
                if refused in asked:
                    return 400, _error(f"Unknown parameter: '{refused}'", "unknown_parameter", refused)
            name = f"batch_{len(self.batches) + 1}"
            self.batches[name] = {"id": name, "object": "batch", "status": self.batch_statuses[0], **asked}
            return 200, self.batches[name]
        if parts[0] not in self.batches:
            return 404, _error(f"no batch {parts[0]}", "not_found")
        batch = self.batches[parts[0]]
        if parts[1:] == ["cancel"]:
            batch["status"] = "cancelled"
        elif batch["status"] not in ("completed", "failed", "expired", "cancelled"):
            look = self._looks[batch["id"]] = self._looks.get(batch["id"], 0) + 1
            batch["status"] = self.batch_statuses[min(look, len(self.batch_statuses)) - 1]
            if batch["status"] == "failed":
                batch["errors"] = {"data": [{"code": "invalid_request", "message": self.error, "line": 1}]}
            elif batch["status"] in ("completed", "expired"):
                self._answer_all(batch)
        return 200, batch

    def _answer_all(self, batch: dict[str, Any]) -> None:
        """Put the answers to the requests of a batch into files: those that are answers, and those that are errors."""
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]][2].splitlines()]
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for index, line in enumerate(lines):
            messages = line["body"]["messages"]
            answer = self.respond(messages) if callable(self.respond) else self.respond
            if answer is None and batch["status"] == "expired":
                error = {"code": "batch_expired", "message": "This request could not be executed in time."}
                failed.append({"custom_id": line["custom_id"], "response": None, "error": error})
            elif isinstance(answer, Status):
                code, body, _ = answer.wire()
                response = {"status_code": code, "request_id": "", "body": json.loads(body)}
                failed.append({"custom_id": line["custom_id"], "response": response, "error": None})
            elif answer is not None:
                asked = ReceivedRequest("POST", line["url"], {}, json.dumps(line["body"]).encode(), index)
                reply = answer if isinstance(answer, Reply) else Reply(str(answer))
                response = {"status_code": 200, "request_id": "", "body": json.loads(completion(asked, reply))}
                done.insert(0, {"custom_id": line["custom_id"], "response": response, "error": None})
        for name, found in (("output_file_id", done), ("error_file_id", failed)):
            if found:
                batch[name] = f"file-{len(self.files) + 1}"
                data = "".join(json.dumps(line) + "\n" for line in found).encode()
                self.files[batch[name]] = (f"{batch['id']}_{name}.jsonl", "batch_output", data)
        counts = {"total": len(lines), "completed": len(done), "failed": len(failed)}
        batch.update(request_counts=counts)

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
