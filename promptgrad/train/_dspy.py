"""`load_dspy`: what DSPy saved, of any version, read into a program. Only JSON is read, and no address is contacted."""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from promptgrad import aio
from promptgrad._patterns import late_pattern
from promptgrad.errors import InputError, ParseError, StateDictError
from promptgrad.nn import Module, Predict, flaw_of
from promptgrad.signature import Field
from promptgrad.train._json_file import read_json

_BY_DSPY = ("traces", "train", "lm", "signature", "signature_instructions", "extended_signature_instructions")
_READ = frozenset(
    ("demos", "lm", *(f"{extended}signature{part}" for extended in ("", "extended_")
                      for part in ("", "_instructions", "_prefix")))
)  # fmt: skip
_NO_FIELDS = ("augmented", "dspy_uuid", "dspy_split")  # DSPy's own notes on a demo
_OTHER_NAMES = {"reasoning": "rationale", "rationale": "reasoning"}  # of the thoughts, before and after DSPy 2.5
_KEY = late_pattern(r"""\[(?:'([^']*)'|"([^"]*)"|(\d+))\]""")
_ITSELF = late_pattern(r"\$\{(\w+)\}")  # the description of a field that has none
_CUSTOM = "<<CUSTOM-TYPE-START-IDENTIFIER>>"


@dataclass(frozen=True, repr=False)
class DSPyReport:
    """What of a state of DSPy went where; print it.

    Attributes:
        loaded: Paths of DSPy's predictors, each with the path of the module that took it.
        missing: Paths that the program has and the state lacks: modules, and fields of modules that fit.
        unexpected: Paths that the state has and the program lacks: predictors, fields, and keys of demos.
        invalid: Paths whose value does not fit, each with the reason.
        remarks: What is no misfit and yet has no place here, such as a language model, by path.
        state: The values as a state of the program, for `load_state_dict(state, strict=False)`.
        descriptions: The descriptions of fields that differ from those of the program, by module and field.
    """

    loaded: Mapping[str, str]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    invalid: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    descriptions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether there is no misfit."""
        return not (self.missing or self.unexpected or self.invalid)

    def __repr__(self) -> str:
        lines = [f"DSPyReport: {len(self.loaded)} predictors read, {'no misfit' if self.fits else 'with misfits'}"]
        for theirs, ours in self.loaded.items():
            demos = self.state.get(_below(ours, "demos"))
            parts = ["instruction"] * (_below(ours, "instruction") in self.state)
            parts += [f"{len(demos)} demos"] if demos is not None else []
            parts += [f"descriptions of {', '.join(self.descriptions[ours])}"] if ours in self.descriptions else []
            lines.append(f"  read        {theirs} -> {ours or 'the program'}: {', '.join(parts) or 'nothing'}")
        return "\n".join(lines + self._misfits() + [f"  remark      {at}: {why}" for at, why in self.remarks.items()])

    def _misfits(self) -> list[str]:
        return [
            *(f"  missing     {path or 'the program'}" for path in self.missing),
            *(f"  unexpected  {path}{_near(path, self.missing)}" for path in self.unexpected),
            *(f"  invalid     {path}: {why}" for path, why in self.invalid.items()),
        ]


def load_dspy(
    path: "str | os.PathLike[str]",
    program: Module,
    *,
    strict: bool = False,
    rename: Mapping[str, str] | None = None,
) -> DSPyReport:
    """Read what `program.save("name.json")` of DSPy wrote, of any version since 2.0, into a program of the same shape.

    Instructions and demos become the values of the parameters, descriptions of fields those of the signatures (which no
    state of promptgrad holds: write them into the code to keep them). Predictors are found by path: `hops[0].generate`
    is `hops.0.generate`, `solve.predict` is a `solve` that is a `ChainOfThought`, and a sole predictor is the sole
    module. Language models in the file are named in the report, and neither made nor asked. A pickle is never opened.

    Args:
        path: The JSON file, or a folder that holds it.
        program: The program.
        strict: Refuse a state with any misfit; otherwise load what fits, with a warning of what was left out.
        rename: Paths of DSPy's predictors, each with the path of the module to load it into.

    Returns:
        What was read, and every misfit.

    Raises:
        FileNotFoundError: There is nothing at the path.
        StateDictError: It is not a state of DSPy, or a pickle; no predictor fits the program; or, with `strict`,
            something does not. The program is left as it was.

    Warns:
        UserWarning: A module of the program or a predictor of the file has no counterpart, or a value of the file does
            not fit; the message lists all misfits.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"the path is a {type(path).__name__}: write promptgrad.train.from_dspy(state, program)")
    theirs = _read(Path(path))
    report = from_dspy(theirs, program, rename=rename)
    modules = {at: module for at, module in program.named_modules() if isinstance(module, Predict)}
    parameters = dict(program.named_parameters(remove_duplicate=False))
    before = {at: parameters[at].read().value for at in report.state}
    misfits = program.load_state_dict(report.state, strict=False)
    report = replace(report, invalid={**report.invalid, **misfits.invalid})
    if strict and not report.fits:
        for at, value in before.items():
            parameters[at].data = value
        raise _refusal(f"{path} does not fit {type(program).__name__}", report)
    left = [at for at in (*report.missing, *report.unexpected) if at in modules or at in theirs]
    if left := [*left, *report.invalid]:
        fault = f"{path} does not fit {type(program).__name__} in all; left out: {', '.join(left)}"
        aio.warn(f"{chr(10).join([fault, *report._misfits()])}\nstrict=True refuses it.", UserWarning)
    for at, texts in report.descriptions.items():
        for name, text in texts.items():
            modules[at]._signature = modules[at]._signature.replace_field(name, description=text)
    return report


def from_dspy(state: Mapping[str, Any], program: Module, *, rename: Mapping[str, str] | None = None) -> DSPyReport:
    """Convert a state of DSPy into one of promptgrad, `report.state`. The program is not changed.

    Args:
        state: What `dump_state()` of DSPy returned, or the content of its file.
        program: The program that the state is for.
        rename: Paths of DSPy's predictors, each with the path of the module that it is for.

    Raises:
        StateDictError: It is not a state of DSPy, or no predictor fits the program; the message lists all misfits.
    """
    if not isinstance(program, Module):
        raise TypeError(f"a state is read into a promptgrad.nn.Module, not {type(program).__name__}")
    if not is_dspy(state):
        raise StateDictError("this is not a state of DSPy: no predictor (an object with demos) is in it")
    if (flaw := flaw_of(state)).endswith("too deeply"):
        raise StateDictError(f"this is not a state of DSPy: it {flaw}")
    theirs = {"self": state} if _is_predictor(state) else {at: it for at, it in state.items() if _is_predictor(it)}
    ours = {at: module for at, module in program.named_modules() if isinstance(module, Predict)}
    found = _matched(theirs, ours, dict(rename or {}))
    reader = _Reader()
    for at, it in state.items():
        if at == "metadata":
            reader.remarks[at] = _is_made_by(it)
        elif at not in theirs and not _is_predictor(state):
            reader.remarks[str(at)] = "is no predictor, and is left out"
    for at, target in found.items():
        reader.read(target, ours[target], theirs[at])
    report = DSPyReport(
        loaded=found,
        missing=(*(at for at in ours if at not in found.values()), *reader.missing),
        unexpected=(*(at for at in theirs if at not in found), *dict.fromkeys(reader.unexpected)),
        invalid=reader.invalid,
        remarks=reader.remarks,
        state=reader.state,
        descriptions=reader.descriptions,
    )
    if not found:
        advice = "\nName what belongs together: load_dspy(path, program, rename={'theirs': 'ours'})."
        raise _refusal(f"no predictor of the state of DSPy fits {type(program).__name__}", report, advice)
    return report


def is_dspy(state: object) -> bool:
    """Whether something read from JSON is a state that DSPy wrote."""
    return isinstance(state, Mapping) and (_is_predictor(state) or any(map(_is_predictor, state.values())))


def _is_predictor(it: object) -> bool:
    return isinstance(it, Mapping) and isinstance(it.get("demos"), list) and any(key in it for key in _BY_DSPY)


def _is_made_by(metadata: object) -> str:
    versions = metadata.get("dependency_versions") if isinstance(metadata, Mapping) else None
    made = versions.get("dspy") if isinstance(versions, Mapping) else None
    return f"written by DSPy {made}" if made else "of the file"


def _refusal(what: str, report: DSPyReport, advice: str = "") -> StateDictError:
    return StateDictError(
        "\n".join([f"{what}:", *report._misfits()]) + advice,
        missing=report.missing,
        unexpected=report.unexpected,
        invalid=report.invalid,
    )


# -- files ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        states: list[tuple[Path, Mapping[str, Any]]] = [
            (file, state) for file in sorted(path.glob("*.json")) if is_dspy(state := _json(file))
        ]
        if len(states) == 1:
            return states[0][1]
        if states:
            raise StateDictError(
                f"{path} holds several states of DSPy: name one of {', '.join(file.name for file, _ in states)}"
            )
        made = _is_made_by(_json(path / "metadata.json")) if (path / "metadata.json").is_file() else "not of DSPy"
        raise StateDictError(f"{path} ({made}) holds no state in JSON. {_IN_DSPY}")
    if path.suffix in (".pkl", ".pickle"):
        raise StateDictError(f"{path} is a pickle. {_IN_DSPY}")
    state = _json(path)
    if not is_dspy(state):
        raise StateDictError(f"{path} is not a state of DSPy: no predictor (an object with demos) is in it")
    return state  # type: ignore[no-any-return]


_IN_DSPY = (
    "A pickle runs code when it is read, so it is never opened here: in DSPy, load it, and save its state with "
    "program.save('program.json')"
)


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise StateDictError(f"{path} is not a state of DSPy: it is not JSON ({error})") from error


# -- paths ----------------------------------------------------------------------------------------------------------


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _matched(theirs: Iterable[str], ours: Iterable[str], rename: dict[str, str]) -> dict[str, str]:
    """Their paths, each with ours: as named, the same, one within the other, or the sole ones."""
    theirs, ours = list(theirs), list(ours)
    strange = [at for at in rename if at not in theirs] + [at for at in rename.values() if at not in ours]
    if strange:
        raise StateDictError(
            f"rename={{...}} goes from a predictor of DSPy ({', '.join(theirs)}) to a module here "
            f"({', '.join(map(repr, ours))}), and {strange[0]!r} is neither",
            invalid=strange,
        )
    plain = {at: "" if at == "self" else _KEY.sub(lambda key: "." + "".join(filter(None, key.groups())), at)
             for at in theirs}  # fmt: skip
    found = dict(rename)
    rules: list[Callable[[str, str], bool]] = [
        lambda there, here: there == here,
        lambda there, here: bool(here) and there.startswith(here + "."),  # their predictor is in our module's place
        lambda there, here: bool(there) and here.startswith(there + "."),
    ]
    for fits in rules:
        free = [at for at in ours if at not in found.values()]
        pairs = [(at, here) for at in theirs if at not in found for here in free if fits(plain[at], here)]
        for at, here in pairs:
            if sum(at == a for a, _ in pairs) == sum(here == h for _, h in pairs) == 1:
                found[at] = here
    if not found and len(theirs) == len(ours) == 1:
        found[theirs[0]] = ours[0]
    return {at: found[at] for at in theirs if at in found}


def _near(at: str, ours: Iterable[str]) -> str:
    near = difflib.get_close_matches(at, list(ours), 1)
    return f" (is it {near[0]!r}?)" if near else ""


# -- one predictor --------------------------------------------------------------------------------------------------


class _Reader:
    """Reads predictors one by one, and collects values and misfits."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.descriptions: dict[str, dict[str, str]] = {}
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.invalid: dict[str, str] = {}
        self.remarks: dict[str, str] = {}

    def read(self, at: str, module: Predict, saved: Mapping[str, Any]) -> None:
        """Read the state of one predictor for the module at a path."""
        fields = module.signature.fields
        if isinstance(lm := saved.get("lm"), Mapping):
            self.remarks[_below(at, "lm")] = (
                f"names the language model {str(lm.get('model'))!r}, which is not set: write .to(...)"
            )
        for key in saved:
            if key not in _READ and key != "metadata" and saved[key] not in ([], None, {}):
                self.remarks[_below(at, str(key))] = "has no place here"
        instruction = _instruction(saved)
        if instruction is None:
            self.remarks[_below(at, "instruction")] = "is not in the file, and stays as it is"
        elif isinstance(instruction, str):
            self.state[_below(at, "instruction")] = instruction
        else:
            self.invalid[_below(at, "instruction")] = f"must be str, not {type(instruction).__name__}"
        signature = saved.get("extended_signature") or saved.get("signature")
        if isinstance(signature, Mapping) and isinstance(signature.get("fields"), list) and signature["fields"]:
            self._fields(at, fields, signature["fields"])
        else:
            prefix = saved.get("extended_signature_prefix", saved.get("signature_prefix"))
            *_, last = fields
            self._prefix(at, last, prefix)
        self._demos(at, module, saved["demos"])

    def _fields(self, at: str, fields: Mapping[str, Field], saved: list[Any]) -> None:
        """Descriptions, by the name that DSPy made the prefix of, else by place."""
        entries = [entry if isinstance(entry, Mapping) else {} for entry in saved]
        names = [_renamed(_name_of(entry), fields) for entry in entries]
        left = [name for name in fields if name not in names]
        here = list(fields)
        for number, entry in enumerate(entries):
            name = names[number]
            if name not in fields and len(entries) == len(here) and here[number] in left:
                name = here[number]
                left.remove(name)
            if name not in fields:
                self.unexpected.append(_below(at, name or f"field {number + 1}"))
                continue
            text = entry.get("description")
            if isinstance(text, str) and not _ITSELF.fullmatch(text) and text != fields[name].description:
                self.descriptions.setdefault(at, {})[name] = text
            self._prefix(at, name, entry.get("prefix"))
        self.missing += [_below(at, name) for name in left]

    def _prefix(self, at: str, name: str, prefix: Any) -> None:
        """Remark on a prefix that was written or found, which no prompt here has."""
        if not isinstance(prefix, str) or prefix.startswith("Reasoning: Let's think"):
            return
        if _snake(prefix) not in (_snake(name), _snake(_OTHER_NAMES.get(name, name))):
            self.remarks[_below(at, name)] = f"has the prefix {prefix!r} in the file, and no prompt here has prefixes"

    def _demos(self, at: str, module: Predict, saved: list[Any]) -> None:
        demos: list[dict[str, Any]] = []
        reasons: list[str] = []
        for number, item in enumerate(saved, 1):
            demo = item.get("_store", item) if isinstance(item, Mapping) else None
            if not isinstance(demo, Mapping):
                reasons.append(f"demo {number} is no object")
                continue
            values, unknown, reason = _values(demo, module.signature.fields)
            self.unexpected += [f"{_below(at, 'demos')}.{key}" for key in unknown]
            sides = (module.signature.inputs, module.signature.outputs)
            if not reason and not all(any(name in values for name in side) for side in sides if side):
                lacks = "output" if any(name in values for name in sides[0]) else "input"
                self.remarks[_below(at, f"demos.{number}")] = f"has no {lacks}, so DSPy does not show it either"
            elif reason:
                reasons.append(f"demo {number} is left out: {reason}")
            else:
                demos.append(values)
        self.state[_below(at, "demos")] = demos
        if reasons:
            self.invalid[_below(at, "demos")] = "; ".join(reasons)


def _instruction(saved: Mapping[str, Any]) -> Any:
    """The instruction that DSPy sent: that of the signature with reasoning in it, where there is one."""
    for extended in ("extended_", ""):
        flat, signature = saved.get(f"{extended}signature_instructions"), saved.get(f"{extended}signature")
        found = flat if flat is not None else signature.get("instructions") if isinstance(signature, Mapping) else None
        if found is not None:
            return found
    return None


def _snake(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def _name_of(entry: Mapping[str, Any]) -> str:
    """The name of a field, which DSPy does not write: from the description of one without any, else the prefix."""
    description, prefix = entry.get("description"), entry.get("prefix")
    if isinstance(description, str) and (itself := _ITSELF.fullmatch(description)):
        return itself.group(1)
    if not isinstance(prefix, str):
        return ""
    if prefix.startswith("Reasoning: Let's think"):
        return "reasoning"
    return re.sub(r"\W+", "_", prefix.strip().rstrip(":")).lower()


def _renamed(name: str, fields: Mapping[str, Field]) -> str:
    """The name that a field has here: that of the thoughts changed, capitals and underscores do not count."""
    if name in fields:
        return name
    if _OTHER_NAMES.get(name) in fields:
        return _OTHER_NAMES[name]
    return next((here for here in fields if _snake(here) == _snake(name)), name)


def _values(demo: Mapping[str, Any], fields: Mapping[str, Field]) -> tuple[dict[str, Any], list[str], str]:
    """The values of a demo, keys that are no field, and why the demo cannot be shown ("" if it can)."""
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in demo.items():
        name = key if key in fields else _OTHER_NAMES.get(key, key)
        if name not in fields or (name != key and name in demo):
            if key not in _NO_FIELDS:
                unknown.append(str(key))
            continue
        if isinstance(value, str) and _CUSTOM in value:
            return {}, unknown, f"{name} holds an image or other object in DSPy's own form"
        try:
            values[name] = _value(fields[name], value)
        except (InputError, ParseError) as error:
            return {}, unknown, str(error)
    return values, unknown, ""


def _value(field: Field, value: Any) -> Any:
    """A value of a demo in JSON types, as its field takes it."""
    if field.is_text:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
    try:
        field.validate(value)
    except (InputError, ParseError):
        if not isinstance(value, str):
            raise
        field.validate_json(value)
        return json.loads(value)
    return value
