"""`Module`, the base of every program: what it registers, the language model it runs on, its copies and its looks.

Its other parts are in files of their own: how it is walked (`_members.py`), called (`_calling.py`), written and read
(`_stateful.py`), and hooked (`_hooks.py`).
"""

import copy
import difflib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from promptgrad._habits import refuses
from promptgrad.autograd import Parameter
from promptgrad.lm import LM, current, resolve
from promptgrad.nn._calling import Calling
from promptgrad.nn._hooks import Hooked, Hooks
from promptgrad.nn._stateful import Stateful
from promptgrad.nn._structure import structure_changed

M = TypeVar("M", bound="Module")

_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu", "meta"})

# What a user of PyTorch or DSPy may type out of habit, and what to write here.
_ELSEWHERE = {
    **dict.fromkeys(("add_tool", "bind_tools"), "tools=[...] where the agent is made"),
    "batch": "module.map(batch)",
    "compile": "promptgrad.compile(module, trainset, metric), which returns a better program",
    "device": "module.lm: the device of a program is its language model",
    "set_submodule": "setattr(module.get_submodule(path_of_its_parent), name, new)",
    "share_memory": "nothing: a module holds texts; processes get copies, by pickle or by its state",
    "cpu": "module.to(lm): the device of a program is its language model",
    "cuda": "module.to(lm): the device of a program is its language model",
    "deepcopy": "copy.deepcopy(module)",
    "demos": "the Predict inside, such as module.solve.demos, or module.named_parameters()",
    "dump_state": "module.state_dict()",
    **dict.fromkeys(("bfloat16", "float", "half"), "promptgrad.lm.Local(model): the weights are those of its model"),
    "reset_copy": "copy.deepcopy(module), or load_state_dict(...) of the state at the start",
    "summary": "promptgrad.summary(module)",
    "get_lm": "module.lm",
    **dict.fromkeys(
        ("history", "trajectory"), "promptgrad.inspect_history(5), or module.stream(...), which tells of each step"
    ),
    "load": "module.load_state_dict(promptgrad.load(path))",
    "load_state": "module.load_state_dict(state)",
    "named_predictors": "[(name, m) for name, m in module.named_modules() if isinstance(m, nn.Predict)]",
    "named_sub_modules": "module.named_modules()",
    "predict": "the module itself: a ChainOfThought is a Predict with a field `reasoning`",
    "predictors": "[m for m in module.modules() if isinstance(m, nn.Predict)]",
    "render": "the Predict inside, such as module.solve.render(...), or module.export()",
    "save": "promptgrad.save(module.state_dict(), path)",
    "set_lm": "module.to(lm)",
    "signature": "the Predict inside, such as module.solve.signature",
    "streamify": "module.stream(...)",
    "update_config": "nn.Predict(..., temperature=...), or config={...} in a call",
}

_SET_ELSEWHERE = {
    "lm": "module.to(lm)",
    "signature": "nn.Predict(signature) in its place; its instruction alone with .instruction.data = ...",
}
"""What is read and not assigned, and what to write."""


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


class Module(Calling, Stateful, Hooked):
    """Base of every program made of language-model calls; as `torch.nn.Module`.

    Assign modules and parameters as attributes in `__init__` and write `forward` in plain Python, as `def` or as
    `async def`. Call the module like a function: `model(question=...)` gives the value, `await
    model.acall(question=...)` does so in async code, and `model.map(batch)` runs a batch concurrently. A forward
    should keep no state in the module: several run at once.

    Cost: what `forward` spends. A top-level call is recorded for `backward()` if grad mode is on and some parameter
    of the module requires a gradient.
    """

    _places: ClassVar[tuple[str, ...]] = ()  # parameters that have one name, and that forward uses

    _pinned: bool

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
            if value is self or (value._modules and any(module is self for module in value.modules())):
                raise ValueError(
                    f"{type(self).__name__}.{name} cannot be a module that holds this one: each module of a program "
                    "has its place in a tree; what only looks back goes into a tuple or a function"
                )
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
        try:
            object.__setattr__(self, name, value)
        except AttributeError:
            if name not in _SET_ELSEWHERE:
                raise
            what = f"{type(self).__name__}.{name} is read, not assigned"
            raise AttributeError(f"{what}: write {_SET_ELSEWHERE[name]}", name=name, obj=self) from None

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
        """Add a parameter by name; None reserves the name.

        Raises:
            TypeError: `parameter` is not a `Parameter`.
            KeyError: The name is taken, or cannot be one.
        """
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"register_parameter takes a Parameter or None, not {type(parameter).__name__}")
        self._check_new(name, "parameter", self._parameters)
        if parameter is None:
            self._parameters[name] = None
            object.__setattr__(self, name, None)
        else:
            setattr(self, name, parameter)

    def add_module(self, name: str, module: "Module | None") -> None:
        """Add a child by name; None reserves the name.

        Raises:
            TypeError: `module` is not a module.
            KeyError: The name is taken, or cannot be one.
            ValueError: `module` holds this one.
        """
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

        Raises:
            TypeError: `value` is a module or a parameter.
            KeyError: The name is taken, or cannot be one.
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

        Raises:
            TypeError: `lm` is a device of torch.
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
