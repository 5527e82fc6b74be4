import asyncio
import subprocess
import sys
import textwrap
import threading

import pytest

import promptgrad as pg
from promptgrad import aio, nn, run
from promptgrad.data import DataLoader, Example, Score
from promptgrad.errors import (
    AsyncUsageError,
    AuthenticationError,
    BillingError,
    BudgetExceeded,
    DataError,
    InputError,
    LMStatusError,
    MetricError,
    NoLMError,
    ParseError,
)
from promptgrad.lm import LM, Completion, FunctionLM, Usage
from promptgrad.metrics import exact_match
from tests.waiting import turns


def answer(text):
    return f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]"


def last(messages):
    return messages[-1].content


class Echo(nn.Module):
    """Answers with the question, in plain Python."""

    def forward(self, question):
        return question


class AsyncEcho(nn.Module):
    async def forward(self, question):
        await asyncio.sleep(0)
        return question


def rows(count=10, right=7):
    return [
        Example(question=str(n), answer=str(n) if n < right else "other").with_inputs("question") for n in range(count)
    ]


@pytest.mark.parametrize(
    "program",
    [Echo(), AsyncEcho(), lambda question: question, AsyncEcho().forward],
    ids=["module", "async module", "function", "async function"],
)
def test_any_program_is_scored(program):
    report = pg.evaluate(program, rows(), exact_match)
    assert report.score == 0.7
    assert len(report) == 10
    assert [row.score for row in report] == [1.0] * 7 + [0.0] * 3
    assert [row.output for row in report] == [str(n) for n in range(10)]
    assert report[9].feedback == "the answer should be other"
    assert report.errors == []
    low, high = report.interval
    assert 0.3 < low < 0.7 < high <= 1


def test_from_a_coroutine():
    async def main():
        return await pg.aevaluate(AsyncEcho(), rows(), exact_match)

    assert asyncio.run(main()).score == aio.run(main()).score == 0.7

    async def blocking():
        return pg.evaluate(Echo(), rows(), exact_match)

    assert asyncio.run(blocking()).score == 0.7  # a foreign loop, as in a notebook
    with pytest.raises(AsyncUsageError, match=r"await promptgrad\.evaluation\.aevaluate"):
        aio.run(blocking())


def test_rows_run_concurrently_up_to_the_limit_and_stay_in_order():
    lock, running, most = threading.Lock(), [0], [0]

    class Slow(nn.Module):
        async def forward(self, question):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            await asyncio.sleep(0.001 * (10 - int(question)))
            with lock:
                running[0] -= 1
            return question

    report = pg.evaluate(Slow(), rows(), exact_match, concurrency=4)
    assert most[0] == 4
    assert [row.output for row in report] == [str(n) for n in range(10)]
    with pg.context(concurrency=2):
        most[0] = 0
        pg.evaluate(Slow(), rows(), exact_match)
    assert most[0] == 2


def test_errors_are_rows_apart_from_wrong_answers():
    def program(question):
        if question == "3":
            raise KeyError("no such thing")
        return question

    def metric(example, output):
        if output == "4":
            raise ZeroDivisionError
        if output == "5":
            return float("nan")
        return example.answer == output

    report = pg.evaluate(program, rows(), metric)
    assert [type(row.error) for row in report.errors] == [KeyError, MetricError, MetricError]
    assert report.score == pytest.approx(4 / 7)
    assert isinstance(report.errors[1].error.__cause__, ZeroDivisionError)
    assert "NaN" in str(report.errors[2].error)
    assert report.errors[1].output == "4"
    text = str(report)
    assert "3 errors apart" in text
    assert "1 x KeyError: 'no such thing'" in text


def test_everything_failed_is_no_score():
    def program(question):
        raise LMStatusError("the server is down", status=500)

    with pytest.raises(LMStatusError, match="the server is down") as caught:
        pg.evaluate(program, rows(), exact_match)
    report = caught.value.report
    assert report.score != report.score
    assert len(report.errors) == 10
    assert "10 x LMStatusError: the server is down" in str(report)


def test_a_server_that_is_down_is_not_asked_for_all_rows():
    asked = []

    def program(question):
        asked.append(question)
        raise LMStatusError("the server is down", status=500)

    data = [Example(question=str(number), answer="").with_inputs("question") for number in range(40)]
    with pytest.raises(LMStatusError, match="the server is down"):
        pg.evaluate(program, data, exact_match, concurrency=1)
    assert len(asked) == 8


def test_an_empty_data_set_and_one_example_are_told():
    for data in ([], (), iter(())):
        with pytest.raises(DataError, match="the data is empty"):
            pg.evaluate(Echo(), data, exact_match)
    for data in (rows()[0], "text", {"question": "1"}):
        with pytest.raises(DataError, match="a list of examples, not one"):
            pg.evaluate(Echo(), data, exact_match)


def test_dicts_and_loaders_are_data():
    dicts = [{"question": "1", "answer": "1"}, {"question": "2", "answer": "x"}]
    assert pg.evaluate(Echo(), dicts, exact_match).score == 0.5  # inputs are forward's arguments, the rest labels
    assert len(pg.evaluate(Echo(), DataLoader(rows(), 4), exact_match)) == 10


def test_inputs_that_do_not_fit_are_told():
    with pytest.raises(InputError, match="takes question"):
        pg.evaluate(Echo(), [Example(text="a", answer="b")], exact_match)
    with pytest.raises(InputError, match="with_inputs"):
        pg.evaluate(lambda **inputs: "x", [Example(text="a", answer="b")], exact_match)
    report = pg.evaluate(Echo(), [*rows(2), Example(text="a", answer="b")], exact_match)
    assert [type(row.error) for row in report.errors] == [InputError]


def test_a_row_is_bound_when_it_begins():
    class Counts(Echo):
        bound, seen = 0, ()

        def input_names(self):
            Counts.bound += 1
            return ("question",)

        def forward(self, question):
            Counts.seen = (*Counts.seen, Counts.bound)
            return question

    assert pg.evaluate(Counts(), rows(), exact_match, concurrency=1).score == 0.7
    assert Counts.seen == tuple(range(2, 12))  # the first one was also tried before all


@pytest.mark.parametrize("program", [3, Echo, "model"])
def test_what_is_no_program_is_told(program):
    with pytest.raises(InputError, match="a module or a function"):
        pg.evaluate(program, rows(), exact_match)


def test_a_metric_that_never_works_is_told():
    def broken(example, output):
        raise NameError("typo")

    with pytest.raises(MetricError, match="the metric broken raised NameError"):
        pg.evaluate(Echo(), rows(), broken)
    with pytest.raises(MetricError, match=r"metric\(example, output\)"):
        pg.evaluate(Echo(), rows(), lambda output: 1)


def test_metrics_of_all_sorts():
    def dspy_metric(gold, pred, trace):
        return gold.answer == pred

    async def judge(example, output):
        await asyncio.sleep(0)
        return Score(0.5, feedback="so so", parts={"style": 1.0})

    def points(example, output):
        return 5

    points.best = 10
    assert pg.evaluate(Echo(), rows(), dspy_metric).score == 0.7
    report = pg.evaluate(Echo(), rows(), judge)
    assert (report.score, report.parts, report[0].feedback) == (0.5, {"style": 1.0}, "so so")
    report = pg.evaluate(AsyncEcho(), rows(), points)
    assert (report.score, report.best) == (5, 10)
    assert 5 < report.interval[1] < 10


def test_a_metric_may_call_a_module():
    judge = nn.Predict("question, output -> answer").to(FunctionLM(lambda messages: answer("yes"), name="judge"))

    def metric(example, output):
        return judge(question=example.question, output=output).answer == "yes"

    async def async_metric(example, output):
        return (await judge.acall(question=example.question, output=output)).answer == "yes"

    for program in (Echo(), AsyncEcho()):
        for each in (metric, async_metric):
            report = pg.evaluate(program, rows(4), each)
            assert report.score == 1
            assert report.usage.calls + report.usage.cached == 4


def test_usage_and_time_of_rows_add_up():
    calls = []

    def respond(messages):
        calls.append(messages)
        return Completion(answer("3"), Usage(calls=1, input_tokens=10, output_tokens=2, usd=0.001))

    model = nn.Predict("question -> answer").to(FunctionLM(respond, name="m"))
    report = pg.evaluate(model, rows(5), exact_match)
    assert len(calls) == 5
    assert (report.usage.calls, report.usage.tokens) == (5, 60)
    assert report.usage.usd == pytest.approx(0.005)
    assert report[0].usage.calls == 1
    assert report.seconds >= max(row.seconds for row in report) > 0


def test_nothing_is_recorded_and_grad_mode_comes_back():
    seen = []

    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = pg.Parameter("text")

        def forward(self, question):
            seen.append(pg.is_grad_enabled())
            return question

    pg.evaluate(Look(), rows(3), exact_match)
    assert seen == [False] * 3
    assert pg.is_grad_enabled()


def test_replicates_are_told_apart_and_averaged_by_example():
    seen = []

    class Draw(LM):
        name = "draw"

        async def complete(self, request):
            seen.append(request.replicate)
            return Completion(answer("1" if request.replicate == 0 else "2"))

    model = nn.Predict("question -> answer").to(Draw())
    report = pg.evaluate(
        model, [Example(question="1", answer="1"), Example(question="2", answer="1")], exact_match, replicates=3
    )
    assert [row.replicate for row in report] == [0, 1, 2] * 2
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]
    assert report.score == pytest.approx(1 / 3)
    assert report.interval == report[::3]._with(report.rows).interval
    assert report.interval[0] < 0.3  # of two examples, not of six rows
    seen.clear()
    with pg.context(replicate=4):
        pg.evaluate(model, [Example(question="1", answer="1")], exact_match, replicates=2)
    assert sorted(seen) == [4, 5]


def test_another_lm_for_the_whole_program():
    model = nn.Predict("question -> answer").to(FunctionLM(lambda messages: answer("wrong"), name="a"))
    report = pg.evaluate(model, rows(3), exact_match, lm=FunctionLM(lambda messages: answer("1"), name="b"))
    assert [row.score for row in report] == [0, 1, 0]


def test_no_lm_is_told_once():
    with pytest.raises(NoLMError):
        pg.evaluate(nn.Predict("question -> answer"), rows(), exact_match)


@pytest.mark.parametrize("kind", [AuthenticationError, BillingError])
def test_a_wrong_key_and_an_empty_account_end_it(kind):
    def refuse(messages):
        raise kind("no", status=401)

    with pytest.raises(kind):
        pg.evaluate(nn.Predict("question -> answer").to(FunctionLM(refuse, name="m")), rows(), exact_match)


def test_a_reply_that_does_not_parse_is_an_error_row():
    def respond(messages):
        return answer("1") if "\n1" in last(messages) else "gibberish without a field"

    model = nn.Predict("question -> answer: int", retries=0).to(FunctionLM(respond, name="m"))
    report = pg.evaluate(model, rows(3), exact_match)
    assert [type(row.error) for row in report] == [ParseError, type(None), ParseError]


def test_an_exhausted_budget_carries_the_finished_rows():
    model = nn.Predict("question -> answer").to(FunctionLM(lambda messages: answer("1"), name="m"))
    with run.active(ledger=run.Ledger(run.Budget(calls=4))), pytest.raises(BudgetExceeded) as caught:
        pg.evaluate(model, rows(), exact_match, concurrency=1)
    report = caught.value.report
    assert len(report) == 4
    assert not report.complete
    assert "stopped before the end" in str(report)


def test_a_cancelled_evaluation_carries_the_finished_rows():
    waiting = []

    async def program(question):
        if int(question) >= 4:
            waiting.append(question)
            await aio.Signal()
        return question

    async def evaluation():
        try:
            await pg.aevaluate(program, rows(), exact_match)
        except asyncio.CancelledError as stop:
            return stop.report

    async def main():
        task = asyncio.ensure_future(evaluation())
        while len(waiting) < 6:
            await asyncio.sleep(0)
        await turns()  # the first four are judged
        task.cancel()
        return await task

    assert len(asyncio.run(main())) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_ctrl_c_loses_nothing():
    code = textwrap.dedent(
        """
        import signal, sys, threading, time
        import promptgrad as pg
        from promptgrad.data import Example
        scored, stuck, main = [], [], threading.main_thread().ident
        def metric(example, output):
            scored.append(output)
            return 1
        class Program(pg.nn.Module):
            def forward(self, question):
                if question >= 3:
                    stuck.append(question)
                    pg.aio.drive(wait())
                return question
        async def wait():
            await pg.aio.Signal()
        async def turns():
            for _ in range(50):
                await pg.aio.sleep(0)
        def press():
            while len(scored) < 3 or len(stuck) < 3:
                time.sleep(0.002)
            pg.aio.run(turns())  # the rows that were scored are rows of the report
            while sys._current_frames()[main].f_code.co_name != "block":
                time.sleep(0.002)
            signal.pthread_kill(main, signal.SIGINT)
        threading.Thread(target=press, daemon=True).start()
        try:
            pg.evaluate(Program(), [Example(question=n, answer=n) for n in range(6)], metric)
        except KeyboardInterrupt as stop:
            print("rows", len(stop.report), stop.report.score, flush=True)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.splitlines() == ["rows 3 1.0"], done.stderr


def test_options_are_checked():
    with pytest.raises(ValueError, match="replicates"):
        pg.evaluate(Echo(), rows(), exact_match, replicates=0)
    with pytest.raises(ValueError, match="concurrency"):
        pg.evaluate(Echo(), rows(), exact_match, concurrency=0)
    with pytest.raises(TypeError, match="num_threads"):
        pg.evaluate(Echo(), rows(), exact_match, num_threads=4)


def test_progress_is_silent_here_and_drawn_on_request(capsys, monkeypatch):
    import io

    pg.evaluate(Echo(), rows(), exact_match)
    assert capsys.readouterr() == ("", "")
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    pg.evaluate(Echo(), rows(), exact_match, progress=True)
    assert "evaluate Echo" in stderr.getvalue()
    assert "10/10" in stderr.getvalue()
    assert "0.700" in stderr.getvalue()


def test_rows_that_are_tuples_get_what_to_write():
    with pytest.raises(
        DataError, match=r"not a tuple such as \(1, 1\).*\[pg\.Example\(question=question, answer=answer\)"
    ):
        pg.evaluate(nn.Predict("question -> answer").to(FunctionLM(lambda messages: "x")), [(1, 1)], exact_match)
    two = nn.Predict("question, notes -> answer").to(FunctionLM(lambda messages: "x"))
    with pytest.raises(DataError, match="for question, notes, answer in data"):
        pg.evaluate(two, [("a", "b", "c")], exact_match)
    assert pg.evaluate(lambda pair: sum(pair), [(1, 2)], lambda row, output: output == 3).score == 1
