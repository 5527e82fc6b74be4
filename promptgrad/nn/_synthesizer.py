"""`Synthesizer`: more examples of a task, written by a language model."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, overload

from promptgrad import aio
from promptgrad._habits import refuse
from promptgrad.data import Example
from promptgrad.errors import DataError, InputError, LMError, ParseError, SignatureError
from promptgrad.lm import LM, current
from promptgrad.metrics import as_metric, call_metric, exact_match
from promptgrad.nn._map import bind
from promptgrad.nn._module import Module
from promptgrad.nn._plain import plain
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction
from promptgrad.signature import Field, Input, Output, Signature, make_signature

PROVENANCE = "synthetic"
"""The field of an example that says how it was made; it is no input."""

ALIKE = 0.6
"""From this share of common letter groups on, two inputs count as the same."""

_HABITS = {
    **dict.fromkeys(
        ("n", "num", "num_examples", "num_samples", "count"), "n=... in the call, synthesizer(seeds, n=40)"
    ),
    **dict.fromkeys(("seeds", "examples", "trainset"), "them in the call, synthesizer(seeds, n=40)"),
    **dict.fromkeys(("metric", "judge", "teacher"), "it in the call, synthesizer(seeds, n=40, metric=...)"),
}

_GROUP = 5
_SHOWN = 8  # examples in a prompt
_LEVELS = ("easy", "typical", "hard")


class ListAspects(Signature):
    """You plan a data set for the task below.

    Name the situations that its examples should cover: subjects, kinds of users, forms of the input, and the cases in
    which the answer is decided by something else. Each is a few words, and no two overlap.
    """

    task: str = Input(desc="the task")
    interface: str = Input(desc="the fields of an example")
    examples: list[dict[str, Any]] = Input(desc="some that are there")
    count: int = Input(desc="how many situations")
    aspects: list[str] = Output(desc="the situations")


class WriteExamples(Signature):
    """You write new examples for the task below, as its users would really bring them.

    Each new example differs from all that are shown in what it is about and in its words, is about the `aspect`, and is
    as hard as `difficulty` says. Work out what is right for it before you write it down; leave out one of which you are
    not sure. Use the fields by their names, and nothing else.
    """

    task: str = Input(desc="the task")
    interface: str = Input(desc="the fields of an example")
    examples: list[dict[str, Any]] = Input(desc="some that are right")
    written: list[str] = Input(desc="what was written before; do not repeat it")
    aspect: str = Input(desc="what the new ones are about")
    difficulty: str = Input(desc="how hard they are")
    count: int = Input(desc="how many to write")
    new_examples: list[dict[str, Any]] = Output(desc="the new examples, each an object with the fields")


class SyntheticExamples(Sequence[Example]):
    """What a `Synthesizer` wrote: a sequence of examples, and why others were dropped.

    Attributes:
        aspects: The situations that they cover.
        dropped: How many were dropped, by reason.
    """

    def __init__(self, rows: Iterable[Example], aspects: Sequence[str], dropped: Mapping[str, int]) -> None:
        self._rows = tuple(rows)
        self.aspects = tuple(aspects)
        self.dropped = dict(dropped)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SyntheticExamples):
            return NotImplemented
        return (self._rows, self.aspects, self.dropped) == (other._rows, other.aspects, other.dropped)

    def __hash__(self) -> int:
        return hash((len(self), self.aspects))

    def __repr__(self) -> str:
        dropped = "; ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        return f"<{len(self)} synthetic examples of {len(self.aspects)} aspects; dropped: {dropped or 'none'}>"


class Synthesizer(Module, in_place=True):
    """Write more examples of a task: `rows = nn.Synthesizer("question -> answer")(seeds, n=40)`.

    First the situations are listed that the examples should cover. Then each of them, at each difficulty, gets a call
    that writes some, shown right examples and what was written before; round after round, until there are enough or
    nothing new comes. What does not fit the fields, or repeats an example or one of the seeds, is dropped; with a
    `teacher`, or a `metric` that judges, also what they do not agree with.

    Each row says in its field `synthetic` how it was made. Such rows are for training: `Trainer` refuses them in
    validation and test data, where they would measure the language model that wrote them.

    Shape: `SyntheticExamples`, a sequence of at most `n` examples.
    Cost: one LM call for the situations, and one for each `batch` examples that are written, of which some are dropped:
        at most three times `n / batch`, see `most_calls`. A `teacher` costs a run for each row that is new, a judge
        what it costs.
    Source: Wang et al. 2022, "Self-Instruct", arXiv 2212.10560; Yu et al. 2023, "AttrPrompt", arXiv 2306.15895.
        Differs: values are checked by the types of the signature, and a program or a metric of yours may filter.

    Args:
        signature: Inputs and outputs, as for `Predict`; its instruction is the task.
        task: The task, in place of the instruction.
        lm: LM that writes.
        aspects: How many situations, or their list.
        difficulty: The levels that are asked for, in words.
        batch: Examples that one call writes.
        **options: Sampling options of the writer; its temperature is 1 by default.

    Raises:
        SignatureError: The signature is not valid, or has a field `synthetic`.
        ValueError: A number is below one.
        DataError: When called: the seeds lack an input or output.
        LMError: When called: no situation got an answer.
    """

    def __init__(
        self,
        signature: str | Signature | type[Signature],
        task: str = "",
        lm: LM | str | None = None,
        *,
        aspects: int | Sequence[str] = 6,
        difficulty: Sequence[str] = _LEVELS,
        batch: int = 5,
        **options: Any,
    ) -> None:
        super().__init__()
        if strange := [name for name in options if name in _HABITS]:
            refuse("Synthesizer", strange, _HABITS, ())
        made = signature.signature if isinstance(signature, Predict) else make_signature(signature)
        if batch < 1 or (isinstance(aspects, int) and aspects < 1) or not difficulty:
            raise ValueError("batch and aspects are at least 1, and difficulty has a level")
        if PROVENANCE in made.fields:
            raise SignatureError(f"the field {PROVENANCE!r} is where an example says how it was made: rename it")
        self._signature = made
        self.task = task or made.instruction
        self.aspects = aspects
        self.difficulty = tuple([difficulty] if isinstance(difficulty, str) else difficulty)
        self.batch = batch
        self.plan = Predict(ListAspects)
        self.write = Predict(WriteExamples, **{"temperature": 1.0, **options})
        self.requires_grad_(requires_grad=False)
        if lm is not None:
            self.to(lm)

    async def forward(
        self,
        seeds: Iterable[Any] = (),
        n: int = 20,
        *,
        teacher: Module | None = None,
        metric: Callable[..., Any] | None = None,
        threshold: float = 0.5,
        avoid: Iterable[Any] = (),
    ) -> SyntheticExamples:
        """Write examples.

        Args:
            seeds: Examples that are right.
            n: How many to write.
            avoid: Examples of which none is to be like, such as those that one tests on. No prompt shows them.
            teacher: A program that must agree with the labels, by `metric`, or by exact match.
            metric: Without a teacher, a judge: it scores the labels of an example.
            threshold: The least score of an example that is kept.

        Raises:
            ValueError: `n` is below 1.
            LMError: Every call of the first round failed.
        """
        known = [self._seed(number, seed) for number, seed in enumerate(seeds)]
        if n < 1:
            raise ValueError(f"n is at least 1, not {n}")
        about = {"task": self.task, "interface": self._described(), "examples": list(map(plain, known[:_SHOWN]))}
        names = await self._aspects(about)
        kept: list[Example] = []
        dropped: Counter[str] = Counter()
        held = [_groups(self._key(Example(one))) for one in avoid]
        seen = [_groups(self._key(one)) for one in known]
        keep = _filter(self._signature, teacher, metric, threshold)
        levels = self.difficulty  # the first calls already differ in both, as there may be no others
        turns = [(at, at + turn) for turn in range(len(levels)) for at in range(len(names))]
        plans = [(names[at], levels[level % len(levels)]) for at, level in turns]
        left = most = 3 * -(-n // self.batch)
        first = (current().replicate or 0) * most
        for number in range(most):
            missing = n - len(kept)
            some = plans[: min(left, max(1, -(-missing // self.batch)))]
            left -= len(some)
            ask = partial(self._written, about, kept, first + number)
            replies = await aio.gather([partial(ask, *one) for one in some], limit=None)
            if not kept and (failed := [reply for reply in replies if isinstance(reply, LMError)]) == replies:
                raise failed[0]
            fresh: list[Example] = []
            for (aspect, level), reply in zip(some, replies, strict=True):
                if isinstance(reply, Exception):
                    dropped["the writer failed"] += self.batch
                    continue
                how = {"aspect": aspect, "difficulty": level, "round": number, "lm": self._writer()}
                for values in reply:
                    row, flaw = self._read(values, how)
                    groups = set() if row is None else _groups(self._key(row))
                    if row is not None and any(_alike(groups, other) for other in held):
                        row, flaw = None, "is to be avoided"
                    if row is not None and any(_alike(groups, other) for other in seen):
                        row, flaw = None, "repeats another"
                    if row is None:
                        dropped[flaw] += 1
                    else:
                        seen.append(groups)
                        fresh.append(row)
            scores = await aio.each(keep, fresh)
            dropped["not agreed with"] += sum(not good for good in scores)
            kept += [row for row, good in zip(fresh, scores, strict=True) if good]
            if len(kept) >= n or not fresh or not left:
                break
            plans = plans[len(some) :] + plans[: len(some)]
        return SyntheticExamples(kept[:n], names, {reason: count for reason, count in dropped.items() if count})

    def most_calls(self, n: int) -> int:
        """The most LM calls that writing `n` examples takes, without those of a teacher or judge."""
        return isinstance(self.aspects, int) + 3 * -(-n // self.batch)

    async def _aspects(self, about: Mapping[str, Any]) -> list[str]:
        if not isinstance(self.aspects, int):
            return list(self.aspects)
        found = await self.plan.acall(**about, count=self.aspects)
        names = [name.strip() for name in found.aspects if name.strip()]
        return list(dict.fromkeys(names))[: self.aspects] or ["anything that the task covers"]

    async def _written(
        self, about: Mapping[str, Any], kept: Sequence[Example], replicate: int, aspect: str, level: str
    ) -> Any:
        before = [self._key(row) for row in kept if row[PROVENANCE]["aspect"] == aspect][-_SHOWN:]
        asked = {**about, "written": before, "aspect": aspect, "difficulty": level, "count": self.batch}
        try:
            return (await self.write.acall(**asked, config={"replicate": replicate})).new_examples
        except (LMError, ParseError) as error:
            return error

    def _writer(self) -> str:
        return self.write.lm.name if self.write.lm is not None else ""

    def _described(self) -> str:
        from promptgrad.adapters import describe

        fields = self._signature.fields.values()
        return "\n".join(f"{field.role} `{field.name}`: {describe(field)}" for field in fields)

    def _seed(self, number: int, seed: Any) -> Example:
        example = Example(seed)
        missing = [name for name in self._signature.fields if name not in example.keys()]  # noqa: SIM118 - no mapping
        if missing:
            raise DataError(f"seed {number} lacks {missing[0]!r}: a seed has every input and output of the signature")
        return Example({name: example[name] for name in self._signature.fields})

    def _read(self, values: Mapping[str, Any], how: Mapping[str, Any]) -> tuple[Example | None, str]:
        """The example that was written, or what is wrong with it."""
        found: dict[str, Any] = {}
        for name, field in self._signature.fields.items():
            if name not in values:
                return None, "lacks a field"
            try:
                found[name] = _value(field, values[name])
            except (InputError, ParseError, ValueError):
                return None, "does not fit a field"
        if not self._key(Example(found)).strip():
            return None, "is empty"
        return Example({**found, PROVENANCE: dict(how)}).with_inputs(*self._signature.inputs), ""

    def _key(self, example: Example) -> str:
        """The inputs of an example, as a text by which it is known."""
        return "\n".join(
            value if isinstance(value := example[name], str) else json.dumps(plain(value), default=str)
            for name in self._signature.inputs
        )


def is_synthetic(example: Any) -> bool:
    """Whether a `Synthesizer` wrote an example."""
    return isinstance(example, Example) and isinstance(how := example.get(PROVENANCE), Mapping) and "aspect" in how


def _value(field: Field, value: Any) -> Any:
    return field.validate(str(value) if field.is_text and isinstance(value, (int, float)) else value)


def _groups(text: str) -> set[str]:
    """The groups of letters in a text, by which texts are compared."""
    flat = re.sub(r"\W+", " ", text.lower()).strip()
    return {flat[at : at + _GROUP] for at in range(max(1, len(flat) - _GROUP + 1))}


def _alike(some: set[str], other: set[str]) -> bool:
    return len(some & other) >= ALIKE * len(some | other)


def _filter(
    signature: Signature, teacher: Module | None, metric: Callable[..., Any] | None, threshold: float
) -> Callable[[Example], Any]:
    judge = None if metric is None else as_metric(metric)
    only = next(iter(signature.outputs)) if len(signature.outputs) == 1 else None

    async def keep(row: Example) -> bool:
        if teacher is None and judge is None:
            return True
        output: Any = Prediction({name: row[name] for name in signature.outputs})
        agrees = judge
        if teacher is not None:
            args, kwargs = bind(teacher, row)
            try:
                output = await teacher.acall(*args, **kwargs)
            except (LMError, ParseError):
                return False
            agrees = judge or (exact_match(field=only) if only else as_metric(partial(_same, tuple(signature.outputs))))
        assert agrees is not None  # noqa: S101 - one of both is given
        score = await call_metric(agrees, row, output)
        return score.value >= threshold

    return keep


def _same(names: Sequence[str], example: Example, output: Any) -> bool:
    return all(getattr(output, name, None) == example[name] for name in names)
