"""Parameters in groups with options of their own, and the optimizer's state."""

import reprlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from promptgrad._habits import check_dropped
from promptgrad.autograd import Parameter
from promptgrad.errors import StateDictError
from promptgrad.nn import ParameterIterator
from promptgrad.search import is_number

EMPTY = (
    "optimizer got an empty parameter list: a program has parameters where nn.Predict or a Parameter is an attribute "
    "of its module; pass model.parameters()"
)
"""The error where there is nothing to train; it begins with torch's words."""

Params = Iterable[Any]
"""Parameters, `(name, parameter)` pairs, or groups `{"params": [...], option: value}`, as in PyTorch."""


class ParamGroups:
    """Parameters in groups, as in PyTorch: the part that all optimizers have in common.

    Args:
        params: Parameters, `(name, parameter)` pairs, or groups of them with options of their own.
        defaults: Options of the groups that do not set them.

    Attributes:
        param_groups: The groups, dicts with the key `params` and the options.
        state: The optimizer's memory of each parameter.
        kinds: Names or traits of the kinds of parameters that it has a rule for, as ("demos", "is_text"); others keep
            their values.

    Raises:
        ValueError: There is no parameter, one is given twice, or an option is unknown.
        TypeError: Something other than a parameter was given.
    """

    kinds: tuple[str, ...] = ()

    def __init__(self, params: Params, defaults: Mapping[str, Any] | None = None) -> None:
        self.defaults: dict[str, Any] = dict(defaults or {})
        self.param_groups: list[dict[str, Any]] = []
        self._given: dict[Parameter, str] = {}
        self.state: dict[Parameter, dict[str, Any]] = defaultdict(dict)
        self._steps = 0
        for group in _groups(params):
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own, such as `{"params": [...], "max_edit": 0.1}`.

        Raises:
            ValueError: The group is empty, holds a parameter that is there already, or an unknown option.
            TypeError: It holds something other than parameters.
        """
        if "params" not in group:
            raise ValueError("a parameter group is a dict with the key 'params'")
        given = group["params"]
        pairs = [_named(item) for item in ([given] if isinstance(given, Parameter) else given)]
        params = [parameter for parameter, _ in pairs]
        if not params:
            raise ValueError(EMPTY)
        unknown = sorted(set(group) - {"params"} - set(self.defaults))
        if unknown:
            known = ", ".join(sorted(self.defaults)) or "none"
            raise ValueError(f"{type(self).__name__} has no option {unknown[0]!r} for a group; it has: {known}")
        names = dict(given.paths) if isinstance(given, ParameterIterator) else {}
        names.update({parameter: name for parameter, name in pairs if name})
        seen = {id(parameter) for old in self.param_groups for parameter in old["params"]}
        for parameter in params:
            if id(parameter) in seen:
                raise ValueError(f"the parameter {names.get(parameter) or repr(parameter)} is given twice")
            seen.add(id(parameter))
        self._given.update(names)
        self.param_groups.append({**self.defaults, **group, "params": params})

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ValueError or TypeError if an option of a group is out of range. The base accepts any."""

    def _check_state(self, entry: Mapping[str, Any]) -> None:
        """Raise ValueError or TypeError if the state of a parameter is malformed. The base accepts any."""

    def parameters(self) -> list[Parameter]:
        """All parameters given, in order."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def trained(self) -> list[tuple[Parameter, dict[str, Any]]]:
        """The parameters of the optimizer's kinds that require a gradient, each with its group."""
        return [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.requires_grad and parameter.kind.answers_to(self.kinds)
        ]

    def names(self, *, blamed: bool = False) -> dict[Parameter, str]:
        """A name for each parameter: the given name, else its role, else its index; equal names are numbered.

        Parameters from `model.parameters()` come with their paths in the model, and `(name, parameter)` pairs with
        their names.

        Args:
            blamed: Name a parameter without a given name and a role by the place in the program where its gradient
                blames it. Such a name may change from step to step.
        """
        names: dict[Parameter, str] = {}
        for index, parameter in enumerate(self.parameters()):
            base = self._given.get(parameter) or parameter.name or " ".join(parameter.role.split())[:60]
            if not base and blamed:
                base = _place_of_blame(parameter)
            base = name = base or f"parameter{index}"
            number = 0
            while name in names.values():
                number += 1
                name = f"{base}#{number}"
            names[parameter] = name
        return names

    @property
    def skips(self) -> tuple[str, ...]:
        """Kinds of parameters that require a gradient but for which this optimizer has no rule."""
        kinds = [p.kind for p in self.parameters() if p.requires_grad and not p.kind.answers_to(self.kinds)]
        return tuple(dict.fromkeys(kinds))

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - as torch spells it
        """Drop the gradients of all parameters.

        Raises:
            ValueError: `set_to_none` is False: there is no critique that is zero.
        """
        check_dropped(set_to_none)
        for parameter in self.parameters():
            parameter.grad = None

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's memory and options in JSON types.

        Parameters have their names from `names`.
        """
        names = self.names()
        return {
            "steps": self._steps,
            "state": {names[parameter]: dict(entry) for parameter, entry in self.state.items() if entry},
            "param_groups": [
                {
                    **{name: value for name, value in group.items() if is_plain(value)},
                    "params": [names[parameter] for parameter in group["params"]],
                }
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned. Options that are not plain values (an LM, constraints) are kept.

        Raises:
            StateDictError: The state is of other parameters, or a value is of the wrong type or out of range; the
                message lists all differences, and nothing is changed.
        """
        groups, entries = (
            (state.get("param_groups"), state.get("state", {})) if isinstance(state, Mapping) else (None, {})
        )
        if (
            not isinstance(groups, (list, tuple))
            or not isinstance(entries, Mapping)
            or not all(
                isinstance(group, Mapping)
                and isinstance(group.get("params"), (list, tuple))
                and all(isinstance(name, str) for name in group["params"])
                for group in groups
            )
        ):
            raise StateDictError(
                f"the state of an optimizer is what state_dict() returned, with 'param_groups', not {shown(state)}"
            )
        names = {name: parameter for parameter, name in self.names().items()}
        theirs = [name for group in groups for name in group["params"]]
        missing = [name for name in names if name not in theirs]
        unexpected = [name for name in dict.fromkeys([*theirs, *entries]) if name not in names]
        if missing or unexpected or len(groups) != len(self.param_groups):
            raise StateDictError(
                f"the state does not fit this {type(self).__name__}:\n"
                f"  missing     {', '.join(missing) or '-'}\n"
                f"  unexpected  {', '.join(unexpected) or '-'}\n"
                f"  groups      {len(groups)} in the state, {len(self.param_groups)} here",
                missing=missing,
                unexpected=unexpected,
            )
        steps = state.get("steps", 0)
        faults: dict[str, str] = {}
        if not is_number(steps, whole=True) or steps < 0:
            faults["steps"] = f"a number of steps, not {shown(steps)}"
        for name, entry in entries.items():
            with _collected(faults, name):
                if not isinstance(entry, Mapping):
                    raise TypeError(f"a dict, not {shown(entry)}")
                self._check_state(entry)
        options: list[dict[str, Any]] = []
        ours = {parameter: name for name, parameter in names.items()}
        for place, (group, saved) in enumerate(zip(self.param_groups, groups, strict=True)):
            with _collected(faults, f"group {place}"):
                if {ours[parameter] for parameter in group["params"]} != set(saved["params"]):
                    raise ValueError(f"it holds {', '.join(saved['params'])}, and other parameters here")
                strange = [name for name in saved if name not in group]
                if strange:
                    raise ValueError(f"there is no option {strange[0]!r}")
                plain = {
                    name: value
                    for name, value in saved.items()
                    if name != "params" and is_plain(value) and is_plain(group[name])
                }
                self._check_options({**group, **plain})
                options.append(plain)
        if faults:
            listed = "\n".join(f"  {name}: {reason}" for name, reason in faults.items())
            raise StateDictError(f"the state does not fit this {type(self).__name__}:\n{listed}", invalid=list(faults))
        self._steps = int(steps)
        self.state.clear()
        for name, entry in entries.items():
            self.state[names[name]] = dict(entry)
        for group, plain in zip(self.param_groups, options, strict=True):
            group.update(plain)


def _groups(params: Params) -> list[Mapping[str, Any]]:
    is_module = hasattr(params, "named_parameters")
    if is_module or isinstance(params, (Parameter, str, Mapping)) or not isinstance(params, Iterable):
        hint = ": pass model.parameters()" if is_module else ""
        raise TypeError(f"an optimizer takes an iterable of parameters, not {type(params).__name__}{hint}")
    if isinstance(params, ParameterIterator):
        return [{"params": params}]
    items = list(params)
    if not items:
        raise ValueError(EMPTY)
    if all(isinstance(item, Mapping) for item in items):
        return items
    return [{"params": items}]


def _named(item: Any) -> tuple[Parameter, str]:
    """A parameter and its name, which is empty unless it is given as a pair."""
    name = ""
    if isinstance(item, tuple) and len(item) == 2:
        name, item = item
    if isinstance(item, Parameter):
        return item, name
    hint = ""
    if type(item).__module__.startswith("torch"):
        hint = ": the weights of a local model go to torch.optim"
    elif hasattr(item, "parameters"):
        hint = ": pass its .parameters()"
    raise TypeError(f"an optimizer trains parameters, not {type(item).__name__}{hint}")


def _place_of_blame(parameter: Parameter) -> str:
    """The place of a parameter's first critique; empty for a solution, which is not part of a program."""
    critiques = () if parameter.grad is None or parameter.kind.exact else parameter.grad.critiques
    return f"{critiques[0].path}.{critiques[0].target}".removeprefix(".") if critiques else ""


def shown(value: Any) -> str:
    """A value for a message, however long or deep it is."""
    text = reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextmanager
def _collected(faults: dict[str, str], name: str) -> Iterator[None]:
    """Record an error under a name, and continue."""
    try:
        yield
    except (TypeError, ValueError) as error:
        faults[name] = str(error)
    except RecursionError:
        faults[name] = "it is nested too deeply"


def is_plain(value: Any) -> bool:
    """True for a value that JSON can represent and that is not a container."""
    return value is None or isinstance(value, (bool, int, float, str))
