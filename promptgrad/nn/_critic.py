"""`Critic`, which divides the blame for a failure among the parts of the step that caused it."""

from collections.abc import Mapping, Sequence
from typing import Any

from promptgrad._error_text import error_text
from promptgrad.autograd import (
    Node,
    NodeFailure,
    Parameter,
    Target,
    TraceFailure,
    as_kind,
    demos_for,
    no_grad,
)
from promptgrad.lm import LM, current, resolve
from promptgrad.nn._fit import fit
from promptgrad.nn._grouper import Grouper
from promptgrad.nn._joint_critic import JointCritic, lm_of
from promptgrad.nn._module import Module
from promptgrad.nn._plain import is_narrow, plain, seen_by
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import fields_of
from promptgrad.signature import Field, Signature

INSTRUCTION = """\
A language model carried out one step of a larger program: following `instruction`, it read `inputs` and wrote \
`outputs`. The final result was not good enough, and `feedback` says what was wrong with it. Find the root cause and \
say which part has to change.

`critique` is about the instruction. Say what it gets wrong, leaves open or leaves out so that the outputs went wrong, \
and which general rule it should state instead. Be concrete about that rule, as far as the feedback shows it, but do \
not just repeat the answer to this one example: the instruction has to work for all other inputs of this kind. Then \
`to_blame` says whether the instruction is a cause.

Each `critique_of_...` is about the input of that name, which an earlier step of the program wrote. Blame it only if \
the step could not have succeeded with it: say what is wrong with it and what it should have been. Any other \
`..._critique` is about the text or the demos of that name. After each, `..._to_blame` says whether that part is a \
cause.

Judge the parts separately, and blame only what is a cause. A step that did what its instruction asks, with an input \
that was already wrong, has an instruction that is not to blame. The critique of a part that is not to blame stays \
empty."""


class Critic(Module, in_place=True):
    """Find, for one failed step, what is wrong with its instruction and with each input that an earlier step wrote.

    It is an ordinary program on the signature "Critique", with a visible (and by default frozen) instruction; adapters,
    budgets and journals treat its calls like all others. It sees the step's instruction, demos, inputs, outputs and
    feedback in full, and judges them against one another; demos that require a gradient get a critique too.

    For `backward(engine="joint")` it has a `JointCritic`, `.joint`, and for `backward(repeat=n)` a `Grouper`,
    `.grouper`, on the same LM.

    Images, sounds and files are shown as they are to an LM that is known to take them, or that answered the step with
    one, and by their captions to others.

    Cost: one LM call per (failed sample, step), for all parts of the step together; with `backward(repeat=n)`, n, and
    one more for each part that is blamed in different words.

    Source: critiques of a step's prompt and inputs by a language model are the gradients of Yuksekgonul et al. 2024,
    arXiv 2406.07496. Differs: one call judges all parts of a step against one another, and says of each whether it is
    to blame.

    Args:
        lm: The LM that criticises; else that of `promptgrad.context(critic=...)` or `configure(critic=...)`, else the
            LM of the step that failed.
        instruction: The critic's own instruction.
        max_tokens: About how many tokens inputs, outputs and feedback of a step may have together; longer texts are cut
            in the middle, with a mark. Instructions, descriptions and demos are never cut. None for no bound.
        group: Most failed forwards that the joint critic sees in one call, unless `backward(group=...)` says otherwise.
        temperature: Sampling temperature of the second and further answers with `backward(repeat=n)`; the first one is
            sampled as usual.
        spare: Ask nobody where only one call can be to blame for a failed forward: the feedback on its result is then
            the critique. A criterion without a critic of its own has one that spares.

    Raises:
        ValueError: `max_tokens` or `group` is below 1.
    """

    def __init__(
        self,
        lm: LM | str | None = None,
        *,
        instruction: str = INSTRUCTION,
        max_tokens: int | None = None,
        group: int = 8,
        temperature: float = 1.0,
        spare: bool = False,
    ) -> None:
        super().__init__()
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"max_tokens is at least 1, or None for no bound, not {max_tokens}")
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.spare = spare
        self.predict = Predict(_signature((), frozenset()).with_instruction(instruction))
        self.predict.requires_grad_(requires_grad=False)
        self.joint = JointCritic(group=group) if max_tokens is None else JointCritic(group=group, max_tokens=max_tokens)
        self.grouper = Grouper()
        self.__dict__["_variants"] = {}
        if lm is not None:
            self.to(lm)

    def groups(self, failures: Sequence[TraceFailure], size: int | None = None) -> Sequence[Sequence[TraceFailure]]:
        """The groups of failed forwards for the joint critic."""
        return self.joint.groups(failures, size)

    async def critique_traces(self, group: Sequence[TraceFailure]) -> Sequence[Mapping[str, Sequence[str]]]:
        """For each forward, what is wrong with each parameter, judged in one call; see `JointCritic`."""
        return await self.joint.critique_traces(group)

    def is_spared(self, lm: Any) -> bool:
        """Whether nobody is asked where only one call can be to blame: not if the LM writes from critiques alone."""
        lm = None if lm is None else resolve(lm)
        return self.spare and not is_narrow(self.predict, self._lm or current().critic or lm)

    async def agreeing(self, failure: NodeFailure, target: str, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Which of several critiques of one target ask for the same; see `Grouper.group`."""
        return await self.grouper.group(texts, self._critic_lm(failure.node))

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        """What is wrong with each target that is to blame; targets that are right are left out.

        Raises:
            ParseError: The reply does not hold the fields asked for, after the re-asks.
            LMError: The critic's LM did not answer.
            NoLMError: The critic has no LM.
        """
        with no_grad():
            critiques: dict[str, str] = await self.acall(failure)
        return critiques

    async def forward(self, failure: NodeFailure) -> dict[str, str]:
        """Ask the LM once and sort its answer by target."""
        node = failure.node
        asked = _asked(failure.targets)
        lm = self._critic_lm(node)
        media = seen_by(None if lm is None else resolve(lm), (node,))
        shown: dict[str, Any] = {
            "inputs": {name: plain(value, media) for name, value in node.inputs.items()},
            "outputs": _outputs(node, media),
            "feedback": "\n".join(failure.feedback),
        }
        if self.max_tokens is not None:
            shown = fit(shown, self.max_tokens)
        values = {"instruction": _instruction(node, failure.targets), **shown}
        demos = _demos(node, media)
        if demos:
            values["demos"] = demos
        descriptions = {target.name: plain(target.value) for target in failure.targets if _describes(target)}
        if descriptions:
            values["descriptions"] = descriptions
        config = {"replicate": failure.replicate, "temperature": self.temperature} if failure.replicate else None
        predict = self._variant(tuple(asked), frozenset(values))
        prediction = await predict.acall(**values, lm=lm, config=config)
        answers = fields_of(prediction)
        found: dict[str, str] = {}
        for output, target in asked.items():
            if target and answers[_verdict(output)]:  # "" stands for an instruction that is not trained
                found[target] = str.__str__(answers[output]).strip() or shown["feedback"]
        return found

    def _critic_lm(self, node: Node) -> LM | None:
        return self._lm or current().critic or lm_of(node)

    def _variant(self, outputs: tuple[str, ...], inputs: frozenset[str]) -> Predict:
        """The critic's `Predict` with other fields: it shares instruction and demos with the visible one."""
        key = (outputs, inputs)
        variants: dict[Any, Predict] = self.__dict__["_variants"]
        if key not in variants:
            variant = Predict(_signature(outputs, inputs), adapter=self.predict.adapter)
            variant.instruction = self.predict.instruction
            variant.demos = self.predict.demos
            variants[key] = variant
        return variants[key]


def _verdict(name: str) -> str:
    """The field that says whether the part is to blame which a critique is about."""
    about = name.removeprefix("critique_of_") if name.startswith("critique_of_") else name.removesuffix("critique")
    return f"{about.removesuffix('_')}_to_blame".removeprefix("_")


def _outputs(node: Node, media: frozenset[str]) -> dict[str, Any]:
    """The outputs of the step; if it failed, the reply and why it was refused."""
    if node.outputs:
        return {name: plain(value, media) for name, value in node.outputs.items()}
    failed = {} if node.error is None else {"error": error_text(node.error)}
    return {"reply": node.reply or "", **failed}


def _asked(targets: tuple[Target, ...]) -> dict[str, str]:
    """Which output of the critic is about which target. There is always one about the instruction, wanted or not."""
    asked: dict[str, str] = {}
    for target in targets:
        if as_kind(target.kind).instructs and "critique" not in asked:
            asked["critique"] = target.name
    for target in targets:
        if target.name not in asked.values():
            name = f"critique_of_{target.name}" if target.kind == "input" else f"{target.name}_critique"
            asked[name.replace(".", "_")] = target.name
    return asked if "critique" in asked else {"critique": "", **asked}


def _signature(outputs: tuple[str, ...], inputs: frozenset[str]) -> Signature:
    fields = [Field("instruction", str, "what the step was told to do", "input")]
    if "demos" in inputs:
        fields.append(Field("demos", list[dict[str, Any]], "examples that the step was shown", "input"))
    if "descriptions" in inputs:
        fields.append(Field("descriptions", dict[str, str], "what the step was told of its tools and fields", "input"))
    fields += [
        Field("inputs", dict[str, Any], "what the step was given", "input"),
        Field("outputs", dict[str, Any], "what the step wrote", "input"),
        Field("feedback", str, "what was wrong with what came of it", "input"),
    ]
    for name in ("critique", *(name for name in outputs if name != "critique")):
        part, about = _about(name)
        fields.append(Field(name, str, f"{about}; empty if {part} is not to blame", "output"))
        fields.append(Field(_verdict(name), bool, f"whether {part} is a cause of the failure", "output"))
    return Signature(fields, INSTRUCTION, name="Critique")


def _about(name: str) -> tuple[str, str]:
    """The part that a critique is about, and what the critique says."""
    if name == "critique":
        return "the instruction", "what is wrong with the instruction and which rule it lacks"
    if name == "demos_critique":
        return "a demo", "which demo misleads, and what it should show instead"
    if name.startswith("critique_of_"):
        part = f"the input `{name.removeprefix('critique_of_')}`"
    else:
        part = f"the text `{name.removesuffix('_critique')}`"
    return part, f"what is wrong with {part}"


def _describes(target: Target) -> bool:
    """Whether a target is a text other than the instruction."""
    kind = as_kind(target.kind)
    return kind.is_text and not kind.instructs


def _instruction(node: Node, targets: tuple[Target, ...]) -> str:
    for target in targets:
        if as_kind(target.kind).instructs:
            return str.__str__(target.value)
    for read in node.reads:
        if isinstance(read.parameter, Parameter) and read.parameter.kind.instructs:
            return str.__str__(read.value)
    return ""


def _demos(node: Node, media: frozenset[str]) -> list[Any]:
    for read in node.reads:
        if read.parameter.kind.is_demos:
            return [plain(demo, media) for demo in demos_for(read.value, node.inputs)]
    return []
