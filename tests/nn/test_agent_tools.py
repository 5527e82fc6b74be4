"""The tools of an agent: what is recorded of them, and their descriptions as parameters."""

import json
import threading

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.errors import ToolTimeoutError
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
