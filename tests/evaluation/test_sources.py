"""The digest of a program's and a metric's source is the same in every process, whatever the hash seed."""

import functools
import json
import os
import subprocess
import sys

import pytest

import promptgrad
from promptgrad import metrics, nn
from promptgrad.evaluation import source_digest, source_parts

SCRIPT = """
import dataclasses, enum, json
import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.evaluation import source_digest
from promptgrad.run import value_digest

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon")


@dataclasses.dataclass(frozen=True)
class Settings:
    allowed: frozenset = frozenset(WORDS)
    nested: tuple = (frozenset(WORDS), {"x": {*WORDS}})


class Program(nn.Module):
    def __init__(self):
        super().__init__()
        self.think = nn.ChainOfThought("question, context, notes: list[str] -> plan, query")
        self.answer = nn.Predict("question: set[str], context, plan -> answer: Literal['a', 'b'], sure: bool")
        self.allowed = {*WORDS}
        self.settings = Settings()
        self.by_name = {"one": {*WORDS}, "two": [{*WORDS}]}
        self.answer.demos.data = (pg.Example(question={*WORDS}, context="c", plan="p", answer="a", sure=True),)

    def forward(self, question, context):
        return self.answer if question in {"alpha", "beta", "gamma", "delta"} else self.think


def metric(example, output, known=frozenset(WORDS)):
    return output.answer in {"a", "b", "c", "d"}


def made(words):
    return lambda example, output: output.answer in words


model = Program()
print(json.dumps([
    source_digest(model),
    model.state_dict(),
    value_digest(model.state_dict()),
    [model.answer.demos.data[0].id, value_digest(model.answer.demos.data)],
    source_digest(metric),
    source_digest(made({*WORDS})),
    source_digest(nn.Judge("Is it right?", lm=pg.lm.FunctionLM(lambda messages: "", name="judge"))),
    optim.MIPRO(model.parameters(), constraints=[made]).config(),
    optim.TGD(model.parameters()).config(),
]))
"""


def digests(seed, script=SCRIPT):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_under_every_hash_seed():
    assert len({digests(seed) for seed in (0, 1, 2)}) == 1


class Chooser(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.words = words

    def forward(self, text):
        return text in self.words


def test_what_a_set_holds_counts():
    first = source_digest(Chooser({"a", "b"}))
    assert first == source_digest(Chooser({"b", "a"}))
    assert first != source_digest(Chooser({"a", "c"}))
    assert first != source_digest(Chooser(["a", "b"]))


def test_what_a_constant_of_the_code_holds_counts():
    one = source_digest(lambda example, output: output in {"a", "b"})
    assert one == source_digest(lambda example, output: output in {"b", "a"})
    assert one != source_digest(lambda example, output: output in {"a", "c"})


@pytest.mark.parametrize("size", [1, 200])
def test_a_long_set_is_known_by_its_beginning_and_its_length(size):
    words = {f"w{number:03}" for number in range(size)}
    assert source_digest(Chooser(words)) == source_digest(Chooser({*sorted(words, reverse=True)}))
    assert source_digest(Chooser(words)) != source_digest(Chooser(words | {"zzz"}))


class Terse(nn.ChainOfThought):
    """A class of the user's on top of one of the package's."""

    async def forward(self, **inputs):
        return await super().forward(**inputs)


class Pipeline(nn.Module):
    def __init__(self):
        super().__init__()
        self.ask = nn.Predict("question -> answer")
        self.think = Terse("question -> answer")
        self.wrap = metrics.as_metric

    def forward(self, question):
        return self.ask(question=question)


def sources():
    return [source_digest(each) for each in (Pipeline(), Terse("q -> a"), metrics.exact_match, metrics.as_metric)]


async def changed(self, *args, **inputs):
    return "of the next release"


def test_the_code_of_the_package_counts_by_its_release_series(monkeypatch):
    before = sources()
    major, minor, _ = promptgrad.__version__.split(".")
    monkeypatch.setattr(promptgrad, "__version__", f"{major}.{minor}.99")
    monkeypatch.setattr(nn.Predict, "forward", changed)
    monkeypatch.setattr(type(metrics.exact_match), "score", lambda self, gold, answer: 0.5)
    monkeypatch.setattr(metrics.as_metric, "__code__", (lambda fn: fn).__code__)
    assert sources() == before
    monkeypatch.setattr(promptgrad, "__version__", f"{major}.{int(minor) + 1}.0")
    assert not {*sources()} & {*before}


def test_the_code_of_the_user_on_top_of_the_package_counts(monkeypatch):
    before = sources()
    monkeypatch.setattr(Terse, "forward", changed)
    assert [one == other for one, other in zip(before, sources(), strict=True)] == [False, False, True, True]
    monkeypatch.setattr(Pipeline, "forward", changed)
    assert len({before[0], *sources()}) == 5


def test_which_class_of_the_package_it_is_counts():
    assert source_digest(nn.Predict("q -> a")) != source_digest(nn.ChainOfThought("q -> a"))
    assert source_digest(metrics.exact_match) != source_digest(metrics.f1)
    assert source_digest(metrics.exact_match) != source_digest(metrics.exact_match.replace(normalize=False))


PROMPTS = """
import json
import pydantic
import promptgrad as pg
from promptgrad import nn, optim

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon")


class Tagged(pydantic.BaseModel):
    tags: set[str]


class Program(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Predict("text, seen: set[str] -> word")
        self.second = nn.Predict("word, tagged: Tagged -> answer", types={"Tagged": Tagged})

    def forward(self, text):
        word = self.first(text=text, seen={*WORDS}).word
        if text in {"alpha", "beta", "gamma"}:
            raise ValueError("no")
        return self.second(word=word, tagged=Tagged(tags={*WORDS})).answer


asked = []

def answer(messages):
    system = messages[0].content
    asked.append([message.content for message in messages])
    if "critique" in system:
        return "\\n\\n".join(
            f"[[ ## {name} ## ]]\\nbe bold"
            for name in ("critique", "critique_of_word", "critique_of_seen", "critique_of_tagged")
        )
    last = "answer" if "tagged" in messages[-1].content else "word"
    name = "new_instruction" if "new_instruction" in system else last
    return f"[[ ## {name} ## ]]\\nBe bold."


model = Program().to(pg.lm.FunctionLM(answer))
rows = [pg.Example(text=text, answer="no").with_inputs("text") for text in ("alpha", "x", "y")]
for engine in ("local", "joint"):
    loss = nn.MetricLoss(pg.metrics.exact_match)(model.map(rows, concurrency=1), rows)
    loss.backward(engine=engine, concurrency=1)
opt = optim.TGD(model.parameters(), lm=model.first.lm)
opt.step()
print(json.dumps(sorted(map(json.dumps, asked))))
"""


def test_prompts_are_the_same_under_every_hash_seed():
    first, second = prompts(0), prompts(1)
    assert first == second
    assert any("critique" in prompt for prompt in first)
    assert any("new_instruction" in prompt for prompt in first)


def prompts(seed):
    return json.loads(digests(seed, PROMPTS))


def counting(limit):
    seen = 0
    rows = []

    def metric(example, output):
        nonlocal seen
        seen += 1
        rows.append(example)
        return len(output) < limit

    return metric, rows


class Tally(nn.Module):
    def __init__(self, limit):
        super().__init__()
        self.limit, self.calls, self.last = limit, 0, None

    def forward(self, text):
        self.calls += 1
        return self._noted(text)

    def _noted(self, text):
        self.last = text
        return text[: self.limit]

    def set_limit(self, limit):
        self.limit = limit


def test_what_the_code_itself_counts_is_no_source():
    program = Tally(3)
    before = source_digest(program)
    program("a text")
    assert (program.calls, program.last) == (1, "a text")
    assert source_digest(program) == before
    program.set_limit(4)
    assert source_digest(program) != before


def test_a_variable_that_a_function_assigns_is_no_source_and_one_that_it_reads_is():
    metric, rows = counting(3)
    before = source_parts(metric)
    metric("row", "out")
    assert {label for label, known in source_parts(metric).items() if known != before[label]} == {
        "the variable `rows` that `counting.<locals>.metric` reads from the function around it"
    }
    rows.clear()
    assert source_parts(metric) == before
    assert source_digest(metric) != source_digest(counting(4)[0])


def test_what_a_partial_holds_counts():
    def metric(example, output, limit):
        return len(output) < limit

    digests = {source_digest(functools.partial(metric, limit=limit)) for limit in (3, 4, 3)}
    assert len(digests) == 2
    assert source_digest(functools.partial(print, limit=3)) not in digests
