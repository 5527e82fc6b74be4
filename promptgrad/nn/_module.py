"""`Module`, the base of every program: registration, calling, and queries."""

import copy
import difflib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from itertools import count
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from promptgrad import aio
from promptgrad._habits import check_dropped, refuses
from promptgrad.autograd import Node, Parameter, Tape, candidate, current_tape, is_grad_enabled, open_tape
from promptgrad.errors import AsyncUsageError, StateDictError
from promptgrad.lm import LM, current, resolve
from promptgrad.nn import _state
from promptgrad.nn._batch import Batch
from promptgrad.nn._hooks import Hooks, RemovableHandle
from promptgrad.nn._map import amap_rows, map_rows
from promptgrad.nn._parameter_iterator import ParameterIterator
from promptgrad.nn._recent import remember_output
from promptgrad.nn._state_dict import StateDict
from promptgrad.nn._stream import EventIterator, EventStream
from promptgrad.nn._tool_shape import shape_of
from promptgrad.signature import Field

M = TypeVar("M", bound="Module")

_CO_VARKEYWORDS = 0x08
_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu", "meta"})

# What a user of PyTorch or DSPy may type out of habit, and what to write here.
_ELSEWHERE = {
    **dict.fromkeys(("add_tool", "bind_tools"), "tools=[...] where the agent is made"),
    "batch": "module.map(batch)",
    "cpu": "module.to(lm): the device of a program is its language model",
    "cuda": "module.to(lm): the device of a program is its language model",
    "deepcopy": "copy.deepcopy(module)",
    "demos": "the Predict inside, such as module.solve.demos, or module.named_parameters()",
    "dump_state": "module.state_dict()",
    **dict.fromkeys(("bfloat16", "float", "half"), "promptgrad.lm.Local(model): the weights are those of its model"),
    "reset_copy": "copy.deepcopy(module), or load_state_dict(...) of the state at the start",
    "summary": "promptgrad.summary(module)",
    "get_lm": "module.lm",
    "load": "module.load_state_dict(promptgrad.load(path))",
    "load_state": "module.load_state_dict(state)",
    "named_predictors": "[(name, m) for name, m in module.named_modules() if isinstance(m, nn.Predict)]",
    "named_sub_modules": "module.named_modules()",
    "predictors": "[m for m in module.modules() if isinstance(m, nn.Predict)]",
    "render": "the Predict inside, such as module.solve.render(...), or module.export()",
    "save": "promptgrad.save(module.state_dict(), path)",
    "set_lm": "module.to(lm)",
    "signature": "the Predict inside, such as module.solve.signature",
    "streamify": "module.stream(...)",
    "update_config": "nn.Predict(..., temperature=...), or config={...} in a call",
}

MAP_HABITS = {
    **dict.fromkeys(("num_threads", "max_workers", "max_concurrency", "workers", "num_workers"), "concurrency=..."),
    "batch_size": "concurrency=...: rows run side by side, and no batch waits for its last row",
    **dict.fromkeys(("disable_progress_bar", "display_progress", "show_progress"), "progress=..."),
    **dict.fromkeys(
        ("max_errors", "return_failed_examples", "provide_traceback", "return_exceptions"),
        "nothing: a row that fails is an ErrorRow, and the others go on",
    ),
    **dict.fromkeys(("lm", "temperature"), "with promptgrad.context(lm=...), or module.to(lm)"),
    "examples": "module.map(examples): the batch stands first",
}

_changes = count(1)


class _Structure:
    """Counts changes of any program's structure, so that what was derived from one can be kept until then."""

    version = 0
    backward_hooks = False  # whether any module ever had one: if not, no call looks for them


def structure_changed() -> None:
    _Structure.version = next(_changes)


class _Plan:
    """What is derived from the structure of a program: the paths of its modules and of its parameters."""

    __slots__ = ("parameters", "paths", "version")

    def __init__(self, root: "Module") -> None:
        self.version = _Structure.version
        self.paths: dict[Module, str] = {module: path for path, module in root.named_modules()}
        self.parameters: dict[Parameter, str] = {parameter: path for path, parameter in root.named_parameters()}

    def takes_gradient(self) -> bool:
        """Whether a parameter requires a gradient, or a language model traces for its weights."""
        for parameter in self.parameters:
            if parameter.requires_grad:
                return True
        last = None
        for module in self.paths:
            lm = module._lm
            if lm is not None and lm is not last:  # most programs run on one LM
                if lm.traces():
                    return True
                last = lm
        return False


def _argument_names(function: object) -> tuple[str, ...] | None:
    """Names of the arguments that can be given by keyword; None where any name is accepted."""
    import inspect

    names = []
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.VAR_KEYWORD:
            return None
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            names.append(parameter.name)
    return tuple(names)


def _modules_inside(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(item, (Module, Parameter)) for item in value)
    if isinstance(value, dict):
        return any(isinstance(item, (Module, Parameter)) for item in value.values())
    return False


def _holds_torch(value: object) -> bool:
    """Whether a value is or directly holds a torch module or a torch parameter. Torch is not imported for it."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "nn"):
        return False
    items = value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else (value,)
    return any(isinstance(item, (torch.nn.Module, torch.nn.Parameter)) for item in items)


class Module:
    """Base of every program made of language-model calls; as `torch.nn.Module`.

    Assign modules and parameters as attributes in `__init__` and write `forward` in plain Python, as `def` or as
    `async def`. Call the module like a function: `model(question=...)` gives the value, `await
    model.acall(question=...)` does so in async code, and `model.map(batch)` runs a batch concurrently. A forward
    should keep no state in the module: several run at once.

    Cost: what `forward` spends. A top-level call is recorded for `backward()` if grad mode is on and some parameter
    of the module requires a gradient.
    """

    _coroutine: ClassVar[bool] = False  # forward is an `async def`
    _in_place: ClassVar[bool] = False  # forward awaits only signals of this package, so that `drive` can run it
    _is_one_call: ClassVar[bool] = False  # forward begins with one request, which its inputs alone decide
    _places: ClassVar[tuple[str, ...]] = ()  # parameters that have one name, and that forward uses
    _arguments: ClassVar[tuple[str, ...] | None] = None

    training: bool
    _parameters: dict[str, Parameter | None]
    _modules: "dict[str, Module | None]"
    _buffers: dict[str, Any]
    _transient: dict[str, None]
    _lm: LM | None
    _pinned: bool
    _hooks: Hooks | None
    _plan: _Plan | None

    def __init_subclass__(cls, *, in_place: bool = False, one_call: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:
            cls._coroutine = aio.is_coroutine_function(cls.__dict__["forward"])
            cls._in_place = in_place
            cls._is_one_call = one_call
            cls._arguments = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "Module":
        self = object.__new__(cls)
        self.__dict__.update(
            training=True,
            _parameters={},
            _modules={},
            _buffers={},
            _transient={},
            _lm=None,
            _pinned=False,
            _hooks=None,
            _plan=None,
        )
        return self

    def __init__(self) -> None:
        pass

    # ------------------------------------------------------------------ registration

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._check_name(name, "parameter")
            if value.kind.place and (value.kind.place != name or name not in self._places):
                raise TypeError(
                    f"{type(self).__name__}.{name} cannot be a {type(value).__name__}, which goes before the prompt of "
                    f"a Predict: module.{value.kind.place} = ... of one of them"
                )
            self._forget(name, but=self._parameters)
            self._parameters[name] = value
            structure_changed()
        elif isinstance(value, Module):
            self._check_name(name, "module")
            self._forget(name, but=self._modules)
            self._modules[name] = value
            structure_changed()
        elif name in self._parameters:
            if value is not None:
                raise TypeError(
                    f"{type(self).__name__}.{name} is a Parameter and cannot become a {type(value).__name__}: "
                    f"write `.{name}.data = ...` to change its value"
                )
            self._parameters[name] = None
            structure_changed()
        elif name in self._modules:
            if value is not None:
                raise TypeError(
                    f"{type(self).__name__}.{name} is a module and cannot become a {type(value).__name__}: "
                    f"`del` it first, or assign another module or None"
                )
            self._modules[name] = None
            structure_changed()
        elif name in self._buffers:
            self._buffers[name] = value
        elif isinstance(value, (list, tuple, dict)) and _modules_inside(value):
            instead = "nn.ModuleDict" if isinstance(value, dict) else "nn.ModuleList"
            warnings.warn(
                f"{type(self).__name__}.{name} is a plain {type(value).__name__} that holds modules or parameters: "
                f"they are not registered, so no optimizer, state_dict() or .to(lm) finds them. "
                f"Wrap it in {instead} (nn.ParameterList for parameters)",
                stacklevel=2,
            )
        elif _holds_torch(value):
            warnings.warn(
                f"{type(self).__name__}.{name} holds weights of torch, which are no parameters here: state_dict(), "
                "promptgrad.save() and weights() leave them out, and no optimizer of promptgrad trains them. Give them "
                "to torch.optim, and save them with torch.save beside promptgrad.save; a language model goes into "
                ".to(promptgrad.lm.Local(model))",
                stacklevel=2,
            )
        object.__setattr__(self, name, value)

    if not TYPE_CHECKING:  # otherwise a type checker would see Any for a misspelt attribute

        def __getattr__(self, name):
            message = f"{type(self).__name__} has no attribute {name!r}"
            if name.startswith("_"):
                raise AttributeError(message)
            if name in _ELSEWHERE:
                raise AttributeError(f"{message}: write {_ELSEWHERE[name]}")
            near = difflib.get_close_matches(name, [*self.__dict__, *dir(type(self))], 1)
            raise AttributeError(f"{message}: did you mean {near[0]!r}?" if near else message)

    def __delattr__(self, name: str) -> None:
        self._forget(name)
        object.__delattr__(self, name)

    def _forget(self, name: str, but: dict[str, Any] | None = None) -> None:
        for registry in (self._parameters, self._modules, self._buffers, self._transient):
            if name in registry and registry is not but:
                del registry[name]
                structure_changed()

    def _check_name(self, name: str, what: str) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(f"the name of a {what} is a non-empty str without dots, not {name!r}")
        if hasattr(Module, name) or name in ("training", "__dict__"):
            raise KeyError(
                f"a {what} cannot be called {name!r}, which every Module has as an attribute: choose another name"
            )

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter by name; None reserves the name."""
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"register_parameter takes a Parameter or None, not {type(parameter).__name__}")
        self._check_new(name, "parameter", self._parameters)
        if parameter is None:
            self._parameters[name] = None
            object.__setattr__(self, name, None)
        else:
            setattr(self, name, parameter)

    def add_module(self, name: str, module: "Module | None") -> None:
        """Add a child by name; None reserves the name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"add_module takes a Module or None, not {type(module).__name__}")
        self._check_new(name, "module", self._modules)
        if module is None:
            self._modules[name] = None
            object.__setattr__(self, name, None)
        else:
            setattr(self, name, module)

    register_module = add_module

    def register_buffer(self, name: str, value: Any, *, persistent: bool = True) -> None:
        """Add a value that belongs to the state but is not a parameter, and is read as an attribute.

        Args:
            name: Its name.
            value: Anything with a JSON form, if it is persistent.
            persistent: Whether `state_dict()` holds it.
        """
        if isinstance(value, (Module, Parameter)):
            raise TypeError(f"a buffer is a plain value; assign a {type(value).__name__} as an attribute instead")
        self._check_new(name, "buffer", self._buffers)
        self._buffers[name] = value
        if not persistent:
            self._transient[name] = None
        object.__setattr__(self, name, value)

    def _check_new(self, name: str, what: str, registry: Mapping[str, Any]) -> None:
        self._check_name(name, what)
        if name in self.__dict__ and name not in registry:
            raise KeyError(f"{type(self).__name__} already has an attribute {name!r}")

    # ------------------------------------------------------------------ what is in a module

    def named_modules(
        self, memo: "set[Module] | None" = None, prefix: str = "", *, remove_duplicate: bool = True
    ) -> "Iterator[tuple[str, Module]]":
        """All modules of the program with their paths, itself first, under the path `prefix`.

        A module that has several paths is listed once, under the first, unless `remove_duplicate` is off.
        """
        seen = set() if memo is None else memo
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if remove_duplicate:
                if module in seen:
                    continue
                seen.add(module)
            yield path, module
            below = path + "." if path else ""
            stack.extend(
                (below + name, child) for name, child in reversed(module._modules.items()) if child is not None
            )

    def modules(self) -> "Iterator[Module]":
        """All modules of the program, itself first, each once."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> "Iterator[tuple[str, Module]]":
        """The modules right below this one, with their names, each once."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> "Iterator[Module]":
        """The modules right below this one, each once."""
        for _, child in self.named_children():
            yield child

    def named_parameters(
        self, prefix: str = "", *, recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All text, demo and choice parameters with their paths; weights of local models are in `weights()`.

        A shared parameter is listed once, under its first path. Paths start at this module: a parameter of
        `model.solve` has one path there and another in `model`, and its own `name` does not change.
        """
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, parameter in module._parameters.items():
                if parameter is None:
                    continue
                full = f"{path}.{name}" if path else name
                if remove_duplicate:
                    if id(parameter) in seen:
                        continue
                    seen.add(id(parameter))
                yield full, parameter

    def parameters(self, *, recurse: bool = True) -> ParameterIterator:
        """All text, demo and choice parameters, each once, in the order of their paths, which the iterator knows."""
        return ParameterIterator(self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", *, recurse: bool = True) -> Iterator[tuple[str, Any]]:
        """All buffers with their paths."""
        for path, module in self.named_modules(prefix=prefix) if recurse else [(prefix, self)]:
            for name, value in module._buffers.items():
                yield (f"{path}.{name}" if path else name), value

    def buffers(self, *, recurse: bool = True) -> Iterator[Any]:
        """All buffers."""
        for _, value in self.named_buffers(recurse=recurse):
            yield value

    def get_submodule(self, target: str) -> "Module":
        """The module at a path; the empty path is the module itself.

        Raises:
            AttributeError: There is no such module; the message names the nearest.
        """
        module: Module | None = self
        for name in target.split(".") if target else ():
            module = module._modules.get(name) if module is not None else None
        if module is None:
            raise AttributeError(_no_such("module", target, (path for path, _ in self.named_modules()), self))
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path.

        Raises:
            AttributeError: There is no such parameter; the message names the nearest.
        """
        owner, _, name = target.rpartition(".")
        try:
            parameter = self.get_submodule(owner)._parameters.get(name)
        except AttributeError:
            parameter = None
        if parameter is None:
            known = (path for path, _ in self.named_parameters(remove_duplicate=False))
            raise AttributeError(_no_such("parameter", target, known, self))
        return parameter

    def apply(self: M, fn: "Callable[[Module], object]") -> M:
        """Call `fn` with every module of the program, children first, and return the module."""
        for module in [*self.modules()][::-1]:
            fn(module)
        return self

    def train(self: M, mode: bool = True) -> M:  # noqa: FBT001, FBT002 - as torch spells it
        """Set the `training` flag of all modules. No built-in module behaves differently; it is there for yours."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self: M) -> M:
        """Clear the `training` flag of all modules."""
        return self.train(mode=False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:  # noqa: FBT001, FBT002 - as torch spells it
        """Set for all parameters whether they require a gradient."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - as torch spells it
        """Drop the gradients of all parameters, and of the weights of local models that require one.

        Raises:
            ValueError: `set_to_none` is False: there is no critique that is zero.
        """
        check_dropped(set_to_none)
        for parameter in self.parameters():
            parameter.grad = None
        for weight in self.weights():
            weight.grad = None

    def named_weights(self) -> Iterator[tuple[str, Any]]:
        """Torch parameters of the local models that the program runs on, each once, with their names.

        A name is the path of the first module that was moved to the model, "lm", and the model's own name of the
        weight: "solve.lm.model.layers.0.self_attn.q_proj.weight"; a soft prompt is "solve.soft_prompt". Such pairs are
        what `torch.optim` takes, too.
        """
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, weight in module._weights_here():
                if id(weight) not in seen:
                    seen.add(id(weight))
                    yield f"{path}.{name}".removeprefix("."), weight

    def _weights_here(self) -> Iterator[tuple[str, Any]]:
        """What is trained of the model that this module was moved to: its weights, or the soft prompt alone."""
        soft = self._parameters.get("soft_prompt")
        lm = self._lm if self._lm is None or soft is None else soft.read().value.on(self._lm)
        transport = None if lm is None else lm.transport
        if transport is not None and hasattr(transport, "named_weights"):
            for name, weight in transport.named_weights():
                yield f"lm.{name}" if soft is None else "soft_prompt", weight

    def weights(self) -> list[Any]:
        """Torch parameters of the local models that the program runs on, each once, for `torch.optim`.

        They are not among `parameters()`. Empty if no module was moved to an `lm.Local`, and while the weights are
        frozen, as those of a model loaded by path are until `lm.requires_grad_()`.
        """
        return [weight for _, weight in self.named_weights()]

    # ------------------------------------------------------------------ language models and candidates

    @refuses(
        {
            **dict.fromkeys(("device", "dtype", "non_blocking"), "module.to(lm): its device is a language model"),
            **dict.fromkeys(
                ("api_base", "base_url", "api_key", "temperature", "max_tokens", "timeout", "num_retries"),
                "module.to(promptgrad.LM(name, ...)): it is an option of a language model",
            ),
        }
    )
    def to(self: M, lm: "LM | str | None", *, pin: bool = False) -> M:
        """Run the module and all modules below on a language model, as a torch module moves to a device.

        Args:
            lm: An LM, a name such as "openai/gpt-4o-mini" or "pocket", or None to undo the setting.
            pin: Keep this LM when a larger program around the module is moved later.

        Returns:
            The module itself.
        """
        if type(lm).__module__.partition(".")[0] == "torch" or (
            isinstance(lm, str) and lm.partition(":")[0] in _DEVICES
        ):
            raise TypeError(
                f".to({lm!r}): the device of a program is its language model: write .to('openai/gpt-4o-mini'), "
                "or promptgrad.lm.Local(model, device=...) to say where a local model computes"
            )
        target = None if lm is None else resolve(lm, cache=current().cache or True)
        stack: list[Module] = [self]
        seen: set[Module] = set()
        while stack:
            module = stack.pop()
            if module in seen or (module is not self and module._pinned):
                continue
            seen.add(module)
            module._lm = target
            module._pinned = False
            stack.extend(child for child in module._modules.values() if child is not None)
        self._pinned = pin
        return self

    @property
    def lm(self) -> LM | None:
        """The LM that `.to()` gave this module; None where the context or the process default decides."""
        return self._lm

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

    # ------------------------------------------------------------------ state

    @refuses(
        {
            "prefix": "{prefix + path: value for path, value in module.state_dict().items()}",
            **dict.fromkeys(("destination", "keep_vars"), "nothing: values are copied into a new dict"),
        }
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
        }
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
                f"{message}\n{_state.advice(state)}",
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

    # ------------------------------------------------------------------ hooks

    def register_forward_pre_hook(self, hook: Callable[..., Any], *, with_kwargs: bool = False) -> RemovableHandle:
        """Call `hook(module, args)` before each forward; what it returns, if not None, replaces the arguments.

        With `with_kwargs` it is `hook(module, args, kwargs)` and returns None or a pair of both.
        """
        hooks = self._get_hooks()
        return RemovableHandle(hooks.before, (hook, with_kwargs), self._drop_empty_hooks)

    def register_forward_hook(self, hook: Callable[..., Any], *, with_kwargs: bool = False) -> RemovableHandle:
        """Call `hook(module, args, output)` after each forward; what it returns, if not None, replaces the output.

        With `with_kwargs` it is `hook(module, args, kwargs, output)`.
        """
        hooks = self._get_hooks()
        return RemovableHandle(hooks.after, (hook, with_kwargs), self._drop_empty_hooks)

    def register_full_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` in `backward()`, for each call of the module that is to blame.

        `grad_output` is what is wrong with the outputs of the call, a tuple of texts. `grad_input` maps what may be to
        blame for it ("instruction", and the names of inputs that other calls wrote) to the critic's texts about it;
        what the hook returns, if not None, replaces the mapping.

        On a module made of others, the hook is called for each call of a module below, with that module. The hook has
        to be there when the forward runs. What it raises is raised by `backward()`.
        """
        _Structure.backward_hooks = True
        hooks = self._get_hooks()
        return RemovableHandle(hooks.backward, hook, self._drop_empty_hooks)

    def _get_hooks(self) -> Hooks:
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    def _drop_empty_hooks(self) -> None:
        if self._hooks is not None and not self._hooks:
            self._hooks = None

    # ------------------------------------------------------------------ calling

    def _no_forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    forward: Callable[..., Any] = _no_forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and wait for its value.

        This works in plain code, in threads, in a notebook and in async handlers (whose loop is blocked meanwhile).

        Raises:
            AsyncUsageError: Called from a coroutine on promptgrad's own program loop: use `await module.acall(...)`.
        """
        if aio.serving():
            raise AsyncUsageError(
                f"{type(self).__name__} was called inside a coroutine that promptgrad runs: a blocking call there "
                "would wait for itself. Write `await module.acall(...)` instead of `module(...)`"
            )
        if self._coroutine:
            call = self.acall(*args, **kwargs)
            return aio.drive(call) if self._in_place else aio.run(call)
        if current_tape() is not None:
            return self._run_forward(args, kwargs)
        tape = self._open_tape(args, kwargs)
        if tape is None:
            token = _enter(self)
            try:
                return self._run_forward(args, kwargs)
            finally:
                _program.reset(token)
        with tape.active():
            output = self._run_forward(args, kwargs)
            tape.finish(output)
        remember_output(output, tape)
        return output

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and return its value, from a coroutine.

        An `async def forward` runs on the loop of the caller, a plain one in a thread.
        """
        recorded = current_tape() is not None
        tape = None if recorded else self._open_tape(args, kwargs)
        if self._in_place and self._hooks is None:
            running = self.forward(*args, **kwargs)
        else:
            running = self._arun_forward(args, kwargs)
        if recorded or (tape is None and not self._modules):
            return await running
        if tape is None:
            token = _enter(self)
            try:
                return await running
            finally:
                _program.reset(token)
        with tape.active():
            output = await running
            tape.finish(output)
        remember_output(output, tape)
        return output

    def stream(self, *args: Any, **kwargs: Any) -> EventStream:
        """Call the module, and tell what its calls write while they write it: `async for event in model.stream(...)`.

        The arguments are those of a call. The events are `CallBegun`, `FieldDelta`, `PartialValue`, `FieldFinished`,
        `ThoughtDelta`, `ToolPiece`, `Voided` and `CallEnded` of all calls of `Predict` in the program, of several side
        by side too, `ToolBegun` and `ToolEnded` of the tools of agents, and last what `forward` returned: the
        `Prediction`, recorded as that of a plain call.

        The calls are those of a plain call, through the same cache, budget, journal and retries, and a call fails as
        it does there; what an LM or an adapter cannot stream comes whole. Leaving the loop ends the program and its
        requests. See `EventStream`.

        Cost: as a call.

        Raises:
            Exception: When read: what the call raises.
        """
        return EventStream(self, args, kwargs)

    def stream_sync(self, *args: Any, **kwargs: Any) -> EventIterator:
        """As `stream`, for plain code: `for event in model.stream_sync(...)`. It works in a notebook, too.

        Raises:
            AsyncUsageError: Called from a coroutine on promptgrad's own program loop: use `stream`.
        """
        if aio.serving():
            raise AsyncUsageError(
                f"{type(self).__name__}.stream_sync was called inside a coroutine that promptgrad runs: a blocking "
                "loop there would wait for itself. Write `async for event in module.stream(...)`"
            )
        return EventIterator(self, args, kwargs)

    async def _arun_on(self, tape: Tape | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if tape is None:
            token = _enter(self)
            try:
                return await self._arun_forward(args, kwargs)
            finally:
                _program.reset(token)
        with tape.active():
            output = await self._arun_forward(args, kwargs)
            tape.finish(output)
        return output

    def _run_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hooks = self._hooks
        if hooks is None:
            output = self.forward(*args, **kwargs)
        else:
            args, kwargs = hooks.run_before(self, args, kwargs)
            output = self.forward(*args, **kwargs)
        if type(output) is CoroutineType:  # a decorator hid that forward is an `async def`
            output = aio.run(output)
        return output if hooks is None else hooks.run_after(self, args, kwargs, output)

    async def _arun_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._coroutine:
            return await aio.in_thread(self._run_forward, args, kwargs)
        hooks = self._hooks
        if hooks is not None:
            args, kwargs = hooks.run_before(self, args, kwargs)
        if self._in_place or not aio.is_driven():
            output = await self.forward(*args, **kwargs)
        else:
            output = await aio.on_program(self.forward, *args, **kwargs)
        if type(output) is CoroutineType:  # `return self.answer.acall(...)`, without an await
            output = await output
        return output if hooks is None else hooks.run_after(self, args, kwargs, output)

    def _get_plan(self) -> _Plan:
        plan = self._plan
        if plan is None or plan.version != _Structure.version:
            plan = _Plan(self)
            self.__dict__["_plan"] = plan
        return plan

    def _open_tape(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tape | None:
        """A tape for a top-level call, or None if nothing is recorded."""
        if is_grad_enabled():
            plan = self._get_plan()
            if plan.takes_gradient():
                return Tape({**self._named(args), **kwargs} if args else kwargs, self, paths=plan.parameters)
        return None

    def _named(self, args: tuple[Any, ...]) -> dict[str, Any]:
        names = self.input_names() or ()
        return {names[number] if number < len(names) else str(number): value for number, value in enumerate(args)}

    def _asks_once(self) -> bool:
        """Whether a call begins with one request, which its inputs alone decide: then rollouts of it ask the same."""
        return self._is_one_call and self._hooks is None

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs that `forward` takes; None where it takes any name."""
        cls = type(self)
        if "_arguments" not in cls.__dict__ or cls._arguments is None:
            names = _argument_names(self.forward)
            if names is None:
                return None
            cls._arguments = names
        return cls._arguments

    def output_names(self) -> tuple[str, ...] | None:
        """Names of the outputs; None where they are not known before `forward` has run."""
        return None

    def __tool__(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """What a `Tool` of this module is told of: a function declared as it is called, and the one that calls it."""
        return shape_of(self)

    # ------------------------------------------------------------------ batches

    @refuses(MAP_HABITS)
    def map(
        self,
        batch: Iterable[Any],
        n: int = 1,
        *,
        concurrency: int | None = None,
        progress: bool = False,
    ) -> Batch:
        """Call the module with every item of a batch, concurrently, and return the outputs in order.

        An item is an `Example` (its inputs are passed by name: those of `with_inputs`, else the fields that `forward`
        has arguments for), a mapping of inputs by name, or the value of the only input. An item that fails gives an
        `ErrorRow` and does not stop the others.

        A plain forward takes one thread per item in flight, an `async def forward` one task. Ctrl-C cancels what is
        in flight; the exception carries the finished rows as `.batch`.

        Args:
            batch: The items.
            n: Rollouts of each item, which LMs and caches distinguish by their replicate number.
            concurrency: Items in flight; else that of the context or of `configure`, else 32.
            progress: Show a progress bar (in a terminal or a notebook only).

        Raises:
            NoLMError: No language model is configured.
            ImportError: A package that the program needs is not installed.
            InputError: The batch is not a sequence of items.
            AsyncUsageError: Called inside a coroutine that promptgrad runs: use `await module.amap(...)`.
        """
        if aio.serving():
            raise AsyncUsageError(
                f"{type(self).__name__}.map was called inside a coroutine that promptgrad runs: a blocking call there "
                "would wait for itself. Write `await module.amap(...)` instead of `module.map(...)`"
            )
        return map_rows(self, batch, n, concurrency=concurrency, progress=progress)

    @refuses(MAP_HABITS)
    async def amap(
        self,
        batch: Iterable[Any],
        n: int = 1,
        *,
        concurrency: int | None = None,
        progress: bool = False,
    ) -> Batch:
        """As `map`, from a coroutine."""
        return await amap_rows(self, batch, n, concurrency=concurrency, progress=progress)

    # ------------------------------------------------------------------ copies and looks

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": None}

    def __deepcopy__(self: M, memo: dict[int, Any]) -> M:
        """A copy with parameters and buffers of its own; language models and hooks are shared."""
        new = object.__new__(type(self))
        memo[id(self)] = new
        for name, value in self.__dict__.items():
            if name == "_plan":
                new.__dict__[name] = None
            elif isinstance(value, LM):
                new.__dict__[name] = value
            elif isinstance(value, Hooks):
                new.__dict__[name] = value.copy()
            else:
                new.__dict__[name] = copy.deepcopy(value, memo)
        return new

    def extra_repr(self) -> str:
        """The module's own line in `print(model)`; override it in your modules."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [
            f"({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self._modules.items()
            if child is not None
        ]
        own = [f"({name}): {parameter!r}" for name, parameter in self._shown_parameters()]
        lines = [*own, *children]
        if not lines:
            return f"{type(self).__name__}({extra})"
        head = f"{type(self).__name__}({extra}" if extra else f"{type(self).__name__}("
        return head + "\n  " + "\n  ".join(lines) + "\n)"

    def _shown_parameters(self) -> Iterator[tuple[str, Parameter]]:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield name, parameter


def _no_such(what: str, target: str, known: Iterable[str], root: Module) -> str:
    near = difflib.get_close_matches(target, [path for path in known if path], 1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return f"{type(root).__name__} has no {what} {target!r}{hint}"


_program: "ContextVar[Module | None]" = ContextVar("promptgrad.program", default=None)
"""The program whose forward runs unrecorded in this context; the tape of a recorded forward knows its program."""


def _enter(module: Module) -> "Token[Module | None]":
    """Begin an unrecorded forward of `module`, until its token is reset; the outermost one counts as the program."""
    program = _program.get()
    return _program.set(module if program is None else program)


def path_in_call(module: Module) -> str:
    """The path of a module in the program that is called in this context, recorded or not."""
    tape = open_tape()
    program = _program.get() if tape is None else tape.program
    return program._get_plan().paths.get(module, "") if isinstance(program, Module) else ""


def begin_node(
    module: Module,
    tape: Tape,
    inputs: Mapping[str, Any],
    output_fields: Iterable[str] = (),
    *,
    kind: str = "lm",
    replicate: int = 0,
) -> Node:
    """Begin the node of a call of `module`, with its path in the program and the hooks that wait for its gradient.

    The path of a module that is not part of the program is its class name, in parentheses.
    """
    program = tape.program
    path = program._get_plan().paths.get(module) if isinstance(program, Module) else None
    name = type(module).__name__
    node = tape.node(
        f"({name})" if path is None else path,
        kind=kind,
        inputs=inputs,
        module_name=name,
        output_fields=output_fields,
        replicate=replicate,
    )
    if _Structure.backward_hooks:
        node.hooks = tuple(_backward_hooks(module, program, path))
    return node


def _backward_hooks(module: Module, program: Any, path: str | None) -> Iterator[Callable[..., Any]]:
    """The backward hooks of a module, then of the modules around it, inner ones first."""
    around: list[Module] = [module]
    if path:
        names = path.split(".")
        around += [program.get_submodule(".".join(names[:end])) for end in range(len(names) - 1, -1, -1)]
    for owner in around:
        for hook in owner._hooks.backward.values() if owner._hooks is not None else ():
            yield lambda node, feedback, blame, hook=hook: hook(module, blame, feedback)
