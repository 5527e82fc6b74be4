"""`JointCritic`, which judges complete forwards side by side: one call for all parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptgrad._error_text import error_text
from promptgrad._numbers import check_count
from promptgrad.autograd import PROGRAM, Node, TraceFailure, TraceSuccess, critic_of, no_grad
from promptgrad.errors import NoLMError
from promptgrad.lm import LM, current, resolve
from promptgrad.nn._fit import fit, size
from promptgrad.nn._module import Module
from promptgrad.nn._plain import is_narrow, plain, seen_by
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import fields_of
from promptgrad.signature import Field, Signature

INSTRUCTION = f"""\
A program made of language-model calls was run on several examples. `runs` shows each run from beginning to end: its \
calls in their order, what each was given (`uses` says which field of which earlier call an input came from), what it \
wrote, and whether the result is wrong or right; `feedback` says what was wrong with it. `steps` says what each call \
is given and what it may answer. `parameters` holds the texts and the demos (solved examples) that can be changed, by \
name; each call says in `follows` which of them it was shown.

Find the causes of the failures. Compare the wrong runs with one another and with the right ones: what separates them \
tells which rule is missing, and what is right has to stay right. For each cause write one finding:
- `runs`: the numbers of all wrong runs that it explains.
- `parameter`: the name of the text or the demos that has to change. If the fault lies in the program's own code, such \
as a call that is given the wrong value, write "{PROGRAM}".
- `critique`: what the text gets wrong, leaves open or leaves out, and which general rule it should state instead. Be \
concrete about that rule, as far as the feedback shows it, but do not just repeat the answer to one run: the text has \
to work for all other inputs of this kind. Of demos, say which one misleads, and what it should show instead. Whoever \
rewrites the text may see this finding alone, so it has to be understood without the others.
- `to_blame`: whether the parameter is a cause. Of one that you examined and found right, it is false.

A call that did what it was told, with an input that was already wrong, is not the cause: look for the call that wrote \
that input. A run in which several parameters are wrong has several findings."""

SUCCESSES = 4
"""Most successful runs that one call is shown."""


@dataclass
class Finding:
    """What is wrong with one parameter, according to some runs."""

    runs: list[int] = field(default_factory=list)
    parameter: str = ""
    critique: str = ""
    to_blame: bool = True


class JointCritic(Module, in_place=True):
    """Find, for complete failed forwards side by side, what is wrong with each parameter of the program.

    The engine "joint" of `loss.backward` calls it; `nn.Critic` has one as `.joint`. It is an ordinary program on the
    signature "JointCritique", with a visible and by default frozen instruction. It sees a group of failed forwards, and
    the successful ones that are nearest to them as far as `max_tokens` leaves room. Texts and demos that require a
    gradient are always shown in full, and frozen ones are not shown; inputs and outputs of calls are cut in the middle,
    the longest first, if a run would be longer than `max_tokens`.

    Images, sounds and files are shown as they are to an LM that is known to take them, or that answered one of the
    calls with one, and by their captions to others.

    A finding names all runs that it explains, each of which gets it: so the support of a critique counts runs. What is
    wrong with the program's own code is no gradient, and stands in the report (`BackwardReport.remarks`).

    Cost: one LM call per group of failed forwards.

    Source: the minimal subgraph with its feedback, for one call, is the idea of OptoPrime (Cheng et al. 2024, arXiv
    2406.16218). Differs: the call names what is to blame and proposes nothing, so that critiques of many batches add
    up; it compares several runs, right ones among them.

    Args:
        lm: The LM that criticises; else that of the context, else that of a parameter (`Parameter.critic`), else the LM
            that answered the last call of the run.
        instruction: The critic's own instruction.
        group: Most failed forwards in one call.
        max_tokens: About how many tokens the runs in one call may have; a group is closed earlier if they are longer.

    Raises:
        ValueError: `max_tokens` or `group` is below 1.
    """

    def __init__(
        self,
        lm: LM | str | None = None,
        *,
        instruction: str = INSTRUCTION,
        group: int = 8,
        max_tokens: int = 16_000,
    ) -> None:
        super().__init__()
        check_count("group", group, what="a number of failed forwards")
        if max_tokens < 1:
            raise ValueError(f"max_tokens is at least 1, not {max_tokens}")
        self.group = group
        self.max_tokens = max_tokens
        self.predict = Predict(_signature(instruction))
        self.predict.requires_grad_(requires_grad=False)
        if lm is not None:
            self.to(lm)

    def groups(self, failures: Sequence[TraceFailure], size: int | None = None) -> list[list[TraceFailure]]:
        """Groups of up to `group` forwards (or `size`), in order; none for a model that knows only its own tasks.

        A group ends earlier if it would exceed `max_tokens`, or if one name would stand for two texts.
        """
        most = self.group if size is None else size
        found: list[list[TraceFailure]] = []
        known: dict[str, tuple[Any, Any]] = {}
        room = 0
        for failure in failures:
            if is_narrow(self.predict, self._lm_for(failure)):
                return []
            length = _length(failure)
            shown = {target.name: (target.parameter, target.value) for target in failure.targets}
            stranger = any(known.get(name, text) != text for name, text in shown.items())
            if not found or len(found[-1]) == most or length > room or stranger:
                found.append([])
                known = {}
                room = self.max_tokens
            found[-1].append(failure)
            known |= shown
            room -= length
        return found

    async def critique_traces(self, group: Sequence[TraceFailure]) -> list[dict[str, list[str]]]:
        """For each forward, what is wrong with each parameter that is to blame, by its name.

        Raises:
            ParseError: The reply does not hold the findings asked for, after the re-asks.
            LMError: The critic's LM did not answer.
            NoLMError: The critic has no LM.
        """
        with no_grad():
            answers: list[dict[str, list[str]]] = await self.acall(group)
        return answers

    async def forward(self, group: Sequence[TraceFailure]) -> list[dict[str, list[str]]]:
        """Ask the LM once and sort its findings by run.

        Raises:
            NoLMError: Neither the critic nor the context nor a call has a language model.
        """
        lm = self._lm_for(group[-1])
        if lm is None:
            raise NoLMError("the critic has no language model: give one to the criterion, as in critic='openai/gpt-4o'")
        nodes = [node for failure in group for node in failure.nodes]
        shown = runs_of(group, self.max_tokens, seen_by(resolve(lm), nodes))
        prediction = await self.predict.acall(**shown, lm=lm)
        found: list[dict[str, list[str]]] = [{} for _ in group]
        for finding in fields_of(prediction)["findings"]:
            text = finding.critique.strip()
            if not text or not finding.to_blame:
                continue
            named = [number for number in dict.fromkeys(finding.runs) if 1 <= number <= len(group)]
            name = finding.parameter
            if not named and finding.runs:  # runs that were right, or that do not exist
                name, named = f"{name} of run {finding.runs[0]}", [1]  # not a target, which the report shows
            for number in named or range(1, len(group) + 1):
                known = found[number - 1].setdefault(name, [])
                if text not in known:
                    known.append(text)
        return found

    def _lm_for(self, failure: TraceFailure) -> LM | None:
        answered = (lm_of(node) for node in reversed(failure.nodes) if node.lm is not None)
        return self._lm or current().critic or next(answered, None)


def lm_of(node: Node) -> LM | None:
    """The LM that criticises a call where no critic is set."""
    lm = critic_of(node)
    return None if lm is None else resolve(lm)


def runs_of(group: Sequence[TraceFailure], max_tokens: int, media: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What a reader of whole forwards is shown: parameters, steps, and runs, the failed ones first.

    Successful runs follow, the nearest of each failed one by turns, as far as the failed ones leave room.

    Args:
        group: The failed forwards.
        max_tokens: About how many tokens the runs may have.
        media: Kinds of media that are shown as they are.
    """
    names = {target.parameter: target.name for failure in group for target in failure.targets}
    failed = fit([_calls(failure, names, failure.node_feedback, media) for failure in group], max_tokens)
    runs = [
        {"run": number, "result": "wrong", "calls": calls, "feedback": "\n".join(failure.feedback)}
        for number, (calls, failure) in enumerate(zip(failed, group, strict=True), 1)
    ]
    room = max_tokens - size(failed)
    for success in _side_by_side(group):
        calls = _calls(success, names, {}, media)
        room -= size(calls)
        if room < 0:
            break
        runs.append({"run": len(runs) + 1, "result": "right", "calls": calls})
    return {
        "parameters": {target.name: plain(target.value, media) for failure in group for target in failure.targets},
        "steps": _steps(group),
        "runs": runs,
    }


def _side_by_side(group: Sequence[TraceFailure]) -> list[TraceSuccess]:
    """The successes nearest to each failure of a group, by turns and once each."""
    found: dict[tuple[Node, ...], TraceSuccess] = {}
    for place in range(max(len(failure.successes) for failure in group)):
        for failure in group:
            for success in failure.successes[place : place + 1]:
                found.setdefault(success.nodes, success)
    return list(found.values())[:SUCCESSES]


def _length(failure: TraceFailure) -> int:
    names = {target.parameter: target.name for target in failure.targets}
    return size(_calls(failure, names, failure.node_feedback))


def _calls(
    trace: TraceFailure | TraceSuccess,
    names: Mapping[Any, str],
    feedback: Mapping[Node, Sequence[str]],
    media: frozenset[str] = frozenset(),
) -> list[dict[str, Any]]:
    """The calls of a forward as data: for each its parameters, its inputs with their sources, and its outputs."""
    uses: dict[Node, list[str]] = {}
    for edge in trace.edges:
        if isinstance(edge.source, Node) and isinstance(edge.target, Node):
            into = f"{edge.field}: " if edge.field else ""
            written = _field_of(edge.source, edge.target.inputs.get(edge.field or ""))
            uses.setdefault(edge.target, []).append(f"{into}{edge.source.path}[{edge.source.index}]{written}")
    calls = []
    for node in trace.nodes:
        call: dict[str, Any] = {"call": f"{node.path}[{node.index}]"}
        follows = [names[read.parameter] for read in node.reads if read.parameter in names]
        if follows:
            call["follows"] = follows
        if node in uses:
            call["uses"] = list(dict.fromkeys(uses[node]))
        call["inputs"] = {name: plain(value, media) for name, value in node.inputs.items()}
        if node.error is not None:
            call["error"] = error_text(node.error)
        else:
            call["outputs"] = {name: plain(value, media) for name, value in node.outputs.items()}
        if node in feedback:
            call["feedback"] = "\n".join(feedback[node])
        calls.append(call)
    return calls


def _field_of(writer: Node, value: Any) -> str:
    """Which output of a call an input came from, as ".facts"; empty where that cannot be told."""
    if len(writer.outputs) == 1:
        return f".{next(iter(writer.outputs))}"
    given = str(plain(value))
    held = [name for name, output in writer.outputs.items() if (text := str(plain(output))) and text in given]
    return f".{max(held, key=lambda name: len(str(plain(writer.outputs[name]))))}" if held else ""


def _steps(group: Sequence[TraceFailure]) -> dict[str, str]:
    """The signatures of the calls, by path: their fields with types and descriptions."""
    found: dict[str, str] = {}
    for node in (node for failure in group for node in failure.nodes):
        program = node.tape.program
        if node.kind == "lm" and node.path not in found and isinstance(program, Module):
            try:
                signature = getattr(program.get_submodule(node.path), "signature", None)
            except AttributeError:  # called under a path that the program does not have any more
                continue
            if isinstance(signature, Signature):
                found[node.path] = _described(signature)
    return found


def _described(signature: Signature) -> str:
    """A signature in one line, and a line for each field with a description."""
    told = [f"{name}: {field.description}" for name, field in signature.fields.items() if field.description]
    return "\n".join([repr(signature), *told])


def _signature(instruction: str) -> Signature:
    return Signature(
        [
            Field("parameters", dict[str, Any], "the texts and demos that can be changed, by name, in full", "input"),
            Field("steps", dict[str, str], "what each call is given and what it may answer", "input"),
            Field("runs", list[dict[str, Any]], "the runs, wrong ones first, each with its calls in order", "input"),
            Field("findings", list[Finding], "one for each cause", "output"),
        ],
        instruction,
        name="JointCritique",
    )
