"""Improve one answer while it is needed: a regular expression, by what its checks say of it.

    python examples/solution.py                                 # offline: a SIMULATED language model, see below
    python examples/solution.py --lm openai/gpt-4o-mini
    python examples/solution.py --lm my-model --base-url http://localhost:8000/v1

There is no program and no training set. The solution itself is the parameter: a regular expression of at most 40
characters that matches the months of 31 days and no other month. Python's own `re` judges it, and says which months it
gets wrong: that is the gradient, and it costs no language-model call. A step costs one call, for the rewrite, and a
rewrite is kept only if it scores higher.

Without ``--lm`` the rewrites come from a simulated language model: the function `simulated` below. It sees the prompt
that a real one would see and nothing else, drops the alternatives that match what they should not, and guesses, by a
random number, a piece of each month that is missed. How well it does says nothing about any real model.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from random import Random

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.testing import Fields

LONG = ("january", "march", "may", "july", "august", "october", "december")
SHORT = ("february", "april", "june", "september", "november")
LIMIT = 40
NAMED = 3  # months that the feedback names, of those that are missed and of those that are matched


def regular(text: str) -> str | None:
    """A regular expression of Python's `re`, of at most 40 characters."""
    if len(text) > LIMIT:
        return f"it has {len(text)} characters, more than {LIMIT}"
    try:
        re.compile(text)
    except re.error as error:
        return f"it is no regular expression: {error}"
    return None


def check(example: pg.Example, pattern: str) -> pg.Score:
    """The share of months on the right side, and which are not."""
    missed = [month for month in example.match if not re.search(pattern, month)]
    matched = [month for month in example.avoid if re.search(pattern, month)]
    said = [f"it should match {month!r}" for month in missed[:NAMED]]
    said += [f"it should not match {month!r}" for month in matched[:NAMED]]
    return pg.Score(1 - (len(missed) + len(matched)) / len((*LONG, *SHORT)), feedback="; ".join(said))


def simulated(inputs: Mapping[str, str]) -> str:
    """A rewrite, as the simulated language model writes it: from the inputs of its prompt alone."""
    missed = re.findall(r"should match '(\w+)'", inputs["rows"])
    matched = re.findall(r"should not match '(\w+)'", inputs["rows"])
    rng = Random("".join(inputs.values()))  # another prompt, another guess
    kept = [part for part in inputs["solution"].split("|") if not any(re.search(part, month) for month in matched)]
    for month in missed:
        if not any(re.search(part, month) for part in kept):
            whole = f"^{month}$"
            size = rng.randint(2, 4)
            start = rng.randint(0, len(whole) - size)
            kept.append(whole[start : start + size])
    return "|".join(kept) or inputs["solution"]


def main() -> None:
    """Improve the solution until it is right or the steps end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", help="name of the model that rewrites; a simulated one if not given")
    parser.add_argument("--base-url", help="an OpenAI-compatible server, such as http://localhost:8000/v1")
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    if args.base_url and not args.lm:
        parser.error("--base-url needs --lm, the name of the model there")
    if args.lm is None:
        lm = pg.lm.FunctionLM(Fields(new_solution=simulated), name="simulated")
        print("The rewrites are those of a SIMULATED language model, a function in this script.")
    else:
        lm = pg.LM(args.lm, **({"base_url": args.base_url} if args.base_url else {}))

    problem = pg.Example(match=LONG, avoid=SHORT).with_inputs("match", "avoid")
    solution = pg.Parameter(
        "a",
        kind="solution",
        role=f"a regular expression for Python's re.search, of at most {LIMIT} characters, that finds something in "
        "each string to match and nothing in any string to avoid",
    )
    criterion = nn.MetricLoss(check)
    optimizer = optim.TGD([solution], lm=lm, constraints=[regular], memory=8, proposals=1)

    loss = criterion(solution, problem)
    print(f"start     loss {loss.item():.3f}  {solution}")
    critics = rewrites = 0
    for step in range(1, args.steps + 1):
        if not loss.item():
            break
        optimizer.zero_grad()
        critics += loss.backward().calls
        report = optimizer.step(lambda: criterion(solution, problem), loss=loss)
        rewrites += report.calls
        loss = criterion(solution, problem)
        if report.accepted:
            print(f"step {step:3}  loss {loss.item():.3f}  {solution}")
    verdict = "right on all months" if not loss.item() else loss.rows[0].feedback
    print(f"{solution}  ({verdict}), after {rewrites} calls for rewrites and {critics} for critiques")


if __name__ == "__main__":
    main()
