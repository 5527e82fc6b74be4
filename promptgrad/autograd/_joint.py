"""The engine "joint": a critic judges complete failed forwards, several in one call."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, cast

from promptgrad import aio
from promptgrad.autograd._critic import CriticLike, JointCriticLike, Target, TraceFailure, TraceSuccess
from promptgrad.autograd._failed_forward import FailedForward, blame_texts, checked, rank
from promptgrad.autograd._loss_row import LossRow
from promptgrad.autograd._manner import Manner
from promptgrad.autograd._node import AccumulateGrad, Node
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._rules import is_built_in, rule_of
from promptgrad.autograd._seed import feedback_of
from promptgrad.autograd._tokens import tokens
from promptgrad.autograd._values import leaves
from promptgrad.autograd._walk import Walk
from promptgrad.errors import GraphError, ReplayError

NEAREST = 4
"""Most successful forwards that stand beside a failed one."""


class Group:
    """Failed forwards that are judged together, by one call of their critic."""

    def __init__(self, critic: JointCriticLike, members: Sequence[tuple[FailedForward, TraceFailure]]) -> None:
        self.critic = critic
        self.members = members

    async def judge(self, gate: AbstractAsyncContextManager[None]) -> None:
        """Ask the critic, and note its answers in the forwards."""
        self.members[0][0].calls += 1
        for forward, _ in self.members:
            forward.asked += 1
        try:
            async with gate:
                answers = await self.critic.critique_traces([failure for _, failure in self.members])
            if len(answers) != len(self.members):
                raise TypeError(f"a critic gave {len(answers)} answers about {len(self.members)} forwards")
        except ReplayError:
            raise
        except BaseException as error:  # kept in the report; the other calls go on
            if not aio.is_failure(error):
                raise
            for forward, _ in self.members:
                _give_up(forward, error)
            return
        for (forward, failure), answer in zip(self.members, answers, strict=True):
            try:
                _note(forward, failure, answer)
            except TypeError as error:  # this answer is malformed
                _give_up(forward, error)


def groups(forwards: Iterable[FailedForward], right: Sequence[LossRow], manner: Manner) -> list[Group]:
    """The forwards that are judged jointly, in the groups that their critics choose.

    Args:
        forwards: The failed forwards.
        right: Rows of forwards that were right.
        manner: How the pass is made.

    Raises:
        GraphError: The engine is "joint", and a critic cannot judge complete forwards.
    """
    if manner.engine == "local" or manner.repeat > 1:
        return []
    auto = manner.engine == "auto"
    waiting: dict[int, tuple[CriticLike, list[FailedForward]]] = {}
    for forward in forwards:
        if forward.critic is not None and forward.due() and not (auto and _has_own_backward(forward)):
            waiting.setdefault(id(forward.critic), (forward.critic, []))[1].append(forward)
    found: list[Group] = []
    for critic, members in waiting.values():
        if not isinstance(critic, JointCriticLike) and auto:
            continue
        traced = [(forward, trace_failure(forward)) for forward in members]
        traced = [(forward, replace(trace, successes=nearest(forward, trace, right))) for forward, trace in traced]
        failures = [failure for _, failure in traced]
        together: Sequence[Sequence[TraceFailure]] = ()
        if isinstance(critic, JointCriticLike):
            size = () if manner.group is None else (manner.group,)
            together = critic.groups(failures, *size)
        if not auto and not together:
            raise GraphError(
                "engine='joint' needs a critic that can judge whole forwards (nn.Critic on a language model "
                f"that speaks the chat or json format), and {critic!r} cannot: leave engine out"
            )
        if auto and len(together) >= sum(forward.due() for forward in members):
            continue
        known = {id(failure): forward for forward, failure in traced}
        found += [
            Group(cast(JointCriticLike, critic), [(known[id(failure)], failure) for failure in group])
            for group in together
        ]
    return found


def nearest(forward: FailedForward, failure: TraceFailure, right: Sequence[LossRow]) -> tuple[TraceSuccess, ...]:
    """The forwards that were right, those first whose inputs share most words with those of a failed one.

    Only those in which the parameters had the same values are of use.
    """
    values = {target.parameter: target.value for target in failure.targets}
    own = _words_of(forward.row)
    order = sorted(right, key=lambda row: -_likeness(own, _words_of(row)))
    found: list[TraceSuccess] = []
    for row in order:
        if len(found) == NEAREST:
            break
        walk = Walk()
        walk.add_output(row.tape, row.output)
        nodes = tuple(fn for fn in walk.vertices() if isinstance(fn, Node) and fn.outputs)
        reads = [read for node in nodes for read in node.reads if read.parameter in values]
        if reads and all(values[read.parameter] == read.value for read in reads):
            edges = tuple(edge for node in nodes for edge in walk.into(node) if edge.source in nodes)
            found.append(TraceSuccess(row.example, nodes, edges))
    return tuple(found)


def _words_of(row: LossRow) -> frozenset[str]:
    given = {} if row.tape is None else row.tape.inputs
    return frozenset(tokens(" ".join(str(part) for part, is_leaf in leaves(given) if is_leaf).casefold()))


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(1, len(one | other))


def _has_own_backward(forward: FailedForward) -> bool:
    """Whether code of the user takes part in the backward pass: rules, functions, hooks of values or modules."""
    return any(
        bool(fn.value_hooks)
        or (isinstance(fn, Node) and bool(fn.hooks))
        or not (rule_of(fn) is None or is_built_in(rule_of(fn)) or isinstance(fn, AccumulateGrad))
        for fn in forward.graph.order
    )


def trace_failure(forward: FailedForward) -> TraceFailure:
    """A forward and its parameters, in the form for a critic that judges it in one call."""
    graph = forward.graph
    nodes = tuple(sorted((fn for fn in graph.order if isinstance(fn, Node)), key=rank))
    feedback = {feedback_of(row): None for _, row in forward.rows if row.node is None}
    node_feedback: dict[Node, tuple[str, ...]] = {}
    for node in nodes:
        texts = dict.fromkeys(critique.text for critique in forward.seeds.get(node, ()))
        rest = tuple(text for text in texts if text not in feedback)
        if rest:
            node_feedback[node] = rest
    targets: dict[Parameter, Target] = {}
    for node in nodes:
        for target in graph.own(node) + graph.demos(node):
            if target.parameter is not None and target.parameter not in targets:
                targets[target.parameter] = replace(target, name=forward.name_of(target.parameter))
    for leaf in (fn for fn in graph.order if isinstance(fn, AccumulateGrad)):  # read by the program's code
        parameter = leaf.parameter
        targets.setdefault(parameter, Target(forward.name_of(parameter), parameter.kind, leaf.value, parameter))
    names: dict[str, None] = {}
    for parameter, target in targets.items():  # one name, one parameter
        name, number = target.name, 1
        while name in names:
            name, number = f"{target.name}#{number}", number + 1
        names[name] = None
        targets[parameter] = replace(target, name=name)
    edges = tuple(edge for node in nodes for edge in graph.into[node])
    return TraceFailure(forward.row.example, tuple(feedback), nodes, edges, node_feedback, tuple(targets.values()))


def _note(forward: FailedForward, failure: TraceFailure, answer: Any) -> None:
    """Note a critic's answer about the parameters of a forward."""
    clean = checked(answer)
    forward.note_strangers("critic", "", 0, clean, failure.targets)
    for number, target in enumerate(failure.targets):
        parameter = target.parameter
        if parameter is None:
            continue
        readers = [node for node in failure.nodes if any(read.parameter is parameter for read in node.reads)]
        node = (readers or failure.nodes)[-1]
        feedback = (*failure.feedback, *failure.node_feedback.get(node, ()))
        evidence = {"inputs": node.inputs, "outputs": node.outputs, "feedback": feedback}
        short = replace(target, name=target.name.rpartition(".")[2].partition("#")[0])
        for place, text in enumerate(blame_texts(clean.get(target.name))):
            critique = forward.critique(node, short, text, evidence, 1.0, number, place)
            forward.found.append((parameter, critique))


def _give_up(forward: FailedForward, error: BaseException) -> None:
    """Note that the critic gave no readable answer about a forward."""
    forward.unanswered += 1
    forward.skip("", 0, f"the critic failed: {error!r}")
