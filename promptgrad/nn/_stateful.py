"""`Stateful`: what a program is in JSON types, and what it reads in their place."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from promptgrad._habits import refuses
from promptgrad.autograd import candidate
from promptgrad.errors import StateDictError
from promptgrad.nn import _state
from promptgrad.nn._members import Members
from promptgrad.nn._state_dict import StateDict
from promptgrad.signature import Field


class Stateful(Members):
    """The part of `Module` that writes and reads values: its state, its prompts, and candidates."""

    _transient: dict[str, None]

    @refuses(
        {
            "prefix": "{prefix + path: value for path, value in module.state_dict().items()}",
            **dict.fromkeys(("destination", "keep_vars"), "nothing: values are copied into a new dict"),
        },
        "Module.state_dict",
    )
    def state_dict(self) -> StateDict:
        """All parameters and persistent buffers as `{path: value}` in JSON types.

        What describes them is beside them, as `state["_meta"]` and in files, and loops do not meet it.

        It holds no weights of local models (see `promptgrad.save`), but lists which were trained; the names of LMs, but
        not the LMs; and no secrets.
        """
        entries: dict[str, Any] = {}
        for path, parameter in self.named_parameters(remove_duplicate=False):
            entries[path] = _state.encode(path, parameter, self._fields_at(path))
        for path, value in self._persistent_buffers():
            entries[path] = _state.to_json(path, value)
        return StateDict(entries, self._meta())

    @refuses(
        {
            "assign": "nothing: values are set in the parameters that are there",
            "state_dict": "load_state_dict(state)",
        },
        "Module.load_state_dict",
    )
    def load_state_dict(
        self,
        state: Mapping[str, Any],
        strict: bool = True,  # noqa: FBT001, FBT002 - as torch spells it
    ) -> _state.Misfits:
        """Set parameters and buffers from what `state_dict()` returned.

        Everything is checked before anything changes.

        Args:
            state: The state; it may come from JSON.
            strict: Refuse a state that does not fit in every path; otherwise load what fits.

        Returns:
            What did not fit: `missing`, `unexpected` and `invalid` paths; all empty under `strict`.

        Raises:
            StateDictError: The state does not fit; the message lists all misfits at once, with the nearest names.

        Warns:
            UserWarning: The state was made with trained weights of a local model, which this program does not have.
        """
        if not isinstance(state, Mapping):
            raise TypeError(_state.not_a_state(state))
        meta = _state.read_meta(state)
        parameters = dict(self.named_parameters(remove_duplicate=False))
        buffers = dict(self._persistent_buffers())
        expected = [*parameters, *buffers]
        if strange := [path for path in state if not isinstance(path, str)]:
            raise StateDictError(
                f"the keys of a state are paths, not {strange[0]!r:.80}", unexpected=map(repr, strange)
            )
        given = [path for path in state if path != "_meta"]
        missing = [path for path in expected if path not in state]
        unexpected = [path for path in given if path not in parameters and path not in buffers]
        ours = self._meta()
        invalid = _state.different_fields(meta, ours)
        values: dict[str, Any] = {}
        for path in given:
            if path in parameters:
                kind = _state.kind_of(meta, path)
                value, reason = _state.decode(parameters[path], state[path], kind, self._fields_at(path))
                if reason:
                    invalid[path] = reason
                else:
                    values[path] = value
        kept: dict[str, Any] = {}
        for path in buffers:
            if path in state and (flaw := _state.flaw_of(state[path])):
                invalid[path] = flaw
            elif path in state:
                kept[path] = copy.deepcopy(state[path])
        if strict and (missing or unexpected or invalid):
            message = _state.misfit_message(type(self).__name__, "state_dict", missing, unexpected, invalid, expected)
            raise StateDictError(
                f"{message}\n{_state.advice(state, strange=bool(missing or unexpected), invalid=bool(invalid))}",
                missing=missing,
                unexpected=unexpected,
                invalid=invalid,
            )
        if lost := _state.lost_weights(meta, ours):
            warnings.warn(lost, UserWarning, stacklevel=3)
        for path, value in values.items():
            parameters[path].data = value
        for path, value in kept.items():
            owner, _, name = path.rpartition(".")
            setattr(self.get_submodule(owner), name, value)
        return _state.Misfits(tuple(missing), tuple(unexpected), invalid)

    def _persistent_buffers(self) -> Iterator[tuple[str, Any]]:
        for path, module in self.named_modules():
            for name, value in module._buffers.items():
                if name not in module._transient:
                    yield (f"{path}.{name}" if path else name), value

    def _fields_at(self, path: str) -> Mapping[str, Field]:
        """The fields of the module that has the parameter at a path."""
        return self.get_submodule(path.rpartition(".")[0])._signature_fields()

    def _meta(self) -> dict[str, Any]:
        modules = dict(self.named_modules())
        trained = self._trained_lms()
        return {
            "schema": _state.SCHEMA,
            "program": type(self).__name__,
            "kinds": {path: parameter.kind for path, parameter in self.named_parameters(remove_duplicate=False)},
            "fields": {path: fields for path, module in modules.items() if (fields := module._field_types())},
            "lms": {path: module._lm.name for path, module in modules.items() if module._lm is not None},
            **({"trained": trained} if trained else {}),
        }

    def _trained_lms(self) -> dict[str, str]:
        """Names of the local models with trained weights, by the path of the module on each."""
        found: dict[str, str] = {}
        known: dict[int, bool] = {}
        for path, module in self.named_modules():
            transport = None if module._lm is None else module._lm.transport
            is_trained = getattr(transport, "_is_trained", None)
            if transport is None or is_trained is None:
                continue
            if id(transport) not in known:
                known[id(transport)] = is_trained()
            if known[id(transport)]:
                found[path] = transport.name
        return found

    def export(self) -> dict[str, Any]:
        """The prompts of the program in JSON types, by module path, for use without promptgrad.

        Each entry has the messages, with `{name}` where an input goes, the names and types of the fields, and the
        options. If the inputs choose the demos, the messages have none, and "demos" describes what they are chosen
        from, and how.
        """
        return {path: prompt for path, module in self.named_modules() if (prompt := module._export()) is not None}

    def _export(self) -> dict[str, Any] | None:
        return None

    def _signature_fields(self) -> Mapping[str, Field]:
        """The inputs and outputs, where the module has a signature."""
        return {}

    def _field_types(self) -> dict[str, dict[str, str]]:
        """Names and types of the inputs and outputs, where the module has a signature."""
        return {}

    def candidate(self, values: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """While inside, parameters read as `values` (path -> value); the module itself does not change.

        Concurrent contexts may hold different candidates of one program.

        Raises:
            StateDictError: A path is not a parameter of this program.
            ConstraintError: A value does not fit its parameter.
        """
        known = dict(self.named_parameters(remove_duplicate=False))
        unexpected = [path for path in values if path not in known]
        if unexpected:
            raise StateDictError(
                _state.misfit_message(type(self).__name__, "a candidate", [], unexpected, {}, known),
                unexpected=unexpected,
            )
        return candidate({known[path]: value for path, value in values.items()})
