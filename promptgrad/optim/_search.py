"""`Search`: an optimizer that improves a program in `promptgrad.Trainer`, by trying candidates on data."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from promptgrad.autograd import kinds_of
from promptgrad.errors import GraphError
from promptgrad.nn import Module, whole_state
from promptgrad.optim._groups import ParamGroups, Params, is_plain
from promptgrad.optim._report import StepReport
from promptgrad.run import value_digest

if TYPE_CHECKING:
    from promptgrad.search import Session

_STEPS = ("step", "astep", "propose", "accept", "revert")


class Scheduler(Protocol):
    """A scheduler of an option of the groups, as the optimizer sees it."""

    def step(self, report: StepReport) -> None: ...
    def reset(self) -> None: ...
    def config(self) -> dict[str, Any]: ...


class Search(ParamGroups):
    """The base of all optimizers: improves the parameters of a program by a managed search.

    `promptgrad.Trainer(model, optimizer, metric=...).fit(trainset)` runs it within a budget, journalled and resumable:
    it calls `fit` once, with a `Session` that holds the data and everything a search may do, and confirms what `fit`
    offered on data that the search never saw. A search decides what to try, not how it is run; it never changes the
    program. An optimizer that can also make a single step in a loop of your own is an `Optimizer`.

    A search of your own overrides `fit`, and `expected_calls`, from which `Trainer.plan` computes its cost:

    ```python
    class Shorter(optim.Search):
        kinds = ("instruction",)

        async def fit(self, session):
            for place in session.places(self.kinds):
                first = session.value(place.path).split(". ")[0]
                candidate = session.base.child({place.path: first}, f"the first sentence of {place.path}")
                session.offer(await session.evaluate(candidate, session.val, scope=f"first/{place.path}"))
    ```

    Args:
        params: Parameters, `(name, parameter)` pairs, or groups of them with options of their own.
        defaults: Options of the groups that do not set them.

    Attributes:
        param_groups: The groups, dicts with the key `params` and the options.
        state: The optimizer's memory of each parameter.
        kinds: Names or traits of the kinds of parameters that it has a rule for, as ("demos", "is_text"); others keep
            their values.
        selects: True if its `fit` chooses among candidates by their scores; an optimizer that makes a single candidate
            leaves all validation data to the confirmation.
        copies: Most copies of the program that an offered candidate calls for one input; more than 1 for ensembles.

    Raises:
        ValueError: There is no parameter, one is given twice, or an option is unknown.
        TypeError: Something other than a parameter was given.
    """

    selects: ClassVar[bool] = True
    copies: int = 1

    def __init__(self, params: Params, defaults: Mapping[str, Any] | None = None) -> None:
        super().__init__(params, defaults)
        self._schedulers: list[Scheduler] = []

    if not TYPE_CHECKING:  # otherwise a type checker would accept any misspelt attribute as Any

        def __getattr__(self, name):
            message = f"{type(self).__name__} has no attribute {name!r}"
            if name == "compile":
                message += ": write promptgrad.Trainer(model, optimizer, metric=...).fit(trainset, valset)"
            elif name in _STEPS:
                message += (
                    ", as it has no rule for a single step: "
                    "write promptgrad.Trainer(model, optimizer, metric=...).fit(trainset, valset)"
                )
            raise AttributeError(message)

    async def fit(self, session: "Session") -> None:
        """Search for better values within the session; the trainer calls this, see `promptgrad.Trainer`.

        An optimizer only decides what to try. It evaluates candidates through the session, which counts, journals and
        replays every paid call, and offers those worth confirming. It never mutates the program.
        """
        raise NotImplementedError(f"{type(self).__name__} has no managed search: override fit(session)")

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the calls that `fit` will make: (name, number, True if the number is exact) for each phase."""
        return []

    def expected_demos(self) -> tuple[int, int]:
        """Return the most demos that a call of a candidate shows: traces of runs, and these with labelled examples."""
        return 0, 0

    def config(self) -> dict[str, Any]:
        """Return the settings in JSON types; a resumed run recognises its optimizer by them."""
        names = self.names()
        groups = [
            {
                **{name: plain_setting(value) for name, value in group.items() if name != "params"},
                "params": [names[parameter] for parameter in group["params"]],
            }
            for group in self.param_groups
        ]
        own = {
            name: plain_setting(value)
            for name, value in vars(self).items()
            if not name.startswith("_") and name not in {"param_groups", "state", "defaults"}
        }
        moved = {"schedulers": [scheduler.config() for scheduler in self._schedulers]} if self._schedulers else {}
        return {"optimizer": type(self).__name__, **own, "groups": groups, **moved}

    def check_trained(self, model: Module) -> None:
        """Check that there is something to train; the trainer calls this before it starts.

        Args:
            model: The program, whose paths name the parameters in the message.

        Raises:
            GraphError: None of the given parameters is of its kinds and requires a gradient.
        """
        if not self.kinds or self.trained():
            return
        names = {**self.names(), **{parameter: path for path, parameter in model.named_parameters()}}
        given = [
            f"{names[parameter]} ({parameter.kind}{'' if parameter.requires_grad else ', requires_grad is False'})"
            for parameter in self.parameters()
        ]
        more = f" and {len(given) - 6} more" if len(given) > 6 else ""
        kinds = ", ".join(kinds_of(self.kinds))
        raise GraphError(
            f"{type(self).__name__} has nothing to train: it has a rule for parameters of kind {kinds} "
            f"that require a gradient, and was given {', '.join(given[:6])}{more}. Give it "
            "parameters of its kinds, such as model.parameters(), and call requires_grad_() on those that are frozen"
        )

    def _shown(self) -> str:
        """The part of `print(optimizer)` about settings that do not belong to a group."""
        return ""

    def __repr__(self) -> str:
        count = len(self.trained())
        lines = [f"{type(self).__name__}({count} parameter{'' if count == 1 else 's'} trained"]
        if self.skips:
            lines[0] += f", no rule for {', '.join(self.skips)}"
        if self._shown():
            lines.append(f"  {self._shown()}")
        lines += [f"  {scheduler!r}" for scheduler in self._schedulers]
        names = self.names()
        for index, group in enumerate(self.param_groups):
            options = ", ".join(f"{name}={value!r}" for name, value in group.items() if name != "params")
            paths = ", ".join(names[parameter] for parameter in group["params"])
            lines.append(f"  group {index}: {paths}{f' ({options})' if options else ''}")
        return "\n".join(lines) + "\n)"


def plain_setting(value: Any) -> Any:
    """A setting in JSON types: values as they are, objects by a name that is the same in the next process."""
    if is_plain(value):
        return value
    if isinstance(value, (list, tuple)):
        return [plain_setting(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain_setting(item) for name, item in value.items()}
    if isinstance(value, Search):
        return value.config()
    if isinstance(value, Module):
        return [type(value).__name__, value_digest(whole_state(value.state_dict()))]
    if isinstance(value, (set, frozenset)):
        return sorted((plain_setting(item) for item in value), key=json.dumps)
    name = getattr(value, "name", None) or getattr(value, "__qualname__", None)
    if name is None and is_dataclass(value):
        return {field.name: plain_setting(getattr(value, field.name)) for field in fields(value)}
    return name or type(value).__name__
