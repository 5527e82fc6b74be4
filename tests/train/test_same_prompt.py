"""Rows that ask the very same prompt, of which one is refused for good and another one answered, in a resumed run."""

import json

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.data import Example
from promptgrad.errors import JournalError, LMError
from promptgrad.testing import LoopbackLM, Status

WORDS = ("red", "green", "blue", "lime", "grey", "pink")


class Numbered(nn.Module):
    """The prompt has the text alone, and not the number of the row."""

    def __init__(self):
        super().__init__()
        self.spell = nn.Predict("text -> answer")

    def forward(self, text, number):
        return self.spell(text=text)


class Falls(Numbered):
    """It goes on where the model refuses, with another call."""

    def forward(self, text, number):
        try:
            return self.spell(text=text)
        except LMError:
            return self.spell(text=f"{text} {number}")


def rows(count, start=0):
    """Each text twice, in rows with different numbers."""
    return [
        Example(text=WORDS[i // 2 % 6] + str(i // 12), number=start + i, answer=WORDS[i // 2 % 6]).with_inputs(
            "text", "number"
        )
        for i in range(count)
    ]


def metric(example, output):
    return output.answer == example.answer


class Moody:
    """Refuses every third prompt for good the first time that it is sent, and answers it later."""

    def __init__(self):
        self.seen = {}

    def __call__(self, messages):
        text = messages[-1]["content"]
        asked = self.seen[text] = self.seen.get(text, 0) + 1
        if asked == 1 and sum(text.encode()) % 3 == 0:
            return Status(404, message="no such model", kind="model_not_found")
        word = next(word for word in WORDS if word in text)
        return f"[[ ## answer ## ]]\n{word}\n\n[[ ## completed ## ]]"


class Strict(lm.Layer):
    """A wrapper of the user's, which refuses what its own quota does not allow at the moment."""

    def __init__(self, inner, allows):
        super().__init__(inner)
        self.allows = allows

    async def complete(self, request):
        completion = await self.lm.complete(request)
        if not self.allows():
            raise LMError("the quota of the team is used up")
        return completion


def train(program, model, folder, *, resume=False, concurrency=1):
    optimizer = optim.BootstrapFewShot(program.parameters(), max_bootstrapped_demos=2, max_labeled_demos=0)
    program.to(model)
    if resume:
        return pg.Trainer.resume(folder, program, optimizer, metric, concurrency=concurrency)
    trainer = pg.Trainer(program, optimizer, metric=metric, run_dir=folder, seed=0, concurrency=concurrency)
    return trainer.fit(rows(12), rows(12, 100), rows(6, 200))


@pytest.mark.parametrize("kind", [Numbered, Falls])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_resumed_run_knows_which_of_two_rows_was_refused(kind, concurrency, tmp_path):
    moody = Moody()
    with LoopbackLM(moody) as server:
        model = lm.HTTP("m", base_url=server.url)
        first = train(kind(), model, tmp_path, concurrency=concurrency)
        sent = server.received
        again = train(kind(), model, tmp_path, resume=True, concurrency=5 - concurrency)
        assert server.received == sent
    assert (again.values, str(again.before), str(again.test_after)) == (
        first.values,
        str(first.before),
        str(first.test_after),
    )


def test_what_a_wrapper_refuses_is_refused_again(tmp_path):
    count = iter(range(1000))
    with LoopbackLM(Moody()) as server:
        first = train(
            Falls(), Strict(lm.HTTP("m", base_url=server.url), lambda: next(count) % 3), tmp_path, concurrency=1
        )
        sent = server.received
        resumed = train(Falls(), Strict(lm.HTTP("m", base_url=server.url), lambda: True), tmp_path, resume=True)
        assert server.received == sent
    assert resumed.values == first.values


def test_a_journal_of_an_earlier_version_may_not_tell_them_apart(tmp_path):
    """It has no failures by row, and the reason is told."""
    path = tmp_path / "journal.jsonl"
    with LoopbackLM(Moody()) as server:
        model = lm.HTTP("m", base_url=server.url)
        train(Numbered(), model, tmp_path)
        kept = [event for event in map(json.loads, path.read_text().splitlines()) if "row" not in event]
        kept[0]["schema"] = 2
        path.write_text("".join(json.dumps({k: v for k, v in e.items() if k != "#"}) + "\n" for e in kept))
        with pytest.raises(JournalError, match=r"two rows asked the same.* schema 2 cannot tell apart"):
            train(Numbered(), model, tmp_path, resume=True)
