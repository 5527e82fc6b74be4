"""Modules as tools: they are declared as they are called, and blame goes through them."""

import copy
import json
import pickle
from typing import Literal

import pydantic
import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.errors import SignatureError
from promptgrad.lm import Completion, ToolCall

RIVERS = ["The Tiber flows through Rome.", "The Po flows through Turin.", "The Seine flows through Paris."]


class Place(pydantic.BaseModel):
    city: str
    country: str = "Italy"


class FindOut(pg.Signature):
    """Say what is known of a place."""

    place: Place = pg.Input(desc="where")
    kind: Literal["river", "hill"] = pg.Input()
    known: str = pg.Output()


class LookUp(nn.Module):
    """Look a place up.

    Args:
        town: Its name.
    """

    def __init__(self):
        super().__init__()
        self.write = nn.Predict("town -> query", instruction="Write a query.")
        self.search = nn.Retrieve(RIVERS, k=1)

    async def forward(self, town: str, _k: int = 3, more: bool = False) -> str:
        found = await self.search.acall((await self.write.acall(town=town)).query)
        return f"{found[0]} And so on." if more else found[0]


def read(tool):
    about = {key: (field.type_name, field.description) for key, field in tool.fields.items()}
    return tool.name, tool.description, about, tool.required


def test_a_module_is_declared_as_it_is_called():
    found = read(pg.Tool(nn.Predict(FindOut)))
    assert found[:2] == ("find_out", "Say what is known of a place.")
    assert found[2]["place"][1] == "where"
    assert found[3] == ("place", "kind")
    assert read(pg.Tool(LookUp())) == (
        "look_up",
        "Look a place up.",
        {"town": ("str", "Its name."), "more": ("bool", "")},
        ("town",),
    )
    assert read(pg.Tool(nn.Retrieve(RIVERS))) == (
        "retrieve",
        "Find the passages that fit a query best.",
        {"query": ("str", "")},
        ("query",),
    )
    agent = nn.ReAct(FindOut)
    assert read(pg.Tool(nn.BestOfN(agent, n=2, reward=len), name="ask"))[0] == "ask"
    assert read(pg.Tool(nn.BestOfN(agent, n=2, reward=len))) == read(pg.Tool(agent)) == found
    rewritten = nn.ChainOfThought("question -> answer")
    rewritten.instruction.data = "Answer what is asked."
    assert read(pg.Tool(rewritten, timeout=3)) == (
        "chain_of_thought",
        "Answer what is asked.",
        {"question": ("str", "")},
        ("question",),
    )


def test_one_whose_arguments_are_not_known_is_no_tool():
    class Anything(nn.Module):
        def forward(self, *args, **inputs):
            return inputs

    class Untyped(nn.Module):
        def forward(self, town):
            return town

    with pytest.raises(SignatureError, match="'anything' cannot be passed by name"):
        pg.Tool(Anything())
    with pytest.raises(SignatureError, match="has no type: write `town: str`"):
        pg.Toolset([Untyped()])


def test_it_is_called_with_arguments_that_are_read_as_others():
    asked = lm.FunctionLM(pg.testing.Fields(known=lambda inputs: f"about {json.loads(inputs['place'])['city']}"))
    tools = pg.Toolset([nn.Predict(FindOut).to(asked), nn.Retrieve(RIVERS, k=1)])
    calls = [
        ToolCall("1", "find_out", {"place": {"City": "Rome"}, "kind": "River"}),
        ToolCall("2", "retrieve", {"query": "Turin"}),
        ToolCall("3", "find_out", {"place": {"city": "Rome"}, "kind": "lake"}),
    ]
    shown = [(result.content, result.is_error) for result in tools.results(calls)]
    assert shown[0] == ('{"known": "about Rome"}', False)
    assert shown[1] == ('["The Po flows through Turin."]', False)
    assert shown[2][1]
    assert "`kind`" in shown[2][0]


class Blames:
    """A critic that blames whatever it may."""

    def __init__(self):
        self.asked = []

    async def critique(self, failure):
        self.asked.append([target.name for target in failure.targets])
        return {target.name: f"{target.name} is wrong" for target in failure.targets}


@pytest.fixture(params=["text", "native", "in time"])
def agent(request):
    """An agent whose model looks a town up, and answers with what it was shown."""

    def answer(asked: lm.Request) -> Completion:
        if "query" in asked.messages[0].preview and "town" in asked.messages[0].preview:
            good = "its river" in asked.messages[0].preview
            return Completion(f"[[ ## query ## ]]\n{'Rome Tiber' if good else 'Turin'}")
        turns = [message.preview for message in asked.messages if message.role in ("user", "tool")]
        made = sum(message.role == "assistant" for message in asked.messages)
        seen = "Tiber" if "Tiber" in turns[-1] else "Po"
        name, given = ("look_up", {"town": "Rome"}) if made == 0 else ("finish", {"answer": seen})
        if request.param == "native":
            return Completion((ToolCall(f"c{made}", name, given),))
        written = {"thought": "So.", "tool": name, "arguments": json.dumps(given)}
        return Completion("\n\n".join(f"[[ ## {key} ## ]]\n{value}" for key, value in written.items()))

    look_up = LookUp() if request.param != "in time" else pg.Tool(LookUp(), timeout=60)
    made = nn.ReAct("question -> answer", [look_up], native=request.param == "native", adapter="chat")
    return made.to(lm.FunctionLM(answer, name="agent"))


BATCH = [pg.Example(question="Which river flows through Rome?", answer="Tiber").with_inputs("question")]


def test_blame_goes_through_the_tool_to_the_prompts_inside(agent):
    loss = nn.MetricLoss(pg.metrics.exact_match, critic=Blames())(agent.map(BATCH), BATCH)
    assert loss.item() == 1.0
    loss.backward(engine="local")
    blamed = {path for path, parameter in agent.named_parameters() if parameter.grad and parameter.kind.is_text}
    assert blamed == {"step.instruction", "tools.look_up.module.write.instruction"}
    told = str(agent.tools["look_up"].module.write.instruction.grad.critiques[0].evidence)
    assert "did not find what was needed" in told


def test_it_is_trained_saved_copied_and_counted_as_a_part_of_the_agent(agent):
    loss = nn.MetricLoss(pg.metrics.exact_match, critic=Blames())(agent.map(BATCH), BATCH)
    loss.backward(engine="local")
    inside = [(path, p) for path, p in agent.named_parameters() if path.endswith("write.instruction")]
    writer = lm.FunctionLM(lambda messages: "[[ ## new_instruction ## ]]\nWrite the town and its river.", name="writer")
    optim.TGD(inside, lm=writer).step()
    assert nn.MetricLoss(pg.metrics.exact_match)(agent.map(BATCH), BATCH).item() == 0.0
    twin = copy.deepcopy(agent)
    assert twin(BATCH[0].question).answer == "Tiber"
    twin.tools["look_up"].module.write.instruction.data = "Spoil it."
    assert twin(BATCH[0].question).answer == "Po"  # its own module is called, not that of the first
    assert agent(BATCH[0].question).answer == "Tiber"
    state = json.loads(json.dumps(agent.state_dict()))
    assert state["tools.look_up.module.write.instruction"] == "Write the town and its river."
    assert [call.module for call in pg.inspect_history(3)] == ["step", "tools.look_up.module.write", "step"]


def test_code_calls_a_module_too():
    pytest.importorskip("pydantic_monty")
    programs = iter(["found = retrieve('Rome')\nprint(found)", "submit(found[0])"])
    written = pg.testing.Fields(thought="So.", code=lambda inputs: next(programs))
    agent = nn.CodeAct("question -> answer", tools=[nn.Retrieve(RIVERS, k=1)]).to(lm.FunctionLM(written))
    assert agent("Which river?").answer == RIVERS[0]


def test_an_agent_with_a_module_can_be_pickled():
    again = pickle.loads(pickle.dumps(nn.ReAct("question -> answer", [nn.Predict(FindOut)])))
    assert list(again.tools) == ["find_out"]
    assert again.tools["find_out"].module is again._declared["find_out"].function.module
