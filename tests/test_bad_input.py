"""Bad input, end to end: the error says what was wrong, what was expected and what to do, and nothing is lost.

Everything is real: a server on loopback, processes, signals, files.
"""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad import errors, lm, nn, optim
from promptgrad.metrics import exact_match
from promptgrad.testing import Cut, Drop, Fields, Garbage, Hang, LoopbackLM, Status
from tests.waiting import given_time

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def running():
    with LoopbackLM(Fields(answer=lambda inputs: inputs["question"].upper())) as server:
        yield server


@pytest.fixture
def server(running):
    running.reset()
    return running


def at(server, **options):
    return lm.HTTP("simulated", base_url=server.url, api_key="none", **options)


def echo(server, signature="question -> answer", **options):
    return nn.Predict(signature, lm=at(server), **options)


def examples(count=8, wrong=(), prefix="q"):
    return [
        pg.Example(question=f"{prefix}{i}", answer="else" if i in wrong else f"{prefix}{i}".upper()).with_inputs(
            "question"
        )
        for i in range(count)
    ]


# -- inputs of a call ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signature", "args", "inputs", "said"),
    [
        ("question -> answer", (), {"question": "a", "kontext": "b"}, ["question -> answer", "no input 'kontext'"]),
        ("question, context -> answer", (), {"question": "a"}, ["missing the input 'context'"]),
        ("question -> answer", (), {"qestion": "a"}, ["missing the input 'question'", "did you mean 'question'?"]),
        ("question -> answer", (), {"question": "a", "answer": "b"}, ["no input 'answer'", "it is an output"]),
        ("question -> answer", (), {"question": 3}, ["'question' (str)", "must be str, not int", "got 3"]),
        ("question -> answer", (None,), {}, ["must be str, not NoneType"]),
        (
            "question, notes: list[str] -> answer",
            (),
            {"question": "a", "notes": "abc"},
            ["'notes' (list[str])", "'abc'"],
        ),
        ("question, notes -> answer", ("a",), {}, ["by name", "question=..., notes=..."]),
        ("question -> answer", ({"question": "a"},), {}, ["a dict was passed", "**inputs", ".map([...])"]),
        ("question -> answer", (pg.Example(question="a"),), {}, ["an Example was passed", "**example.inputs()"]),
        ("question -> answer", (nn.Prediction(answer="a"),), {}, ["a whole Prediction was passed", ".answer"]),
        ("question -> answer", (nn.Parameter("a"),), {}, ["a Parameter was passed", "str(parameter)"]),
        ("question -> answer", ("a",), {"temperature": 1}, ["config={'temperature': ...}"]),
    ],
)
def test_wrong_inputs_are_named_and_nothing_is_sent(server, signature, args, inputs, said):
    with pytest.raises(errors.InputError) as caught:
        echo(server, signature)(*args, **inputs)
    assert [part for part in said if part not in str(caught.value)] == []
    assert not server.requests


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("question answer", ["no '->'", "column 16", "Write it as 'question, context: list[str] -> answer: float'"]),
        ("question => answer", ["'=>' is not an arrow", "write '->'"]),
        ("question ->", ["no output field after '->'"]),
        ("", ["it is empty", "Write it as"]),
        ("a b -> c", ["expected ',' or '->' after 'a', got 'b'"]),
        ("1q -> answer", ["a name cannot start with a digit"]),
        ("question -> answer: Foo", ["unknown type 'Foo'", "types={'Foo': Foo}"]),
        ("question -> answer: list[", ["expected a type, got the end"]),
        ("question -> question", ["the field 'question' appears twice"]),
        ("question -> class", ["Python keyword", "class_text"]),
        ("a -> b -> c", ["a second '->'"]),
        ("a -> b: __import__('os').getcwd()", ["'.' has no meaning"]),
        (3, ["a text such as 'question -> answer'", "got 3"]),
    ],
)
def test_a_signature_that_cannot_be_read_shows_where_and_what_to_write(signature, said):
    with pytest.raises(errors.SignatureError) as caught:
        nn.Predict(signature)
    assert [part for part in said if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("slip", "right"), [("instructions", "instruction"), ("demo", "demos"), ("temprature", "temperature")]
)
def test_a_misspelt_option_is_not_sent_to_the_provider(server, slip, right):
    with pytest.raises(TypeError, match=f"no argument '{slip}': did you mean '{right}'"):
        nn.Predict("question -> answer", **{slip: "x"})
    with pytest.raises(TypeError, match=f"did you mean '{right}'"):
        echo(server)(question="a", config={slip: "x"})
    assert not server.requests


def test_no_language_model_names_all_four_ways():
    for call in (lambda m: m("a"), lambda m: m.map(["a"]), lambda m: pg.evaluate(m, examples(), exact_match)):
        with pytest.raises(errors.NoLMError) as caught:
            call(nn.Predict("question -> answer"))
        for way in (
            "module(..., lm=lm)",
            ".to(",
            "promptgrad.context(lm=lm)",
            "promptgrad.configure(lm=lm)",
            '"pocket"',
        ):
            assert way in str(caught.value)


def test_a_judge_without_a_language_model_says_where_it_goes(server):
    with pytest.raises(errors.NoLMError, match=r"nn\.JudgeLoss\(rubric, lm=\.\.\.\)"):
        nn.JudgeLoss("Be polite.")(echo(server).map(examples(2)), examples(2))


# -- a language model that fails -----------------------------------------------------------------------------------

FAULTS = {
    "429": (
        Status(429, message="slow down"),
        errors.RateLimitError,
        ["answered 429", "'simulated'", "slow down", "concurrency="],
    ),
    "429 with a wait": (Status(429, retry_after=7), errors.RateLimitError, ["answered 429", "asks to wait 7 s"]),
    "500": (Status(500, message="oops"), errors.LMStatusError, ["answered 500", "oops"]),
    "401": (Status(401), errors.AuthenticationError, ["answered 401", "set OPENAI_API_KEY, or pass api_key="]),
    "404": (Status(404), errors.LMStatusError, ["is 'simulated' served there", "base_url"]),
    "too long": (
        Status(400, kind="context_length_exceeded", message="maximum context length is 10"),
        errors.ContextWindowError,
        ["maximum context length is 10"],
    ),
    "cut": (Cut(), errors.LMReplyError, ["was cut"]),
    "dropped": (Drop(), errors.LMConnectionError, ["cannot reach", "does the server run there?"]),
    "html": (Garbage(), errors.LMReplyError, ["is not JSON", "502 Bad Gateway"]),
    "json": (Garbage(b'{"a": 1}'), errors.LMReplyError, ["no choices[0].message", '{"a": 1}']),
}


def check_that_a_failure_is_told_and_costs_no_other_example(server, model, answer, kind, said):
    server.script(answer)
    with pytest.raises(kind) as caught:
        model("a")
    assert [part for part in said if part not in str(caught.value)] == []
    assert isinstance(caught.value, errors.LMError)

    server.script("[[ ## answer ## ]]\nQ0", answer)
    batch = model.map(examples(4), concurrency=1)
    assert [type(row).__name__ for row in batch] == ["Prediction", "ErrorRow", "Prediction", "Prediction"]
    assert isinstance(batch[1].error, kind)
    assert "Traceback" in batch[1].traceback
    with pytest.raises(AttributeError, match="this example failed"):
        _ = batch[1].answer


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_model_is_told_and_costs_no_other_example(server, fault):
    model = nn.Predict("question -> answer", lm=at(server, timeout=60))
    check_that_a_failure_is_told_and_costs_no_other_example(server, model, *FAULTS[fault])


def test_so_is_a_silent_one(server):
    def check(seconds):
        server.reset()
        model = nn.Predict("question -> answer", lm=at(server, timeout=seconds))
        said = ["no answer from", f"within {seconds:g} s"]
        check_that_a_failure_is_told_and_costs_no_other_example(server, model, Hang(), errors.LMTimeoutError, said)

    given_time(check, 0.5)


@pytest.mark.parametrize(
    "fault", [name for name in FAULTS if name not in {"401", "404", "too long", "429 with a wait"}]
)
def test_what_may_pass_is_sent_again(server, fault):
    server.script(FAULTS[fault][0])
    model = nn.Predict("question -> answer", lm=lm.Retry(at(server), attempts=2, base=0.01))
    assert model("a").answer == "A"
    assert len(server.requests) == 2


def test_a_server_that_is_not_there_is_said_at_once():
    with LoopbackLM() as gone:
        url = gone.url
    model = nn.Predict("question -> answer", lm=lm.Retry(lm.HTTP("m", base_url=url), attempts=2, base=0.01))
    with pytest.raises(
        errors.LMConnectionError, match=r"nothing listens there; does the server run there\?.*base_url="
    ):
        model("a")
    with pytest.raises(errors.LMConnectionError, match="cannot reach") as caught:
        pg.evaluate(model, examples(), exact_match)
    report = caught.value.report
    assert math.isnan(report.score)  # not 0: nothing was measured
    assert len(report.errors) == 8
    assert "8 x LMConnectionError" in repr(report)
    with pytest.raises(errors.LMConnectionError):
        pg.Trainer(model, optim.TGD(model.parameters()), metric=exact_match).fit(examples(), examples(prefix="v"))


def test_an_evaluation_that_no_call_answers_ends_after_a_few_rows(server):
    server.script(*[Status(404)] * 40)
    with pytest.raises(errors.LMStatusError, match="is 'simulated' served there") as caught:
        pg.evaluate(echo(server), examples(40), exact_match, concurrency=2)
    assert 8 <= len(server.requests) <= 10
    assert 8 <= len(caught.value.report) == len(caught.value.report.errors) <= 10


def test_one_answer_is_enough_for_an_evaluation_to_go_on(server):
    server.script("[[ ## answer ## ]]\nQ0", *[Status(404)] * 39)
    report = pg.evaluate(echo(server), examples(40), exact_match, concurrency=1)
    assert (report[0].score, len(report.errors)) == (1, 39)  # one answer, and the rest is rows of their own


def test_a_wait_that_is_asked_for_is_obeyed_or_refused(server):
    server.script(Status(429, retry_after=0.05))
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    assert nn.Predict("question -> answer", lm=lm.Retry(at(server), sleep=sleep))("a").answer == "A"
    assert 0.25 <= waits[0] <= 0.5  # the own wait is longer
    server.script(Status(429, retry_after=9999))
    with pytest.raises(
        errors.RateLimitError, match=r"asks to wait 9999 s.*not waited for: patience is 120 s"
    ) as caught:
        nn.Predict("question -> answer", lm=lm.Retry(at(server), sleep=sleep))("a")
    assert caught.value.retry_after == 9999


def test_a_reply_without_the_fields_is_asked_again_then_told(server):
    model = echo(server, "question -> year: int, why: str")
    server.script("I would rather not.", "[[ ## year ## ]]\n1969\n\n[[ ## why ## ]]\nthe moon")
    said = model("when?")
    assert (said.year, said.why, said.reasks) == (1969, "the moon", 1)
    assert "`year`" in server.requests[1].prompt  # the model is told what was wrong

    server.script("[[ ## year ## ]]\nsoon\n\n[[ ## why ## ]]\nx", "[[ ## year ## ]]\nlater\n\n[[ ## why ## ]]\nx")
    with pytest.raises(errors.ParseError) as caught:
        model("when?")
    assert "asked 2 times" in str(caught.value)
    assert "`year`" in caught.value.reason
    assert "later" in caught.value.reply


def test_an_empty_reply_is_no_answer(server):
    server.script("", "[[ ## answer ## ]]\nyes")
    assert echo(server)("a").answer == "yes"
    server.script("", "")
    with pytest.raises(errors.ParseError, match="`answer` is missing"):
        echo(server)("a")


# -- data, metrics, states, budgets --------------------------------------------------------------------------------


def test_nothing_to_work_on(server, tmp_path):
    model = echo(server)
    trainer = pg.Trainer(model, optim.BootstrapFewShot(model.parameters()), metric=exact_match)
    (tmp_path / "none.jsonl").write_text("")
    for call, said in [
        (lambda: pg.evaluate(model, [], exact_match), "nothing to evaluate: the data is empty"),
        (lambda: pg.data.DataLoader([]), "the data set is empty: a loader needs at least one example"),
        (lambda: pg.data.split([], [0.5, 0.5]), "nothing to split"),
        (lambda: pg.data.read_jsonl(tmp_path / "none.jsonl"), "has no rows"),
        (lambda: trainer.fit([]), "trainset is empty: give examples"),
        (lambda: trainer.fit(examples(), []), "valset is empty: give examples, or leave valset out"),
    ]:
        with pytest.raises(errors.DataError, match=said):
            call()
    with pytest.raises(errors.InputError, match="the batch is empty: there is nothing to score"):
        nn.MetricLoss(exact_match)(model.map([]), [])
    with pytest.raises(ValueError, match=r"empty parameter list: .* pass model\.parameters\(\)"):
        optim.TGD([])
    assert not server.requests


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (lambda example, output: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda example, output: math.nan, "the score is NaN; raise an error for an output that cannot be scored"),
        (lambda example, output: None, "returned None; does every branch end in a return?"),
        (lambda example, output: "yes", "returned str 'yes'; return a number or Score"),
        (lambda example, output: 5, r"5 lies outside \[0, 1\]; scale it, or give .* `best`"),
        (lambda example, output: output.anser == "A", "no field 'anser' .did you mean 'answer'"),
        (lambda example, output: example.anser == "A", "no field 'anser' .did you mean 'answer'"),
    ],
)
def test_a_metric_that_never_works(server, metric, said):
    model = echo(server)
    with pytest.raises(errors.MetricError, match=f"the metric <lambda> .*{said}"):
        pg.evaluate(model, examples(), metric)
    with pytest.raises(errors.MetricError, match=said):
        nn.MetricLoss(metric)(model.map(examples()), examples())


def test_a_metric_that_fails_now_and_then_makes_rows_of_their_own(server):
    def fragile(example, output):
        if example.question == "q3":
            raise ValueError("boom")
        return math.nan if example.question == "q4" else output.answer == example.answer

    data = examples(wrong=[0])
    report = pg.evaluate(echo(server), data, fragile)
    assert report.score == pytest.approx(5 / 6)
    assert [row.example.question for row in report.errors] == ["q3", "q4"]
    assert "fragile raised ValueError: boom" in repr(report)
    loss = nn.MetricLoss(fragile)(echo(server).map(data), data)
    assert loss.item() == pytest.approx(1 / 6)
    assert len(loss.errors) == 2


def test_what_cannot_be_a_metric(server):
    with pytest.raises(errors.MetricError, match=r"called as metric\(example, output\); <lambda> takes \(e\)"):
        pg.evaluate(echo(server), examples(), lambda e: 1)
    with pytest.raises(errors.MetricError, match=r"needs an Example .* called as exact_match\(example, output\)"):
        exact_match(nn.Prediction(answer="a"), examples()[0])


def test_a_state_of_another_program_changes_nothing(server, tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Predict("question -> answer")
            self.second = nn.Predict("question -> reply")

    pg.save(Two().state_dict(), tmp_path / "two.json")
    model = echo(server)
    before = model.state_dict()
    for load in (
        lambda: model.load_state_dict(pg.load(tmp_path / "two.json")),
        lambda: pg.load(tmp_path / "two.json", model),
    ):
        with pytest.raises(errors.StateDictError) as caught:
            load()
        assert {"instruction", "demos"} <= set(caught.value.missing)
        assert len(caught.value.unexpected) == 4
        for part in ("missing     demos", "unexpected  second.demos", "strict=False"):
            assert part in str(caught.value)
    assert model.state_dict() == before

    (tmp_path / "torn.json").write_text((tmp_path / "two.json").read_text()[:50])
    with pytest.raises(errors.StateDictError, match="it is not JSON"):
        pg.load(tmp_path / "torn.json")
    (tmp_path / "other.json").write_text(json.dumps({"weights": [1]}))
    with pytest.raises(errors.StateDictError, match=r"not a state that promptgrad.save wrote"):
        pg.load(tmp_path / "other.json")
    with pytest.raises(TypeError, match=r"write promptgrad.load\(path, model\)"):
        pg.load(model, tmp_path / "two.json")
    with pytest.raises(TypeError, match=r"promptgrad.load\(path\)"):
        model.load_state_dict(tmp_path / "two.json")


def test_a_budget_of_zero_and_one_that_is_too_small(server):
    with pytest.raises(errors.BudgetExceeded, match="0 calls allows nothing at all: give a number above zero, or None"):
        pg.Budget(calls=0)
    with pytest.raises(ValueError, match="above zero or None for no limit, not -1"):
        pg.Budget(usd=-1)
    model = echo(server)
    optimizer = optim.TGD(model.parameters())
    with pytest.raises(TypeError, match=r"budget is a promptgrad.Budget, such as .*, not 100"):
        pg.Trainer(model, optimizer, metric=exact_match, budget=100)
    before = model.state_dict()
    trainer = pg.Trainer(model, optimizer, metric=exact_match, budget=pg.Budget(calls=3))
    with pytest.raises(
        errors.BudgetExceeded, match=r"does not cover measuring the start .* Nothing was changed"
    ) as caught:
        trainer.fit(examples(), examples(wrong=range(8), prefix="v"))
    assert caught.value.kind == "calls"
    assert len(server.requests) <= 3
    assert model.state_dict() == before
    with pytest.raises(errors.UnknownPriceError, match=r"price of this model is not known.*prices="):
        pg.Trainer(model, optimizer, metric=exact_match, budget=pg.Budget(usd=1)).fit(examples(), examples(prefix="v"))


def test_all_right_is_nothing_to_do(server):
    model = echo(server)
    data = examples()
    loss = nn.MetricLoss(exact_match)(model.map(data), data)
    assert repr(loss) == "Loss(0, 0 of 8 failed, 0 errors)"
    sent = len(server.requests)
    report = loss.backward()
    assert "0 of 8 failed, nothing to do" in repr(report)
    step = optim.TGD(model.parameters(), lm=at(server)).step()
    assert "nothing failed" in repr(step)
    assert len(server.requests) == sent  # a success costs nothing

    trainer = pg.Trainer(model, optim.TGD(model.parameters()), metric=exact_match)
    result = trainer.fit(examples(4, prefix="t"), examples(16, prefix="v"))
    assert "nothing to improve. 0 of 16 validation examples failed, nothing to do" in repr(result)


def test_one_item_or_columns_are_no_batch(server):
    model = echo(server)
    for batch, said in [
        ("abc", r"map\(\[item\]\)"),
        (examples()[0], r"map\(\[item\]\)"),
        ({"question": ["a"]}, "mapping of columns"),
    ]:
        with pytest.raises(errors.InputError, match=said):
            model.map(batch)
    for concurrency in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1, not {concurrency}"):
            model.map(["a"], concurrency=concurrency)


@pytest.mark.parametrize("kind", [ImportError, errors.MissingExtraError])
def test_a_package_that_is_missing_is_told_at_once_and_not_row_by_row(kind):
    def broken(messages):
        raise kind("no module named 'torch'")

    model = nn.Predict("question -> answer", lm=lm.FunctionLM(broken))
    trainer = pg.Trainer(model, optim.BootstrapFewShot(model.parameters()), metric=exact_match)
    for call in (
        lambda: model.map(examples()),
        lambda: pg.evaluate(model, examples(), exact_match),
        lambda: trainer.fit(examples(), examples(prefix="v")),
        lambda: pg.evaluate(lambda question: "a", examples(), lambda example, output: model("a").answer == "a"),
    ):
        with pytest.raises(kind, match="no module named 'torch'"):
            call()


# -- loops, signals, processes -------------------------------------------------------------------------------------


def test_a_blocking_call_where_it_would_wait_for_itself(server):
    model = echo(server)

    class Slip(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = model

        async def forward(self, question):
            return self.step(question=question)

    with pytest.raises(errors.AsyncUsageError, match=r"Predict was called inside .* Write `await module.acall\(...\)`"):
        Slip()("a")
    (row,) = Slip().map(["a"])
    assert isinstance(row.error, errors.AsyncUsageError)

    async def inside():
        return model.map(["a"])

    with pytest.raises(errors.AsyncUsageError, match=r"await module.amap\(...\)"):
        pg.aio.run(inside())


INTERRUPTED = """
import sys
import promptgrad as pg
from promptgrad import lm, nn

model = nn.Predict("question -> answer", lm=lm.HTTP("m", base_url=sys.argv[1], api_key="none"))
try:
    model.map(["a", "b", "stuck", "stuck too"], concurrency=2)
except KeyboardInterrupt as stop:
    print("kept", [row.answer for row in stop.batch])
print("again", model("c").answer)
model.map(["stuck"])
"""


def test_ctrl_c_in_the_middle_of_map_keeps_what_is_done():
    def respond(messages):
        text = messages[-1]["content"]
        return Hang() if "stuck" in text else Fields(answer=lambda inputs: inputs["question"].upper())(messages)

    with LoopbackLM(respond) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            server.wait_for(4, timeout=600)
            process.send_signal(signal.SIGINT)
            server.wait_for(6, timeout=600)  # it went on, and is stuck again
            process.send_signal(signal.SIGINT)  # nobody catches this one
            out, err = process.communicate(timeout=600)
        finally:
            process.kill()
            process.wait(timeout=600)
        server.wait_idle()
    assert out == "kept ['A', 'B']\nagain C\n"
    assert process.returncode in (-signal.SIGINT, 130)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "was destroyed" not in err
    assert "never awaited" not in err


FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from promptgrad import lm, nn

model = nn.Predict("question -> answer", lm=lm.Cache(lm.HTTP("m", base_url=sys.argv[1], api_key="none"), sys.argv[2]))
print(model("a").answer, flush=True)
model.lm.flush()  # or the child may come before the disk has it
child = os.fork()
if child == 0:
    print([row.answer for row in model.map(["a", "b"])], flush=True)
    model.lm.flush()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print([row.answer for row in model.map(["b", "c"])])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_after_the_first_call_shares_the_cache_and_calls_on(server, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, server.url, str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["A", "['A', 'B']", "['B', 'C']"]
    assert len(server.requests) == 3  # what the child asked, the parent finds on disk


def test_threads_do_not_see_one_anothers_language_model(server):
    model = nn.Predict("question -> answer")
    seen = {}
    barrier = threading.Barrier(4)

    def work(name):
        with pg.context(lm=lm.FunctionLM(lambda messages: name)):
            barrier.wait(60)
            seen[name] = [row.answer for row in model.map(["a", "b"])]

    threads = [threading.Thread(target=work, args=(name,)) for name in "wxyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == {name: [name, name] for name in "wxyz"}
    with pytest.raises(errors.NoLMError):
        model("a")


def test_the_same_examples_in_train_and_validation_warn(server):
    model = echo(server)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pg.Trainer(model, optim.TGD(model.parameters()), metric=exact_match).fit(examples(), examples())
    assert any("8 examples are in both training and validation data" in str(warning.message) for warning in told)
