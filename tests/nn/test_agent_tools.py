"""The tools of an agent: what is recorded of them, and their descriptions as parameters."""

import json
import pickle
import threading

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.errors import SignatureError, ToolTimeoutError
from promptgrad.lm import Completion, ToolCall

BETTER = "The weather in a town, in words."


def weather(town: str) -> str:
    """Weather."""
    return f"rain in {town}"


def people(town: str) -> str:
    """People."""
    return "700000"


@pytest.fixture(params=[False, True], ids=["text", "native"])
def agent(request):
    """An agent whose model calls the tool of the weather only if its description says what it gives."""

    def answer(asked: lm.Request) -> Completion:
        made = sum(message.role == "assistant" for message in asked.messages)
        told = dict(asked.extra)["tools"] if request.param else asked.messages[1].preview
        tool, result = ("weather", "rain") if BETTER in told else ("people", "700000")
        name, given = (tool, {"town": "Oslo"}) if made == 0 else ("finish", {"answer": result})
        if request.param:
            return Completion((ToolCall(f"c{made}", name, given),))
        written = {"thought": f"Thought {made}.", "tool": name, "arguments": json.dumps(given)}
        return Completion("\n\n".join(f"[[ ## {key} ## ]]\n{value}" for key, value in written.items()))

    def make(*tools, **options):
        model = nn.ReAct("question -> answer", tools, native=request.param, adapter="chat", **options)
        return model.to(lm.FunctionLM(answer, name="agent"))

    return make


class Blames:
    """A critic that blames whatever it may."""

    def __init__(self):
        self.asked = []

    async def critique(self, failure):
        self.asked.append([target.name for target in failure.targets])
        return {target.name: "Say what the tool gives." for target in failure.targets}


def test_a_description_is_trained_where_its_tool_says_so(agent):
    model = agent(pg.Tool(weather, trainable=True), people)
    paths = {path: p.requires_grad for path, p in model.named_parameters() if p.kind == "description"}
    assert paths == {"tools.weather.description": True, "tools.people.description": False}
    assert all(p.requires_grad for p in agent(weather, describe=True).parameters() if p.kind == "description")
    made = agent(*pg.Toolset([weather, people], trainable=True))
    assert [p.requires_grad for p in made.parameters() if p.kind == "description"] == [True, True]


def test_blame_for_a_choice_reaches_the_descriptions_in_every_step(agent):
    model = agent(pg.Tool(weather, trainable=True), people)
    batch = [pg.Example(question="Rain?", answer="rain").with_inputs("question")]
    critic = Blames()
    nn.MetricLoss(pg.metrics.exact_match, critic=critic)(model.map(batch), batch).backward()
    assert critic.asked == [["instruction", "tools", "turns"], ["instruction", "tools"]]
    assert model.tools["weather"].description.grad  # it was never called: that is what went wrong
    assert model.tools["people"].description.grad is None


def test_a_step_rewrites_a_description_and_the_state_keeps_it(agent):
    model = agent(pg.Tool(weather, trainable=True), people)
    batch = [pg.Example(question="Rain?", answer="rain").with_inputs("question")]
    loss = nn.MetricLoss(pg.metrics.exact_match, critic=Blames())(model.map(batch), batch)
    assert loss.item() == 1.0
    loss.backward()
    writer = lm.FunctionLM(lambda messages: f"[[ ## new_instruction ## ]]\n{BETTER}", name="writer")
    described = [(path, p) for path, p in model.named_parameters() if p.kind == "description" and p.requires_grad]
    report = optim.TGD(described, lm=writer).step()
    assert "1 of 1 parameters changed" in repr(report)
    assert nn.MetricLoss(pg.metrics.exact_match)(model.map(batch), batch).item() == 0.0
    twin = agent(pg.Tool(weather, trainable=True), people)
    twin.load_state_dict(json.loads(json.dumps(model.state_dict())))
    assert twin.tools["weather"].description.data == BETTER
    assert twin("Rain?").answer == "rain"


def test_a_tool_that_hangs_is_a_result_and_its_call_is_recorded(agent):
    gate = threading.Event()

    def people(town: str) -> str:
        """People."""
        gate.wait(60)
        return town

    model = agent(pg.Tool(people, timeout=0.01), describe=True)
    batch = [pg.Example(question="Rain?", answer="rain").with_inputs("question")]
    (output,) = model.map(batch)
    gate.set()
    assert output.answer == "700000"
    node = next(node for node in output.answer.grad_fn.tape.nodes if node.path == "tools.people")
    assert node.inputs == {"town": "Oslo"}
    assert isinstance(node.error, ToolTimeoutError)


def forecast(town: str, day: int = 0) -> str:
    """Weather.

    Args:
        town: A name.
        day: Days from now.
    """
    return f"rain in {town}"


def described(model):
    return {path: p.data for path, p in model.named_parameters() if p.kind == "description" and p.requires_grad}


def test_descriptions_of_arguments_are_parameters_where_they_are_asked_for(agent):
    paths = {"tools.forecast.description": "Weather.", "tools.people.description": "People."}
    arguments = {"tools.forecast.arguments.town": "A name.", "tools.forecast.arguments.day": "Days from now."}
    assert described(agent(forecast, people)) == {}
    assert described(agent(forecast, people, describe=True)) == {**paths, **arguments}
    assert list(described(agent(forecast, people, describe=["forecast.day"]))) == ["tools.forecast.arguments.day"]
    assert list(described(agent(forecast, people, describe="people"))) == ["tools.people.description"]
    assert not any("arguments" in path for path in agent(forecast).state_dict())
    with pytest.raises(SignatureError, match=r"forecast, forecast.day, forecast.town, people, not 'people.town'"):
        agent(forecast, people, describe=["people.town"])
    code = nn.CodeAct("question -> answer", [forecast], describe=["forecast.town"])
    assert list(described(code)) == ["tools.forecast.arguments.town"]


def prompts(model):
    """What the model of an agent is sent."""
    output = model("Rain?")
    nodes = output.answer.grad_fn.tape.nodes
    return [node.request.to_dict() for node in nodes if node.request is not None]


def test_they_stand_where_the_model_reads_them_and_begin_as_the_tool_says(agent):
    model = agent(forecast, describe=True)
    assert prompts(model) == prompts(agent(forecast))
    model.tools["forecast"].arguments["town"].data = "In capitals."
    copied = pickle.loads(pickle.dumps(nn.ReAct("question -> answer", [forecast], describe=["forecast.day"])))
    assert list(described(copied)) == ["tools.forecast.arguments.day"]
    for asked in prompts(model):
        assert "In capitals." in json.dumps(asked)
        assert "A name." not in json.dumps(asked)
    with model.candidate({"tools.forecast.arguments.day": "A whole number."}):
        assert "A whole number." in json.dumps(prompts(model)[0])
    assert "A whole number." not in json.dumps(prompts(model)[0])


def test_blame_reaches_the_description_of_an_argument_and_a_step_rewrites_it(agent):
    model = agent(forecast, people, describe=["forecast.town"])
    batch = [pg.Example(question="Rain?", answer="rain").with_inputs("question")]
    critic = Blames()
    nn.MetricLoss(pg.metrics.exact_match, critic=critic)(model.map(batch), batch).backward()
    town = model.tools["forecast"].arguments["town"]
    assert [critique.text for critique in town.grad.critiques][:1] == ["Say what the tool gives."]
    writer = lm.FunctionLM(lambda messages: "[[ ## new_instruction ## ]]\nThe town, in capitals.", name="writer")
    changed = [(path, p) for path, p in model.named_parameters() if p is town]
    assert "1 of 1 parameters changed" in repr(optim.TGD(changed, lm=writer).step())
    twin = agent(forecast, people, describe=["forecast.town"])
    twin.load_state_dict(json.loads(json.dumps(nn.whole_state(model.state_dict()))))
    assert described(twin) == {"tools.forecast.arguments.town": "The town, in capitals."}


def clashing(
    self: str, fn: str, name: str, run: str, function: str, arguments: str, call: str, node: str, tool: str, args: str
) -> str:
    """Arguments with the names of our own."""
    return "".join((self, fn, name, run, function, arguments, call, node, tool, args))


GIVEN = {
    **{"self": "a", "fn": "b", "name": "c", "run": "d", "function": "e"},
    **{"arguments": "f", "call": "g", "node": "h", "tool": "i", "args": "j"},
}


@pytest.mark.parametrize("timeout", [None, 60])
def test_arguments_may_have_any_name(timeout):
    def answer(asked: lm.Request) -> Completion:
        done = asked.messages[-1].role == "tool"
        shown = asked.messages[-1].preview if done else ""
        return Completion((ToolCall("c", *(("finish", {"answer": shown}) if done else ("clashing", GIVEN))),))

    tool = pg.Tool(clashing, timeout=timeout)
    model = nn.ReAct("question -> answer", [tool], native=True).to(lm.FunctionLM(answer, name="m"))
    assert "abcdefghij" in model(question="q").answer
    assert "abcdefghij" in model.map([{"question": "q"}])[0].answer


@pytest.mark.parametrize("name", ["self", "fn", "args", "kwargs", "tape", "model", "batch"])
def test_fields_may_have_any_name(name):
    predict = nn.Predict(f"{name} -> answer").to(lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nA", name="m"))
    for module in (predict, nn.BestOfN(predict, 2, lambda inputs, output: 0.0), nn.Sequential(predict)):
        assert module(**{name: "x"}).answer == module.map([{name: "x"}])[0].answer == "A"
        assert list(module.stream_sync(**{name: "x"}))[-1].answer == "A"
