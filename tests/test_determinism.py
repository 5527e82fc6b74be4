"""Same seed and same replies: the same decisions and the same canonical journal, one call at a time or 32 at once.

A real server answers each request after a random delay, so that with many in flight the order of arrival is another
in every run.
"""

import hashlib
import random
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad import optim, run
from promptgrad.testing import Delay, LoopbackLM
from tests.train import world


def unsure(messages):
    """The world's model, which in half of all prompts knows better than its instruction, and to some says nothing."""
    asked = world.sections(messages[-1]["content"])
    if not asked:  # asked again, with what is wrong with the empty reply
        return world.answer(messages[:-2]) if len(messages[-3]["content"]) % 2 else ""
    drawn = hashlib.sha256(repr([message["content"] for message in messages]).encode()).digest()
    if drawn[1] % 8 == 0:
        return ""
    knows = drawn[0] % 2
    if set(asked) == {"text"} and knows:
        return f"[[ ## word ## ]]\n{asked['text'].split()[-1]}\n\n[[ ## completed ## ]]"
    if set(asked) == {"word"} and knows:
        return f"[[ ## answer ## ]]\n{asked['word'][::-1]}\n\n[[ ## completed ## ]]"
    return world.answer(messages)


OPTIMIZERS = {
    "bootstrap": lambda model: optim.BootstrapFewShot(
        model.parameters(), max_bootstrapped_demos=3, max_labeled_demos=2, max_rounds=2
    ),
    "mipro": lambda model: world.optimizer("mipro", model),
    "tgd": lambda model: world.optimizer("tgd", model),
}


class Run:
    """One training run in a folder, against a server, with so many calls in flight."""

    def __init__(self, name, folder, server, *, concurrency, seed=5):
        delays = random.Random(f"{folder} {concurrency}")
        longest = 0.004 if concurrency == 1 else 0.03  # seconds: many are in flight on a busy machine as well
        answer = unsure if name == "bootstrap" else world.answer
        server.reset()
        server._script.respond = lambda messages: Delay(delays.random() * longest, answer(messages))
        model = world.Program()
        model.to(world.lm_at(server.url, concurrency))
        trainer = pg.Trainer(
            model,
            OPTIMIZERS[name](model),
            metric=world.metric,
            run_dir=folder,
            seed=seed,
            concurrency=concurrency,
        )
        self.result = trainer.fit(world.examples(16), world.examples(40, seed=1))
        self.in_flight = server.in_flight_high_water
        self.arrivals = [request.headers["idempotency-key"] for request in server.requests]
        journal = run.Journal(Path(folder) / "journal.jsonl", readonly=True)
        self.canonical, self.digest = journal.canonical(), journal.digest()
        self.state = {path: value for path, value in model.state_dict().items() if path != "_meta"}


@pytest.fixture
def server():
    """One server for all runs of a test: the endpoint belongs to the key of a call."""
    with LoopbackLM() as running:
        yield running


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_concurrency_changes_nothing_that_is_decided(name, server, tmp_path):
    one = Run(name, tmp_path / "one", server, concurrency=1)
    many = Run(name, tmp_path / "many", server, concurrency=32)

    assert one.in_flight == 1
    assert many.in_flight > 8
    assert one.arrivals != many.arrivals  # or nothing is shown
    assert sorted(one.arrivals) == sorted(many.arrivals)
    assert one.canonical == many.canonical
    assert one.digest == many.digest
    assert one.state == many.state
    assert one.result.outcome == many.result.outcome
    assert one.result.calls == many.result.calls == len(one.arrivals)


def test_another_seed_is_another_run(server, tmp_path):
    one = Run("tgd", tmp_path / "one", server, concurrency=32)
    other = Run("tgd", tmp_path / "other", server, concurrency=32, seed=6)
    assert one.digest != other.digest
