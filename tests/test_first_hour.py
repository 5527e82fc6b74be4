"""What a user of PyTorch or DSPy tries in the first hour: it works, or the error says what to write instead."""

import asyncio
import copy
import datetime
import enum
import json
import pickle
import subprocess
import sys
import warnings
from typing import Literal, Optional

import aiohttp
import pydantic
import pytest
from aiohttp import web

import promptgrad as pg
from promptgrad import errors, lm, nn, optim
from promptgrad.metrics import exact_match
from promptgrad.testing import Fields, LoopbackLM


@pytest.fixture(scope="module")
def running():
    with LoopbackLM(Fields(answer=lambda inputs: inputs["question"].upper())) as server:
        yield server


@pytest.fixture
def server(running):
    running.reset()
    return running


@pytest.fixture
def model(server):
    return TwoSteps().to(lm.HTTP("simulated", base_url=server.url, api_key="none"))


class TwoSteps(nn.Module):
    def __init__(self):
        super().__init__()
        self.think = nn.ChainOfThought("question -> answer")
        self.polish = nn.Predict("question -> answer", instruction="Polish it.")
        self.register_buffer("seen", [1, 2])

    def forward(self, question):
        return self.polish(question=self.think(question=question).answer)


class AsyncSteps(TwoSteps):
    async def forward(self, question):
        first = await self.think.acall(question=question)
        return await self.polish.acall(question=first.answer)


def examples(count=8, wrong=()):
    return [
        pg.Example(question=f"q{i}", answer="else" if i in wrong else f"Q{i}").with_inputs("question")
        for i in range(count)
    ]


# -- the habits of PyTorch -----------------------------------------------------------------------------------------


def test_print_shows_the_tree(model, capsys):
    print(model)  # noqa: T201 - what the user types
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "TwoSteps("
    assert lines[1].startswith("  (think): ChainOfThought(question -> reasoning, answer, instruction='Given the fields")
    assert lines[2] == "  (polish): Predict(question -> answer, instruction='Polish it.', lm='simulated')"


def test_a_deepcopy_is_a_program_of_its_own(model):
    other = copy.deepcopy(model)
    other.polish.instruction.data = "Spoil it."
    other.seen.append(3)
    assert model.polish.instruction.data == "Polish it."
    assert model.seen == [1, 2]
    assert other("a").answer == "A"


def test_parameters_are_tensors_of_text(model):
    assert [name for name, _ in model.named_parameters()] == [
        "think.instruction",
        "think.demos",
        "polish.instruction",
        "polish.demos",
    ]
    for p in model.parameters():
        assert p.requires_grad
        assert p.grad is None
    p = model.polish.instruction
    p.data = "Shorten it."
    assert (p.shape, str(p), f"{p}!") == ((), "Shorten it.", "Shorten it.!")
    assert dict(model.named_parameters())["polish.instruction"] is p
    assert model.polish.render(question="x")[0]["content"].startswith("Shorten it.")
    model.polish.demos.data = [{"question": "a", "answer": "b"}]
    assert model.polish.demos.shape == (1,)
    with pytest.raises(errors.ConstraintError, match=r"instruction cannot be 3: it must be a str, not int"):
        p.data = 3
    with pytest.raises(TypeError, match=r"write `.instruction.data = ...`"):
        model.polish.instruction = "x"
    assert p.data == "Shorten it."
    assert sum(q.numel() for q in model.parameters()) > 0


def test_the_loop_that_everyone_knows(model):
    data = examples(wrong=[1, 4])
    opt = optim.TGD(model.parameters(), lm=model.polish.lm)
    criterion = nn.MetricLoss(exact_match)
    first = None
    pg.manual_seed(0)
    for batch in pg.data.DataLoader(data, batch_size=4, shuffle=True):
        opt.zero_grad()
        loss = criterion(model.map(batch), batch)
        loss.backward()
        opt.step()
        first = first or loss
    assert isinstance(first.item(), float)
    assert 0 <= first.item() <= 1
    assert "of 4 failed, 0 errors" in repr(first)


@pytest.mark.parametrize("decorate", [pg.no_grad(), pg.no_grad, pg.inference_mode(), pg.inference_mode])
def test_no_grad_with_and_without_parentheses(model, decorate):
    @decorate
    def ask():
        return model("a").answer

    assert ask().grad_fn is None
    assert model("a").answer.grad_fn is not None
    with pg.no_grad():
        assert not pg.is_grad_enabled()


def test_states_through_json_and_files(model, tmp_path):
    model.polish.demos.data = [pg.Example(question="a", answer="b").with_inputs("question")]
    state = json.loads(json.dumps(model.state_dict()))
    other = TwoSteps()
    assert other.load_state_dict(state) == ((), (), {})
    assert other.polish.demos.data == model.polish.demos.data
    fit = other.load_state_dict({"polish.instruction": "New.", "strange": 1}, False)
    assert fit.unexpected_keys == ("strange",)
    assert "think.demos" in fit.missing_keys
    assert other.polish.instruction.data == "New."

    pg.save(model.state_dict(), tmp_path / "state.json")
    other.load_state_dict(pg.load(tmp_path / "state.json"))
    assert other.polish.instruction.data == "Polish it."
    pg.save(model, tmp_path / "folder")
    assert pg.load(tmp_path / "folder", TwoSteps()).seen == [1, 2]
    assert "none" not in (tmp_path / "state.json").read_text()  # the key


def test_to_moves_a_part(model):
    assert model.polish.to(lm.FunctionLM(lambda messages: "by hand")) is model.polish
    assert model("a").answer == "by hand"
    assert model.think.lm.name == "simulated"
    for device in ("cuda", "cuda:0", "cpu"):
        with pytest.raises(TypeError, match="the device of a program is its language model"):
            model.to(device)


def test_a_plain_list_of_modules_warns_and_a_module_list_does_not():
    class Steps(nn.Module):
        def __init__(self, container):
            super().__init__()
            self.steps = container(nn.Predict("question -> answer") for _ in range(2))

    with pytest.warns(UserWarning, match=r"Steps.steps is a plain list .* Wrap it in nn.ModuleList"):
        Steps(list)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(Steps(nn.ModuleList).parameters())) == 4


def test_nested_shared_and_sequential_modules(model, server):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.Predict("question -> answer")
            self.inner = model

        def forward(self, question):
            return self.inner(self.second(question=self.first(question=question).answer).answer)

    shared = Shared().to(model.polish.lm)
    names = [name for name, _ in shared.named_parameters()]
    assert names[:3] == ["first.instruction", "first.demos", "inner.think.instruction"]
    assert "second.demos" in shared.state_dict()
    shared.load_state_dict(shared.state_dict())
    assert shared("a").answer == "A"
    assert len(server.requests) == 4
    line = nn.Sequential(nn.Predict("text -> question"), nn.Predict("question -> answer")).to(model.polish.lm)
    assert line("a").answer == "OK"


def test_hooks(model):
    seen = []
    handle = model.think.register_forward_hook(lambda module, args, output: seen.append(output.reasoning))
    model("a")
    handle.remove()
    model("a")
    assert seen == ["ok"]


MODEL = pg.lm.FunctionLM(lambda messages: messages[-1]["content"], name="echo")


def echo(text: str) -> str:
    """The same."""
    return text


def test_messages_are_a_prompt_by_another_name():
    talk = [{"role": "user", "content": "Hi."}]
    assert MODEL(messages=talk).text == MODEL(talk).text == "Hi."
    with pytest.raises(ValueError, match="at least one message"):
        MODEL()


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (lambda: pg.Tensor, "write promptgrad.Text"),
        (lambda: pg.InputField, "write promptgrad.Input"),
        (lambda: pg.OutputField, "write promptgrad.Output"),
        (lambda: pg.settings.configure(lm="x"), r"write promptgrad.configure\(lm=...\)"),
        (lambda: pg.Predict, "write promptgrad.nn.Predict"),
        (lambda: pg.Evaluate, r"write promptgrad.evaluate\(program, data, metric\)"),
        (lambda: pg.vmap, r"write promptgrad.func.vmap, or module.map\(batch\)"),
        (lambda: pg.no_grd, "did you mean promptgrad.no_grad"),
        (lambda: nn.Linear, "write nn.Predict"),
        (lambda: nn.CrossEntropyLoss, r"write nn.MetricLoss\(metric\)"),
        (lambda: nn.Paramter, "did you mean nn.Parameter"),
        (lambda: nn.Dropout, "write torch.nn in a module of promptgrad"),
        (lambda: nn.KNN, r"write nn.Neighbours\(examples, k=3\)"),
        (lambda: nn.Agent, "write nn.ReAct"),
        (lambda: nn.LLM, r"write promptgrad.LM\(name\)"),
        (lambda: nn.Prompt, "write nn.Predict"),
        (lambda: nn.TypedPredictor, r"write nn.Predict\('question -> answer: float'\)"),
        (lambda: pg.EarlyStopping, "write promptgrad.train.EarlyStopping"),
        (lambda: pg.ModelCheckpoint, "write promptgrad.train.ModelCheckpoint"),
        (lambda: pg.streamify, r"write program.stream\(...\)"),
        (lambda: pg.asyncify, "write await program.acall"),
        (lambda: TwoSteps().half(), "the weights are those of its model"),
        (lambda: TwoSteps().summary(), r"write promptgrad.summary\(module\)"),
        (lambda: TwoSteps().compile(), r"write promptgrad.compile\(module, trainset, metric\)"),
        (lambda: TwoSteps().device, "write module.lm"),
        (lambda: TwoSteps().reset_copy(), r"write copy.deepcopy\(module\)"),
        (lambda: TwoSteps().add_tool(len), r"write tools=\[...\] where the agent is made"),
        (lambda: optim.Adam, r"write promptgrad.optim.TGD for text, torch.optim.Adam\(model.weights\(\)\)"),
        (lambda: optim.MIPROv2, "write promptgrad.optim.MIPRO"),
        (lambda: optim.TextGrad, "write promptgrad.optim.TGD"),
        (lambda: pg.GEPA, "write promptgrad.optim.GEPA"),
        (lambda: optim.COPRO, "write promptgrad.optim.MIPRO"),
        (lambda: pg.lm.Function, "write promptgrad.lm.FunctionLM"),
        (lambda: nn.Row, "write nn.BatchRow"),
        (lambda: TwoSteps().cuda(), r"write module.to\(lm\)"),
        (lambda: TwoSteps().predictors(), r"write .*modules\(\)"),
        (lambda: TwoSteps().batch([]), r"write module.map\(batch\)"),
        (lambda: nn.Prediction(answer="a").toDict(), r"write prediction.to_dict\(\)"),
        (lambda: nn.Prediction(answer="a").backward(), "write nn.MetricLoss"),
        (lambda: nn.Prediction(answer="a").trajectory, r"promptgrad.inspect_history\(5\)"),
        (lambda: pg.retrievers.Embeddings, "write promptgrad.retrieve"),
        (lambda: pg.retrieve.Embeddings, r"write nn.Retrieve\(retrieve.Dense\(passages, embedder\), k\)"),
        (lambda: pg.Example(a=1).toDict(), r"use to_dict\(\)"),
        (lambda: nn.ChainOfThought("q -> a").predict, "write the module itself"),
        (lambda: TwoSteps().history, r"write promptgrad.inspect_history\(5\)"),
        (lambda: MODEL.history, r"'FunctionLM' object has no attribute 'history': write promptgrad.inspect_history"),
        (lambda: MODEL.copy(temperature=1), r"write promptgrad.LM\(name, ...\)"),
        (lambda: MODEL.generate("Hi."), r"write lm\(prompt\)"),
        (lambda: MODEL.nothing, "no attribute 'nothing'$"),
        (lambda: MODEL("Hi.").choices, "'Completion' object has no attribute 'choices': write completion.text"),
        (lambda: pg.Tool.from_mcp_tool(None, None), r"write promptgrad.Toolset.from_mcp\(command\)"),
        (lambda: pg.Tool.from_function(echo), r"'Tool' has no attribute 'from_function': write Tool\(function\)"),
        (lambda: pg.Tool(echo).args, "write tool.parameters"),
        (lambda: pg.metrics.SemanticF1, r"write nn.Judge\(rubric\)"),
        (lambda: pg.metrics.answer_exact_match, "write metrics.exact_match"),
        (lambda: optim.LabeledFewShot(TwoSteps().parameters()).compile(None, trainset=[]), r"write promptgrad.Trainer"),
    ],
)
def test_a_slip_is_pointed_to_the_right_name(slip, said):
    with pytest.raises(AttributeError, match=said):
        slip()


# -- the habits of DSPy --------------------------------------------------------------------------------------------


def test_all_arguments_of_a_habit_are_told_at_once():
    with pytest.raises(TypeError, match=r"^Refine has no argument 'N': write n=...; and no 'reward_fn': write reward"):
        nn.Refine(module=nn.Predict("topic -> haiku"), N=3, reward_fn=len, threshold=1.0)


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (lambda: nn.Predict("q -> a", n=5), "write predict.map.*: it returns one answer"),
        (lambda: nn.Predict("q -> a", verbose=True), "write nothing: promptgrad.inspect_history"),
        (lambda: nn.ChainOfThought("q -> a", rationale_field=1), "write nn.Predict"),
        (lambda: nn.ReAct("q -> a", system_prompt="x"), "write instruction=..."),
        (lambda: nn.ReAct("q -> a", max_iter=5), "write max_steps=..."),
        (lambda: nn.CodeAct("q -> a", [], max_iters=5), "write max_steps=..."),
        (lambda: nn.ProgramOfThought("q -> a", max_iters=5), "write max_steps=..."),
        (lambda: pg.Tool(func=echo, desc="a"), "'func': write the function by position; and no 'desc': write descr"),
        (lambda: MODEL("Hi.")[0], "write completion.text"),
        (lambda: MODEL("Hi.", messages=["Hi."]), "a prompt and messages= say the same"),
        (lambda: nn.RLM("q -> a", interpreter_factory=len), "write interpreter=..."),
        (lambda: nn.Retrieve(k=3), r"nn.Retrieve\(retrieve.BM25\(passages\), k=3\)"),
        (lambda: nn.Ensemble([nn.Predict("q -> a")], reduce_fn=len), "write reduce=..."),
        (lambda: nn.Ensemble(nn.Predict("q -> a"), nn.Predict("q -> a")), r"Ensemble\(\[first, second\]\)"),
        (lambda: nn.SelfConsistency(nn.Predict("q -> a"), num_samples=3), "write n=..."),
        (lambda: nn.Synthesizer("q -> a", num_examples=3), r"write n=... in the call, synthesizer\(seeds, n=40\)"),
        (lambda: nn.Sequential([nn.Predict("q -> a")]), r"Sequential\(\*modules\)"),
        (lambda: pg.train.EarlyStopping(monitor="loss"), "write nothing: there is one score"),
        (lambda: pg.train.ModelCheckpoint(dirpath="x"), "write path=..., a JSON file"),
    ],
)
def test_an_argument_of_elsewhere_is_told_what_to_write(slip, said):
    with pytest.raises(TypeError, match=said):
        slip()


def test_a_list_in_an_input_without_a_type_says_how_to_declare_it():
    answer = nn.Predict("context, question -> answer").to(pg.lm.FunctionLM(Fields(answer="a")))
    for given, kind in (
        (["a", pg.Text("b")], "list[str]"),
        ([], "list[str]"),
        ([1, "a"], "list"),
        ((1.5,), "list[float]"),
    ):
        with pytest.raises(errors.InputError) as caught:
            answer(context=given, question="q")
        assert str(caught.value).endswith(f"write 'context: {kind}' in the signature")
    with pytest.raises(errors.InputError, match="write 'context: int' in the signature"):
        answer(context=3, question="q")


@pytest.mark.parametrize("make", ["pg.nn.Retrieve(['a', 'b'])", "pg.retrieve.BM25(['a'], stopwords=None).search('a')"])
def test_an_index_without_its_extra_says_what_to_install(make):
    program = f"import sys; sys.modules['bm25s'] = None\nimport promptgrad as pg\n{make}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MissingExtraError: this needs bm25s; install it with: pip install" in done.stderr


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Person(pydantic.BaseModel):
    name: str
    age: int


class Extract(pg.Signature):
    """Extract what the text says."""

    text: str = pg.Input(desc="a diary entry")
    people: list[Person] = pg.Output(desc="who is there")
    kind: Literal["work", "play"] = pg.Output()
    mood: Mood = pg.Output()
    day: Optional[datetime.date] = pg.Output()  # noqa: UP045 - as many write it
    stars: int = pg.Output(ge=0, le=5)


def test_a_class_signature_with_types(server):
    extract = nn.Predict(Extract, lm=lm.HTTP("simulated", base_url=server.url, api_key="none"))
    assert extract.instruction.data == "Extract what the text says."
    prompt = extract.render(text="hello")[0]["content"]
    for part in ("a diary entry", "who is there", "`work`", "`good`", "at most 5", "[[ ## day ## ]]"):
        assert part in prompt
    fields = {
        "people": '[{"name": "Ann", "age": 3}]',
        "kind": "play",
        "mood": "good",
        "day": "2020-01-02",
        "stars": "5",
    }
    server.script("\n".join(f"[[ ## {name} ## ]]\n{value}\n" for name, value in fields.items()))
    said = extract(text="hello")
    assert said.people == [Person(name="Ann", age=3)]
    assert (said.kind, said.mood, said.day, said.stars) == ("play", Mood.GOOD, datetime.date(2020, 1, 2), 5)
    assert pickle.loads(pickle.dumps(said)) == said
    assert server.requests[0].messages == extract.render(text="hello")


def test_types_of_a_text_signature_are_passed():
    predict = nn.Predict("text -> day: date, people: list[Person]", types={"date": datetime.date, "Person": Person})
    assert "people: list[Person]" in repr(predict)
    with pytest.raises(errors.SignatureError, match=r"Write `question: ... = Input"):

        class NoRole(pg.Signature):
            question: str
            answer: str = pg.Output()


def test_one_input_goes_by_position_and_examples_by_name(model):
    example = pg.Example(question="a", answer="A").with_inputs("question")
    assert model("a") == model(question="a") == model(**example.inputs())
    assert example.labels() == {"answer": "A"}
    assert (example.question, example["question"], example.to_dict()) == ("a", "a", {"question": "a", "answer": "A"})
    with pytest.raises(errors.DataError, match="no field 'query'; the fields are question, answer"):
        example.with_inputs("query")
    with pytest.raises(AttributeError, match=r"use example.copy\(question=...\)"):
        example.question = "b"


def test_a_prediction_is_a_plain_record(model):
    said = model.think("a")
    assert said == {"reasoning": "ok", "answer": "A"} == dict(said) == {**said}
    assert json.dumps(said.to_dict()) == '{"reasoning": "ok", "answer": "A"}'
    assert isinstance(said.answer, str)
    assert said.answer.grad_fn is said.reasoning.grad_fn
    again = pickle.loads(pickle.dumps(said))
    assert again == said
    assert again.answer.grad_fn is None  # the graph stays here
    assert said.usage.calls == 1
    with pytest.raises(AttributeError, match="did you mean 'answer'"):
        _ = said.answr


def plain(example, output):
    return example.answer == output.answer


def dspy_style(gold, pred, trace=None):
    return gold.answer == pred.answer


def dspy_strict(gold, pred, trace):
    return float(gold.answer == pred.answer)


def scored(example, output):
    return pg.Score(example.answer == output.answer, feedback=f"say {example.answer}")


async def waiting(example, output):
    await asyncio.sleep(0)
    return example.answer == output.answer


@pytest.mark.parametrize(
    "metric", [plain, dspy_style, dspy_strict, scored, waiting, exact_match, exact_match(field="answer")]
)
def test_metrics_of_every_habit(model, metric):
    data = examples(4, wrong=[0])
    assert pg.evaluate(model, data, metric).score == 0.75
    assert nn.MetricLoss(metric)(model.map(data), data).item() == 0.25


def test_a_managed_run_from_start_to_report(model, capsys):
    data = examples(24, wrong=range(0, 24, 2))
    optimizer = optim.BootstrapFewShot(model.parameters())
    print(pg.Trainer(model, optimizer, metric=dspy_style, progress=False).fit(data[:8], data[8:]))  # noqa: T201
    out = capsys.readouterr().out
    for part in ("measured", "LM calls", "tokens"):
        assert part in out
    assert "=== " in str(pg.inspect_history())


def test_language_models_of_every_kind(server):
    predict = nn.Predict("question -> answer")
    named = pg.LM("my-model", base_url=server.url, api_key="none")
    assert predict("a", lm=named).answer == "A"
    assert predict("a", lm=lambda messages: "by hand").answer == "by hand"
    with pg.context(lm=named):
        assert predict("b").answer == "B"
        with pg.context(lm=lambda messages: "inner"):
            assert predict("b").answer == "inner"
    with pg.track_usage() as usage:
        assert predict("a", lm=named).answer == "A"
    assert usage.total.cached == 1  # the name has a cache
    server.script("hello")
    assert lm.HTTP("m", base_url=server.url, api_key="none")("Say hello.").text == "hello"


# -- loops ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TwoSteps, AsyncSteps])
def test_cells_of_a_notebook(model, kind):
    program = kind().to(model.polish.lm)
    data = examples(4, wrong=[0])

    async def cells():  # a kernel runs every cell on its loop, with await at the top level
        assert program("a").answer == "A"
        assert (await program.acall("b")).answer == "B"
        assert [row.answer for row in program.map(["a", "b"])] == ["A", "B"]
        assert [row.answer for row in await program.amap(["a", "b"])] == ["A", "B"]
        assert [y.answer for y in await asyncio.gather(*[program.acall(c) for c in "abc"])] == ["A", "B", "C"]
        assert pg.evaluate(program, data, exact_match).score == 0.75
        assert (await pg.aevaluate(program, data, exact_match)).score == 0.75
        loss = nn.MetricLoss(exact_match)(program.map(data), data)
        loss.backward()
        other = await nn.MetricLoss(exact_match).acall(await program.amap(data), data)
        await other.abackward()
        assert loss.item() == other.item() == 0.25
        optim.TGD(program.parameters(), lm=program.polish.lm).step()

    asyncio.run(cells())


@pytest.mark.asyncio
async def test_under_pytest_asyncio(model):
    assert (await model.acall("a")).answer == "A"
    assert model("b").answer == "B"


def test_an_await_that_was_forgotten_at_the_end(model):
    class Forgetful(AsyncSteps):
        async def forward(self, question):
            return self.polish.acall(question=question)

    program = Forgetful().to(model.polish.lm)
    assert program("a").answer == "A"
    assert program.map(["b"])[0].answer == "B"


def test_handlers_of_a_web_server(model):
    programs = {"plain": model, "async": AsyncSteps().to(model.polish.lm)}

    async def ask(request):
        program, question = programs[request.match_info["program"]], request.query["q"]
        if request.match_info["how"] == "blocking":
            return web.json_response(program(question).to_dict())
        if request.match_info["how"] == "map":
            return web.json_response([row.to_dict() for row in await program.amap([question] * 2)])
        return web.json_response((await program.acall(question)).to_dict())

    async def serve():
        app = web.Application()
        app.router.add_get("/{program}/{how}", ask)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession(f"http://{host}:{port}") as client:

            async def get(path):
                async with client.get(path) as reply:
                    return await reply.json()

            ways = [f"/{program}/{how}" for program in programs for how in ("blocking", "map", "await")]
            said = await asyncio.gather(*[get(f"{way}?q=x{i}") for i in range(4) for way in ways])
        await runner.cleanup()
        return said

    one = [{"answer": f"X{i}"} for i in range(4)]
    assert asyncio.run(serve()) == [reply for y in one for reply in (y, [y, y], y) * 2]


def test_one_program_in_many_loops_one_after_the_other(model):
    assert [asyncio.run(model.acall(question)).answer for question in "abc"] == ["A", "B", "C"]
    assert model("d").answer == "D"


def test_programs_inside_programs_in_every_mix(model):
    class Fan(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Predict("question -> answer")

        def forward(self, question):
            return [row.answer for row in self.step.map(list(question))]

    class AsyncFan(Fan):
        async def forward(self, question):
            return [row.answer for row in await asyncio.gather(*[self.step.acall(c) for c in question])]

    for kind in (Fan, AsyncFan):
        program = kind().to(model.polish.lm)
        assert program("ab") == ["A", "B"]
        assert program.map(["ab", "cd"]) == [["A", "B"], ["C", "D"]]


@pytest.mark.parametrize("kind", [pg.lm.LM, pg.lm.HTTP, pg.lm.Completion, pg.Tool, pg.Image])
def test_hints_slow_no_attribute_down(kind):
    assert "__getattr__" not in {
        name for base in kind.__mro__ for name in vars(base)
    }  # Python then looks up each by name


def test_names_with_a_hint_are_no_names():
    for owner in (MODEL, pg.lm.LM):
        assert not hasattr(owner, "history")
        assert "history" not in dir(owner)
        assert "name" in dir(owner)
    MODEL.history = ["mine"]
    assert MODEL.history == ["mine"]
    del MODEL.history
    with pytest.raises(AttributeError, match="type object 'LM' has no attribute 'invoke': write lm"):
        pg.lm.LM.invoke  # noqa: B018


def test_what_is_mixed_in_may_have_a_name_with_a_hint():
    class Runnable:
        def invoke(self, prompt):
            return self(prompt).text

    class Mixed(pg.lm.FunctionLM, Runnable):
        pass

    assert Mixed(lambda messages: messages[-1]["content"], name="mixed").invoke("Hi.") == "Hi."
