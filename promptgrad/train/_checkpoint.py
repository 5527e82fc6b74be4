"""`save` and `load`: states as JSON, a program with its local weights as a folder. Loading executes no code."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from promptgrad._files import as_os_errors, locked, settle, write_text
from promptgrad._habits import refuses
from promptgrad.content import apart, together
from promptgrad.errors import StateDictError
from promptgrad.lm import LM, Local, layered
from promptgrad.nn import Module, StateDict, metadata_of, state_of_whole, trained_names, whole_state
from promptgrad.train._dspy import is_dspy
from promptgrad.train._json_file import read_json

FORMAT = "promptgrad.state"
VERSION = 2
"""Version of the files; 1 has no blobs, and a state without images is written as that, which older versions read."""
STATE_FILE = "state.json"
WEIGHTS_FILE = "model.safetensors"
LORA_FILE = "adapter_model.safetensors"

M = TypeVar("M", bound=Module)


@refuses(
    {
        "save_program": "save(program, 'folder'): values and weights, without code",
        **dict.fromkeys(("modules_to_serialize", "pickle_module", "pickle_protocol"), "nothing: no pickle is written"),
        "safe_serialization": "nothing: weights are always safetensors",
    }
)
def save(obj: Any, path: "str | os.PathLike[str]") -> None:
    """Write a state, or the state of a program or optimizer, so that `load` reads it back.

    A state, an optimizer, or a path that ends in ".json" makes one JSON file, to be read and compared by eye. A program
    and any other path make a folder: `state.json` and, for each local language model in the program whose weights were
    trained, a folder below `weights/` with safetensors (for a LoRA, those of the LoRA alone). The JSON file is written
    beside its place and then moved there, and what it names is there before: a process that is killed at any moment
    leaves the old state or the new one, and the next `save` removes what it was writing. Files are for their owner
    alone, and hold no secrets and no code. Other files in the folder are left alone.

    Args:
        obj: What `state_dict()` returned, or something that has `state_dict()`: a module, an optimizer.
        path: File or folder.

    Raises:
        TypeError: `obj` has no state, or the state holds a value without a JSON form.
        ValueError: The program has trained weights, or the state is of a program that has, and the path is that of a
            JSON file, which cannot hold them; or the path is empty.
        OSError: The file cannot be written: the disk is full, the path is a folder. What was there is as it was.
    """
    target = _path(path, "save(model.state_dict(), path)")
    if isinstance(obj, Module) and target.suffix != ".json":
        _save_folder(obj, target)
        return
    state = _state_of(obj)
    if trained := list(trained_lms(obj)) if isinstance(obj, Module) else _trained_in(state):
        names = ", ".join(map(repr, trained))
        raise ValueError(
            f"{target.name} cannot hold the trained weights of {names}: save the program into a folder, "
            f"promptgrad.save(model, {str(target.with_suffix(''))!r})"
        )
    if target.is_dir():
        why = "a state is one file, and this is a folder, into which save(model, folder) writes a program"
        raise IsADirectoryError(errno.EISDIR, why, str(target))
    write_text(target, _encode(state))


@overload
def load(path: "str | os.PathLike[str]") -> dict[str, Any]: ...
@overload
def load(path: "str | os.PathLike[str]", model: M) -> M: ...
@refuses(
    {
        **dict.fromkeys(("weights_only", "allow_pickle", "pickle_module"), "nothing: loading never runs code"),
        "map_location": "model.to(promptgrad.lm.Local(name, device=...))",
        "program": "load(path, model)",
    }
)
def load(path: "str | os.PathLike[str]", model: M | None = None) -> "dict[str, Any] | M":
    """Read what `save` wrote: the state, or, if a program is given, the program with the state in it.

    `model.load_state_dict(promptgrad.load("hop.json"))` does the same for a file. A folder with weights needs the
    program: each trained language model in it is replaced by a copy that has the saved weights.

    Args:
        path: File or folder.
        model: A program of the same structure.

    Raises:
        FileNotFoundError: There is nothing at the path.
        StateDictError: The file is not a state of promptgrad, or of a newer version, or does not fit the program; the
            message lists all misfits, and the program is left as it was.
    """
    source = _path(path, "load(path, model)")
    if not source.is_dir():
        state, weights = _read(source)
        return state if model is None else _load(source, state, weights, model)
    if (source / "program.pkl").is_file() and not (source / STATE_FILE).exists():
        raise StateDictError(
            f"{source} is a program that DSPy pickled, which is never opened: in DSPy, load it and save its state with "
            "program.save('program.json'), which promptgrad.load_dspy(path, program) reads"
        )
    with locked(source, shared=True):  # a save removes the weights that the state before it names
        state, weights = _read(source / STATE_FILE)
        return state if model is None else _load(source, state, weights, model)


def _load(source: Path, state: dict[str, Any], weights: Sequence[Mapping[str, Any]], model: M) -> M:
    misfits: list[StateDictError] = []
    installers: list[Callable[[], None]] = []
    before = model.state_dict()
    for part in (
        lambda: installers.extend(_read_weights(source, weights, model)),
        lambda: model.load_state_dict(_without_trained(state) if weights else state),
    ):
        try:
            part()
        except StateDictError as error:
            misfits.append(error)
    if misfits:
        model.load_state_dict(before)
        raise StateDictError(
            "\n".join(map(str, misfits)),
            missing=[path for error in misfits for path in error.missing],
            unexpected=[path for error in misfits for path in error.unexpected],
            invalid=[path for error in misfits for path in error.invalid],
        )
    for install in installers:
        install()
    return model


def _path(path: "str | os.PathLike[str]", usage: str) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"the path is a {type(path).__name__}: write promptgrad.{usage}")
    if not os.fspath(path):
        raise ValueError(f"the path is empty: write promptgrad.{usage}")
    return Path(path)


def _state_of(obj: Any) -> Mapping[str, Any]:
    if isinstance(obj, Mapping):
        return obj
    state_dict = getattr(obj, "state_dict", None)
    if not callable(state_dict):
        raise TypeError(
            f"save takes a state, a module or an optimizer, not {type(obj).__name__}: "
            "for example promptgrad.save(model.state_dict(), 'model.json')"
        )
    state: Mapping[str, Any] = state_dict()
    return state


def _trained_in(state: Mapping[str, Any]) -> list[str]:
    """Names of the language models whose trained weights a state, or one inside it, was made with."""
    names: dict[str, None] = {}
    for part in (state, *state.values()):
        if isinstance(meta := metadata_of(part), Mapping):
            names.update(dict.fromkeys(trained_names(meta).values()))
    return list(names)


def _without_trained(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state without the list of trained weights, because they come with it."""
    meta = metadata_of(state)
    return StateDict(state, {key: value for key, value in meta.items() if key != "trained"}) if meta else dict(state)


def _encode(state: Mapping[str, Any], weights: Sequence[Mapping[str, Any]] = ()) -> str:
    from promptgrad import __version__

    whole: dict[str, Any] = {"format": FORMAT, "version": 1, "promptgrad": __version__, "state": state}
    if weights:
        whole["weights"] = list(weights)
    blobs: dict[str, str] = {}
    try:
        whole["state"] = state = whole_state(state)
        shared = apart(state, blobs)
        if blobs:
            whole.update(version=VERSION, state=shared, blobs=blobs)
        return json.dumps(whole, ensure_ascii=False, indent=2, allow_nan=False, default=_refuse) + "\n"
    except ValueError as error:
        raise TypeError(f"the state cannot be written as JSON: {error}") from error
    except RecursionError:
        raise TypeError("the state cannot be written as JSON: it is nested too deeply") from None


def _refuse(value: Any) -> Any:
    hint = ": tensors go into a folder, promptgrad.save(model, 'folder')" if hasattr(value, "detach") else ""
    raise TypeError(f"the state holds a {type(value).__name__}, which JSON has no form for{hint}")


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        whole = read_json(path)
    except ValueError as error:
        raise StateDictError(f"{path} is not a state: it is not JSON ({error})") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT or not isinstance(whole.get("state"), dict):
        by_dspy = ": DSPy wrote it, and promptgrad.load_dspy(path, program) reads it" if is_dspy(whole) else ""
        raise StateDictError(f"{path} is not a state that promptgrad.save wrote{by_dspy}")
    if not isinstance(whole.get("version"), int) or whole["version"] > VERSION:
        raise StateDictError(
            f"{path} has version {whole.get('version')!r} and this promptgrad reads up to {VERSION}: upgrade promptgrad"
        )
    weights = whole.get("weights", [])
    if not isinstance(weights, list):
        raise StateDictError(f"{path}: weights is a list, not {weights!r:.80}", invalid=["weights"])
    for number, entry in enumerate(weights):
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and isinstance(entry.get("folder"), str)
            and "\0" not in entry["folder"]
            and entry.get("kind") in ("full", "lora", "shared lora")
            and isinstance(entry.get("modules"), list)
            and all(isinstance(module, str) for module in entry["modules"])
        ):
            what = "weights have a name, a folder, a kind and modules"
            raise StateDictError(f"{path}: {what}, not {entry!r:.80}", invalid=[f"weights.{number}"])
    blobs = whole.get("blobs", {})
    if not (isinstance(blobs, dict) and all(isinstance(data, str) for data in blobs.values())):
        raise StateDictError(f"{path}: blobs are texts by their digests, not {blobs!r:.80}", invalid=["blobs"])
    return state_of_whole(together(whole["state"], blobs.get) if blobs else whole["state"]), weights


# -- folders with weights -------------------------------------------------------------------------------------------


def trained_lms(model: Module) -> dict[str, Local]:
    """The local language models of a program whose weights are not those of a folder, by the name of each."""
    found: dict[str, Local] = {}
    for lm, _ in _local_lms(model):
        if lm._is_trained():
            name = lm.name
            while name in found:
                name += "_"
            found[name] = lm
    return found


def _local_lms(model: Module) -> list[tuple[Local, list[str]]]:
    """The local language models of a program, each with the paths of the modules on it."""
    found: dict[int, tuple[Local, list[str]]] = {}
    for path, module in model.named_modules():
        transport = None if module._lm is None else module._lm.transport
        if isinstance(transport, Local):
            found.setdefault(id(transport), (transport, []))[1].append(path)
    return list(found.values())


def _save_folder(model: Module, path: Path) -> None:
    """Write the weights under new names, then the state that names them, at once, and remove the old weights."""
    state = model.state_dict()
    fresh = not path.exists()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path):
        above = path / "weights"
        before = {child.name for child in above.iterdir()} if above.is_dir() else set()
        first = 1 + max((int(name) for name in before if name.isdecimal()), default=-1)
        on = {id(lm): paths for lm, paths in _local_lms(model)}
        weights: list[dict[str, Any]] = []
        try:
            for number, (name, lm) in enumerate(trained_lms(model).items(), first):
                place = above / str(number)
                place.mkdir(mode=0o700, parents=True)
                weights.append({"name": name, "folder": f"weights/{number}", "modules": on[id(lm)]})
                weights[-1].update(_save_weights(lm, place))
                for file in place.iterdir():
                    settle(file)
            write_text(path / STATE_FILE, _encode(state, weights))
        except BaseException:
            _remove(path, [entry["folder"] for entry in weights])
            if fresh:
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise
        _remove(path, [f"weights/{name}" for name in before])


def _remove(path: Path, folders: Iterable[str]) -> None:
    """Remove folders of weights, and `weights` itself where none is left."""
    for folder in folders:
        shutil.rmtree(path / folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        (path / "weights").rmdir()


def _save_weights(lm: Local, place: Path) -> dict[str, str]:
    """Write a model's weights, or those of its LoRA, as safetensors; returns what kind they are."""
    if lm.base is not lm:
        lm.save_lora(place)
        return {"kind": "shared lora", "lora": lm.title}
    model = lm.model
    if hasattr(model, "peft_config"):
        model.save_pretrained(str(place), safe_serialization=True)
        (place / "README.md").unlink(missing_ok=True)
        return {"kind": "lora"}
    from safetensors.torch import save_model

    with as_os_errors(place / WEIGHTS_FILE):
        save_model(model, str(place / WEIGHTS_FILE))
    return {"kind": "full"}


def _read_weights(folder: Path, weights: Sequence[Mapping[str, Any]], model: Module) -> list[Callable[[], None]]:
    """Make the language models with the saved weights; the functions returned put them into the program.

    Raises:
        StateDictError: The program has no local model where the saved program had one, or one of another shape.
    """
    import copy

    installers: list[Callable[[], None]] = []
    invalid: list[str] = []
    for entry in weights:
        modules = []
        for path in entry["modules"]:
            try:
                modules.append(model.get_submodule(path))
            except AttributeError:
                invalid.append(f"{path or 'the program'}: there is no such module, and weights were saved for it")
        transports = [None if module._lm is None else module._lm.transport for module in modules]
        base = next((transport for transport in transports if isinstance(transport, Local)), None)
        if base is None:
            where = ", ".join(path or "the program" for path in entry["modules"])
            invalid.append(f"{where}: trained weights were saved for it, and it is not on a local model: .to(lm) first")
            continue
        place = (folder / entry["folder"]).resolve()
        try:
            if not place.is_relative_to(folder.resolve()):
                raise ValueError(f"{entry['folder']} lies outside the folder")
            if entry["kind"] == "shared lora":
                made = base.base._lora_from(place, str(entry.get("lora")), entry["name"])
            else:
                plain = copy.deepcopy(base.base.model)
                made = base.base.with_model(_load_weights(plain, place, entry["kind"]), entry["name"])
        except Exception as error:  # noqa: BLE001 - whatever torch, safetensors and peft say of files that they cannot read
            reason = str(error) or type(error).__name__
            invalid.append(f"the weights of {entry['name']!r} do not fit {base.name!r}: {reason}")
            continue
        installers.append(_installer(modules, transports, made))
    if invalid:
        raise StateDictError("the weights do not fit the program:\n  " + "\n  ".join(invalid), invalid=invalid)
    return installers


def _load_weights(model: Any, place: Path, kind: str) -> Any:
    file = place / (LORA_FILE if kind == "lora" else WEIGHTS_FILE)
    if not file.is_file():  # nothing else is read: other formats can execute code
        raise FileNotFoundError(f"there is no {file}")
    if kind == "lora":
        import warnings

        from peft import PeftModel

        plain = model.unload() if hasattr(model, "peft_config") else model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PeftModel.from_pretrained(plain, str(place))
    from safetensors.torch import load_model

    load_model(model, str(file))
    return model


def _installer(modules: Sequence[Module], old: Sequence[LM | None], lm: Local) -> Callable[[], None]:
    made: dict[int, LM] = {id(transport): lm for transport in old if transport is not None}

    def install() -> None:
        for module in modules:
            module._lm = lm if module._lm is None else layered(module._lm, made)

    return install
