"""The backward pass of one failed forward: who has to be asked, when, and who gets what."""

import inspect
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from promptgrad import aio
from promptgrad.autograd._agreement import agreed, blames, wordings
from promptgrad.autograd._blame import Blame
from promptgrad.autograd._caller import warn
from promptgrad.autograd._cluster import Similarity, same_group
from promptgrad.autograd._critic import AgreeingCritic, Critic, NodeFailure, Target, TraceFailure, blame_in
from promptgrad.autograd._critique import Critique
from promptgrad.autograd._edges import Edge, joined_sources, texts_of
from promptgrad.autograd._loss_row import LossRow
from promptgrad.autograd._node import AccumulateGrad, GradFn, Join, Node, Pick
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._report import Skipped
from promptgrad.autograd._rules import Passing, Rule, is_built_in, pass_through, rule_of, targets_of_join
from promptgrad.autograd._tape import Tape
from promptgrad.autograd._walk import Walk
from promptgrad.errors import GraphError, MetricError, ReplayError, is_outage

_TEXTS = ("instruction", "description")
_FRAMES = 4  # of a traceback, the innermost that are not ours
_PACKAGE = str(Path(__file__).parents[1])

NO_CRITIC = (
    "backward() met a failed sample and has nobody to ask who is to blame: "
    "pass backward(critic=...), or give one to the criterion, as in nn.MetricLoss(metric, critic='openai/gpt-4o')"
)

UNRECORDED = "nothing was recorded: the forward ran under no_grad(), or its output is a plain value"


class Wanted:
    """Which parameters shall get a gradient."""

    def __init__(self, inputs: Iterable[Parameter] | Parameter | None) -> None:
        given = [inputs] if isinstance(inputs, Parameter) else inputs
        self._only = None if given is None else dict.fromkeys(given)
        for item in self._only or ():
            if not isinstance(item, Parameter):
                raise TypeError(f"inputs are parameters, as model.solve.instruction, not {item!r}")
        if self._only is not None and not self._only:
            raise ValueError("inputs is empty, so no gradient is wanted: leave it out, or name parameters")

    @property
    def named(self) -> tuple[Parameter, ...]:
        """The parameters that were asked for by name."""
        return tuple(self._only or ())

    def __call__(self, parameter: Parameter) -> bool:
        return parameter.requires_grad and (self._only is None or parameter in self._only)


@dataclass(frozen=True)
class _Blame:
    """A piece of feedback under way, with the call that it was said about."""

    text: str
    path: str = ""
    index: int = 0
    evidence: Mapping[str, Any] | None = None
    output: int | None = None  # which output of a function it is about, where that is known
    said: "Rank" = (1 << 63, 0)  # when the call came that says it, however it got here


Rank = tuple[int, int]
_LAST = _Blame("").said
"""Where the loss stands among those who say something of a value: after all calls."""

Place = tuple[Rank, Rank, int]
"""Sorts what is said: by what it is said of, by who says it, and in the order of an answer."""


def _rank(fn: GradFn) -> Rank:
    """Where a vertex comes in the order of the program, so that the order of replies makes no difference."""
    if isinstance(fn, Node):
        return fn.rank
    if isinstance(fn, Join):
        return max((source.rank for source in joined_sources(fn) if isinstance(source, Node)), default=(-1, 0))
    return -1, 0


class SamplePass:
    """The backward pass of one failed forward, for all losses that judged it.

    Args:
        rows: What the losses said of it, each with its place in the whole loss; they share one tape and example.
        critic: Who divides the blame for a call.
        wanted: Which parameters shall get a gradient.
        gate: Entered for each critic call, to bound how many are in flight.
        truncate: Go back through the last that many calls of each module only.
        repeat: How many answers about each call to ask for.
    """

    def __init__(
        self,
        rows: Sequence[tuple[int, LossRow]],
        critic: Critic | None,
        wanted: Wanted,
        gate: AbstractAsyncContextManager[None],
        *,
        truncate: int | None = None,
        repeat: int = 1,
    ) -> None:
        self.rows = rows
        self.number, self.row = rows[0]
        self.critic = critic
        self.wanted = wanted
        self.gate = gate
        self.truncate = truncate
        self.repeat = repeat
        self.agreement: dict[tuple[GradFn, str], float] = {}
        self.example_id = example_id(self.row.example)
        self.verdict = "error" if any(row.error is not None for _, row in rows) else "wrong"
        self.calls = self.asked = self.unanswered = 0
        self.truncated = 0
        self.skipped: list[Skipped] = []
        self.found: list[tuple[Place, Parameter, Critique]] = []
        self.passed: list[tuple[Place, Blame]] = []
        self.feedback: dict[GradFn, list[_Blame]] = {}
        self.pending: dict[GradFn, int] = {}
        self.into: dict[GradFn, list[Edge]] = {}
        self.ready: dict[GradFn, aio.Signal[None]] = {}
        self.targets: dict[GradFn, tuple[Target, ...]] = {}
        self.walk = Walk()
        self.seeds = self._seed()
        self._prune()

    def _seed(self) -> list[GradFn]:
        """Give the losses' feedback to what it is about, and say where to begin."""
        seeds: dict[GradFn, None] = {}
        for _, row in self.rows:
            for fn, text in self._starts(row):
                self.feedback.setdefault(fn, []).append(_Blame(text, evidence=_evidence(row, text)))
                seeds[fn] = None
        self.skipped = list(dict.fromkeys(self.skipped))
        return list(seeds)

    def _starts(self, row: LossRow) -> Iterator[tuple[GradFn, str]]:
        """What a loss says, and of what."""
        broken = _broken_node(row)
        if broken is not None and is_outage(broken.error):
            self.skipped.append(Skipped(self.example_id, broken.path, broken.index, f"no answer: {broken.error!r}"))
            return
        if isinstance(row.error, MetricError):  # the judge failed, not the program
            self.skipped.append(Skipped(self.example_id, "", 0, f"no score: {row.error}"))
            return
        text = row.feedback or _default_feedback(row)
        if broken is not None:
            yield broken, text
        elif row.node is not None:
            yield row.node, text
        else:
            sources = dict.fromkeys(edge.source for edge in self.walk.into_output(row.tape, row.output))
            if row.tape is None and not sources:
                self.skipped.append(Skipped(self.example_id, "", 0, UNRECORDED))
            yield from ((source, text) for source in sources)
        for path, said in row.module_feedback.items():
            calls = [] if row.tape is None else [node for node in row.tape.nodes if _is_call_of(node, path)]
            texts = [said] if isinstance(said, str) else list(said)
            chosen = calls[-1:] if isinstance(said, str) else calls
            if len(texts) > len(chosen):
                heard = f"the forward called it {len(calls)} times, and there are {len(texts)} texts about it"
                self.skipped.append(Skipped(self.example_id, path, len(chosen), f"feedback that nobody hears: {heard}"))
            yield from ((node, text) for node, text in zip(chosen, texts, strict=False) if text)

    def _prune(self) -> None:
        """Keep the vertices from which a wanted text parameter can be reached, and count the users of each."""
        self.walk.add(self.seeds)
        needed: dict[GradFn, None] = {}
        order = self.walk.vertices()
        left_out = self._too_early(order)
        for fn in order:
            if fn in left_out:
                continue
            edges = [edge for edge in self.walk.into(fn) if edge.source in needed]
            own = self._own_targets(fn)
            if edges or own or (isinstance(fn, AccumulateGrad) and self.wanted(fn.parameter)):
                needed[fn] = None
                self.into[fn] = edges
                rule = rule_of(fn)
                if isinstance(fn, Node) and rule is not pass_through:
                    own += self._demos(fn, rule)
                    self.targets[fn] = own + _input_targets(fn, edges, own)
                if not is_built_in(rule) and not isinstance(fn, AccumulateGrad):
                    self.ready[fn] = aio.Signal()
        for fn in needed:
            self.pending.setdefault(fn, 0)
            for source in dict.fromkeys(edge.source for edge in self.into[fn]):
                self.pending[source] = self.pending.get(source, 0) + 1
        self.order = [fn for fn in order if fn in needed]

    def _too_early(self, order: Sequence[GradFn]) -> dict[GradFn, None]:
        """The calls that `truncate` leaves out: those before the last few of their module in their forward."""
        if self.truncate is None:
            return {}
        calls = [fn for fn in order if isinstance(fn, Node)]
        count: dict[tuple[Tape, str], int] = {}
        for node in (node for tape in dict.fromkeys(fn.tape for fn in calls) for node in tape.nodes):
            count[node.tape, node.path] = count.get((node.tape, node.path), 0) + 1
        left_out: dict[GradFn, None] = {fn: None for fn in calls if fn.index < count[fn.tape, fn.path] - self.truncate}
        self.truncated = len(left_out)
        return left_out

    def _own_targets(self, fn: GradFn) -> tuple[Target, ...]:
        if not isinstance(fn, Node):
            return ()
        found: dict[str, Target] = {}
        for read in fn.reads:
            parameter = read.parameter
            if parameter.kind in _TEXTS and self.wanted(parameter):
                name = read.name or parameter.name.rpartition(".")[2] or parameter.kind
                if name in found and found[name].parameter is not parameter:
                    name = parameter.name or f"{name}_{len(found)}"
                found.setdefault(name, Target(name, parameter.kind, read.value, parameter))
        return tuple(found.values())

    def _demos(self, node: Node, rule: Rule | None) -> tuple[Target, ...]:
        """The demos of an LM call, which a critic may blame besides; they alone are no reason to ask it."""
        return tuple(
            Target("demos", "demos", read.value, read.parameter)
            for read in node.reads
            if rule is None and read.parameter.kind == "demos" and read.value and self.wanted(read.parameter)
        )

    @property
    def failures(self) -> list[GradFn]:
        """The calls that may need the critic, the last ones first."""
        return [fn for fn in reversed(self.order) if fn in self.ready]

    @property
    def has_own_backward(self) -> bool:
        """Whether the user wrote what happens on the way: rules, functions, hooks of values or modules."""
        return any(
            bool(fn.value_hooks)
            or (isinstance(fn, Node) and bool(fn.hooks))
            or not (rule_of(fn) is None or is_built_in(rule_of(fn)) or isinstance(fn, AccumulateGrad))
            for fn in self.order
        )

    @property
    def asks(self) -> bool:
        """Whether the critic may be needed."""
        return any(rule_of(fn) is None for fn in self.ready)

    def begin(self) -> None:
        """Let go of everything that nothing precedes."""
        self._settle([fn for fn in reversed(self.order) if not self.pending[fn]])

    def _settle(self, free: Iterable[GradFn]) -> None:
        """Pass blame through vertices that need no critic, as far as it goes, and wake the calls that are due."""
        queue = deque(free)
        while queue:
            fn = queue.popleft()
            signal = self.ready.get(fn)
            if signal is not None:
                signal.set(None)
                continue
            blames = self.blames(fn)
            if isinstance(fn, AccumulateGrad):
                name = fn.parameter.name.rpartition(".")[2] or fn.parameter.kind
                self._accumulate(fn, fn.parameter, name, blames)
            rule = rule_of(fn)
            if rule is None or rule is pass_through or not blames:
                for target in self._own_targets(fn):
                    if target.parameter is not None:
                        self._accumulate(fn, target.parameter, target.name, blames)
                share: Mapping[Edge, Sequence[_Blame]] = dict.fromkeys(self.into[fn], blames)
            else:
                share = self._divide(fn, rule(self._passing(fn, blames)), blames)  # type: ignore[arg-type]
            queue.extend(self._release(fn, share))

    def _passing(self, fn: GradFn, blames: Sequence[_Blame]) -> Passing:
        """What a rule is given."""
        by_output = None
        if isinstance(fn, Node) and len(fn.output_fields) > 1:
            by_output = tuple(
                tuple(blame.text for blame in blames if blame.output in (number, None))
                if name in fn.outputs or fn.error is not None
                else ()  # marked as non-differentiable
                for number, name in enumerate(fn.output_fields)
            )
        return Passing(fn, tuple(blame.text for blame in blames), self._targets_of(fn), by_output)

    def _targets_of(self, fn: GradFn) -> tuple[Target, ...]:
        if fn not in self.targets:
            if isinstance(fn, Node):
                own = self._own_targets(fn)
                self.targets[fn] = own + _input_targets(fn, self.into[fn], own)
            else:
                self.targets[fn] = targets_of_join(fn, texts_of) if isinstance(fn, Join) else ()
        return self.targets[fn]

    def _release(self, fn: GradFn, share: Mapping[Edge, Sequence[_Blame]]) -> list[GradFn]:
        """Hand the blame of a vertex on to its sources; returns those that now have all of theirs."""
        free = []
        for edge in self.into[fn]:
            for blame in share.get(edge, ()):
                if isinstance(fn, Node):
                    blame = replace(blame, said=fn.rank)
                if isinstance(fn, Pick) or blame.output is not None:
                    blame = replace(blame, output=fn.output if isinstance(fn, Pick) else None)
                self.feedback.setdefault(edge.source, []).append(blame)
        for source in dict.fromkeys(edge.source for edge in self.into[fn]):
            self.pending[source] -= 1
            if not self.pending[source]:
                free.append(source)
        return free

    def heard(self, fn: GradFn) -> list[_Blame]:
        """What was said of a vertex, in the order of those who said it, each thing once."""
        said = sorted(self.feedback.get(fn, ()), key=lambda blame: blame.said)
        return list({(blame.text, blame.output): blame for blame in reversed(said)}.values())[::-1]

    def blames(self, fn: GradFn) -> list[_Blame]:
        """The same, as hooks make it."""
        blames = self.heard(fn)
        for hook in fn.value_hooks if blames else ():
            changed = hook(tuple(blame.text for blame in blames))
            if changed is not None:
                known = {blame.text: blame for blame in blames}
                blames = [known.get(text) or _Blame(text) for text in _blame_texts(changed)]
        return blames

    def _accumulate(self, fn: GradFn, parameter: Parameter, name: str, blames: Sequence[_Blame]) -> None:
        """Let a parameter have all that was said of the vertex that holds or read it."""
        for number, blame in enumerate(blames):
            path, index = (fn.path, fn.index) if isinstance(fn, Node) else (blame.path, blame.index)
            critique = Critique(
                self.example_id,
                path,
                index,
                name,
                blame.text,
                blame.evidence or {},
                verdict=self.verdict,
                lm=fn.lm if isinstance(fn, Node) else None,
            )
            self.found.append(((_rank(fn), blame.said, number), parameter, critique))

    async def judge(self, fn: GradFn) -> None:
        """Wait for a call's turn, have its blame divided, and hand it on."""
        await self.ready[fn]
        share: dict[Edge, Sequence[_Blame]] = {}
        blames = self.blames(fn)
        rule = rule_of(fn)
        path, index = (fn.path, fn.index) if isinstance(fn, Node) else (fn.kind, 0)
        if blames:
            feedback = tuple(blame.text for blame in blames)
            try:
                if rule is not None:
                    answer = await _follow(rule, self._passing(fn, blames))
                elif isinstance(fn, Node):
                    self.asked += 1
                    answer = await self._ask(fn, feedback)
                else:
                    answer = {}
            except ReplayError:
                raise
            except BaseException as error:  # kept in the report; the other calls go on
                if not aio.is_failure(error):
                    raise
                who = "critic" if rule is None else "rule"
                self.unanswered += rule is None
                self.skipped.append(Skipped(self.example_id, path, index, f"the {who} failed: {error!r}"))
                if rule is not None:
                    warn(f"the backward rule of {path} failed, so no blame passes: {error!r}", UserWarning)
            else:
                for hook in fn.hooks if isinstance(fn, Node) else ():
                    changed = hook(fn, feedback, answer)
                    if changed is not None and not isinstance(changed, Mapping):
                        raise TypeError(
                            f"a hook of {path} returned {changed!r}: a hook of a module's backward returns a mapping "
                            "from target to text, or None to leave the blame as it is"
                        )
                    answer = answer if changed is None else changed
                self._note_strangers(path, index, answer, [target.name for target in self._targets_of(fn)])
                share = self._divide(fn, answer, blames)
        self._settle(self._release(fn, share))

    def _note_strangers(self, path: str, index: int, answer: Mapping[str, Any], known: Sequence[str]) -> None:
        """Say of an answer what it blames and nobody asked about: a misspelt name would else be lost in silence."""
        strangers = [str(name) for name, text in answer.items() if name not in known and _blame_texts(text)]
        if strangers:
            names = f"{', '.join(map(repr, strangers))}; to blame may be {', '.join(known) or 'nothing'}"
            self.skipped.append(Skipped(self.example_id, path, index, f"an answer about what nobody asked: {names}"))

    async def _ask(self, node: Node, feedback: tuple[str, ...]) -> Mapping[str, str]:
        critic = self.critic
        if critic is None:
            raise GraphError(NO_CRITIC)
        failure = NodeFailure(node, self.row.example, feedback, self.targets[node])
        if self.repeat == 1:
            self.calls += 1
            async with self.gate:
                return _checked(await critic.critique(failure))
        answers: list[Mapping[str, str]] = []
        errors: list[BaseException] = []

        async def ask(replicate: int) -> Mapping[str, str] | BaseException:
            self.calls += 1
            try:
                async with self.gate:
                    return _checked(await critic.critique(replace(failure, replicate=replicate)))
            except ReplayError:
                raise
            except BaseException as error:  # one answer less
                if not aio.is_failure(error):
                    raise
                return error

        for answer in await aio.gather([partial(ask, replicate) for replicate in range(self.repeat)]):
            (errors if isinstance(answer, BaseException) else answers).append(answer)  # type: ignore[arg-type]
        if not answers:
            raise errors[0]
        if errors:
            reason = f"{len(errors)} of {self.repeat} answers failed, the first: {errors[0]!r}"
            self.skipped.append(Skipped(self.example_id, node.path, node.index, reason))
        said = agreed(answers, await self._similarities(failure, answers))
        for target, (_, share) in said.items():
            self.agreement[node, target] = share
        return {target: text for target, (text, _) in said.items()}

    async def _similarities(self, failure: NodeFailure, answers: Sequence[Mapping[str, str]]) -> dict[str, Similarity]:
        """How alike repeated answers about a target are, by target, as the critic says; else their words decide."""
        found: dict[str, Similarity] = {}
        critic: object = self.critic
        if not isinstance(critic, AgreeingCritic):
            return found
        for target, texts in blames(answers).items():
            if len(different := wordings(texts)) == 1:
                continue
            self.calls += 1
            try:
                async with self.gate:
                    found[target] = same_group(different, await critic.agreeing(failure, target, different))
            except ReplayError:
                raise
            except BaseException as error:
                if not aio.is_failure(error):
                    raise
                reason = f"the answers about '{target}' were compared by their words alone: {error!r}"
                self.skipped.append(Skipped(self.example_id, failure.node.path, failure.node.index, reason))
        return found

    def _divide(self, fn: GradFn, answer: Mapping[str, Any], blames: Sequence[_Blame]) -> dict[Edge, Sequence[_Blame]]:
        """What an answer gives to each parameter, and to each edge. A text that is only handed on keeps its origin."""
        share: dict[Edge, Sequence[_Blame]] = {}
        path, index = (fn.path, fn.index) if isinstance(fn, Node) else ("", 0)
        evidence: Mapping[str, Any] = {}
        if isinstance(fn, Node):
            feedback = tuple(blame.text for blame in blames)
            evidence = {"inputs": fn.inputs, "outputs": fn.outputs, "feedback": feedback}
        handed_on = {} if rule_of(fn) is None else {blame.text: blame for blame in blames}
        for number, target in enumerate(self._targets_of(fn)):
            texts = _blame_texts(answer.get(target.name))
            if not texts:
                continue
            if target.parameter is not None:
                for text in texts:
                    critique = Critique(
                        self.example_id,
                        path,
                        index,
                        target.name,
                        text,
                        evidence,
                        verdict=self.verdict,
                        lm=fn.lm if isinstance(fn, Node) else None,
                        agreement=self.agreement.get((fn, target.name), 1.0),
                    )
                    self.found.append(((_rank(fn), _LAST, number), target.parameter, critique))
                continue
            new = [handed_on.get(text) or _Blame(text, path, index, evidence) for text in texts]
            if isinstance(fn, Node):
                for text in texts:
                    blame = Blame(0, self.example_id, path, index, _field_of(target), "input", text)
                    self.passed.append(((_rank(fn), _LAST, number), blame))
            if isinstance(fn, Join):
                source = fn.sources[int(target.name)]
                share.update({edge: new for edge in self.into[fn] if edge.source is source})
            else:
                share.update({edge: new for edge in self.into[fn] if edge.field == _field_of(target)})
        return share

    # -- the forward as a whole -----------------------------------------------------------------------------------

    def whole(self) -> TraceFailure:
        """The forward and its parameters, for a critic that judges it in one call."""
        nodes = tuple(sorted((fn for fn in self.order if isinstance(fn, Node)), key=_rank))
        said = {seed: tuple(blame.text for blame in self.heard(seed)) for seed in self.seeds}
        last = {row.feedback or _default_feedback(row): None for _, row in self.rows if row.node is None}
        told = {
            node: rest for node in nodes if (rest := tuple(text for text in said.get(node, ()) if text not in last))
        }
        targets: dict[Parameter, Target] = {}
        for node in nodes:
            for target in self._own_targets(node) + self._demos(node, rule_of(node)):
                if target.parameter is not None and target.parameter not in targets:
                    name = target.parameter.name or f"{node.path}.{target.name}"
                    targets[target.parameter] = replace(target, name=name)
        for leaf in (fn for fn in self.order if isinstance(fn, AccumulateGrad)):  # read by the program's code
            parameter = leaf.parameter
            name = parameter.name or parameter.kind
            targets.setdefault(parameter, Target(name, parameter.kind, leaf.value, parameter))
        names: dict[str, None] = {}
        for parameter, target in targets.items():  # one name, one parameter
            name, number = target.name, 1
            while name in names:
                name, number = f"{target.name}#{number}", number + 1
            names[name] = None
            targets[parameter] = replace(target, name=name)
        edges = tuple(edge for node in nodes for edge in self.into[node])
        return TraceFailure(self.row.example, tuple(last), nodes, edges, told, tuple(targets.values()))

    def take(self, whole: TraceFailure, answer: Any) -> None:
        """Keep what a critic said of the parameters of the whole forward."""
        clean = _checked(answer)
        self._note_strangers("", 0, clean, [target.name for target in whole.targets])
        for number, target in enumerate(whole.targets):
            parameter = target.parameter
            if parameter is None:
                continue
            readers = [node for node in whole.nodes if any(read.parameter is parameter for read in node.reads)]
            node = (readers or whole.nodes)[-1]
            said = (*whole.feedback, *whole.told.get(node, ()))
            evidence = {"inputs": node.inputs, "outputs": node.outputs, "feedback": said}
            name = target.name.rpartition(".")[2].partition("#")[0]
            for text in _blame_texts(clean.get(target.name)):
                critique = Critique(
                    self.example_id, node.path, node.index, name, text, evidence, verdict=self.verdict, lm=node.lm
                )
                self.found.append(((node.rank, _LAST, number), parameter, critique))

    def give_up(self, error: BaseException) -> None:
        """Note that the critic gave no answer about the whole forward that could be read."""
        self.unanswered += 1
        self.skipped.append(Skipped(self.example_id, "", 0, f"the critic failed: {error!r}"))

    def told(self) -> list[Blame]:
        """Who was blamed for what, in the order of the calls."""
        told = list(self.passed)
        for place, parameter, critique in self.found:
            c = critique
            blame = Blame(0, c.example_id, c.path, c.index, c.target, parameter.kind, c.text, parameter.name)
            told.append((place, blame))
        return [replace(blame, row=self.number) for _, blame in sorted(told, key=lambda item: item[0])]


def example_id(example: Any) -> str:
    """How an example is called in gradients and reports; empty when there is none."""
    identity = getattr(example, "id", None)
    return "" if identity is None else str(identity)


async def _follow(rule: Rule, passing: Passing) -> Mapping[str, Any]:
    """The answer of a rule: ours in place, a user's function in a thread, a user's coroutine on a loop."""
    if is_built_in(rule):
        answer: Any = rule(passing)
    elif inspect.iscoroutinefunction(rule):
        answer = await aio.awaited(rule(passing))
    else:
        answer = await aio.in_thread(rule, passing)
    if not isinstance(answer, Mapping):
        raise TypeError(f"a rule answers with a mapping from target to text, not {answer!r}")
    return answer


def _checked(answer: Any) -> dict[str, Any]:
    """A critic's answer as plain data, so that whatever is wrong with it shows here, where it is one skipped call."""
    if not isinstance(answer, Mapping):
        raise TypeError(f"a critic answers with a mapping from target to text, not {answer!r}")
    clean = dict(answer.items())
    for name, text in clean.items():
        if text is not None and not isinstance(text, str):
            raise TypeError(f"a critic's answer about {name!r} is a text or None, not {text!r}")
    return clean


def _blame_texts(answer: Any) -> list[str]:
    """The texts of an answer that blame: of a text or of several."""
    several = answer if isinstance(answer, (list, tuple)) else (answer,)
    for item in several:
        if item is not None and not isinstance(item, str):
            raise TypeError(f"what is said of a value is a text, several texts or None, not {item!r}")
    return [text for item in several if (text := blame_in(item))]


def _input_targets(node: Node, edges: Sequence[Edge], own: Sequence[Target]) -> tuple[Target, ...]:
    taken = {target.name for target in own}
    fields = dict.fromkeys(edge.field or "" for edge in edges)
    return tuple(
        Target(f"input.{field}" if field in taken else field, "input", node.inputs.get(field)) for field in fields
    )


def _is_call_of(node: Node, path: str) -> bool:
    """Whether a call is one of the module at a path, or of a part of that module."""
    return node.path == path or node.path.startswith(f"{path}.")


def _field_of(target: Target) -> str:
    return target.name.removeprefix("input.")


def _broken_node(row: LossRow) -> Node | None:
    """The call whose failure ended the forward."""
    if row.error is None or row.tape is None:
        return None
    causes: list[BaseException] = []
    error: BaseException | None = row.error
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    for node in reversed(row.tape.nodes):
        if any(node.error is cause for cause in causes):
            return node
    return None


def _evidence(row: LossRow, text: str) -> dict[str, Any]:
    """What the loss knows of a sample, for a parameter that hears of it without a critic between them."""
    alone = isinstance(getattr(row.output, "grad_fn", None), AccumulateGrad)  # the output is the parameter's value
    return {"inputs": _given(row.example), **({} if alone else {"outputs": row.output}), "feedback": (text,)}


def _given(example: Any) -> dict[str, Any]:
    """The inputs of an example; all of it where they are not marked."""
    if example is None:
        return {}
    if getattr(example, "input_keys", None) is not None:
        return dict(example.inputs())
    if hasattr(example, "keys"):
        return {name: example[name] for name in example.keys()}  # noqa: SIM118 - not a mapping
    return {"input": example}


def _default_feedback(row: LossRow) -> str:
    if row.error is not None:
        frames = traceback.extract_tb(row.error.__traceback__)
        theirs = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
        lines = traceback.format_list((theirs or frames)[-_FRAMES:])
        lines += traceback.format_exception_only(type(row.error), row.error)
        return "the call failed:\nTraceback (most recent call last):\n" + "".join(lines).strip()
    labels = _labels(row.example, row.tape)
    if labels:
        return "; ".join(f"the {name} should be {value}" for name, value in labels.items())
    return f"the output scores {row.score:g} of {row.best:g}"


def _labels(example: Any, tape: Tape | None) -> dict[str, Any]:
    if getattr(example, "input_keys", None) is not None:
        return dict(example.labels())
    if tape is None or not tape.inputs or not hasattr(example, "keys"):
        return {}
    return {name: example[name] for name in example.keys() if name not in tape.inputs}  # noqa: SIM118 - not a mapping
