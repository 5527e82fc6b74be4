"""Language models that fail in every way and role, on random programs: a run goes on and no parameter is spoilt."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.data import Example
from promptgrad.errors import LMConnectionError, LMTimeoutError, RateLimitError

pytestmark = pytest.mark.filterwarnings("ignore:every critic call failed")


class Net(nn.Module):
    """Calls in a random order, each fed by some of those before it."""

    def __init__(self, seed):
        super().__init__()
        chance = random.Random(seed)
        self.steps = nn.ModuleList(
            nn.Predict("text, notes: list[str] -> word", instruction=f"Step {number}.", retries=0)
            for number in range(3)
        )
        self.order = [chance.randrange(3) for _ in range(chance.randint(2, 5))]
        self.feeds = [[j for j in range(i) if chance.random() < 0.6] for i in range(len(self.order))]

    def forward(self, text):
        words = []
        for which, feed in zip(self.order, self.feeds, strict=True):
            words.append(self.steps[which](text=text, notes=[words[j] for j in feed]).word)
        return words[-1]


class Unreliable:
    """Answers what it is asked, unless chance, drawn by what it is asked and how often it was, has it fail."""

    def __init__(self, seed, share):
        self.seed, self.share = seed, share
        self.asked = {}

    def __call__(self, messages):
        system, user = messages[0]["content"], messages[-1]["content"]
        key = f"{system}{user}"
        self.asked[key] = self.asked.get(key, 0) + 1
        chance = random.Random(f"{self.seed} {key} {self.asked[key]}")
        if chance.random() < self.share:
            failure = chance.randrange(7)
            if failure < 4:
                raise (
                    LMConnectionError("down"),
                    LMTimeoutError("slow"),
                    RateLimitError("too many", status=429),
                    asyncio.CancelledError("a task was cancelled"),
                )[failure]
            return ("", "<html>502</html>", "Sure, here is what you asked for: [[ ## nothing ## ]]")[failure - 4]
        if "[[ ## new_instruction ## ]]" in system:
            return f"[[ ## new_instruction ## ]]\nRule {chance.randrange(1000)}."
        if "[[ ## critique ## ]]" in system:
            fields = [name for name in ("critique", "critique_of_notes") if f"[[ ## {name} ## ]]" in system]
            return "\n\n".join(f"[[ ## {name} ## ]]\nsay rule {chance.randrange(5)}" for name in fields)
        return f"[[ ## word ## ]]\n{chance.choice(('right', 'wrong'))}"


EXAMPLES = [Example(text=f"t{number}", answer="right").with_inputs("text") for number in range(4)]


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 0.7, 1.0]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_training_loop_survives_it_and_says_what_was_skipped(seed, share, gated):
    model = Net(seed).to(pg.lm.FunctionLM(Unreliable(seed, share)))
    criterion = nn.MetricLoss(pg.metrics.exact_match)
    optimizer = optim.TGD(model.parameters(), lm=model.steps[0].lm, proposals=2 if gated else 1)

    def closure():
        return criterion(model.map(EXAMPLES), EXAMPLES)

    for _ in range(3):
        before = {name: parameter.data for name, parameter in model.named_parameters()}
        optimizer.zero_grad()
        loss = closure()
        report = loss.backward()
        step = optimizer.step(closure) if gated else optimizer.step()
        changed = {c.path for c in step.accepted}
        for name, parameter in model.named_parameters():
            if name not in changed:
                assert parameter.data == before[name]
            else:
                assert parameter.data.startswith("Rule ")
                assert parameter.grad is not None
        assert all(skip.reason for skip in report.skipped)
        assert all(change.reason for change in step.changes if change.status != "accepted")
        assert report.failed + report.errors == sum(row.failed for row in loss.rows)
