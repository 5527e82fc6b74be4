"""Optimize a chain-of-thought solver on real grade-school maths questions (a small sample of GSM8K).

    python examples/gsm8k.py --lm openai/gpt-4o-mini
    python examples/gsm8k.py --lm my-model --base-url http://localhost:8000/v1

The run is journalled: kill it at any moment, start it with the same arguments, and it goes on where it was, without
sending a journalled call again. ``--plan`` only says what it would cost.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.data import gsm8k
from promptgrad.metrics import numeric_match

console = Console()

OPTIMIZERS = {
    "bootstrap": lambda params: optim.BootstrapFewShot(params),
    "mipro": lambda params: optim.MIPRO(params, num_candidates=6, num_trials=20, minibatch_size=25),
    "tgd": lambda params: optim.TGD(params, steps=6),
}


class Solver(nn.Module):
    """Reason, then give the number."""

    def __init__(self) -> None:
        super().__init__()
        self.solve = nn.ChainOfThought("question -> answer: float", instruction="Solve the maths problem.")

    def forward(self, question: str) -> Any:
        """Return a prediction with `reasoning` and `answer`."""
        return self.solve(question=question)


def same_run(args: argparse.Namespace) -> None:
    """Refuse to go on with a run under other arguments than it was started with: they would be ignored.

    Raises:
        SystemExit: An argument differs.
    """
    path = args.run_dir / "arguments.json"
    started = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    wanted = kept(args)
    different = [
        f"--{name.replace('_', '-')} was {started.get(name)} and is {value}"
        for name, value in wanted.items()
        if name not in started or started[name] != value
    ]
    if different:
        raise SystemExit(
            f"{args.run_dir} holds a run that was started with other arguments: {'; '.join(different)}. "
            "Go on with the same arguments, or give another --run-dir"
        )


def kept(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that make a run what it is."""
    return {name: value for name, value in vars(args).items() if name not in ("run_dir", "plan", "concurrency")}


def main() -> None:
    """Plan, optimize, report, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", required=True, help="name of the model, such as openai/gpt-4o-mini")
    parser.add_argument("--base-url", help="an OpenAI-compatible server, such as http://localhost:8000/v1")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="mipro")
    parser.add_argument("--train", type=int, default=50)
    parser.add_argument("--val", type=int, default=80)
    parser.add_argument("--test", type=int, default=80)
    parser.add_argument("--max-calls", type=int, help="budget: LM calls")
    parser.add_argument("--max-usd", type=float, help="budget: US dollars")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/gsm8k"))
    parser.add_argument("--plan", action="store_true", help="say what the run would cost, and stop")
    args = parser.parse_args()

    lm = pg.LM(args.lm, base_url=args.base_url) if args.base_url else pg.LM(args.lm)
    train, val, test = gsm8k("train")[: args.train], gsm8k("val")[: args.val], gsm8k("test")[: args.test]
    model = Solver().to(lm)
    optimizer = OPTIMIZERS[args.optimizer](model.parameters())
    budget = pg.Budget(calls=args.max_calls, usd=args.max_usd)
    settings: dict[str, Any] = {"metric": numeric_match, "concurrency": args.concurrency}
    trainer = pg.Trainer(model, optimizer, budget=budget, run_dir=args.run_dir, seed=args.seed, **settings)
    if args.plan:
        console.print(trainer.plan(train, val, test))
        return
    try:
        if (args.run_dir / "journal.jsonl").exists():
            same_run(args)
            console.print(f"Going on with the run in {args.run_dir}")
            result = pg.Trainer.resume(args.run_dir, model, optimizer, **settings)
        else:
            console.print(trainer.plan(train, val, test))
            args.run_dir.mkdir(parents=True, exist_ok=True)
            (args.run_dir / "arguments.json").write_text(json.dumps(kept(args)) + "\n", encoding="utf-8")
            result = trainer.fit(train, val, test)
    except KeyboardInterrupt:
        console.print("stopped; start again with the same arguments to go on")
        raise SystemExit(130) from None
    console.print(result)
    console.print("\nThe prompt as it is sent:")
    for message in model.solve.render(question=test[0].question):
        console.print(f"{message['role']:>9}  {message['content']}", highlight=False, markup=False, soft_wrap=True)
    pg.save(model.state_dict(), args.run_dir / "program.json")
    console.print(f"\nSaved as {args.run_dir / 'program.json'}")


if __name__ == "__main__":
    main()
