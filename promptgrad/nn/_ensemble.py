"""`Ensemble`: several programs answer side by side, and their answers are reduced to one."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from promptgrad import aio
from promptgrad._habits import refuses
from promptgrad.nn._containers import ModuleList
from promptgrad.nn._credited import credited
from promptgrad.nn._module import Module
from promptgrad.nn._prediction import Prediction, fields_of

T = TypeVar("T")


def normalized(text: str) -> str:
    """A text without differences of case and white space.

    >>> normalized(" The  Answer ")
    'the answer'
    """
    return " ".join(text.split()).casefold()


def majority(outputs: Sequence[T], *, field: str | None = None, normalize: Callable[[str], str] = normalized) -> T:
    """The first output with the most frequent answer; of equally frequent answers, the earliest counts.

    The output is returned as it is.

    Source: DSPy's function of this name.

    Args:
        outputs: The outputs of several programs for the same inputs, at least one.
        field: For outputs with several fields: the one that is the answer; the last by default.
        normalize: Maps texts that count as one answer to the same text. Values of other types are compared as they are.

    Raises:
        ValueError: `outputs` is empty.
        KeyError: An output has no such field.

    >>> majority(["Paris", "Rome", "paris"])
    'Paris'
    """
    if not outputs:
        raise ValueError("majority takes at least one output, and there is none")
    votes = [vote(output, field, normalize) for output in outputs]
    counts = [votes.count(vote) for vote in votes]
    return outputs[counts.index(max(counts))]


class Ensemble(Module, in_place=True):
    """Call several programs with the same inputs, side by side, and reduce their outputs to one.

    It is a module like any other: its members train, save and move to another LM as submodules do. A critique of its
    output goes to the members whose answer it is (by the last field, without case and white space) and to no other. A
    critique of an output that is the answer of no member, such as a mean, goes to all.

    Shape: the output is what `reduce` returns: with `majority`, an output of one of the members.
    Cost: the sum of what its members cost; in time, what the slowest member takes.
    Source: Dietterich 2000, "Ensemble Methods in Machine Learning"; the majority of several answers of one prompt is
    self-consistency, Wang et al. 2022, arXiv 2203.11171.

    Args:
        members: The programs, at least one; all take the same inputs. A module that is listed twice is called twice.
        reduce: Makes one output of the list of the members' outputs, in their order: `majority`,
            `functools.partial(majority, field="answer")`, or a function of your own. It may be an `async def`.

    Raises:
        ValueError: `members` is empty.
        TypeError: A member is not a module, or `reduce` is not a function.
        Exception: When called: the first error that a member raises; the other members are cancelled.
    """

    @refuses(
        {
            "reduce_fn": "reduce=...",
            "programs": "members=...",
            "size": "fewer members",
            "deterministic": "nothing: an Ensemble draws no lots",
        }
    )
    def __init__(self, members: Iterable[Module], reduce: Callable[[Sequence[Any]], Any] = majority) -> None:
        super().__init__()
        if not hasattr(members, "__iter__"):
            raise TypeError("the members of an Ensemble are one argument, a list: Ensemble([first, second])")
        self.members = ModuleList(members)
        if not len(self.members):
            raise ValueError("an Ensemble needs at least one member, and there is none")
        if not callable(reduce):
            raise TypeError(f"reduce is a function of the members' outputs, not {reduce!r}")
        self.reduce = reduce

    async def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the members and reduce their outputs."""
        outputs = await aio.gather([partial(member.acall, *args, **kwargs) for member in self.members])
        chosen = self.reduce(list(outputs))
        if inspect.isawaitable(chosen):
            chosen = await aio.awaited(chosen)
        answer = vote(chosen)
        return credited(chosen, outputs, [vote(output) == answer for output in outputs])

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs of the first member."""
        return next(iter(self.members)).input_names()

    def extra_repr(self) -> str:
        """The function that reduces the outputs."""
        return f"reduce={getattr(self.reduce, '__qualname__', None) or repr(self.reduce)}"


def vote(output: Any, field: str | None = None, normalize: Callable[[str], str] = normalized) -> Any:
    """The part of an output that counts as its answer."""
    fields = fields_of(output) if isinstance(output, Prediction) else output
    if isinstance(fields, dict) and fields:
        if field is not None and field not in fields:
            raise KeyError(f"an output has no field {field!r}: its fields are {', '.join(map(str, fields))}")
        fields = fields[field if field is not None else [*fields][-1]]
    return normalize(str.__str__(fields)) if isinstance(fields, str) else fields
