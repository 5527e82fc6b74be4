"""Several attempts of one program at one input: how they differ, how they run, and which of them count."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.aio import sequence
from promptgrad.autograd import Node, current_tape
from promptgrad.errors import FATAL
from promptgrad.lm import LM, Replicated, SampleGroup, Usage, current, sampled
from promptgrad.nn._call import Around, Call, Companion, around_of, surrounded
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.nn._module import Module

_HINT = "what an earlier attempt taught: follow it"


@dataclass(frozen=True, slots=True)
class Conduct(Around):
    """What the calls inside of an attempt do otherwise than a plain call.

    Attributes:
        temperature: Their temperature; None for that of the module or its LM.
        hints: Advice by module, shown as one more input.
        log: Where calls of language models are noted; None for nowhere.
        tentative: Whether it is open if what happens here goes into the result.
    """

    temperature: float | None = None
    hints: "Mapping[Module, str]" = field(default_factory=dict)
    log: "list[LoggedCall] | None" = None
    tentative: bool = False

    async def join(self, call: Call) -> "LoggedCall | None":
        """Give a call its temperature and its hint, and note it where calls are noted."""
        if self.temperature is not None:
            call.options = {**call.options, "temperature": self.temperature}
        logged = None
        if self.log is not None:
            logged = LoggedCall(sequence.position(sequence.step()), call.module, call.inputs, call.lm)
            self.log.append(logged)
        if hint := self.hints.get(call.module):
            call.signature, name = with_hint(call.signature)
            call.inputs, call.values = {**call.inputs, name: hint}, {**call.values, name: hint}
        return logged


@dataclass(slots=True)
class LoggedCall(Companion):
    """One call of a language model in an attempt.

    Attributes:
        place: Its place in the order of the program.
        module: The module.
        inputs: What it was given.
        lm: The language model that is asked.
        outputs: What it returned.
        error: Why it failed; None when it did not.
    """

    place: sequence.Position
    module: "Module"
    inputs: Mapping[str, Any]
    lm: LM
    outputs: Mapping[str, Any] = field(default_factory=dict)
    error: BaseException | None = None

    def end(self, outputs: Mapping[str, Any], usage: Usage) -> None:
        self.outputs = outputs

    def fail(self, error: Exception, usage: Usage) -> None:
        self.error = error


noted_checks: "ContextVar[list[Any] | None]" = ContextVar("promptgrad.checks", default=None)
"""Where the conditions of `Assert` and `Suggest` are noted; None for nowhere."""


def conduct() -> Conduct | None:
    """What the calls here do otherwise; None outside of attempts."""
    return around_of(Conduct)


def _within(
    temperature: float | None,
    hints: "Mapping[Module, str] | None",
    log: list[LoggedCall] | None,
    *,
    tentative: bool,
) -> Conduct:
    """What calls do inside of the conduct that holds here."""
    outer = around_of(Conduct)
    if outer is None:
        return Conduct(temperature, hints or {}, log, tentative)
    return Conduct(
        outer.temperature if temperature is None else temperature,
        {**outer.hints, **hints} if hints else outer.hints,
        outer.log if log is None else log,
        outer.tentative or tentative,
    )


@lru_cache(256)
def with_hint(signature: Signature) -> tuple[Signature, str]:
    """A signature with one more input for a hint, and the name of that input."""
    name = "hint"
    while name in signature.fields:
        name += "_"
    return signature.insert(len(signature.inputs), Field(name, str, _HINT, "input")), name


@dataclass(slots=True)
class OneAttempt:
    """One attempt.

    Attributes:
        number: Its number, from 0.
        output: What the program returned; None where it failed.
        error: Why it failed; None when it did not.
        score: What it is worth, where attempts are scored.
        feedback: What was said of it.
        log: The calls that it made, in the order of the program, where they were noted.
        checks: The conditions of `Assert` and `Suggest` that were looked at in it.
    """

    number: int
    output: Any = None
    error: BaseException | None = None
    score: float = float("-inf")
    feedback: str = ""
    log: Sequence[LoggedCall] = ()
    checks: list[Any] = field(default_factory=list)
    _recorded: Sequence[Node] = ()
    _first: sequence.Mark = ((), 0)
    _last: sequence.Mark = ((), 0)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The calls that it made, as far as they were recorded."""
        if not self._recorded:
            return ()
        first, last = sequence.position(self._first), sequence.position(self._last)
        return tuple(node for node in self._recorded if first < sequence.position(node.mark) < last)


async def attempt(
    module: "Module",
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    number: int,
    of: int,
    *,
    temperature: float | None = None,
    hints: "Mapping[Module, str] | None" = None,
    logged: bool = False,
    group: SampleGroup | None = None,
) -> OneAttempt:
    """Make one attempt, whose calls have a replicate number of their own. Its failure is its outcome.

    OneAttempt 0 of a first rollout sends what a plain call sends.

    Args:
        module: The program.
        args: Its arguments.
        kwargs: Its arguments by name.
        number: Number of the attempt.
        of: The most attempts; rollouts and attempts within attempts get different numbers by it.
        temperature: Temperature of its calls; None for that of their module or LM.
        hints: Advice by module.
        logged: Whether to note its calls.
        group: The attempts that are known to ask the same.
    """
    made = OneAttempt(number)
    tape = current_tape()
    log: list[LoggedCall] | None = [] if logged else None
    if tape is None and logged:
        sequence.begin()
    begun = 0
    if tape is not None:
        made._first, begun = sequence.step(), len(tape.nodes)
    replicate = (current().replicate or 0) * of + number
    token = noted_checks.set(made.checks)
    try:
        with surrounded(_within(temperature, hints, log, tentative=True)), Replicated(replicate):
            asked = module.acall(*args, **kwargs)
            if group is None:
                made.output = await asked
            else:
                with sampled(group, replicate - group.first):
                    made.output = await asked
    except (*FATAL, ImportError):  # a program that lacks a module lacks it again
        raise
    except BaseException as error:  # it is the outcome
        if not aio.is_failure(error):
            raise
        made.error = error
    finally:
        noted_checks.reset(token)
    if tape is not None:
        made._last, made._recorded = sequence.step(), tape.nodes[begun:]
    if log:
        made.log = sorted(log, key=lambda call: call.place)
    return made


def alike(module: "Module", of: int, numbers: range) -> SampleGroup | None:
    """The attempts of these numbers as calls that ask the same; None where that is not known.

    Args:
        module: The program.
        of: The most attempts.
        numbers: Those that are made side by side, at one temperature.
    """
    if len(numbers) < 2 or not module._asks_once():
        return None
    return SampleGroup((current().replicate or 0) * of + numbers[0], len(numbers))


class _Enough(Exception):
    """Ends the attempts that are in flight."""


async def attempts(
    count: int,
    make: Callable[[int], Awaitable[OneAttempt]],
    enough: Callable[[Sequence[OneAttempt]], bool],
    limit: int | None,
) -> list[OneAttempt]:
    """Make up to `count` attempts, and stop as soon as those so far are enough; what is in flight then is cancelled.

    Attempts are judged in their order, whatever the order in which they end: the ones that count are the same at any
    `limit`, and only what was begun in vain differs.

    Args:
        count: The most attempts.
        make: Makes the attempt of a number.
        enough: Whether the attempts so far, all up to some number, are enough.
        limit: Attempts in flight; None for all.
    """
    made: dict[int, OneAttempt] = {}
    counted: list[OneAttempt] = []

    async def one(number: int) -> None:
        made[number] = await make(number)
        while len(counted) in made:
            counted.append(made[len(counted)])
            if enough(counted):
                raise _Enough

    with suppress(_Enough):
        await aio.each(one, range(count), limit=limit)
    return counted


def keep(used: Iterable[OneAttempt], unused: Iterable[OneAttempt] = ()) -> None:
    """Note which attempts went into the result: the calls of the others get no blame, and their checks do not count."""
    noted, tape = noted_checks.get(), current_tape()
    if checks := [check for one in used for check in one.checks]:
        if noted is not None:
            noted.extend(checks)
        here = conduct()
        if tape is not None and (here is None or not here.tentative):
            tape.notes.extend(checks)
    if tape is None:
        return
    for one in unused:
        for node in one.nodes:
            tape.detach((), node)


def check_attempts(module: Any, n: Any, concurrency: Any) -> None:
    """Check the arguments that all modules of attempts have.

    Raises:
        TypeError: There is no module, or what should be a number is not one.
        ValueError: A number is below one.
    """
    from promptgrad.nn._module import Module

    if not isinstance(module, Module):
        raise TypeError(f"the attempts are those of a module, not of {module!r}")
    for name, value in (("n", n), ("concurrency", 1 if concurrency is None else concurrency)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is a whole number, not {value!r}")
        if value < 1:
            raise ValueError(f"{name} is at least 1, not {value}")
