import asyncio
import os
import signal
import threading

import pytest

import promptgrad as pg
from promptgrad import aio, nn
from promptgrad.data import Example
from promptgrad.errors import AsyncUsageError, InputError, LMTimeoutError, NoLMError
from promptgrad.testing import Hang


class Echo(nn.Module):
    """A plain forward around one call."""

    def __init__(self):
        super().__init__()
        self.step = nn.Predict("question -> answer")

    def forward(self, question):
        return self.step(question=question).answer


class AsyncEcho(Echo):
    async def forward(self, question):
        await asyncio.sleep(0)
        return (await self.step.acall(question=question)).answer


def predict():
    return nn.Sequential(nn.Predict("question -> answer"), Field("answer"))


class Field(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.field = name

    def forward(self, **fields):
        return fields[self.field]


def echo_lm(scripted, fail=()):
    def answer(question):
        if question in fail:
            raise LMTimeoutError(f"no answer to {question}")
        return {"answer": question.upper()}

    return scripted(answer)


@pytest.mark.parametrize("make", [Echo, AsyncEcho, predict])
def test_outputs_come_in_order_and_failures_are_rows(scripted, make):
    program = make().to(echo_lm(scripted, fail=("b",)))
    batch = program.map([{"question": q} for q in "abc"])
    assert batch[0] == "A"
    assert batch[2] == "C"
    row = batch[1]
    assert not row
    assert isinstance(row.error, LMTimeoutError)
    assert row.example == {"question": "b"}
    assert "LMTimeoutError: no answer to b" in row.traceback
    assert 'raise LMTimeoutError(f"no answer' in row.traceback
    assert batch.errors == [row]
    assert batch.usage.calls == 2
    assert [r.error is None for r in batch.rows] == [True, False, True]
    assert batch.rows[0].seconds > 0


def test_an_error_row_says_why_it_has_no_fields(scripted):
    batch = Echo().to(echo_lm(scripted, fail=("a",))).map([{"question": "a"}])
    assert repr(batch) == "[<ErrorRow LMTimeoutError: no answer to a>]"
    with pytest.raises(AttributeError, match=r"this example failed and has no 'answer': LMTimeoutError"):
        _ = batch[0].answer
    assert isinstance(batch[:1], nn.Batch)
    assert batch[:1].rows == batch.rows


def test_items_are_examples_mappings_predictions_or_sole_values(scripted):
    program = Echo().to(echo_lm(scripted))
    items = [Example(question="a", answer="x"), {"question": "b"}, nn.Prediction(question="c"), "d"]
    assert program.map(items) == ["A", "B", "C", "D"]


def test_the_inputs_of_an_example_are_marked_or_told_by_the_forward(scripted):
    program = Echo().to(echo_lm(scripted))
    unmarked = Example(question="a", answer="label")
    marked = Example(question="a", note="n").with_inputs("question")
    wrong = Example(text="a").with_inputs("text")
    assert program.map([unmarked, marked])[:2] == ["A", "A"]
    batch = program.map([marked, wrong])
    assert batch[0] == "A"
    assert "'text' cannot be passed" in str(batch[1].error)
    with pytest.raises(InputError, match="Echo takes question, and the inputs of the example are text"):
        program.map([wrong])
    with pytest.raises(InputError, match="has none of them, only text"):
        program.map([Example(text="a")])


def test_labels_do_not_leak_into_a_forward_that_takes_anything(scripted):
    class Greedy(nn.Module):
        def forward(self, **fields):
            return fields

    with pytest.raises(InputError, match=r"name them with example\.with_inputs"):
        Greedy().map([Example(question="a", answer="b")])
    assert Greedy().map([Example(question="a", answer="b").with_inputs("question")]) == [{"question": "a"}]


@pytest.mark.parametrize("batch", [{"question": ["a", "b"]}, "ab", Example(question="a"), 3])
def test_what_is_no_list_of_items_is_refused(batch):
    with pytest.raises(InputError, match="map takes a list of items, not"):
        Echo().map(batch)


def test_an_empty_batch_is_an_empty_batch():
    assert Echo().map([]) == []


def test_no_language_model_is_told_at_once():
    with pytest.raises(NoLMError):
        Echo().map(["a", "b"])


def test_a_call_with_a_replicate_of_its_own_keeps_it_under_map(scripted):
    model = scripted(lambda question: {"answer": "x"})

    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.ask = nn.Predict("question -> answer")

        def forward(self, question):
            return self.ask(question=question), self.ask(question=question, config={"replicate": 7})

    Asks().to(model).map([{"question": "a"}], n=3)
    assert sorted(request.replicate for request in model.asked) == [0, 1, 2, 7, 7, 7]


def test_rows_carry_the_replicate_of_the_context(scripted):
    asked = scripted(lambda question: {"answer": "x"})
    model = nn.Predict("question -> answer").to(asked)
    with pg.context(replicate=3):
        batch = model.map([{"question": "a"}, {"question": "b"}])
    assert [row.replicate for row in batch.rows] == [3, 3]
    assert [request.replicate for request in asked.asked] == [3, 3]


def test_n_rollouts_stand_together_and_carry_their_replicate(scripted):
    model = echo_lm(scripted)
    batch = Echo().to(model).map([{"question": q} for q in "ab"], n=3)
    assert batch == ["A", "A", "A", "B", "B", "B"]
    assert [row.replicate for row in batch.rows] == [0, 1, 2, 0, 1, 2]
    assert sorted(request.replicate for request in model.asked) == [0, 0, 1, 1, 2, 2]
    assert [row.tape.nodes[0].replicate for row in batch.rows] == [0, 1, 2, 0, 1, 2]
    with pytest.raises(ValueError, match="at least 1"):
        Echo().map(["a"], n=0)


def test_rows_have_tapes_when_something_is_to_be_learnt(scripted):
    program = Echo().to(echo_lm(scripted))
    tapes = [row.tape for row in program.map(["a", "b"]).rows]
    assert [tape.inputs for tape in tapes] == [{"question": "a"}, {"question": "b"}]
    assert [node.path for tape in tapes for node in tape.nodes] == ["step", "step"]
    with pg.no_grad():
        assert program.map(["a"]).rows[0].tape is None
    program.requires_grad_(False)
    assert program.map(["a"]).rows[0].tape is None


@pytest.mark.parametrize("make", [Echo, AsyncEcho, predict])
@pytest.mark.parametrize("concurrency", [1, 5])
def test_concurrency_is_a_cap_and_is_used(loopback, make, concurrency):
    server, model = loopback(lambda messages: "[[ ## answer ## ]]\nx")
    server.hold()
    program = make().to(model)
    done = []
    thread = threading.Thread(target=lambda: done.append(program.map(list("abcdefgh"), concurrency=concurrency)))
    thread.start()
    server.wait_for(concurrency)
    assert server.in_flight == concurrency
    server.release()
    thread.join(60)
    assert done == [["x"] * 8]
    assert server.in_flight_high_water <= concurrency


class Nested(nn.Module):
    """Every forward maps another program, which maps another."""

    def __init__(self, depth):
        super().__init__()
        self.inner = Nested(depth - 1) if depth else Echo()

    def forward(self, question):
        return "".join(self.inner.map([question, question], concurrency=2))


def test_nested_maps_do_not_hang(scripted):
    program = Nested(3).to(echo_lm(scripted))
    assert program.map(["a", "b"], concurrency=2) == ["A" * 16, "B" * 16]


def test_a_nested_map_belongs_to_the_tape_around_it(scripted):
    tape = Nested(0).to(echo_lm(scripted)).map(["a"]).rows[0].tape
    assert [node.path for node in tape.nodes] == ["inner.step", "inner.step"]
    assert sorted(node.index for node in tape.nodes) == [0, 1]


def test_the_context_reaches_the_workers(scripted):
    with pg.context(lm=echo_lm(scripted)):
        assert Echo().map(["a", "b"]) == ["A", "B"]
        assert AsyncEcho().map(["a", "b"]) == ["A", "B"]
    program = Echo().to(scripted(lambda question: {"answer": program.step.instruction.data}))
    with program.candidate({"step.instruction": "Laid over."}):
        assert program.map(["a"]) == ["Laid over."]


def test_map_with_progress_is_silent_off_a_terminal(scripted, capsys):
    assert Echo().to(echo_lm(scripted)).map(["a", "b"], progress=True) == ["A", "B"]
    assert capsys.readouterr() == ("", "")


def test_map_on_the_program_loop_names_amap(scripted):
    class Wrong(Echo):
        async def forward(self, question):
            return self.step.map([question])

    with pytest.raises(AsyncUsageError, match=r"await module\.amap"):
        Wrong().to(echo_lm(scripted))("a")


@pytest.mark.asyncio
async def test_amap_in_an_async_test(scripted):
    assert await Echo().to(echo_lm(scripted)).amap(["a", "b"]) == ["A", "B"]
    assert await AsyncEcho().to(echo_lm(scripted)).amap(["a"]) == ["A"]
    assert AsyncEcho().to(echo_lm(scripted)).map(["a"]) == ["A"]  # blocks this loop meanwhile, as a notebook cell does


@pytest.mark.parametrize("make", [Echo, AsyncEcho, predict])
def test_ctrl_c_cancels_what_is_in_flight_and_keeps_what_is_done(loopback, make):
    def respond(messages):
        return Hang() if "stuck" in messages[-1]["content"] else "[[ ## answer ## ]]\nx"

    server, model = loopback(respond)
    program = make().to(model)
    program("warm")

    def interrupt():
        server.wait_for(5)  # the stuck ones are sent when the others have ended
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        program.map(["a", "b", "stuck", "stuck too"], concurrency=2)
    thread.join(60)
    server.wait_idle()
    assert list(caught.value.batch) == ["x", "x"]
    assert [row.example for row in caught.value.batch.rows] == ["a", "b"]
    assert program.map(["again"]) == ["x"]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # our threads are reset in the child
def test_a_fork_after_the_first_call_can_call_again(scripted):
    program = Echo().to(echo_lm(scripted))
    assert program.map(["a"]) == ["A"]
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = program.map(["b", "c"]) == ["B", "C"] and AsyncEcho().to(program.step.lm)("d") == "D"
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert aio.run(program.acall("e")) == "E"


def test_a_forward_that_cancels_itself_is_an_error_row_and_the_others_go_on():
    import asyncio

    class Own(nn.Module):
        def forward(self, text):
            if text == "bad":
                raise asyncio.CancelledError("a task of the program was cancelled")
            return text

    batch = Own().map([{"text": text} for text in ("a", "bad", "b")])
    assert [row.output for row in batch.rows if row.error is None] == ["a", "b"]
    assert isinstance(batch.rows[1].error, asyncio.CancelledError)
