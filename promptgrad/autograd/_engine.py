"""The backward pass.

The walk over the graph is plain Python and takes no LM call. It leaves, for each failed sample, the calls that read a
wanted text parameter, or through which one can be reached. These get one critic call each, as soon as all calls that
used their outputs have had theirs; samples and branches run side by side. Results are merged in the order of the
batch, then of the calls, so that the same answers give the same gradient at any speed.
"""

import inspect
import time
import traceback
import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from promptgrad import aio
from promptgrad.autograd._anomaly import current_detector
from promptgrad.autograd._blame import Blame
from promptgrad.autograd._critic import RIGHT, Critic, NodeFailure, Target, WeightTrace
from promptgrad.autograd._edges import Edge, exact_sources, joined_sources, texts_of
from promptgrad.autograd._gradient import Critique, Gradient, Trace
from promptgrad.autograd._loss_row import LossRow
from promptgrad.autograd._node import AccumulateGrad, GradFn, Join, Node, Pick
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._rules import Passing, Rule, is_built_in, pass_through, rule_of, targets_of_join
from promptgrad.autograd._tape import Tape
from promptgrad.autograd._walk import Walk
from promptgrad.errors import BudgetExceeded, ContextWindowError, GraphError, LMError, MetricError

_TEXTS = ("instruction", "description")
_FRAMES = 4  # of a traceback, the innermost

Terms = Sequence[tuple[float, Sequence[LossRow], "Critic | None"]]


@dataclass(frozen=True)
class Skipped:
    """A call that got no critique although it was due one, and why."""

    example_id: str
    path: str
    index: int
    reason: str


@dataclass(frozen=True)
class BackwardReport:
    """What a backward pass did.

    Attributes:
        rows: Samples in the loss.
        failed: Samples below the best score.
        errors: Samples without a score, because the program or the metric failed.
        calls: Critic calls.
        skipped: Calls that got no critique although they were due one.
        reached: Names of the parameters whose gradient grew.
        unreached: Names of the wanted parameters that were read in a failed sample and got nothing.
        seconds: Wall time.
        blames: Who is blamed for what, by row and then by call.
    """

    rows: int
    failed: int
    errors: int
    calls: int
    skipped: tuple[Skipped, ...]
    reached: tuple[str, ...]
    unreached: tuple[str, ...]
    seconds: float
    blames: tuple[Blame, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        head = f"{self.failed} of {self.rows} failed"
        if self.errors:
            head += f", {self.errors} error{'' if self.errors == 1 else 's'}"
        if not self.failed and not self.errors and not self.calls:
            got = f", traces for {', '.join(self.reached)}" if self.reached else ""
            return f"BackwardReport({head}, nothing to do{got})"
        parts = [head, f"{self.calls} critic calls", f"reached: {', '.join(self.reached) or 'nothing'}"]
        if self.unreached:
            parts.append(f"unreached: {', '.join(self.unreached)}")
        if self.skipped:
            first = self.skipped[0]
            parts.append(f"{len(self.skipped)} skipped (first: {first.path}[{first.index}]: {first.reason})")
        return f"BackwardReport({'; '.join(parts)}; {self.seconds:.2f} s)"


class Wanted:
    """Which parameters shall get a gradient."""

    def __init__(self, inputs: Iterable[Parameter] | None) -> None:
        self._only = None if inputs is None else dict.fromkeys(inputs)

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


class _RowPass:
    """The backward pass of one failed sample."""

    def __init__(self, row: LossRow, critic: Critic | None, wanted: Wanted) -> None:
        self.row = row
        self.critic = critic
        self.wanted = wanted
        self.example_id = example_id(row.example)
        self.verdict = "wrong" if row.error is None else "error"
        self.calls = 0
        self.skipped: list[Skipped] = []
        self.found: list[tuple[tuple[int, int], Parameter, Critique]] = []
        self.passed: list[tuple[tuple[int, int], Blame]] = []
        self.feedback: dict[GradFn, list[tuple[int, _Blame]]] = {}
        self.pending: dict[GradFn, int] = {}
        self.into: dict[GradFn, list[Edge]] = {}
        self.ready: dict[GradFn, aio.Signal[None]] = {}
        self.targets: dict[GradFn, tuple[Target, ...]] = {}
        self.walk = Walk()
        self.seeds = self._seed()
        self._prune()

    def _seed(self) -> list[GradFn]:
        """Give the loss's feedback to what it is about, and say where to begin."""
        row = self.row
        broken = _broken_node(row)
        if broken is not None and _is_outage(broken.error):
            self.skipped.append(Skipped(self.example_id, broken.path, broken.index, f"no answer: {broken.error!r}"))
            return []
        if isinstance(row.error, MetricError):  # the judge failed, not the program
            self.skipped.append(Skipped(self.example_id, "", 0, f"no score: {row.error}"))
            return []
        blame = _Blame(row.feedback or _default_feedback(row))
        if broken is not None:
            self.feedback[broken] = [(0, blame)]
            return [broken]
        sources = dict.fromkeys(edge.source for edge in self.walk.into_output(row.tape, row.output))
        for source in sources:
            self.feedback[source] = [(1 << 63, blame)]
        return list(sources)

    def _prune(self) -> None:
        """Keep the vertices from which a wanted text parameter can be reached, and count the users of each."""
        self.walk.add(self.seeds)
        needed: dict[GradFn, None] = {}
        order = self.walk.vertices()
        for fn in order:
            edges = [edge for edge in self.walk.into(fn) if edge.source in needed]
            own = self._own_targets(fn)
            if edges or own or (isinstance(fn, AccumulateGrad) and self.wanted(fn.parameter)):
                needed[fn] = None
                self.into[fn] = edges
                rule = rule_of(fn)
                if isinstance(fn, Node) and rule is not pass_through:
                    self.targets[fn] = own + _input_targets(fn, edges, own)
                if not is_built_in(rule) and not isinstance(fn, AccumulateGrad):
                    self.ready[fn] = aio.Signal()
        for fn in needed:
            self.pending.setdefault(fn, 0)
            for source in dict.fromkeys(edge.source for edge in self.into[fn]):
                self.pending[source] = self.pending.get(source, 0) + 1
        self.order = [fn for fn in order if fn in needed]

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

    @property
    def failures(self) -> list[GradFn]:
        """The calls that may need the critic, the last ones first."""
        return [fn for fn in reversed(self.order) if fn in self.ready]

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
                for number in range(len(fn.output_fields))
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
        place = fn.place
        free = []
        for edge in self.into[fn]:
            for blame in share.get(edge, ()):
                if isinstance(fn, Pick) or blame.output is not None:
                    blame = replace(blame, output=fn.output if isinstance(fn, Pick) else None)
                self.feedback.setdefault(edge.source, []).append((place, blame))
        for source in dict.fromkeys(edge.source for edge in self.into[fn]):
            self.pending[source] -= 1
            if not self.pending[source]:
                free.append(source)
        return free

    def blames(self, fn: GradFn) -> list[_Blame]:
        """What was said of a vertex, in the order of those who said it, each thing once; as hooks make it."""
        said = sorted(self.feedback.get(fn, ()), key=lambda item: item[0])
        blames = list({(blame.text, blame.output): blame for _, blame in reversed(said)}.values())[::-1]
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
            self.found.append(((fn.place, number), parameter, critique))

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
                    answer = await self._ask(fn, feedback)
                else:
                    answer = {}
            except Exception as error:  # noqa: BLE001 - kept in the report; the other calls go on
                who = "critic" if rule is None else "rule"
                self.skipped.append(Skipped(self.example_id, path, index, f"the {who} failed: {error!r}"))
                if rule is not None:
                    warnings.warn(f"the backward rule of {path} failed, so no blame passes: {error!r}", stacklevel=2)
            else:
                for hook in fn.hooks if isinstance(fn, Node) else ():
                    changed = hook(fn, feedback, answer)
                    answer = answer if changed is None else changed
                share = self._divide(fn, answer, blames)
        self._settle(self._release(fn, share))

    async def _ask(self, node: Node, feedback: tuple[str, ...]) -> Mapping[str, str]:
        if self.critic is None:
            raise GraphError(NO_CRITIC)
        self.calls += 1
        answer = await self.critic.critique(NodeFailure(node, self.row.example, feedback, self.targets[node]))
        return _checked(answer)

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
                    )
                    self.found.append(((fn.place, number), target.parameter, critique))
                continue
            new = [handed_on.get(text) or _Blame(text, path, index, evidence) for text in texts]
            if isinstance(fn, Node):
                for text in texts:
                    blame = Blame(0, self.example_id, path, index, _field_of(target), "input", text)
                    self.passed.append(((fn.place, number), blame))
            if isinstance(fn, Join):
                source = fn.sources[int(target.name)]
                share.update({edge: new for edge in self.into[fn] if edge.source is source})
            else:
                share.update({edge: new for edge in self.into[fn] if edge.field == _field_of(target)})
        return share

    def told(self, row: int) -> list[Blame]:
        """Who was blamed for what, in the order of the calls."""
        told = list(self.passed)
        for place, parameter, critique in self.found:
            c = critique
            blame = Blame(row, c.example_id, c.path, c.index, c.target, parameter.kind, c.text, parameter.name)
            told.append((place, blame))
        return [replace(blame, row=row) for _, blame in sorted(told, key=lambda item: item[0])]


NO_CRITIC = (
    "backward() met a failed sample and has nobody to ask who is to blame: "
    "pass backward(critic=...), or give one to the criterion, as in nn.MetricLoss(metric, critic='openai/gpt-4o')"
)


class Backward:
    """One backward pass over the rows of a loss: the walk when it is made, the LM calls in `run`."""

    def __init__(
        self,
        terms: Terms,
        critic: Critic | None,
        inputs: Iterable[Parameter] | None,
        *,
        retain_graph: bool,
        weights: bool | None,
    ) -> None:
        self.began = time.perf_counter()
        self.wanted = Wanted(inputs)
        self.retain_graph = retain_graph
        self.weights = weights
        self.terms = [(scale, [_with_tape(row) for row in rows], own) for scale, rows, own in terms]
        self.rows = [row for _, rows, _ in self.terms for row in rows]
        self._check()
        self.passes: dict[int, _RowPass] = {}
        number = 0
        for _, rows, own in self.terms:
            for row in rows:
                if row.failed:
                    self.passes[number] = _RowPass(row, critic or own, self.wanted)
                number += 1
        if any(one.critic is None and one.asks for one in self.passes.values()):
            raise GraphError(NO_CRITIC)
        self.traced = self._traced_weights()

    def _check(self) -> None:
        for row in self.rows:
            if row.tape is not None and row.tape.freed:
                raise GraphError(
                    "backward() was called a second time on the same forwards, and the first freed what they recorded: "
                    "write backward(retain_graph=True) the first time, or run the forwards again"
                )
        if self.rows and all(row.tape is None for row in self.rows):
            raise GraphError(
                "nothing was recorded in the forwards of this loss: they ran under no_grad() or inference_mode(), "
                "or no parameter of the program has requires_grad=True"
            )

    @property
    def suspends(self) -> bool:
        """Whether `run` has anything to wait for."""
        return bool(self.traced) or any(one.failures for one in self.passes.values())

    async def run(self) -> BackwardReport:
        """Ask the critics, then add what they say, and the traces, to the parameters' gradients."""
        detector = current_detector()
        if detector is not None:
            detector.before_backward(self.rows)
        judges = []
        for one in self.passes.values():
            one.begin()
            judges += [(one, fn) for fn in one.failures]
        await aio.gather([lambda one=one, fn=fn: one.judge(fn) for one, fn in judges])  # type: ignore[misc]
        for trace, advantage in self.traced:
            await aio.in_thread(trace.backward, advantage)
        never = [] if detector is None else self._never_read()
        report = self._accumulate()
        if detector is not None:
            detector.after_backward(self.rows, report, never)
        unanswered = [skip for skip in report.skipped if not skip.reason.startswith("the rule")]
        if unanswered and len(unanswered) >= report.calls > 0:
            warnings.warn(f"every critic call failed, so no text was blamed: {report}", RuntimeWarning, stacklevel=2)
        if not self.retain_graph:
            for row in self.rows:
                if row.tape is not None:
                    row.tape.free()
        return report

    def _never_read(self) -> list[Parameter]:
        """Wanted parameters of the programs that no failed forward read."""
        tapes = [one.row.tape for one in self.passes.values() if one.row.tape is not None]
        programs = dict.fromkeys(tape.program for tape in tapes if tape.program is not None)
        read = {read.parameter for tape in tapes for read in tape.reads}
        every = dict.fromkeys(parameter for program in programs for parameter in program.parameters())
        return [parameter for parameter in every if self.wanted(parameter) and parameter not in read]

    def _accumulate(self) -> BackwardReport:
        shares: dict[Parameter, list[Critique | Trace]] = {}
        wanted: dict[Parameter, str] = {}
        for number, row in enumerate(self.rows):
            one = self.passes.get(number)
            if one is not None:
                for _, parameter, critique in sorted(one.found, key=lambda item: item[0]):
                    shares.setdefault(parameter, []).append(critique)
            for node in () if row.tape is None else row.tape.nodes:
                for read in node.reads:
                    if self.wanted(read.parameter):
                        if one is not None:
                            wanted.setdefault(read.parameter, read.parameter.name or f"{node.path}.{read.name}")
                        if read.parameter.kind == "demos" and row.error is None and node.error is None:
                            trace = Trace(
                                example_id(row.example), node.path, node.index, node.inputs, node.outputs, row.score
                            )
                            shares.setdefault(read.parameter, []).append(trace)
        grown = {parameter: parameter.hooked(Gradient(records)) for parameter, records in shares.items()}
        for parameter, share in grown.items():
            self.deliver(parameter, share)
            wanted.setdefault(parameter, parameter.name or parameter.kind)
        passes = self.passes.values()
        return BackwardReport(
            rows=len(self.rows),
            failed=sum(one.row.error is None for one in passes),
            errors=sum(one.row.error is not None for one in passes),
            calls=sum(one.calls for one in passes),
            skipped=tuple(skip for one in passes for skip in sorted(one.skipped, key=lambda s: (s.path, s.index))),
            reached=tuple(name for parameter, name in wanted.items() if parameter in shares),
            unreached=tuple(name for parameter, name in wanted.items() if parameter not in shares),
            seconds=time.perf_counter() - self.began,
            blames=tuple(blame for number, one in self.passes.items() for blame in one.told(number)),
        )

    def deliver(self, parameter: Parameter, gradient: Gradient) -> None:
        """Let a parameter have its share: the only place where gradients grow."""
        parameter.accumulate(gradient)

    def _traced_weights(self) -> list[tuple[WeightTrace, float]]:
        """The local models' samples with their advantages: score minus the mean over the example's rollouts."""
        if self.weights is False:
            return []
        traced = []
        for scale, rows, _ in self.terms:
            groups: dict[Any, list[float]] = {}
            for row in rows:
                if row.error is None:
                    groups.setdefault(_group(row), []).append(row.score)
            for row in rows:
                if row.error is not None or row.tape is None:
                    continue
                scores = groups[_group(row)]
                advantage = scale * (row.score - sum(scores) / len(scores))
                if advantage:
                    traced += [
                        (trace, advantage)
                        for node in row.tape.nodes
                        for trace in node.weight_traces
                        if self.weights or trace.requires_grad
                    ]
        return traced


def _with_tape(row: LossRow) -> LossRow:
    """The row, with the tape that its output comes from where the caller did not say."""
    if row.tape is not None:
        return row
    for fn in exact_sources(row.output):
        for source in joined_sources(fn):
            if isinstance(source, Node):
                return replace(row, tape=source.tape)
    return row


def example_id(example: Any) -> str:
    """How an example is called in gradients and reports; empty when there is none."""
    identity = getattr(example, "id", None)
    return "" if identity is None else str(identity)


def _group(row: LossRow) -> Any:
    return example_id(row.example) or id(row.example)


async def _follow(rule: Rule, passing: Passing) -> Mapping[str, Any]:
    """The answer of a rule: ours in place, a user's function in a thread, a user's coroutine on a loop."""
    if is_built_in(rule):
        answer: Any = rule(passing)
    elif inspect.iscoroutinefunction(rule):
        answer = await (aio.on_program(rule, passing) if aio.is_driven() else rule(passing))
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
    return [text for item in several if (text := _blame_text(item))]


def _blame_text(answer: Any) -> str:
    text = "" if answer is None else str(answer).strip()
    return "" if text.casefold().rstrip(".!") == RIGHT else text


def _input_targets(node: Node, edges: Sequence[Edge], own: Sequence[Target]) -> tuple[Target, ...]:
    taken = {target.name for target in own}
    fields = dict.fromkeys(edge.field or "" for edge in edges)
    return tuple(
        Target(f"input.{field}" if field in taken else field, "input", node.inputs.get(field)) for field in fields
    )


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


def _is_outage(error: BaseException | None) -> bool:
    """Whether no wording of a prompt could have avoided this."""
    return isinstance(error, (LMError, BudgetExceeded)) and not isinstance(error, ContextWindowError)


def _default_feedback(row: LossRow) -> str:
    if row.error is not None:
        lines = traceback.format_exception(type(row.error), row.error, row.error.__traceback__, limit=-_FRAMES)
        return "the call failed:\n" + "".join(lines).strip()
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
