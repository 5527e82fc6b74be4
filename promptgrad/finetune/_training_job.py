"""`TrainingJob`: a fine-tuning job at a provider, and `JobResult`, the program on the model that it made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptgrad import aio, lm
from promptgrad.errors import JobError, LMError
from promptgrad.finetune._job_server import ENDED, JobEvent, JobServer, reason_of, status_of
from promptgrad.finetune._place import moved
from promptgrad.finetune._preference import Preferences
from promptgrad.finetune._sample import Collected
from promptgrad.nn import Module
from promptgrad.run import Progress
from promptgrad.run import progress as progress_bar

GROWTH = 1.3
"""Growth of the wait between two looks at a job."""

LONGEST = 15.0
"""The longest wait, as a multiple of the first one."""

OUTAGES = 20
"""Looks in a row that may fail for reasons that may pass."""


@dataclass(frozen=True)
class JobResult:
    """The result of a job at a provider.

    Attributes:
        program: A copy of the program that runs on the trained model, with the same address, key, options and layers.
        lm: The trained model.
        model: Its name at the provider.
        job: Id of the job.
        losses: The training loss of every step that the provider told.
        samples: Number of samples that were sent; 0 where it is not known.
        trained_tokens: Tokens that the provider counted, for which it charges; None where it does not say. What they
            cost is in its price list.
        seconds: From the job's creation to its end, by the provider's clock; None where it does not say.
    """

    program: Module
    lm: lm.HTTP
    model: str
    job: str
    losses: tuple[float, ...] = ()
    samples: int = 0
    trained_tokens: int | None = None
    seconds: float | None = None

    def __repr__(self) -> str:
        facts = [f"{self.samples} samples"] if self.samples else []
        if self.trained_tokens is not None:
            facts.append(f"{self.trained_tokens:,} tokens trained")
        if self.losses:
            facts.append(f"loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f}")
        return f"JobResult({self.model}: {', '.join(facts) or self.job})"


class TrainingJob:
    """A fine-tuning job at a provider, as `finetune.job` begins it.

    It goes on whatever becomes of this object or this process. `result` waits for its end.

    Attributes:
        id: The provider's id of the job.
        model: The model that is trained, by its name at the provider.
        samples: Number of samples that were sent; 0 where it is not known.
        collected: The runs or labels that the samples come from; None for a job that an earlier process began.
        events: What the provider has told so far, the oldest first.
    """

    def __init__(
        self,
        program: Module,
        https: Sequence[lm.HTTP],
        server: JobServer,
        state: lm.JobState,
        *,
        poll: float,
        progress: bool | None = None,
        collected: Collected | Preferences | None = None,
        shown: dict[str, Any] | None = None,
    ) -> None:
        self.id: str = state.get("job")
        self.model: str = state.get("model") or https[0].model
        self.samples: int = state.get("samples", 0)
        self.collected = collected
        self.events: tuple[JobEvent, ...] = ()
        self._program = program
        self._https = https
        self._server = server
        self._state = state
        self._poll = poll
        self._progress = progress
        self._known: set[str] = set()
        self._shown: dict[str, Any] = shown or state.get("shown") or {}

    @property
    def status(self) -> str:
        """The status when it was last asked for, in OpenAI's words: "queued", "running", "succeeded", "failed", ...

        "unknown" before it was asked for.
        """
        return status_of(self._shown)

    @property
    def losses(self) -> tuple[float, ...]:
        """The training losses that the provider has told so far."""
        told = tuple(event.loss for event in self.events if event.loss is not None)
        return told or tuple(self._state.get("losses", ()))

    def done(self) -> bool:
        """Whether it had ended when it was last looked at."""
        return self.status in ENDED

    async def arefresh(self) -> TrainingJob:
        """Ask the provider for status and events; returns the job itself.

        Cost: no LM call; two requests.

        Raises:
            LMError: The provider could not be reached, or does not know the job.
        """
        await self._look()
        return self

    refresh = aio.blocking(arefresh)

    async def acancel(self) -> TrainingJob:
        """Ask the provider to end the job; returns the job itself.

        Raises:
            LMError: The provider could not be reached, or refuses, as for a job that has ended.
        """
        self._keep(await self._server.cancel(self.id))
        return self

    cancel = aio.blocking(acancel)

    async def aresult(self, timeout: float | None = None) -> JobResult:
        """Wait for the end of the job, and return the program on the model that it made.

        The provider is asked for status and events, first after `poll` seconds, then at growing intervals. A bar shows
        the steps and the loss where the provider tells them. What may pass (429, 5xx, a lost connection) does not end
        the wait. Ctrl-C does, and leaves the job running.

        Cost: no LM call. The provider charges for the training.

        Args:
            timeout: Most seconds to wait; None for no limit.

        Raises:
            JobError: The job failed or was cancelled.
            TimeoutError: It has not ended in time. It goes on.
            LMError: The provider could not be reached any more. The job goes on.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        wait, outages = self._poll, 0
        with progress_bar(None, f"job {self.id}", self._progress) as bar:
            while True:
                try:
                    if not self._shown.get("fine_tuned_model") or not self.done():
                        await self._look(bar)
                    outages = 0
                except LMError as error:
                    outages += 1
                    if not error.transient or outages > OUTAGES:
                        raise
                    bar.note(f"{self.status}; no answer, {outages} times in a row")
                if self.done():
                    return self._result()
                left = wait if ends is None else min(wait, ends - time.monotonic())
                if left <= 0:
                    raise TimeoutError(
                        f"the job {self.id} is {self.status} after {timeout:g} s; {self._how_to_go_on()}"
                    )
                await self._server.pause(left)
                wait = min(wait * GROWTH, self._poll * LONGEST)

    _wait_for_result = aio.blocking(aresult)

    def result(self, timeout: float | None = None) -> JobResult:
        """Wait for the end of the job in a thread that may wait; as `aresult`.

        Raises:
            KeyboardInterrupt: Ctrl-C; the job goes on, and the message says how to wait for it again.
        """
        try:
            return self._wait_for_result(timeout)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"the job {self.id} is {self.status} and goes on; {self._how_to_go_on()}") from None

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the end of the job, whatever it is, and return its status.

        Raises:
            TimeoutError, LMError: As `result`.
        """
        try:
            self.result(timeout)
        except JobError:
            if not self.done():
                raise
        return self.status

    def _how_to_go_on(self) -> str:
        folder = self._state.folder
        again = "the same call of finetune.job" if folder else f"finetune.attach(program, {self.id!r}), in any process,"
        return f"result() waits again, cancel() ends it, and {again} goes on with it"

    async def _look(self, bar: Progress | None = None) -> None:
        shown = await self._server.look(self.id)
        self.events += tuple(await self._server.events(self.id, self._known))
        self._keep(shown)
        if bar is None:
            return
        step = next((event for event in reversed(self.events) if event.step is not None), None)
        if step is not None and step.step is not None:
            if step.steps is not None and step.steps != bar.total:
                bar.expect(step.steps)
            bar.advance(max(0, step.step - bar.done))
        told = f", loss {self.losses[-1]:.3f}" if self.losses else ""
        bar.note(f"{self.status}{told}")

    def _keep(self, shown: dict[str, Any]) -> None:
        """Remember what the provider shows, and its end in the folder."""
        self._shown = shown
        if self.done() and self._state.get("shown") is None:
            names = (
                "id",
                "status",
                "model",
                "fine_tuned_model",
                "trained_tokens",
                "created_at",
                "finished_at",
                "error",
            )
            self._state.note(shown={name: shown[name] for name in names if name in shown}, losses=self.losses)

    def _result(self) -> JobResult:
        shown, model = self._shown, self._shown.get("fine_tuned_model")
        reason = reason_of(shown)
        if self.status != "succeeded" or not model:
            if self.status == "succeeded":
                reason = reason or "the provider names no model; it may be held back by a check of its safety"
            warned = [event.message for event in self.events if event.level == "error"]
            told = f": {reason or (warned[-1] if warned else 'the provider does not say why')}"
            again = f"; a new job needs another checkpoint= than {self._state.folder}" if self._state.folder else ""
            what = f"{self.status}{told if self.status != 'cancelled' or reason else ''}"
            raise JobError(f"the job {self.id} {what}{again}", job=self.id, status=self.status, reason=reason)
        made = {id(http): http.with_model(model) for http in self._https}
        begun, ended = shown.get("created_at"), shown.get("finished_at")
        seconds = ended - begun if isinstance(begun, (int, float)) and isinstance(ended, (int, float)) else None
        tokens = shown.get("trained_tokens")
        return JobResult(
            program=moved(self._program, made),
            lm=made[id(self._https[0])],
            model=model,
            job=self.id,
            losses=self.losses,
            samples=self.samples,
            trained_tokens=tokens if isinstance(tokens, int) else None,
            seconds=None if seconds is None else float(seconds),
        )

    def __repr__(self) -> str:
        loss = f", loss {self.losses[-1]:.3f}" if self.losses else ""
        return f"TrainingJob({self.id!r}: {self.status}, {self.model!r}, {self.samples} samples{loss})"
