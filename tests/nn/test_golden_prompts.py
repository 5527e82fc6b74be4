"""The prompts of the critics, word for word as they are sent: a changed prompt is changed code."""

import json
from pathlib import Path

import pytest

from promptgrad import nn
from promptgrad.autograd import Critique, Gradient
from promptgrad.data import Example
from promptgrad.metrics import exact_match

GOLDEN = Path(__file__).parent / "golden"


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.find = nn.Predict("question -> fact", instruction="Find a fact.")
        self.solve = nn.Predict("question, fact -> answer", instruction="Answer from the fact.")
        self.solve.demos.data = (Example(question="And milk?", fact="milk is white", answer="white"),)

    def forward(self, question):
        return self.solve(question=question, fact=self.find(question=question).fact)


def work(question, fact=None):
    return {"fact": f"{question} is green"} if fact is None else {"answer": fact.split()[-1]}


def sent(scripted, engine):
    """The critic's requests about a program of two calls that is wrong about the sky and right about grass."""

    def judge(**fields):
        if "runs" in fields:
            return {"findings": json.dumps([{"runs": [1], "parameter": "find.instruction", "critique": "name it"}])}
        return {"critique": "", "demos_critique": "", "critique_of_fact": "it is blue"}

    model, critic = Chain().to(scripted(work)), scripted(judge, name="critic")
    batch = [Example(question=q, answer=a).with_inputs("question") for q, a in (("sky", "blue"), ("grass", "green"))]
    nn.MetricLoss(exact_match, critic=nn.Critic(critic))(model.map(batch), batch).backward(engine=engine)
    return critic.asked


def critique(scripted):
    return next(request for request in sent(scripted, "local") if "critique_of_fact" in request.messages[0].text)


def joint_critique(scripted):
    (request,) = sent(scripted, "joint")
    return request


def group(scripted):
    critic = scripted(lambda critiques: {"groups": "[[1, 2]]"})
    said = ("name the unit", "say which unit")
    nn.Grouper(critic)(Gradient(Critique(text, "solve", 0, "instruction", text) for text in said))
    (request,) = critic.asked
    return request


@pytest.mark.parametrize("ask", [critique, joint_critique, group], ids=lambda ask: ask.__name__)
def test_the_prompt_is_the_one_on_file(scripted, ask):
    messages = ask(scripted).messages
    text = "\n".join(f"----- {message.role}\n{message.text}" for message in messages) + "\n"
    assert text == (GOLDEN / f"{ask.__name__}.txt").read_text()
