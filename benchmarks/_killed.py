"""The process that `kills.py` kills: it begins a run or goes on with it, saves the program, and writes a report.

    python benchmarks/_killed.py CASE URL RUN_DIR OUT

CASE is a case of `kills.py` as JSON. The line "ready" on standard output says that everything is imported and the run
begins. OUT gets the state that was saved twice, and `told.json`: the report, as far as a killed run must agree on it
with one that was never killed. The process ends with its standard input.
"""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from _lifeline import end_with_stdin

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.data import Example, Score

STOPPED = 3
"""Exit status of a run with silences that stopped because its language model seemed to be down."""
WORDS = ("red", "green", "blue", "lime", "grey", "pink", "gold", "teal", "plum", "navy", "ruby", "sand")
VIEWS = ("start", "all", "last")


class Chain(nn.Module):
    """Two modules with several inputs each: lists, a set, values that the program's code chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = nn.Predict("text, hint, notes: list[str] -> word")
        self.spell = nn.Predict("word, hint, seen: set[str] -> answer")
        self.known = {*WORDS}

    def forward(self, text: str, hint: str) -> Any:
        hint = "none" if hint in {"", "no", "nothing"} else hint
        word = self.pick(text=text, hint=hint, notes=[hint, "a note"]).word
        return self.spell(word=word, hint=hint, seen=self.known & {*text.split()})


class Branch(nn.Module):
    """A call decides which of two modules is asked, a choice what they see, and an error of one is caught."""

    def __init__(self) -> None:
        super().__init__()
        self.view = pg.Parameter("start", kind="choice", options=VIEWS, requires_grad=True)
        self.route = nn.Predict("text, hint -> route: Literal['left', 'right']")
        self.left = nn.Predict("text, hint -> word")
        self.right = nn.Predict("text, hint, words: set[str] -> word")
        self.spell = nn.Predict("word, hint -> answer")

    def forward(self, text: str, hint: str) -> Any:
        words = text.split()
        shown = {"start": words[:2], "all": words, "last": words[-1:]}[self.view.data]
        part = " ".join(shown)
        try:
            left = self.route(text=text, hint=hint).route == "left"
            word = self.left(text=part, hint=hint).word if left else ""
        except pg.errors.LMError:
            word = ""
        word = word or self.right(text=part, hint=hint, words={*words}).word
        return self.spell(word=word, hint=hint or "none")


class Local(nn.Module):
    """One module on the embedded model, whose weights are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.spell = nn.Predict("text -> answer")
        self.spell.to(lm.pocket())

    def forward(self, text: str, hint: str) -> Any:
        return self.spell(text=text)


PROGRAMS = {"chain": Chain, "branch": Branch, "local": Local}


def metric(example: Any, output: Any) -> Score:
    """Full for the right answer, half for the right letters."""
    right = output.answer == example.answer
    letters = sorted(output.answer) == sorted(example.answer)
    parts = {"letters": float(letters), "order": float(right)}
    return Score(0.5 * letters + 0.5 * right, feedback=f"the answer should be {example.answer}", parts=parts)


judge = nn.Predict("given, expected -> verdict: bool")


async def judged(example: Any, output: Any) -> Score:
    """The same question to a language model, whose calls are paid from the same budget."""
    right = (await judge.acall(given=output.answer, expected=example.answer)).verdict
    return Score(float(right), feedback=f"the answer should be {example.answer}", parts={"order": float(right)})


def examples(seed: int, *counts: int) -> list[list[Example]]:
    """Examples with different texts, in parts of these sizes."""
    import random

    rng = random.Random(f"texts {seed}")
    texts = [" ".join(words) for words in rng.sample(list(itertools.permutations(WORDS, 3)), sum(counts))]
    rows = [
        Example(text=text, hint=("", "look", "nothing")[i % 3], answer=text.split()[-1][::-1]).with_inputs(
            "text", "hint"
        )
        for i, text in enumerate(texts)
    ]
    ends = [0, *itertools.accumulate(counts)]
    return [rows[a:b] for a, b in itertools.pairwise(ends)]


def optimizer(name: str, parameters: Any, teacher: Any) -> optim.Search:
    """Each optimizer with settings for a run of a few hundred calls; the teacher is for weights alone."""
    if name == "BootstrapFinetune":
        return optim.BootstrapFinetune(
            parameters, max_labeled_demos=2, max_rounds=1, threshold=0.0, teacher=teacher, steps=6, batch_size=4
        )
    if name == "BootstrapFewShot":
        return optim.BootstrapFewShot(parameters, max_bootstrapped_demos=2, max_labeled_demos=4, max_rounds=2)
    if name == "MIPRO":
        return optim.MIPRO(
            parameters, num_candidates=3, num_demo_sets=2, num_trials=7, minibatch_size=8, full_eval_every=3
        )
    if name == "TGD":
        return optim.TGD(parameters, steps=4, batch_size=6, proposals=2, blame="critic")
    if name == "GEPA":
        return optim.GEPA(parameters, steps=8, minibatch_size=4)
    return optim.Auto(parameters, steps=6)


def model_of(url: str, case: dict[str, Any], cache: Path) -> Any:
    """The language model with all layers, as `pg.LM` puts them together, and short waits."""
    silence = {"timeout": case["timeout"]} if case["timeout"] else {}
    http = lm.HTTP("simulated", base_url=url, api_key="none", prices=(1.0, 2.0), **silence)
    made: lm.LM = lm.Retry(lm.Limit(http, case["concurrency"]), 12, turns=24, base=0.004, ceiling=0.05)
    return lm.Cache(made, cache) if case["cache"] else made


def train(case: dict[str, Any], url: str, folder: Path, out: Path) -> None:
    model, teacher = PROGRAMS[case["program"]](), model_of(url, case, out / "cache")
    if case["program"] != "local":
        model.to(teacher)
    judge.to(model_of(url, case, out / "cache"))
    score = judged if case["judged"] else metric
    budget = pg.Budget(**case["budget"])
    trainset, valset, testset = examples(case["seed"], 16, 24, 8)
    print("ready", flush=True)
    options: dict[str, Any] = {"concurrency": case["concurrency"], "progress": False}
    if case["entry"] == "compile":
        results: list[Any] = []
        program = pg.compile(
            model, trainset, score, valset=valset, testset=testset, budget=budget, run_dir=folder, seed=case["seed"],
            optimizer=lambda parameters: optimizer(case["optimizer"], parameters, teacher), report=results.append,
            **options,
        )  # fmt: skip
        (result,) = results
    else:
        own = optimizer(case["optimizer"], model.parameters(), teacher)
        if (folder / "run.json").exists():
            result = pg.Trainer.resume(folder, model, own, score, **options)
        else:
            options |= {"ship": case["ship"], "objectives": case["objectives"], "seed": case["seed"]}
            trainer = pg.Trainer(model, own, metric=score, budget=budget, run_dir=folder, **options)
            result = trainer.fit(trainset, valset, testset)
        program = result.program
    pg.save(program, out / "program")
    pg.save(program.state_dict(), out / "state.json")
    (out / "told.json").write_text(json.dumps({"lost": result.lost, "report": report(result)}))


def report(result: Any) -> dict[str, Any]:
    """What the report says, without times and without what was sent, replayed, failed or lost on the way."""
    names = ("outcome", "reason", "before", "after", "measured", "gain", "test_before", "test_after", "notes")
    told = {name: repr(getattr(result, name)) for name in names} | {"judge": str(result.judge)}
    told |= {name: {path: repr(value) for path, value in getattr(result, name).items()} for name in ("values", "best")}
    told["history"] = [repr(trial) for trial in result.history]
    told["pareto"] = repr(result.pareto)
    for name, spent in {"all": result.spent, **result.phases}.items():
        told |= {f"spent in {name}": [spent.calls, spent.tokens, spent.usd]} if spent.calls else {}
    return told


def state_of(number: int) -> Any:
    """One of two programs to be saved, large enough that writing takes a while."""
    program = Chain()
    demos = [{"text": f"{number} {WORDS[i % 12]}", "hint": "x" * 200, "notes": ["n"], "word": "w"} for i in range(400)]
    program.pick.demos.data = demos
    program.spell.instruction.data = f"the {number}th state"
    return program


def save(case: dict[str, Any], url: str, folder: Path, out: Path) -> None:
    """Save one program and the other one, in turn, until somebody ends it."""
    programs = [state_of(0), state_of(1)]
    print("ready", flush=True)
    for number in itertools.count():
        pg.save(programs[number % 2], out / "program")
        pg.save(programs[number % 2].state_dict(), out / "state.json")


def begin(case: dict[str, Any], url: str, folder: Path, out: Path) -> None:
    """Train; where the seconds of the budget were over before the start was measured, say so, as `fit` does."""
    try:
        train(case, url, folder, out)
    except pg.errors.BudgetExceeded:
        program = PROGRAMS[case["program"]]()
        pg.save(program, out / "program")
        pg.save(program.state_dict(), out / "state.json")
        (out / "told.json").write_text(json.dumps({"lost": None, "report": {"outcome": "'too little'"}}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    end_with_stdin()
    given, url, folder, out = sys.argv[1:]
    case = json.loads(given)
    try:
        (save if case["optimizer"] == "save" else begin)(case, url, Path(folder), Path(out))
    except pg.errors.LMError as error:
        if not case.get("timeout"):
            raise
        print(error, file=sys.stderr)
        sys.exit(STOPPED)
