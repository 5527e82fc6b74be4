"""Containers: `ModuleList`, `ModuleDict`, `Sequential`, `ParameterList`, `ParameterDict`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsIndex, cast, overload

from promptgrad.autograd import Parameter
from promptgrad.nn._identity import Identity
from promptgrad.nn._module import Module
from promptgrad.nn._prediction import Prediction, fields_of
from promptgrad.nn._structure import structure_changed


def _position(index: SupportsIndex, length: int) -> int:
    position = index.__index__()
    if not -length <= position < length:
        raise IndexError(f"index {position} is out of range for a container of {length}")
    return position % length if length else position


class _Numbered(Module):
    """A module whose children have the names "0", "1", ..."""

    def _items(self) -> list[Module]:
        return [child for child in self._modules.values() if child is not None]

    def _renumber(self, modules: Iterable[Module]) -> None:
        modules = list(modules)
        for module in modules:
            if not isinstance(module, Module):
                raise TypeError(f"{type(self).__name__} holds modules, not {type(module).__name__}")
        for name in list(self._modules):
            delattr(self, name)
        for number, module in enumerate(modules):
            setattr(self, str(number), module)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Any: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        items = self._items()
        return type(self)._of(items[index]) if isinstance(index, slice) else items[_position(index, len(items))]

    @classmethod
    def _of(cls, modules: Iterable[Module]) -> Any:
        raise NotImplementedError

    def __setitem__(self, index: SupportsIndex, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} holds modules, not {type(module).__name__}")
        setattr(self, list(self._modules)[_position(index, len(self))], module)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        items = self._items()
        del items[index if isinstance(index, slice) else _position(index, len(items))]
        self._renumber(items)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items())

    def __contains__(self, module: object) -> bool:
        return any(child is module for child in self._items())

    def __add__(self, modules: Iterable[Module]) -> Any:
        return self._of([*self, *modules])

    def __iadd__(self, modules: Iterable[Module]) -> Any:
        return self.extend(list(modules))

    def append(self, module: Module) -> Any:
        """Add a module at the end, and return the container."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end, and return the container."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Add a module before the one at `index`."""
        items = self._items()
        items.insert(index, module)
        self._renumber(items)

    def pop(self, index: SupportsIndex = -1) -> Module:
        """Take a module out and return it."""
        module = self[index]
        del self[index]
        return module


class ModuleList(_Numbered):
    """A list of modules whose members are registered under "0", "1", ..."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self._renumber(modules)

    @classmethod
    def _of(cls, modules: Iterable[Module]) -> "ModuleList":
        return ModuleList(modules)

    def _no_forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a ModuleList is not called itself: call its members, or use nn.Sequential")

    forward = _no_forward


class ModuleDict(Module):
    """A dict of modules whose members are registered under their keys."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def __getitem__(self, key: str) -> Module:
        child = self._modules.get(key)
        if child is None:
            raise KeyError(f"there is no module {key!r}; the keys are {', '.join(self._modules) or 'none'}")
        return child

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names of the modules."""
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return cast("Iterable[Module]", self._modules.values())

    def items(self) -> Iterable[tuple[str, Module]]:
        """Pairs of name and module."""
        return cast("Iterable[tuple[str, Module]]", self._modules.items())

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add modules, or replace those of the same name."""
        for key, module in modules.items():
            self[key] = module

    def pop(self, key: str) -> Module:
        """Take a module out and return it."""
        module = self[key]
        delattr(self, key)
        return module

    def clear(self) -> None:
        """Take all modules out."""
        for key in list(self._modules):
            delattr(self, key)

    def _no_forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a ModuleDict is not called itself: call its members")

    forward = _no_forward


class Sequential(_Numbered, in_place=True):
    """Modules called one after the other.

    The first takes the arguments of the call. If an output is a `Prediction`, its fields are passed on by name; modules
    further on may also take the inputs and earlier fields. A sole field goes to a sole input whatever its name. Any
    other output is passed on as the only argument. Without modules it is an `nn.Identity`, as in torch.

    `nn.Sequential(nn.Predict("text -> summary"), nn.Predict("text, summary -> title"))`

    Cost: the calls of its modules.

    Raises:
        TypeError: The modules are given as one list.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        elif len(modules) == 1 and isinstance(modules[0], (list, tuple)):
            raise TypeError("Sequential takes modules one by one, as in torch: Sequential(*modules)")
        else:
            self._renumber(cast("tuple[Module, ...]", modules))

    @classmethod
    def _of(cls, modules: Iterable[Module]) -> "Sequential":
        return Sequential(*modules)

    async def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the modules in order and return the output of the last."""
        modules = self._items() or [Identity()]
        known = dict(kwargs)
        if args and (names := modules[0].input_names()) is not None:
            known.update(zip(names, args, strict=False))
        output = await modules[0].acall(*args, **kwargs)
        for module in modules[1:]:
            if _is_identity(module):
                continue
            if isinstance(output, Prediction):
                fields = fields_of(output)
                known.update(fields)
                names = module.input_names()
                if names is not None and len(names) == len(fields) == 1 and names[0] not in known:
                    output = await module.acall(*fields.values())
                else:
                    taken = known if names is None else {name: known[name] for name in names if name in known}
                    output = await module.acall(**taken)
            else:
                output = await module.acall(output)
        return output

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs of the first module."""
        modules = self._items()
        return modules[0].input_names() if modules else None

    def output_names(self) -> tuple[str, ...] | None:
        """Names of the outputs of the last module."""
        modules = self._items()
        return modules[-1].output_names() if modules else None


def _is_identity(module: Module) -> bool:
    return isinstance(module, Identity) or (isinstance(module, Sequential) and all(map(_is_identity, module._items())))


class ParameterList(Module):
    """A list of parameters that are registered under "0", "1", ..."""

    def __init__(self, parameters: Iterable[Parameter] = ()) -> None:
        super().__init__()
        self.extend(parameters)

    def __getitem__(self, index: SupportsIndex) -> Parameter:
        name = str(_position(index, len(self)))
        return cast(Parameter, self._parameters[name])

    def __setitem__(self, index: SupportsIndex, parameter: Parameter) -> None:
        if not isinstance(parameter, Parameter):
            raise TypeError(f"a ParameterList holds parameters, not {type(parameter).__name__}")
        setattr(self, str(_position(index, len(self))), parameter)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(cast("Iterable[Parameter]", self._parameters.values()))

    def append(self, parameter: Parameter) -> "ParameterList":
        """Add a parameter at the end, and return the list.

        Raises:
            TypeError: `parameter` is not a `Parameter`.
        """
        if not isinstance(parameter, Parameter):
            raise TypeError(f"a ParameterList holds parameters, not {type(parameter).__name__}")
        setattr(self, str(len(self)), parameter)
        return self

    def extend(self, parameters: Iterable[Parameter]) -> "ParameterList":
        """Add parameters at the end, and return the list."""
        for parameter in parameters:
            self.append(parameter)
        return self

    def _no_forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a ParameterList is not called: read its members")

    forward = _no_forward


class ParameterDict(Module):
    """A dict of parameters that are registered under their keys, whatever these are."""

    def __init__(self, parameters: Mapping[str, Parameter] | None = None) -> None:
        super().__init__()
        self.update(parameters or {})

    def __getitem__(self, key: str) -> Parameter:
        found = self._parameters.get(key)
        if found is None:
            raise KeyError(f"there is no parameter {key!r}; the keys are {', '.join(self._parameters) or 'none'}")
        return found

    def __setitem__(self, key: str, parameter: Parameter) -> None:
        if not isinstance(parameter, Parameter):
            raise TypeError(f"a ParameterDict holds parameters, not {type(parameter).__name__}")
        if not isinstance(key, str) or not key or "." in key:
            raise KeyError(f"a key of a ParameterDict is a text without a dot, not {key!r}")
        self._parameters[key] = parameter  # not as an attribute: a key may be the name of a method
        structure_changed()

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __contains__(self, key: object) -> bool:
        return key in self._parameters

    def keys(self) -> Iterable[str]:
        """The names of the parameters."""
        return self._parameters.keys()

    def values(self) -> Iterable[Parameter]:
        """The parameters."""
        return cast("Iterable[Parameter]", self._parameters.values())

    def items(self) -> Iterable[tuple[str, Parameter]]:
        """Pairs of name and parameter."""
        return cast("Iterable[tuple[str, Parameter]]", self._parameters.items())

    def update(self, parameters: Mapping[str, Parameter]) -> None:
        """Add parameters, or replace those of the same name."""
        for key, parameter in parameters.items():
            self[key] = parameter

    def pop(self, key: str) -> Parameter:
        """Take a parameter out and return it."""
        found = self[key]
        del self._parameters[key]
        structure_changed()
        return found

    def _no_forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a ParameterDict is not called: read its members")

    forward = _no_forward
