"""`FailedForward`: one failed forward in a backward pass, with what the pass finds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from promptgrad.autograd._critic import PROGRAM, CriticLike, SparingCritic, Target
from promptgrad.autograd._critique import Critique
from promptgrad.autograd._edges import joined_sources
from promptgrad.autograd._loss_row import LossRow
from promptgrad.autograd._node import GradFn, Join, Node
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._prune import Subgraph, Wanted
from promptgrad.autograd._report import Remark, Skipped
from promptgrad.autograd._rules import rule_of
from promptgrad.autograd._seed import LAST, seeds


class FailedForward:
    """One failed forward, for all losses that judged it.

    Attributes:
        rows: The rows of the losses that judged it, each with its place in the total loss; they share one tape and
            example.
        number: The place of the first of them.
        row: The first of them.
        critic: The critic that divides the blame for a call.
        seeds: The critiques by the losses, by the vertex that they are about.
        graph: The vertices that are worth a visit.
        alone: Whether only one call can be to blame, and no critic was named: what is wrong with the result is then
            what is wrong with the texts of that call, and nobody is asked.
        found: The critiques of parameters.
        passed: The critiques of inputs that earlier calls wrote.
        skipped: What came to nothing, and why.
        remarks: What a critic said about something other than a target, such as the program's own code.
        calls: Critic calls.
        asked: How many answers the critic was asked for.
        unanswered: How many of them it did not give.
    """

    def __init__(
        self,
        rows: Sequence[tuple[int, LossRow]],
        critic: CriticLike | None,
        wanted: Wanted,
        *,
        truncate: int | None = None,
    ) -> None:
        self.rows = rows
        self.number, self.row = rows[0]
        self.critic = critic
        self._verdict = "error" if any(row.error is not None for _, row in rows) else "wrong"
        self._example_id = self.row.example_id
        self.seeds, self.skipped = seeds([row for _, row in rows], self._verdict)
        self.graph = Subgraph(self.seeds, wanted, truncate)
        self.alone = self._is_alone()
        self._names: dict[Parameter, str] = {}
        for node in (fn for fn in self.graph.order if isinstance(fn, Node)):
            for read in node.reads:
                self._names.setdefault(read.parameter, node.name_of(read))
        self.found: list[tuple[Parameter, Critique]] = []
        self.passed: list[Critique] = []
        self.remarks: list[Remark] = []
        self.calls = self.asked = self.unanswered = 0

    def _is_alone(self) -> bool:
        places = self.graph.places
        if len(places) != 1 or not isinstance(node := places[0], Node):
            return False
        critic: object = self.critic
        return critic is None or (isinstance(critic, SparingCritic) and critic.is_spared(critic_of(node)))

    def due(self) -> int:
        """How many critic calls it takes, one call of the forward at a time."""
        return 0 if self.alone else sum(rule_of(fn) is None for fn in self.graph.order)

    def name_of(self, parameter: Parameter) -> str:
        """The name of a parameter: its path in the program that was called, its own name, or its kind."""
        tape = self.row.tape
        path = self._names.get(parameter) or (parameter.name if tape is None else tape.path_of(parameter))
        return path or parameter.kind

    def critique(
        self, fn: GradFn, target: Target, text: str, evidence: Mapping[str, Any], agreement: float, *place: int
    ) -> Critique:
        """A critique of a target of a vertex; `place` distinguishes it from the others there."""
        node = fn if isinstance(fn, Node) else None
        return Critique(
            self._example_id,
            "" if node is None else node.path,
            0 if node is None else node.index,
            target.name.removeprefix("input.") if target.parameter is None else target.name,
            text,
            evidence,
            verdict=self._verdict,
            lm=None if node is None else node.lm,
            agreement=agreement,
            target_kind=target.kind,
            parameter="" if target.parameter is None else self.name_of(target.parameter),
            order=(*rank(fn), *place),
        )

    def remark(self, text: str) -> Critique:
        """A critique that a hook puts in place of the critiques of a value."""
        return Critique(self._example_id, "", 0, "", text, verdict=self._verdict, order=(LAST, 0))

    def give(self, fn: GradFn, parameter: Parameter, name: str, critiques: Sequence[Critique]) -> None:
        """Add all critiques of the vertex that holds or read a parameter to that parameter."""
        for critique in critiques:
            about = replace(
                critique,
                target=name,
                target_kind=parameter.kind,
                parameter=self.name_of(parameter),
                order=(*rank(fn), *critique.order),
            )
            if isinstance(fn, Node):
                about = replace(about, path=fn.path, index=fn.index, lm=fn.lm)
            self.found.append((parameter, about))

    def skip(self, path: str, index: int, reason: str) -> None:
        """Note what came to nothing, and why."""
        self.skipped.append(Skipped(self._example_id, path, index, reason))

    def note_strangers(
        self, who: str, path: str, index: int, answer: Mapping[str, Any], targets: Sequence[Target]
    ) -> None:
        """Note what an answer says of names that are not targets, so that it is not lost in silence."""
        known = [target.name for target in targets]
        said = {str(name): texts for name, text in answer.items() if name not in known and (texts := blame_texts(text))}
        self.remarks += [Remark(name, text, (self._example_id,)) for name, texts in said.items() for text in texts]
        strangers = [repr(name) for name in said if name != PROGRAM]
        if strangers:
            what = "which is not a target" if len(strangers) == 1 else "which are not targets"
            there = f"the targets are {', '.join(known)}" if known else "there are none"
            self.skip(path, index, f"the {who} blamed {', '.join(strangers)}, {what} here; {there}")

    def gradients(self) -> list[tuple[Parameter, Critique]]:
        """The critiques of parameters, in the order of the calls."""
        return sorted(self.found, key=lambda item: item[1].order)

    def critiques(self) -> tuple[Critique, ...]:
        """All critiques, in the order of the calls."""
        every = [*self.passed, *(critique for _, critique in self.found)]
        return tuple(sorted(every, key=lambda critique: critique.order))


def critic_of(node: Node) -> Any:
    """The LM that criticises a call where no critic is set: that of a text it read, else the one that answered."""
    own = (read.parameter.critic for read in node.reads)
    return next((lm for lm in own if lm is not None), node.lm)


def rank(fn: GradFn) -> tuple[int, int]:
    """Where a vertex comes in the order of the program, so that the order of replies makes no difference."""
    if isinstance(fn, Node):
        return fn.rank
    if isinstance(fn, Join):
        return max((source.rank for source in joined_sources(fn) if isinstance(source, Node)), default=(-1, 0))
    return -1, 0


def blame_texts(answer: Any) -> list[str]:
    """The texts that blame, of an answer that is one text or several."""
    several = answer if isinstance(answer, (list, tuple)) else (answer,)
    for item in several:
        if item is not None and not isinstance(item, str):
            raise TypeError(f"a critique of a value is a text, several texts or None, not {item!r}")
    return [text for item in several if (text := (item or "").strip())]


def checked(answer: Any) -> dict[str, Any]:
    """A critic's answer as plain data. A malformed answer fails here, where it is only one skipped call."""
    if not isinstance(answer, Mapping):
        raise TypeError(f"a critic returns a mapping from target to text, not {answer!r}")
    clean = dict(answer.items())
    for name, text in clean.items():
        several = text if isinstance(text, (list, tuple)) else (text,)
        for item in several:
            if item is not None and not isinstance(item, str):
                raise TypeError(f"a critic's answer about {name!r} is a text, several or None, not {text!r}")
    return clean
