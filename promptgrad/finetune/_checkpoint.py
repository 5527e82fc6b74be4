"""The folder of a training: its last state, from which the same call goes on after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from promptgrad._files import as_os_errors, locked, settle, write_text
from promptgrad._pipes import not_a_file
from promptgrad.errors import StateDictError
from promptgrad.finetune._training import Training, TuneSettings
from promptgrad.lm import Local

TRAINING = "training.json"
FORMAT = "promptgrad.training"
VERSION = 1


def about_of(local: Local, recipe: str, settings: TuneSettings, data: Sequence[Any]) -> dict[str, Any]:
    """What a training is of, by which the folder of its checkpoints knows it; the data are samples in tokens."""
    return {
        "model": local.name,
        "start": _digest(local.identity()),
        "recipe": recipe or "likelihood",
        "settings": asdict(settings),
        "samples": len(data),
        "data": _digest(repr(data)),
    }


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def check_place(folder: str | os.PathLike[str], what: str) -> Path:
    """A folder to write to.

    Raises:
        ValueError: There is a file in its place, or in that of a folder above it.
    """
    path = Path(folder)
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{what} goes into a folder, and {str(place)!r} is a file")
    return path


class Checkpoint:
    """A folder that holds one training.

    `training.json` says whose training it is, how far it is, and which file has the weights, the optimizer's moments
    and the random state. A checkpoint writes that file under a new name, has it on the disk, and then replaces
    `training.json`: a process that is killed at any moment leaves the old checkpoint or the new one. After the last
    step the file has the weights alone. JSON and safetensors only; nothing is pickled.

    Args:
        folder: The folder; made where there is none.
        about: What the training is of, in JSON types: model, recipe, settings, samples, and digests of what it starts
            from and of the data.
        every: Steps between checkpoints.
        rank: Number of this process where several train together: all read, and number 0 alone writes.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], every: int, rank: int = 0) -> None:
        self.folder = folder
        self.every = every
        self.rank = rank
        self._about: dict[str, Any] = json.loads(json.dumps(about))
        self._found: dict[str, Any] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the folder, and see what it holds.

        Raises:
            StateDictError: Another process has it, or it holds another training, or a damaged one.
        """
        made = not self.folder.exists()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            if made and not self.rank:
                stack.callback(_remove_empty, self.folder)
            try:
                if not self.rank:
                    stack.enter_context(locked(self.folder, wait=False))
            except BlockingIOError:
                raise StateDictError(
                    f"another process trains in {self.folder}: wait for its end, or give another checkpoint="
                ) from None
            if (self.folder / TRAINING).exists():
                self._found = self._read(self.folder / TRAINING)
            yield

    @property
    def finished(self) -> bool:
        """Whether the training that the folder holds has no step left."""
        if not self._found:
            return False
        state = self._found["state"]
        return bool(state["ended"]) or len(state["losses"]) >= self._about["settings"]["steps"]

    @property
    def seconds(self) -> float:
        """What the training took up to the last checkpoint, in all processes."""
        return float(self._found.get("seconds", 0.0))

    def restore(self, training: Training) -> None:
        """Set a training to the last checkpoint, if there is one.

        Raises:
            StateDictError: Its file is damaged.
        """
        if not self._found:
            return
        from safetensors.torch import load_file

        file = self.folder / self._found["file"]
        try:
            training.load_state(load_file(str(file)), self._found["state"])
        except Exception as error:
            raise _damaged(file, error) from error
        if training.ended:
            warnings.warn(training.ended, stacklevel=4)

    def after_step(self, training: Training, seconds: float) -> None:
        """Write a checkpoint where one is due."""
        if len(training.losses) % self.every == 0:
            self.write(training, seconds)

    def write(self, training: Training, seconds: float) -> None:
        """Write a checkpoint, unless this one is the last; a step that was cut in its middle leaves none.

        Args:
            training: The training, between two steps.
            seconds: What it took so far, in all processes.
        """
        name = f"step-{len(training.losses)}{'-end' if training.done else ''}.safetensors"
        if (self.rank and not training.sharded) or not training.whole or name == self._found.get("file"):
            return
        from safetensors.torch import save_file

        tensors, state = training.state()
        if self.rank:
            self._found = {**self._found, "file": name}  # so that it asks again when the first process does
            return  # its shares are in the tensors of the first process
        self._sweep()
        with as_os_errors(self.folder / name):
            save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, str(self.folder / name))
        settle(self.folder / name)
        whole = {"format": FORMAT, "version": VERSION, "about": self._about, "file": name}
        whole |= {"seconds": round(seconds, 3), "state": state}
        write_text(self.folder / TRAINING, json.dumps(whole, indent=1, allow_nan=False) + "\n")
        self._found = whole
        self._sweep()

    def _sweep(self) -> None:
        """Remove the weights that `training.json` does not name."""
        for file in self.folder.glob("step-*.safetensors"):
            if file.name != self._found.get("file"):
                file.unlink(missing_ok=True)

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            if odd := not_a_file(path):
                raise ValueError(odd)
            whole = json.loads(path.read_text(encoding="utf-8"))
            if whole["format"] != FORMAT:
                raise ValueError(f"its format is {whole['format']!r}")
            if whole["version"] != VERSION:
                raise StateDictError(
                    f"{path} has version {whole['version']!r}, and this promptgrad reads {VERSION}: give another "
                    "checkpoint="
                )
            about, state = dict(whole["about"]), dict(whole["state"])
            losses = [float(loss) for loss in state["losses"]]
            found = {"about": about, "file": Path(whole["file"]).name, "seconds": float(whole["seconds"])}
            found["state"] = {"losses": losses, "ended": str(state["ended"]), "notes": dict(state.get("notes", {}))}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if isinstance(error, StateDictError):
                raise
            raise _damaged(path, error) from error
        if about != self._about:
            differ = ", ".join(_differences(about, self._about))
            raise StateDictError(
                f"{self.folder} holds the training of {_title(about)}, {len(losses)} steps of it done, and this is "
                f"another one: {differ}. Make the same call again to go on with it, or give another checkpoint="
            )
        return found


def _remove_empty(folder: Path) -> None:
    """Leave no folder of a training that kept nothing."""
    with contextlib.suppress(OSError):  # there is something in it
        folder.rmdir()


def _damaged(path: Path, error: Exception) -> StateDictError:
    reason = str(error) or type(error).__name__
    return StateDictError(
        f"{path} cannot be read: {reason}. Remove {path.parent} to begin anew, or give another checkpoint="
    )


def _title(about: Mapping[str, Any]) -> str:
    """A training in a few words."""
    settings = about.get("settings") or {}
    lora = settings.get("lora")
    how = "all weights" if lora is None else f"LoRA r={lora.get('r', 8)}"
    return (
        f"{about.get('model')} ({about.get('recipe')}, {how}, {about.get('samples')} samples, "
        f"{settings.get('steps')} steps, lr {settings.get('lr')}, seed {settings.get('seed')})"
    )


_WORDS = {"data": "other data", "start": "a model with other weights, seed or options"}


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What two trainings differ in."""
    flat = [{**about, **dict(about.get("settings") or {})} for about in (there, here)]
    for key in sorted({*flat[0], *flat[1]} - {"settings"}):
        one, other = (about.get(key) for about in flat)
        if one != other:
            yield _WORDS.get(key, f"{key} is {one!r} there and {other!r} here")
