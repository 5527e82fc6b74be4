"""`Refine`: attempts, each with advice from those that failed before it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from promptgrad._error_text import error_text
from promptgrad._habits import refuses
from promptgrad.content import Audio, File, Image
from promptgrad.data import Example
from promptgrad.errors import CheckError, LMError, NoLMError, ParseError
from promptgrad.lm import LM, resolve_lm
from promptgrad.nn._attempt import LoggedCall, OneAttempt, attempt, check_attempts
from promptgrad.nn._best_of_n import ATTEMPT_HABITS, Reward, best, check_reward, judge, name_of, reaches
from promptgrad.nn._check import Check
from promptgrad.nn._module import Module
from promptgrad.nn._plain import plain, seen_by
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction
from promptgrad.signature import Field, Signature

ADVISE_ONE = """\
A program answered `inputs`, and its answer is not good enough: `verdict` says why. `program` is its instruction, and \
`calls` holds what it was given and wrote. It will try again, and will see your advice, but neither this attempt nor \
the verdict.

Find out what it did wrong. Then write in `advice` what it should do otherwise: in one to three sentences, addressed \
to the program, and concrete about this input."""

ADVISE_EACH = """\
A program of several modules answered `inputs`, and its answer is not good enough: `verdict` says why. `program` holds \
the instruction of each module by its name, and `calls` what each was given and wrote, in order. The modules will try \
again. A module will see your advice for it, but neither this attempt, nor the verdict, nor the other modules' advice.

Find out which modules are to blame. Then write in `advice`, by the name of the module, what it should do otherwise: \
in one to three sentences, addressed to the module, and concrete about this input. Leave out modules that did their \
part right."""

MOST = 6000
"""Characters of the calls of one attempt that the adviser is shown; the latest calls count most."""


class Refine(Module, in_place=True):
    """Call a program up to `n` times, each time with advice from what the last attempt got wrong.

    The first output that reaches `threshold` is returned, else the one with the highest reward; of equal ones the
    earliest. An attempt that raises is an attempt; if all do, the last error is raised. Without a reward, an attempt is
    good if it raises nothing and every `nn.Suggest` in it holds.

    The advice is a hint: one more input, `hint`, of the modules to blame, in their prompts for that attempt and nowhere
    else. Where a condition of `nn.Assert` or `nn.Suggest` does not hold, its reason is the hint for the module
    that it is about, and no LM is asked. Else a language model writes it: `.adviser`, an ordinary `Predict`, frozen by
    default; `refine.adviser.requires_grad_()` trains it. An adviser that fails leaves the next attempt without a hint.
    It sees the images, sounds and files that the program was given, each once, where its model takes them, as far as is
    known: by what is known of it, or because the program is on the same model. Else it has their captions.

    As in `BestOfN`, each attempt has a replicate number of its own, the first is the plain call, and critiques of the
    output go to the attempt that gave it; from there, over its hint, they may reach what the hint was made of.

    Cost: at most `n` times the module and `n - 1` calls of the adviser, and what the reward spends; one module if the
    first attempt is good.
    Source: Madaan et al. 2023 (Self-Refine), arXiv 2303.17651, and Shinn et al. 2023 (Reflexion), arXiv 2303.11366;
    DSPy's module of this name. Differs: conditions are hints without a call, and modules are not copied.

    Args:
        module: The program.
        n: The most attempts.
        reward: `reward(inputs, output)`, as for `BestOfN`; its feedback is shown to the adviser. None for conditions.
        threshold: The reward that is good enough; 1 by default.
        temperature: Temperature of all attempts but the first; None for that of the module or its LM.
        advise: Whether an LM writes the advice; otherwise the hint for all modules is the feedback or the error itself.

    Raises:
        TypeError: `module` is not a module, `reward` not a function, or `n` no number.
        ValueError: `n` is below one, or the module has no `Predict`.
        MetricError: When called: the reward failed, or is not a number.
        Exception: When called: the error of the last attempt, if all fail.
    """

    @refuses({**ATTEMPT_HABITS, "concurrency": "nothing: each attempt learns from the one before"})
    def __init__(
        self,
        module: Module,
        n: int = 3,
        reward: Reward | None = None,
        threshold: float = 1.0,
        *,
        temperature: float | None = 1.0,
        advise: bool = True,
    ) -> None:
        super().__init__()
        check_attempts(module, n, None)
        if reward is not None:
            check_reward(reward)
        self.module = module
        self.n = n
        self.reward = reward
        self.threshold = threshold
        self.temperature = temperature
        asked = self._asked()
        if not asked:
            raise ValueError(f"{type(module).__name__} has no Predict, so no prompt can take advice")
        if advise:
            self.adviser = Predict(_signature(several=len(asked) > 1))
            self.adviser.requires_grad_(requires_grad=False)

    def _asked(self) -> dict[str, Predict]:
        """The modules that may get advice, by path."""
        return {path: module for path, module in self.module.named_modules() if isinstance(module, Predict)}

    async def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Make attempts until one is good."""
        inputs = Example(self._named(args) | kwargs)
        made: list[OneAttempt] = []
        hints: dict[Module, str] = {}
        for number in range(self.n):
            warm = self.temperature if number else None
            latest = await attempt(
                self.module, args, kwargs, number, self.n, temperature=warm, hints=hints, logged=True
            )
            made.append(latest)
            await self._judge(inputs, latest)
            if reaches(latest, self.threshold):
                break
            if number + 1 < self.n:
                hints = await self._hints(inputs, latest)
        return best(made).output

    async def _judge(self, inputs: Example, made: OneAttempt) -> None:
        unmet = _unmet(made)
        if self.reward is not None:
            await judge(self.reward, inputs, made)
            if unmet and made.score >= self.threshold:  # good enough, but for what it says itself
                made.score = max(min(made.score, self.threshold - 1e-9), made.score - 1)
        elif made.error is None:
            checks = [check for check in made.checks if isinstance(check, Check)]
            made.score = 1.0 if not unmet else 1 - len(unmet) / len(checks)

    async def _hints(self, inputs: Example, made: OneAttempt) -> dict[Module, str]:
        """Advice for the next attempt, by module."""
        asked = list(self._asked().values())
        found: dict[Module, list[str]] = {}
        for check in _unmet(made):
            about = _module_of(check, made.log)
            for module in [about] if about is not None else asked:
                found.setdefault(module, []).append(check.reason)
        if found:
            return {module: _advice_of(dict.fromkeys(reasons)) for module, reasons in found.items()}
        verdict = self._verdict(made)
        if "adviser" not in self._modules:
            return dict.fromkeys(asked, verdict)
        return await self._advice(inputs, made, verdict)

    def _verdict(self, made: OneAttempt) -> str:
        if made.error is not None:
            return f"it failed: {error_text(made.error)}"[:2000]
        said = f"{name_of(self.reward)}: {made.score:g}, and {self.threshold:g} is wanted"
        return f"{said}. {made.feedback}" if made.feedback else said

    async def _advice(self, inputs: Example, made: OneAttempt, verdict: str) -> dict[Module, str]:
        asked = self._asked()
        several = len(asked) > 1
        names = {module: path or "program" for path, module in asked.items()}
        told = {names[module]: str.__str__(module.instruction.read().value) for module in asked.values()}
        program = json.dumps(told, ensure_ascii=False) if several else next(iter(told.values()))
        media = seen_by(self._lm_of_adviser(), made.log)
        shown: list[Any] = []
        values = {
            "program": program,
            "inputs": _once({name: plain(value, media) for name, value in inputs.items()}, shown),
            "calls": _shown(made.log, names, media, shown),
            "verdict": verdict,
        }
        try:
            said: Prediction = await self.adviser.acall(**values)
        except (ParseError, LMError):
            return {}
        advice = said["advice"]
        if not several:
            return dict.fromkeys(asked.values(), advice) if advice.strip() else {}
        return {module: advice[name] for module, name in names.items() if str(advice.get(name, "")).strip()}

    def _lm_of_adviser(self) -> LM | None:
        """The language model that will be asked for advice; None if there is none."""
        try:
            return resolve_lm(None, self.adviser._lm)
        except NoLMError:
            return None

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs of the module."""
        return self.module.input_names()

    def output_names(self) -> tuple[str, ...] | None:
        """Names of the outputs of the module."""
        return self.module.output_names()

    def extra_repr(self) -> str:
        """How many attempts, and by which reward."""
        by = "conditions" if self.reward is None else name_of(self.reward)
        return f"n={self.n}, reward={by}, threshold={self.threshold:g}"


def _signature(*, several: bool) -> Signature:
    kind: Any = dict[str, str] if several else str
    return Signature(
        [
            Field("program", str, "the instructions of the program", "input"),
            Field("inputs", dict[str, Any], "what the program was given", "input"),
            Field("calls", list[dict[str, Any]], "what was given and written, in order", "input"),
            Field("verdict", str, "what is wrong with the result", "input"),
            Field("discussion", str, "what went wrong, and where", "output"),
            Field("advice", kind, "what to do otherwise" + (", by module" if several else ""), "output"),
        ],
        ADVISE_EACH if several else ADVISE_ONE,
        name="Advise",
    )


def _advice_of(reasons: Any) -> str:
    return "An earlier attempt was refused. This must hold: " + "; ".join(reasons)


def _unmet(made: OneAttempt) -> list[Check]:
    found = [check for check in made.checks if isinstance(check, Check) and not check.met]
    if isinstance(made.error, CheckError):
        return found or [Check(made.error.reason, met=False, must=True)]
    return found if made.error is None else []


def _module_of(check: Check, log: Sequence[LoggedCall]) -> Module | None:
    """The module that a condition is about: the one that wrote its value, by default the latest."""
    if check.about is None:
        return log[-1].module if log else None
    for call in reversed(log):
        values = list(call.outputs.values())
        fields = list(check.about.values()) if isinstance(check.about, Prediction) else [check.about]
        if any(field is value or (isinstance(field, str) and field == value) for field in fields for value in values):
            return call.module
    return None


def _shown(
    log: Sequence[LoggedCall], names: Mapping[Any, str], media: frozenset[str], known: list[Any]
) -> list[dict[str, Any]]:
    """The calls of an attempt, as many of the latest as there is room for.

    Args:
        log: The calls.
        names: The names of the modules.
        media: Kinds of media that are shown as they are.
        known: What was shown before.
    """
    shown: list[dict[str, Any]] = []
    room = MOST
    for call in reversed(log):
        entry: dict[str, Any] = {"module": names.get(call.module, type(call.module).__name__)}
        entry["inputs"] = {name: plain(value, media) for name, value in call.inputs.items()}
        entry["outputs"] = {name: plain(value, media) for name, value in call.outputs.items()}
        if call.error is not None:
            entry["error"] = error_text(call.error)[:500]
        room -= len(json.dumps(entry, ensure_ascii=False, default=str))
        if room < 0 and shown:
            break
        shown.append(_once(entry, known))
    return shown[::-1]


def _once(value: Any, known: list[Any]) -> Any:
    """A value in which an image, sound or file that was shown before is told by its caption."""
    if isinstance(value, (Image, Audio, File)):
        if value in known:
            return repr(value)
        known.append(value)
    elif isinstance(value, dict):
        return {name: _once(item, known) for name, item in value.items()}
    elif isinstance(value, list):
        return [_once(item, known) for item in value]
    return value
