"""`Members`: what is in a module, by path."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from promptgrad._habits import check_dropped
from promptgrad.autograd import Parameter
from promptgrad.lm import LM
from promptgrad.nn._parameter_iterator import ParameterIterator
from promptgrad.nn._structure import StructurePlan

if TYPE_CHECKING:
    from promptgrad.nn._module import Module

M = TypeVar("M", bound="Members")


class Members:
    """The part of `Module` that walks it: the modules, parameters, buffers and weights below, with their paths."""

    training: bool
    _parameters: dict[str, Parameter | None]
    _modules: "dict[str, Module | None]"
    _buffers: dict[str, Any]
    _lm: LM | None
    _plan: StructurePlan | None

    def named_modules(
        self, memo: "set[Module] | None" = None, prefix: str = "", *, remove_duplicate: bool = True
    ) -> "Iterator[tuple[str, Module]]":
        """All modules of the program with their paths, itself first, under the path `prefix`.

        A module that has several paths is listed once, under the first, unless `remove_duplicate` is off.
        """
        seen = set() if memo is None else memo
        root: Any = self
        stack: list[tuple[str, Module]] = [(prefix, root)]
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
        root: Any = self
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, root)]
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
        return ParameterIterator(partial(self.named_parameters, recurse=recurse))

    def named_buffers(self, prefix: str = "", *, recurse: bool = True) -> Iterator[tuple[str, Any]]:
        """All buffers with their paths."""
        root: Any = self
        for path, module in self.named_modules(prefix=prefix) if recurse else [(prefix, root)]:
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
        root: Any = self
        module: Module | None = root
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


def _no_such(what: str, target: str, known: Iterable[str], root: Members) -> str:
    near = difflib.get_close_matches(target, [path for path in known if path], 1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return f"{type(root).__name__} has no {what} {target!r}{hint}"
