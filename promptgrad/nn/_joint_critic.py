"""`JointCritic`, which judges complete forwards: one call for all parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptgrad.autograd import Node, TraceFailure, no_grad
from promptgrad.errors import NoLMError
from promptgrad.lm import LM, current
from promptgrad.nn._fit import fit, size
from promptgrad.nn._module import Module
from promptgrad.nn._plain import is_narrow, is_right, plain
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import fields_of
from promptgrad.signature import Field, Signature

INSTRUCTION = """\
A program made of language-model calls was run, and the results were not good enough. `runs` shows each run from \
beginning to end: its calls in their order, what each was given (`uses` names the earlier calls that an input came \
from), what it wrote, and in `feedback` what was wrong with the result. `parameters` holds the texts and the demos \
(solved examples) that can be changed, by name; each call says in `follows` which of them it was shown.

Find the root cause of each failure and say which parameters have to change. For each parameter that is to blame for a \
run, write one finding: the run's number, the parameter's name, and a critique that says what the text gets wrong, \
leaves open or leaves out, and which general rule it should state instead. Be concrete about that rule, as far as the \
feedback shows it, but do not just repeat the answer to one run: the text has to work for all other inputs of this \
kind. Of demos, say which one misleads, and what it should show instead.

A call that did what it was told, with an input that was already wrong, is not the cause: look for the call that wrote \
that input. A parameter that is right has no finding."""


@dataclass
class Finding:
    """What is wrong with one parameter, according to one run."""

    run: int
    parameter: str
    critique: str


class JointCritic(Module, in_place=True):
    """Find, for complete failed forwards, what is wrong with each parameter of the program.

    The engine "joint" of `loss.backward` calls it; `nn.Critic` has one as `.joint`. It is an ordinary program on the
    signature "JointCritique", with a visible and by default frozen instruction. Texts and demos that require a gradient
    are always shown in full, and frozen ones are not shown; inputs and outputs of calls are cut in the middle, the
    longest first, if a run would be longer than `max_tokens`.

    Cost: one LM call per group of failed forwards.

    Source: the minimal subgraph with its feedback, for one call, is the idea of OptoPrime (Cheng et al. 2024, arXiv
    2406.16218). Differs: the call names what is to blame and proposes nothing, so that critiques of many batches add
    up.

    Args:
        lm: The LM that criticises; else that of the context, else the LM that answered the last call of the run.
        instruction: The critic's own instruction.
        group: Most failed forwards in one call.
        max_tokens: About how many tokens the runs in one call may have; a group is closed earlier if they are longer.
    """

    def __init__(
        self,
        lm: LM | str | None = None,
        *,
        instruction: str = INSTRUCTION,
        group: int = 1,
        max_tokens: int = 16_000,
    ) -> None:
        super().__init__()
        if group < 1:
            raise ValueError(f"group is a number of failed forwards and at least 1, not {group}")
        if max_tokens < 1:
            raise ValueError(f"max_tokens is at least 1, not {max_tokens}")
        self.group = group
        self.max_tokens = max_tokens
        self.predict = Predict(_signature(instruction))
        self.predict.requires_grad_(requires_grad=False)
        if lm is not None:
            self.to(lm)

    def groups(self, failures: Sequence[TraceFailure]) -> list[list[TraceFailure]]:
        """Groups of up to `group` forwards, in order; no groups for a model without this format.

        A group ends earlier if it would exceed `max_tokens`, or if one name would stand for two texts.
        """
        found: list[list[TraceFailure]] = []
        known: dict[str, tuple[Any, Any]] = {}
        room = 0
        for failure in failures:
            lm = self._lm_for(failure)
            if is_narrow(self.predict, lm):
                return []
            length = size(_calls(failure))
            shown = {target.name: (target.parameter, target.value) for target in failure.targets}
            stranger = any(known.get(name, text) != text for name, text in shown.items())
            if not found or len(found[-1]) == self.group or length > room or stranger:
                found.append([])
                known = {}
                room = self.max_tokens
            found[-1].append(failure)
            known |= shown
            room -= length
        return found

    async def critique_traces(self, group: Sequence[TraceFailure]) -> list[dict[str, str]]:
        """For each forward, what is wrong with each parameter that is to blame, by its name.

        Raises:
            ParseError: The reply does not hold the findings asked for, after the re-asks.
            LMError: The critic's LM did not answer.
            NoLMError: The critic has no LM.
        """
        with no_grad():
            answers: list[dict[str, str]] = await self.acall(group)
        return answers

    async def forward(self, group: Sequence[TraceFailure]) -> list[dict[str, str]]:
        """Ask the LM once and sort its findings by run."""
        lm = self._lm_for(group[-1])
        if lm is None:
            raise NoLMError("the critic has no language model: give one to the criterion, as in critic='openai/gpt-4o'")
        parameters = {target.name: plain(target.value) for failure in group for target in failure.targets}
        calls = fit([_calls(failure) for failure in group], self.max_tokens)
        runs = [
            {"run": number, "calls": calls[number - 1], "feedback": "\n".join(failure.feedback)}
            for number, failure in enumerate(group, 1)
        ]
        prediction = await self.predict.acall(parameters=parameters, runs=runs, lm=lm)
        found: list[dict[str, str]] = [{} for _ in group]
        for finding in fields_of(prediction)["findings"]:
            text = finding.critique.strip()
            if not text or is_right(text):
                continue
            one, name = finding.run - 1, finding.parameter
            if not 0 <= one < len(group):
                one, name = 0, f"{name} of run {finding.run}"  # not a target, which the report shows
            known = found[one].get(name)
            found[one][name] = text if known is None else f"{known}\n{text}"
        return found

    def _lm_for(self, failure: TraceFailure) -> LM | None:
        answered = (node.lm for node in reversed(failure.nodes) if node.lm is not None)
        return self._lm or current().critic or next(answered, None)


def _calls(failure: TraceFailure) -> list[dict[str, Any]]:
    """The calls of a forward as data: for each its parameters, its inputs with their sources, and its outputs."""
    names = {target.parameter: target.name for target in failure.targets}
    uses: dict[Node, list[str]] = {}
    for edge in failure.edges:
        if isinstance(edge.source, Node) and isinstance(edge.target, Node):
            field = f"{edge.field}: " if edge.field else ""
            uses.setdefault(edge.target, []).append(f"{field}{edge.source.path}[{edge.source.index}]")
    calls = []
    for node in failure.nodes:
        call: dict[str, Any] = {"call": f"{node.path}[{node.index}]"}
        follows = [names[read.parameter] for read in node.reads if read.parameter in names]
        if follows:
            call["follows"] = follows
        if node in uses:
            call["uses"] = list(dict.fromkeys(uses[node]))
        call["inputs"] = {name: plain(value) for name, value in node.inputs.items()}
        if node.error is not None:
            call["error"] = f"{type(node.error).__name__}: {node.error}"
        else:
            call["outputs"] = {name: plain(value) for name, value in node.outputs.items()}
        if node in failure.node_feedback:
            call["feedback"] = "\n".join(failure.node_feedback[node])
        calls.append(call)
    return calls


def _signature(instruction: str) -> Signature:
    return Signature(
        [
            Field("parameters", dict[str, Any], "the texts and demos that can be changed, by name, in full", "input"),
            Field("runs", list[dict[str, Any]], "the failed runs, each with its calls in their order", "input"),
            Field("findings", list[Finding], "one for each parameter that is to blame for a run", "output"),
        ],
        instruction,
        name="JointCritique",
    )
