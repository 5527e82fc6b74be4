"""`Judge`, a metric in which a language model scores by a rubric."""

from collections.abc import Mapping
from typing import Any

from promptgrad.data import Example, Score
from promptgrad.errors import NoLMError, ReplayError
from promptgrad.lm import LM, resolve_lm
from promptgrad.nn._module import Module
from promptgrad.nn._plain import plain, seen_by
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction, fields_of
from promptgrad.signature import Field, Signature

INSTRUCTION = """\
Judge what a program wrote in `outputs` for the given `inputs`, by this rubric and by nothing else:

{rubric}

First write in `feedback` what falls short of the rubric and what would meet it, so concretely that the author could \
correct it; if nothing falls short, say so. Then give the `score`: 1 if the rubric is met in full, 0 if it is not met \
at all, and a share in between for what is met in part."""

SEVERAL = """\
Judge what a program wrote in `outputs` for the given `inputs`, by these criteria and by nothing else:

{rubric}

First write in `feedback` what falls short of which criterion and what would meet it, so concretely that the author \
could correct it; if nothing falls short, say so. Then give one score for each criterion: 1 if it is met in full, 0 if \
it is not met at all, and a share in between for what is met in part."""

REFERENCE = """

`reference` holds what is known to be right for these inputs. Another wording of it is just as good, unless the rubric \
says otherwise."""


_SHARE = {"ge": 0, "le": 1}


class Judge(Module, in_place=True):
    """Score outputs with a language model, by a rubric: `judge(example, output)` gives a `Score` with feedback.

    A judge is a metric: `promptgrad.evaluate(program, data, metric=judge)`. It calls an ordinary `Predict` on the
    signature "Judge", its `.predict`; the rubric is part of the instruction, a visible parameter that is frozen by
    default. After `judge.predict.requires_grad_()` it is trained as any program is, on examples with fields `inputs`,
    `outputs` and `score`.

    Several criteria are judged in one call, each with a score of its own: the value is their mean, `parts` has each.

    Images, sounds and files are shown as they are to an LM that is known to take them, and by their captions to others.

    Cost: one LM call per output.

    Source: language models as judges, Zheng et al. 2023, arXiv 2306.05685; `promptgrad.evaluation.judge_noise` measures
    how far one agrees with itself.

    Args:
        rubric: What makes an output good, in words; or several criteria by name, `{"polite": "It is polite.", ...}`.
        lm: The LM that judges; else that of the context or of `configure`.
        labels: Show the judge the labels of the example, as a reference.
        **options: Sampling options of the judge.

    Raises:
        TypeError: The rubric is not text, or is empty.
        ValueError: The name of a criterion cannot be part of a field's name.
        ParseError: When called: the judge gave no score from 0 to 1, after the re-asks.
        LMError: When called: the judge's LM did not answer.
    """

    def __init__(
        self, rubric: str | Mapping[str, str], lm: LM | str | None = None, *, labels: bool = True, **options: Any
    ) -> None:
        super().__init__()
        texts = list(rubric.values()) if isinstance(rubric, Mapping) else [rubric]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise TypeError(f"a rubric is a text, or a mapping from criteria to texts, not {rubric!r}")
        self.labels = labels
        self.criteria = tuple(rubric) if isinstance(rubric, Mapping) else ()
        told = _instruction(rubric) + (REFERENCE if labels else "")
        self.predict = Predict(_signature(told, self.criteria, labels=labels), **options)
        self.predict.requires_grad_(requires_grad=False)
        if lm is not None:
            self.to(lm)

    async def forward(self, example: Any, output: Any) -> Score:
        """Ask the LM for feedback and a score, or one for each criterion.

        Raises:
            NoLMError: The judge has no language model.
        """
        media = seen_by(self._asked())
        values = {"inputs": _inputs(example, media), "outputs": _outputs(output, media)}
        if self.labels:
            values["reference"] = _labels(example, media)
        try:
            verdict = fields_of(await self.predict.acall(**values))
        except ReplayError:
            raise
        except NoLMError:
            raise NoLMError(
                "the judge has no language model: nn.JudgeLoss(rubric, lm=...), nn.Judge(rubric, lm=...) or "
                "promptgrad.configure(lm=...)"
            ) from None
        feedback = plain(verdict["feedback"])
        if not self.criteria:
            return Score(verdict["score"], feedback=feedback)
        parts = {name: float(verdict[f"score_{name}"]) for name in self.criteria}
        return Score(sum(parts.values()) / len(parts), feedback=feedback, parts=parts)

    def _asked(self) -> LM | None:
        """The language model that will be asked; None if there is none."""
        try:
            return resolve_lm(None, self.predict._lm)
        except NoLMError:
            return None


def _instruction(rubric: str | Mapping[str, str]) -> str:
    if isinstance(rubric, str):
        return INSTRUCTION.format(rubric=rubric.strip())
    for name in rubric:
        if not isinstance(name, str) or not f"score_{name}".isidentifier():
            raise ValueError(f"the name of a criterion is a word, such as 'polite', not {name!r}")
    return SEVERAL.format(rubric="\n".join(f"- `score_{name}`: {text.strip()}" for name, text in rubric.items()))


def _signature(instruction: str, criteria: tuple[str, ...], *, labels: bool) -> Signature:
    fields = [
        Field("inputs", dict[str, Any], "what the program was given", "input"),
        Field("outputs", dict[str, Any], "what the program wrote", "input"),
        Field("feedback", str, "what falls short of the rubric, and what would meet it", "output"),
    ]
    if criteria:
        fields += [Field(f"score_{name}", float, f"how far `{name}` is met", "output", _SHARE) for name in criteria]
    else:
        fields.append(Field("score", float, "how far the rubric is met", "output", _SHARE))
    if labels:
        fields.insert(2, Field("reference", dict[str, Any], "what is known to be right", "input"))
    return Signature(fields, instruction, name="Judge")


def _inputs(example: Any, media: frozenset[str]) -> dict[str, Any]:
    if isinstance(example, Example):
        fields = example.to_dict() if example.input_keys is None else example.inputs()
        return {name: plain(value, media) for name, value in fields.items()}
    if isinstance(example, Mapping):
        return {str(name): plain(value, media) for name, value in example.items()}
    return {} if example is None else {"input": plain(example, media)}


def _labels(example: Any, media: frozenset[str]) -> dict[str, Any]:
    if isinstance(example, Example) and example.input_keys is not None:
        return {name: plain(value, media) for name, value in example.labels().items()}
    return {}


def _outputs(output: Any, media: frozenset[str]) -> dict[str, Any]:
    shown = plain(output, media)
    return shown if isinstance(output, (Prediction, Mapping)) else {"output": shown}
