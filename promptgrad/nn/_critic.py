"""`Critic`, which divides the blame for a failure among the parts of the step that caused it."""

from collections.abc import Mapping
from typing import Any

from promptgrad.autograd import RIGHT, Node, NodeFailure, Parameter, Target, no_grad
from promptgrad.data import Example
from promptgrad.lm import LM, current
from promptgrad.nn._module import Module
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction, fields_of
from promptgrad.signature import Field, Signature

INSTRUCTION = f"""\
A language model carried out one step of a larger program: following `instruction`, it read `inputs` and wrote \
`outputs`. The final result was not good enough, and `feedback` says what was wrong with it. Find the root cause and \
say which part has to change.

`critique` is about the instruction. Say what it gets wrong, leaves open or leaves out so that the outputs went wrong, \
and which general rule it should state instead. Be concrete about that rule, as far as the feedback shows it, but do \
not just repeat the answer to this one example: the instruction has to work for all other inputs of this kind.

Each `critique_of_...` is about the input of that name, which an earlier step of the program wrote. Blame it only if \
the step could not have succeeded with it: say what is wrong with it and what it should have been.

Judge the parts separately, and blame only what is a cause. A step that did what its instruction asks, with an input \
that was already wrong, has an instruction that is right. Of every part that is not to blame, write exactly \
"{RIGHT}" and nothing else."""


class Critic(Module, in_place=True):
    """Say, for one failed step, what is wrong with its instruction and with each input that a step before it wrote.

    It is an ordinary program on the signature "Critique", with a visible (and by default frozen) instruction; adapters,
    budgets and journals treat its calls like all others. It sees the step's instruction, demos, inputs, outputs and
    feedback in full.

    Cost: one LM call per (failed sample, step), for all parts of the step together.

    Args:
        lm: The LM that criticises; else that of `promptgrad.context(critic=...)` or `configure(critic=...)`, else the
            LM of the step that failed.
        instruction: What the critic is told to do.
    """

    def __init__(self, lm: LM | str | None = None, *, instruction: str = INSTRUCTION) -> None:
        super().__init__()
        self.predict = Predict(_signature((), with_demos=False).with_instruction(instruction))
        self.predict.requires_grad_(requires_grad=False)
        self.__dict__["_variants"] = {}
        if lm is not None:
            self.to(lm)

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        """What is wrong with each target that is to blame; targets that are right are left out.

        Raises:
            ParseError: The reply does not hold the fields asked for, after the re-asks.
            LMError: The critic's LM did not answer.
            NoLMError: There is no LM to ask.
        """
        with no_grad():
            critiques: dict[str, str] = await self.acall(failure)
        return critiques

    async def forward(self, failure: NodeFailure) -> dict[str, str]:
        """Ask the LM once and sort its answer by target."""
        node = failure.node
        asked = _asked(failure.targets)
        demos = _demos(node)
        values: dict[str, Any] = {
            "instruction": _instruction(node, failure.targets),
            "inputs": {name: plain(value) for name, value in node.inputs.items()},
            "outputs": {name: plain(value) for name, value in node.outputs.items()} or {"reply": node.reply or ""},
            "feedback": "\n".join(failure.feedback),
        }
        if demos:
            values["demos"] = demos
        predict = self._variant(tuple(asked), with_demos=bool(demos))
        prediction = await predict.acall(**values, lm=self._critic_lm(node))
        answers = fields_of(prediction)
        found: dict[str, str] = {}
        for output, target in asked.items():
            text = str.__str__(answers[output]).strip()
            if text and not is_right(text):
                found[target] = text
        return found

    def _critic_lm(self, node: Node) -> LM | None:
        return self._lm or current().critic or node.lm

    def _variant(self, outputs: tuple[str, ...], *, with_demos: bool) -> Predict:
        """The critic's `Predict` with other outputs: it shares instruction and demos with the visible one."""
        key = (outputs, with_demos)
        variants: dict[Any, Predict] = self.__dict__["_variants"]
        if key not in variants:
            variant = Predict(_signature(outputs, with_demos=with_demos), adapter=self.predict.adapter)
            variant.instruction = self.predict.instruction
            variant.demos = self.predict.demos
            variants[key] = variant
        return variants[key]


def is_right(text: str) -> bool:
    """Whether a critique says that its target is not to blame."""
    return text.strip().strip("\"'`.! ").lower() in (RIGHT, "right", "it's right", "none", "n/a")


def plain(value: Any) -> Any:
    """A value as it is shown to a language model: records become dicts, `Text` becomes `str`."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Prediction):
        return {name: plain(item) for name, item in fields_of(value).items()}
    if isinstance(value, (Mapping, Example)):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    dump = getattr(value, "model_dump", None)
    return plain(dump(mode="json")) if dump is not None else repr(value)


def _asked(targets: tuple[Target, ...]) -> dict[str, str]:
    """Which output of the critic speaks of which target. The instruction is always spoken of, wanted or not."""
    asked: dict[str, str] = {}
    for target in targets:
        if target.kind == "instruction" and "critique" not in asked:
            asked["critique"] = target.name
    for target in targets:
        if target.name not in asked.values():
            asked[f"critique_of_{target.name}"] = target.name
    return asked if "critique" in asked else {"critique": "", **asked}


def _signature(outputs: tuple[str, ...], *, with_demos: bool) -> Signature:
    fields = [
        Field("instruction", str, "what the step was told to do", "input"),
        Field("inputs", dict[str, Any], "what the step was given", "input"),
        Field("outputs", dict[str, Any], "what the step wrote", "input"),
        Field("feedback", str, "what was wrong with what came of it", "input"),
        Field("critique", str, f'what is wrong with the instruction and which rule it lacks, or "{RIGHT}"', "output"),
    ]
    if with_demos:
        fields.insert(1, Field("demos", list[dict[str, Any]], "examples that the step was shown", "input"))
    for name in outputs:
        if name != "critique":
            about = name.removeprefix("critique_of_")
            fields.append(Field(name, str, f'what is wrong with the input `{about}`, or "{RIGHT}"', "output"))
    return Signature(fields, INSTRUCTION, name="Critique")


def _instruction(node: Node, targets: tuple[Target, ...]) -> str:
    for target in targets:
        if target.kind == "instruction":
            return str.__str__(target.value)
    for read in node.reads:
        if isinstance(read.parameter, Parameter) and read.parameter.kind == "instruction":
            return str.__str__(read.value)
    return ""


def _demos(node: Node) -> list[Any]:
    for read in node.reads:
        if read.parameter.kind == "demos":
            return [plain(demo) for demo in read.value]
    return []
