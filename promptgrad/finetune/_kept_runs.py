"""Runs that a training collected, kept in the folder of its checkpoints: the same call does not make them again."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from promptgrad import run
from promptgrad._files import write_text
from promptgrad.data import Example
from promptgrad.errors import StateDictError
from promptgrad.finetune._jsonl import load_conversations, load_preferences
from promptgrad.finetune._local_lms import Places
from promptgrad.finetune._preference import Preferences
from promptgrad.finetune._ranks import rank_and_ranks
from promptgrad.finetune._sample import Collected
from promptgrad.nn import Module, whole_state

RUNS, SAMPLES = "runs.json", "runs.jsonl"
FORMAT, VERSION = "promptgrad.runs", 1

S = TypeVar("S", Collected, Preferences)


def about_runs(
    program: Module, trained: Places, examples: Sequence[Example], metric: Any, **how: Any
) -> dict[str, Any]:
    """What the runs are of, in JSON types: program, models, examples, metric, and how they are made."""
    told = {"metric": getattr(metric, "__qualname__", type(metric).__name__)}
    for name, value in how.items():
        if isinstance(value, Module):
            told[name] = run.value_digest(whole_state(value.state_dict()))
        else:
            told[name] = repr(getattr(value, "name", value))
    return {
        "program": run.value_digest(whole_state(program.state_dict())),
        "models": [_digest(local.identity().encode("utf-8", "surrogatepass")) for local, _ in trained],
        "data": run.value_digest([example.id for example in examples]),
        **told,
    }


async def once(
    kind: type[S], folder: str | os.PathLike[str] | None, about: dict[str, Any], make: Callable[[], Awaitable[S]]
) -> S:
    """The runs that a folder holds, or new ones, which it holds afterwards.

    Raises:
        StateDictError: The folder holds the runs of another call, or damaged ones.
    """
    if folder is None:
        return await make()
    path = Path(folder)
    if (path / RUNS).exists():
        return _read(kind, path, about)
    made = await make()
    if made.samples and not rank_and_ranks()[0]:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        made.save(path / SAMPLES)
        counts = {field.name: getattr(made, field.name) for field in fields(made) if field.name != "samples"}
        whole = {"format": FORMAT, "version": VERSION, "about": about, "kind": kind.__name__}
        whole |= {
            "counts": {**counts, "dropped": dict(made.dropped)},
            "samples": _digest((path / SAMPLES).read_bytes()),
        }
        write_text(path / RUNS, json.dumps(whole, indent=1) + "\n")
    return made


def _read(kind: type[S], path: Path, about: dict[str, Any]) -> S:
    try:
        whole = json.loads((path / RUNS).read_text(encoding="utf-8"))
        if (whole["format"], whole["version"]) != (FORMAT, VERSION):
            raise ValueError(f"it is {whole['format']!r}, version {whole['version']!r}")
        there: dict[str, Any] = {"kind": whole["kind"], **whole["about"]}
        counts = dict(whole["counts"])
        if whole["samples"] != _digest((path / SAMPLES).read_bytes()):
            raise ValueError(f"{SAMPLES} is not the file that it names")
        load = load_conversations if kind is Collected else load_preferences
        samples = load(path / SAMPLES).samples
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise StateDictError(
            f"{path / RUNS} cannot be read: {error or type(error).__name__}. Remove {path} to begin anew, or give "
            "another checkpoint="
        ) from error
    here: dict[str, Any] = json.loads(json.dumps({"kind": kind.__name__, **about}))
    if there != here:
        differ = ", ".join(key for key in sorted({*there, *here}) if there.get(key) != here.get(key))
        raise StateDictError(
            f"{path} holds the runs of another training (they differ in {differ}): make the same call again to go on "
            "with it, or give another checkpoint="
        )
    found: S = kind(samples=samples, **counts)  # type: ignore[arg-type] # each kind has its own counts
    return found


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
