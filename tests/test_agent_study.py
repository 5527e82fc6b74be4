"""The study of a trained agent, in short: its instruction and the descriptions of its tools gain on fresh rows."""

import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("agent_study", "_agent_world", "_code_worlds", "_hard_agent_world", "_study", "_lifeline"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("optimizer", "mode"), [("TGD", "text"), ("GEPA", "native")])
def test_an_agent_is_trained_with_the_descriptions_of_its_tools(optimizer, mode):
    from agent_study import one_run, summary

    lines = [line for seed in (1000, 1001) for line in one_run((seed, optimizer, mode, "all", 600, 60))]
    (found,) = summary(lines)
    assert found["simulated"]
    assert found["descriptions"] == 3  # each of them was rewritten
    assert found["interval"][0] > 0.5
    assert found["calls"] <= 600


@pytest.mark.parametrize(("optimizer", "mode", "descriptions"), [("GEPA", "code", 3), ("TGD", "binder", 0)])
def test_agents_that_write_code_are_trained(optimizer, mode, descriptions):
    pytest.importorskip("pydantic_monty")
    from agent_study import one_run, summary

    lines = [line for seed in (1000, 1001) for line in one_run((seed, optimizer, mode, "all", 600, 40))]
    (found,) = summary(lines)
    assert found["descriptions"] == descriptions
    assert found["interval"][0] > 0.5
    assert found["calls"] <= 600


@pytest.mark.parametrize(("optimizer", "mode"), [("TGD", "hard"), ("GEPA", "hard native")])
def test_how_an_argument_is_written_is_learned_in_its_description(optimizer, mode):
    from agent_study import one_run, summary

    lines = [line for seed in (1000, 1001) for line in one_run((seed, optimizer, mode, "all", 600, 40))]
    (found,) = summary(lines)
    assert found["descriptions"] > 3  # more than those of the three tools
    assert found["before"] == 0.0
    assert found["interval"][0] > 0.4
    (alone,) = one_run((1000, optimizer, mode, "instruction", 600, 20))
    assert alone["after"] == 0.0


def test_the_binder_is_answered_by_its_two_texts():
    """By the register that the first names, and the suffix that the second states; either alone is not enough."""
    pytest.importorskip("pydantic_monty")
    from _code_worlds import STEP, SUB, Binder

    world = Binder(1000, test=40)
    rows = world.rows["test"]
    registers = "\n".join(f"Of {topic} cases read the {name}." for topic, name in world.holder.items())
    suffixes = "\n".join(f"For {tier} customers add {text} to the code." for tier, text in world.suffix.items() if text)
    scores = []
    for step, sub in (("", ""), (registers, ""), ("", suffixes), (registers, suffixes)):
        program = world.program()
        told = dict(program.named_parameters())
        told[STEP].data += "\n" + step
        told[SUB].data += "\n" + sub
        scores.append(sum(world.metric(row, program(**row.inputs())).value for row in rows) / len(rows))
    nothing, first, second, both = scores
    assert nothing < min(first, second)
    assert max(first, second) < 0.6 < 0.85 < both


def test_without_the_descriptions_it_gains_less():
    from agent_study import one_run

    ((alone,), (whole,)) = (one_run((1000, "TGD", "text", texts, 600, 60)) for texts in ("instruction", "all"))
    assert alone["descriptions"] == 0
    assert 0 < alone["after"] - alone["before"] < whole["after"] - whole["before"] - 0.3


def test_the_student_obeys_descriptions_and_instruction_and_nothing_else():
    from _agent_world import TIERS, TOOLS, AgentWorld

    world = AgentWorld(1000, test=60)
    rows = world.rows["test"]

    def right(program):
        return sum(world.metric(row, program(**row.inputs())).value for row in rows)

    program = world.program()
    before = right(program)
    for name in TOOLS:
        held = [topic for topic, holder in world.holder.items() if holder == name]
        program.tools[name].description.data = f"Has the cases of {' and '.join(held)}."
    with_tools = right(program)
    lines = [f"For {tier} customers add {world.suffix[tier]} to the code." for tier in TIERS if world.suffix[tier]]
    program.step.instruction.data += "\n" + " ".join(lines)
    assert before < with_tools < right(program) <= len(rows)
    assert right(program) >= 0.85 * len(rows)


def test_the_writer_concludes_what_its_prompt_shows_and_no_more():
    from _agent_world import INSTRUCTION, AgentWorld

    world = AgentWorld(1000)
    now = {INSTRUCTION: "Do it.", **{f"tools.{name}.description": "Looks." for name in ("ledger", "archive", "desk")}}

    def run(topic, tier, tool, code, expected):
        call = {"call": f"tools.{tool}", "inputs": {"case": "1"}, "outputs": {"out": f"case 1: {code}"}}
        question = f"Case 1 is about {topic}, its customer is {tier}. What is its code?"
        return {"inputs": {"question": question}, "calls": [call], "expected": {"answer": expected}}

    runs = [run("billing", "gold", "desk", "K11", "K11-B"), run("returns", "basic", "ledger", "K12", "K44")]
    texts = world._revised(now, json.loads(json.dumps(runs)), ("key",))
    assert texts["tools.desk.description"].startswith("Looks. It holds the billing")
    assert "returns" not in texts["tools.ledger.description"]
    assert texts[INSTRUCTION] == "Do it.\nFor gold customers add -B to the code."
    named = "".join(texts.values())
    assert "returns" in named  # in one of the two that are left
    assert "warranty" not in named
