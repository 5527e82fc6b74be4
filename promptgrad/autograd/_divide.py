"""`Divide`: a value's critiques, divided among what it was made of by a critic or rule, after its hooks."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from promptgrad import aio
from promptgrad.aio import warn
from promptgrad.autograd._agreement import agreed, blames, wordings
from promptgrad.autograd._cluster import Similarity, same_group
from promptgrad.autograd._critic import AgreeingCritic, NodeFailure
from promptgrad.autograd._critique import Critique
from promptgrad.autograd._edges import Edge
from promptgrad.autograd._engine import Critiques
from promptgrad.autograd._failed_forward import FailedForward, blame_texts, checked
from promptgrad.autograd._kind import as_kind
from promptgrad.autograd._node import AccumulateGrad, GradFn, Join, Node, Pick
from promptgrad.autograd._rules import Passing, Rule, is_built_in, pass_through, rule_of
from promptgrad.errors import GraphError, ReplayError

NO_CRITIC = (
    "backward() met a failed sample and has no critic to divide the blame: "
    "pass backward(critic=...), or give one to the criterion, as in nn.MetricLoss(metric, critic='openai/gpt-4o')"
)

Shares = Mapping[Edge, Sequence[Critique]]
Numbered = list[tuple[Critique, int | None]]
"""Critiques of a value, each with the number of the output of a function that it is about, where that is known."""


class Divide:
    """Divides the critiques of the vertices of one failed forward.

    Args:
        forward: The forward; parameters get their critiques in its `found`.
        gate: Entered for each critic call, to bound how many are in flight.
        repeat: How many answers about each call to ask for.
    """

    def __init__(self, forward: FailedForward, gate: AbstractAsyncContextManager[None], repeat: int = 1) -> None:
        self.forward = forward
        self.graph = forward.graph
        self.gate = gate
        self.repeat = repeat

    def waits(self, fn: GradFn) -> bool:
        """Whether a vertex has to wait: for the critic, or for a rule or function that the user wrote."""
        return not isinstance(fn, AccumulateGrad) and not is_built_in(rule_of(fn))

    def suspends(self, fn: GradFn) -> bool:
        """Whether that takes a while: not where the feedback is the critique."""
        return self.waits(fn) and self._rule(fn) is not _undivided

    def at_once(self, fn: GradFn, critiques: Critiques) -> Shares:
        """The shares by a built-in rule."""
        numbered = self._hooked(fn, critiques)
        if not numbered:
            return {}
        every = [critique for critique, _ in numbered]
        if isinstance(fn, AccumulateGrad):
            name = self.forward.name_of(fn.parameter).rpartition(".")[2]
            self.forward.give(fn, fn.parameter, name, every)
            return {}
        rule = rule_of(fn)
        if rule is pass_through:
            for target in self.graph.own(fn):
                if target.parameter is not None:
                    self.forward.give(fn, target.parameter, target.name, every)
            return dict.fromkeys(self.graph.into[fn], every)
        return self._shares(fn, rule(self._passing(fn, numbered)), every, {})  # type: ignore[misc,arg-type]

    async def later(self, fn: GradFn, critiques: Critiques) -> Shares:
        """The shares by the answer of the critic, or of a rule that is not ours."""
        numbered = self._hooked(fn, critiques)
        if not numbered:
            return {}
        every = [critique for critique, _ in numbered]
        feedback = tuple(critique.text for critique in every)
        rule = self._rule(fn)
        path, index = (fn.path, fn.index) if isinstance(fn, Node) else (fn.kind, 0)
        who = "critic" if rule is None else "rule"
        agreement: Mapping[str, float] = {}
        try:
            if rule is not None:
                answer = await _follow(rule, self._passing(fn, numbered))
            else:
                self.forward.asked += 1
                answer, agreement = await self._ask(fn, feedback)
        except ReplayError:
            raise
        except BaseException as error:  # kept in the report; the other calls go on
            if not aio.is_failure(error):
                raise
            self.forward.unanswered += rule is None
            self.forward.skip(path, index, f"the {who} failed: {error!r}")
            if rule is not None:
                warn(f"the backward rule of {path} failed, so no blame passes: {error!r}", UserWarning)
            return {}
        for hook in fn.hooks if isinstance(fn, Node) else ():
            changed = hook(fn, feedback, answer)
            if changed is not None and not isinstance(changed, Mapping):
                raise TypeError(
                    f"a hook of {path} returned {changed!r}: a hook of a module's backward returns a mapping "
                    "from target to text, or None to leave the blame as it is"
                )
            answer = answer if changed is None else changed
        self.forward.note_strangers(who, path, index, answer, self.graph.targets(fn))
        return self._shares(fn, answer, every, agreement)

    def _rule(self, fn: GradFn) -> Rule | None:
        """The rule of a vertex; of a call of a language model only where no critic is needed."""
        return _undivided if self.forward.alone and rule_of(fn) is None else rule_of(fn)

    def _hooked(self, fn: GradFn, critiques: Critiques) -> Numbered:
        """The critiques of a value in their order, each text once, after the hooks of the value have changed them."""
        once: dict[tuple[str, int | None], tuple[Critique, int | None]] = {}
        for critique, output in sorted(_numbered(critiques), key=lambda item: item[0].order):
            once.setdefault((critique.text, output), (critique, output))
        numbered = list(once.values())
        for hook in fn.value_hooks if numbered else ():
            changed = hook(tuple(critique.text for critique, _ in numbered))
            if changed is not None:
                known = {critique.text: (critique, output) for critique, output in numbered}
                numbered = [known.get(text) or (self.forward.remark(text), None) for text in blame_texts(changed)]
        return numbered

    def _passing(self, fn: GradFn, numbered: Numbered) -> Passing:
        """The argument of a rule."""
        by_output = None
        if isinstance(fn, Node) and len(fn.output_fields) > 1:
            by_output = tuple(
                tuple(critique.text for critique, output in numbered if output in (number, None))
                if name in fn.outputs or fn.error is not None
                else ()  # marked as non-differentiable
                for number, name in enumerate(fn.output_fields)
            )
        return Passing(fn, tuple(critique.text for critique, _ in numbered), self.graph.targets(fn), by_output)

    async def _ask(self, fn: GradFn, feedback: tuple[str, ...]) -> tuple[Mapping[str, str], Mapping[str, float]]:
        """The critic's answer about each target of a call, and how far its answers agree if several are wanted."""
        critic = self.forward.critic
        if critic is None:
            raise GraphError(NO_CRITIC)
        assert isinstance(fn, Node)  # noqa: S101 - only calls of language models are the critic's
        failure = NodeFailure(fn, self.forward.row.example, feedback, self.graph.targets(fn))
        if self.repeat == 1:
            self.forward.calls += 1
            async with self.gate:
                return checked(await critic.critique(failure)), {}
        answers: list[Mapping[str, str]] = []
        errors: list[BaseException] = []

        async def ask(replicate: int) -> Mapping[str, str] | BaseException:
            self.forward.calls += 1
            try:
                async with self.gate:
                    return checked(await critic.critique(replace(failure, replicate=replicate)))
            except ReplayError:
                raise
            except BaseException as error:  # one answer fewer
                if not aio.is_failure(error):
                    raise
                return error

        for answer in await aio.each(ask, range(self.repeat)):
            (errors if isinstance(answer, BaseException) else answers).append(answer)  # type: ignore[arg-type]
        if not answers:
            raise errors[0]
        if errors:
            reason = f"{len(errors)} of {self.repeat} answers failed, the first: {errors[0]!r}"
            self.forward.skip(fn.path, fn.index, reason)
        said = agreed(answers, await self._similarities(failure, answers))
        return {target: text for target, (text, _) in said.items()}, {
            target: share for target, (_, share) in said.items()
        }

    async def _similarities(self, failure: NodeFailure, answers: Sequence[Mapping[str, str]]) -> dict[str, Similarity]:
        """The similarity of repeated answers by target, if the critic can compare them; else their words decide."""
        found: dict[str, Similarity] = {}
        critic: object = self.forward.critic
        if not isinstance(critic, AgreeingCritic):
            return found
        for target, texts in blames(answers).items():
            if len(different := wordings(texts)) == 1:
                continue
            self.forward.calls += 1
            try:
                async with self.gate:
                    found[target] = same_group(different, await critic.agreeing(failure, target, different))
            except ReplayError:
                raise
            except BaseException as error:
                if not aio.is_failure(error):
                    raise
                reason = f"the answers about '{target}' were compared by their words alone: {error!r}"
                self.forward.skip(failure.node.path, failure.node.index, reason)
        return found

    def _shares(
        self, fn: GradFn, answer: Mapping[str, Any], critiques: Sequence[Critique], agreement: Mapping[str, float]
    ) -> Shares:
        """The shares of an answer by edge; parameters get theirs here. A text that is passed on keeps its origin."""
        evidence: Mapping[str, Any] = {}
        if isinstance(fn, Node):
            feedback = tuple(critique.text for critique in critiques)
            evidence = {"inputs": fn.inputs, "outputs": fn.outputs, "feedback": feedback}
        passed_on = {} if self._rule(fn) is None else {critique.text: critique for critique in critiques}
        edges: dict[GradFn | str, list[Edge]] = {}
        for edge in self.graph.into[fn]:
            edges.setdefault(edge.source if isinstance(fn, Join) else edge.field or "", []).append(edge)
        shares: dict[Edge, Sequence[Critique]] = {}
        for number, target in enumerate(self.graph.targets(fn)):
            made = [
                self.forward.critique(fn, target, text, evidence, agreement.get(target.name, 1.0), number, place)
                for place, text in enumerate(blame_texts(answer.get(target.name)))
            ]
            if target.parameter is not None:
                self.forward.found += [(target.parameter, critique) for critique in made]
            elif made:
                if isinstance(fn, Node):
                    self.forward.passed += made
                key = fn.sources[int(target.name)] if isinstance(fn, Join) else made[0].target
                going = [passed_on.get(critique.text, critique) for critique in made]
                shares.update(dict.fromkeys(edges.get(key, ()), going))
        return shares


def _undivided(passing: Passing) -> Mapping[str, Any]:
    """The feedback for every text that a call read or was given; demos have their traces."""
    return {target.name: passing.feedback for target in passing.targets if not as_kind(target.kind).is_demos}


def _numbered(critiques: Critiques) -> Iterator[tuple[Critique, int | None]]:
    for edge, several in critiques.items():
        output = edge.target.output if edge is not None and isinstance(edge.target, Pick) else None
        yield from ((critique, output) for critique in several)


async def _follow(rule: Rule, passing: Passing) -> Mapping[str, Any]:
    """The answer of a rule: ours in place, a user's function in a thread, a user's coroutine on a loop."""
    if is_built_in(rule) or rule is _undivided:
        answer: Any = rule(passing)
    elif inspect.iscoroutinefunction(rule):
        answer = await aio.awaited(rule(passing))
    else:
        answer = await aio.in_thread(rule, passing)
    if not isinstance(answer, Mapping):
        raise TypeError(f"a rule returns a mapping from target to text, not {answer!r}")
    return answer
