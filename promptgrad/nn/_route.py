"""`Route`: one of several branches, chosen by a language model, by a function, or by an optimizer."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from promptgrad.autograd import Choice
from promptgrad.errors import InputError, SignatureError
from promptgrad.nn._containers import ModuleDict
from promptgrad.nn._ensemble import normalized
from promptgrad.nn._module import Module
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction
from promptgrad.signature import Signature, make_signature

Router = Module | str | Signature | type[Signature] | Callable[..., Any]


class Route(Module, in_place=True):
    """Call one of several branches, and return what it returns.

    Who chooses:

    - `nn.Route({"math": ..., "facts": ...})`: an optimizer. The branch is the parameter `.choice`, a `Choice` that
      `optim.Auto` and `optim.MIPRO` search; it is the same for every input.
    - `nn.Route({...}, "question -> topic")`: a language model, by a `Predict` of this signature, `.router`, whose last
      output becomes a choice among the names of the branches. Its prompt is trained as any other.
    - `nn.Route({...}, module)`: the last field of its `Prediction`, or the text that it returns.
    - `nn.Route({...}, function)`: a plain function of the inputs that returns a name.

    The router and the branch each get those of the inputs that they take. A critique of the output goes to the branch
    that was called and, over an edge of control, to the router; a branch that was not called gets none.

    Shape: what the branch returns.
    Cost: what the router and the one branch cost.
    Source: DSPy has no such module; in PyTorch a branch is an `if` in `forward`, and so it may stay here, too.

    Args:
        branches: The branches by name, two or more.
        router: Who chooses; None for the parameter.
        default: The branch for a name that no branch has; None to raise.

    Raises:
        ValueError: There are fewer than two branches, or `default` is not one of them.
        SignatureError: The signature of the router has no output.
        InputError: When called: the router named no branch, and there is no default.
    """

    def __init__(
        self, branches: Mapping[str, Module], router: Router | None = None, *, default: str | None = None
    ) -> None:
        super().__init__()
        if isinstance(branches, Module) or not isinstance(branches, Mapping):
            raise TypeError(f"branches are a mapping from names to modules, not {branches!r}")
        if len(branches) < 2:
            raise ValueError(f"a Route has at least two branches, and these are {list(branches)}")
        if default is not None and default not in branches:
            raise ValueError(f"the default {default!r} is none of the branches {', '.join(branches)}")
        self.branches = ModuleDict(branches)
        self.default = default
        self.function: Callable[..., Any] | None = None
        if router is None:
            self.choice = Choice(branches, *([] if default is None else [default]), role="the branch that is called")
        elif isinstance(router, Module):
            self.router = router
        elif callable(router) and not isinstance(router, type):
            self.function = router
        else:
            self.router = Predict(_of_names(make_signature(router), tuple(branches)))

    async def forward(self, /, *args: Any, **inputs: Any) -> Any:
        """Choose a branch, and call it."""
        name = await self._name(args, inputs)
        branch = self.branches[name]
        return await branch.acall(*args, **_taken(branch, inputs))

    async def _name(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> str:
        if self.function is not None:
            said = self.function(*args, **inputs)
        elif "router" in self._modules:
            said = await self.router.acall(*args, **_taken(self.router, inputs))
            if isinstance(said, Prediction):
                said = said[list(said)[-1]]
        else:
            return str(self.choice.data)
        names = {normalized(name): name for name in self.branches}
        found = names.get(normalized(str(said))) or self.default
        if found is None:
            raise InputError(
                f"the router chose {str(said)[:80]!r}, and the branches are {', '.join(names.values())}: give "
                "nn.Route(..., default=...) a branch for everything else"
            )
        return found

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs of the router and of all branches."""
        names: dict[str, None] = {}
        parts = [*([self.router] if "router" in self._modules else []), *self.branches.values()]
        for part in parts:
            taken = part.input_names()
            if taken is None:
                return None
            names.update(dict.fromkeys(taken))
        return tuple(names)

    def extra_repr(self) -> str:
        """Who chooses."""
        if self.function is not None:
            return f"by={getattr(self.function, '__qualname__', None) or type(self.function).__name__}"
        if "router" in self._modules:
            return ""
        return f"choice={self.choice.read().value!r}"

    def _shown_parameters(self) -> Any:
        return iter(())


def _taken(module: Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs that a module takes."""
    names = module.input_names()
    return inputs if names is None else {name: value for name, value in inputs.items() if name in names}


def _of_names(signature: Signature, names: tuple[str, ...]) -> Signature:
    """The signature of a router: its last output is one of the names."""
    if not signature.outputs:
        raise SignatureError(f"the signature of a router has an output, the branch: {signature!r} has none")
    return signature.replace_field(list(signature.outputs)[-1], annotation=Literal[names])
