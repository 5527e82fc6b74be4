"""`job`: the model of a provider, trained there on the conversations of a program."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from promptgrad import aio, lm, run
from promptgrad.data import Example
from promptgrad.errors import UnknownPriceError
from promptgrad.evaluation import source_digest
from promptgrad.finetune._conversation import Conversation, Preference
from promptgrad.finetune._job_data import MAX_LENGTH, lines_for
from promptgrad.finetune._job_server import JobServer
from promptgrad.finetune._place import served_lms
from promptgrad.finetune._preference import Preferences
from promptgrad.finetune._sample import Collected, acollect, labeled
from promptgrad.finetune._training_job import TrainingJob
from promptgrad.nn import Module, whole_state

POLL = 2.0
"""Seconds before the first look at a job, by default."""


async def ajob(
    program: Module,
    data: Iterable[Example] | Iterable[Conversation] | Iterable[Preference],
    metric: Any = None,
    *,
    teacher: Any = None,
    n: int = 1,
    threshold: float | None = None,
    model: str | None = None,
    suffix: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate_multiplier: float | None = None,
    beta: float | None = None,
    seed: int | None = None,
    max_length: int = MAX_LENGTH,
    skip_long: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    poll: float = POLL,
    concurrency: int | None = None,
    progress: bool | None = None,
) -> TrainingJob:
    """Have the provider of a program's model train it on the program's own successes, on labels, or on preferences.

    The program runs on a model of OpenAI, or of another server that has OpenAI's files and fine-tuning jobs. The job is
    given to that server, with the same address and key. What it is trained on is chosen as by `sft`: with a metric, the
    calls of the runs that it accepts; with a teacher alone, all calls of the teacher; with neither, labels.
    Conversations of `collect` are sent as they are, and so are preferences of `collect_preferences`, for direct
    preference optimization. Everything is checked before anything is sent; then the samples are uploaded, and the
    job is begun. `job(...).result()` waits for it, and has the program on the new model.

    With `checkpoint=`, a process that was killed at any moment, and is called again with the same arguments, goes on
    where it was: nothing is collected, uploaded or begun twice. Where an answer was lost, the server's lists are read
    first: the file's name and the job's metadata hold a mark that no other job has. What cannot be known: whether a
    request that was on its way at the kill arrives after the lists were read.

    Cost: with a metric or a teacher, `n` runs of it for each example. The provider charges for the training; the job's
    result has the number of tokens, and their price is in its price list, so a budget in money refuses a job.
    Source: OpenAI's fine-tuning API. DSPy's `LM.finetune` does the same for a list of messages.

    Args:
        program: The program. Its modules run on one model of a server; modules on other LMs are left out.
        data: Examples, conversations, or preferences.
        metric: Decides which runs are successful; None takes all runs of the teacher, or labels.
        teacher: A program of the same structure, or an LM, for the runs; None for the program itself.
        n: Runs for each example.
        threshold: Lowest score of a successful run; None for the best score.
        model: Name of the model to train, where the provider trains it under another name than it serves it, such as
            "gpt-4o-mini-2024-07-18"; None for the name of the program's LM.
        suffix: Text in the new model's name.
        epochs: Passes over the samples; None leaves it to the provider, as the next three.
        batch_size: Samples in a step.
        learning_rate_multiplier: Factor of the provider's own learning rate.
        beta: How strongly the model is held to its start, for preferences.
        seed: Seed of the training, where the provider takes one.
        max_length: Most tokens of a sample, estimated.
        skip_long: Leave longer samples out rather than raise.
        checkpoint: A folder of this job alone, for its state and its samples; None keeps no state.
        poll: Seconds before the first look at the job; later ones are up to 15 times as far apart.
        concurrency: Runs in flight.
        progress: Show bars; None shows them in a terminal or notebook.

    Raises:
        NoLMError: The program runs on no model of a server, or on several.
        DataError: There are fewer than 10 samples, one is too long, no text or holds a secret; or the folder has
            another job.
        LMError: The server has no jobs, refuses this one, or cannot be reached.
        JobError: It is not known whether the job was begun, or another process begins it.
        UnknownPriceError: The active run has a budget in money.
    """
    if not poll > 0:
        raise ValueError(f"poll is a number of seconds above 0, not {poll!r}")
    https, paths = job_lms(program)
    given: list[Any] = list(data)
    pairs = bool(given) and all(isinstance(item, Preference) for item in given)
    numbers = {"n_epochs": epochs, "batch_size": batch_size, "learning_rate_multiplier": learning_rate_multiplier}
    if beta is not None and not pairs:
        raise ValueError("beta= is of preferences: give Preferences, from finetune.collect_preferences")
    kind = "dpo" if pairs else "supervised"
    numbers = {name: value for name, value in {**numbers, "beta": beta}.items() if value is not None}
    method: dict[str, Any] = {"type": kind, kind: {"hyperparameters": numbers}} if numbers else {"type": kind}
    body = {"model": model or https[0].model, "method": method, "suffix": suffix, "seed": seed}
    body = {name: value for name, value in body.items() if value is not None}
    server = JobServer(https[0])
    folder = None if checkpoint is None else Path(checkpoint)
    with lm.owned(folder):
        about = [https[0].identity(), body, max_length, skip_long, n, threshold]
        state = lm.JobState(folder, _identity(program, given, metric, teacher, about) if folder else "")
        collected: Collected | Preferences | None = None
        if "sha256" not in state.facts:
            collected = await _collected(program, data, given, metric, teacher, n, threshold, concurrency, progress)
            collected = collected.usable(paths)
            lines, number = lines_for(collected, server.api, max_length=max_length, skip_long=skip_long)
            state.begin(lines, samples=number, model=body["model"])
        shown = await _begin(server, state, body)
    return TrainingJob(program, https, server, state, poll=poll, progress=progress, collected=collected, shown=shown)


job = aio.blocking(ajob)


def job_lms(program: Module) -> tuple[tuple[lm.HTTP, ...], tuple[str, ...]]:
    """What a job would train: the LMs by which a program reaches the one model of a server, and the modules on them.

    Nothing is sent.

    Raises:
        NoLMError: The program runs on no model of a server, or on several.
        UnknownPriceError: The active run has a budget in money.
    """
    session = run.current()
    if session is not None and session.ledger.budget.usd is not None:
        raise UnknownPriceError("what a job costs is not known before it has ended: begin it outside of a money budget")
    return served_lms(program)


def attach(program: Module, job: str, *, poll: float = POLL, progress: bool | None = None) -> TrainingJob:
    """A job that was begun before, in another process, or elsewhere, for the model that a program runs on.

    Nothing is sent; `refresh()` and `result()` ask for it.

    Args:
        program: The program.
        job: The provider's id of the job.
        poll: Seconds before the second look at the job; later ones are up to 15 times as far apart.
        progress: Show a bar; None shows it in a terminal or notebook.

    Raises:
        NoLMError: The program runs on no model of a server, or on several.
    """
    https, _ = served_lms(program)
    state = lm.JobState(None, "")
    state.note(job=job)
    return TrainingJob(program, https, JobServer(https[0]), state, poll=poll, progress=progress)


async def _begin(server: JobServer, state: lm.JobState, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Upload and create what is not there yet; returns a job that was created as the server shows it."""
    mark = state.get("mark")
    if state.get("file") is None:
        perhaps = state.get("uploading", False)
        state.note(uploading=True)
        state.note(file=await server.upload(mark, state.data, perhaps=perhaps))
    if state.get("job") is None:
        perhaps = state.get("creating", False)
        state.note(creating=True)
        made = await server.begin(mark, {**body, "training_file": state.get("file")}, perhaps=perhaps)
        state.note(job=made["id"])
        return made
    return None


async def _collected(
    program: Module,
    data: Any,
    given: Sequence[Any],
    metric: Any,
    teacher: Any,
    n: int,
    threshold: float | None,
    concurrency: int | None,
    progress: bool | None,  # noqa: FBT001 - internal
) -> Collected | Preferences:
    if isinstance(data, (Collected, Preferences)):
        return data
    if given and all(isinstance(item, Preference) for item in given):
        return Preferences(tuple(given), len(given), 0, 0)
    if given and all(isinstance(item, Conversation) for item in given):
        return Collected(tuple(given), len(given), len(given), 0)
    if metric is None and teacher is None:
        return labeled(program, given)
    judge = metric if metric is not None else _everything
    runs = partial(acollect, teacher=teacher, n=n, threshold=threshold, concurrency=concurrency)
    return await runs(program, given, judge, progress=progress is not False)


def _everything(example: Example, output: Any) -> float:
    return 1.0


def _identity(program: Module, data: Sequence[Any], metric: Any, teacher: Any, about: Sequence[Any]) -> str:
    """A digest of all that decides what is sent."""
    teaching: Any = teacher
    if isinstance(teacher, Module):
        teaching = [source_digest(teacher), whole_state(teacher.state_dict())]
    elif isinstance(teacher, lm.LM):
        teaching = teacher.identity()
    judge = None if metric is None else source_digest(getattr(metric, "fn", metric))
    return run.value_digest(
        [source_digest(program), whole_state(program.state_dict()), judge, teaching, list(data), *about]
    )
