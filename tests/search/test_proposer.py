"""The prompts of the writing programs, word for word: a changed prompt is changed code."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad import aio, lm, nn, optim, search
from promptgrad.search import Row, side_by_side

GOLDEN = Path(__file__).parent / "golden"
SHARED = {
    "program": "Program\nspell: word -> answer",
    "role": "spell: word -> answer",
    "interface": "input `word`: text\noutput `answer`: text; the word, spelled",
    "instruction": "Spell {word}.",
    "rules": ["at most 30 words"],
    "tip": search.TIPS[1],
    "attempts": [
        {"text": "Spell {word} from its end.", "score": 0.75, "rows": 40},
        {"text": "(the present version)", "score": 0.5, "rows": 40},
    ],
    "worse": [{"text": "Spell {word} well.", "score": 0.375, "rows": 40}],
    "rows": side_by_side(
        [
            Row("2", {"word": "level"}, {"answer": "level"}, 1.0, expected={"answer": "level"}),
            Row(
                "1", {"word": "red"}, {"answer": "red"}, 0.0, 1.0, "should be der", {"answer": "der"}, "say how",
                program_inputs={"order": "red, from its end"},
            ),
        ]
    ),
}  # fmt: skip
INPUTS = {
    "improve": SHARED,
    "improve_solution": {
        "role": "a pattern for three words",
        "solution": "cat",
        "rules": ["at most 30 words and punctuation marks"],
        "tip": "",
        "attempts": [],
        "worse": [{"text": "c.t", "effect": "gain +0.000 [-0.500, +0.500] on 2 pairs"}],
        "rows": side_by_side([Row("1", {"words": ["cat", "cow"]}, {}, 0.5, feedback="it does not match 'cow'")]),
    },
    "propose": SHARED,
}
INPUTS["amend"] = INPUTS["improve"]
WHOLE = {"call": "find", "inputs": {"text": "red, level"}, "outputs": {"word": "red, level"}}
INPUTS["revise"] = {
    "program": "Program\nfind: text -> word\nspell: word -> answer",
    "interfaces": {"spell.instruction": "input `word`: text\noutput `answer`: text"},
    "parameters": {"find.instruction": "Find the word.", "spell.instruction": "Spell {word}."},
    "rules": {"spell.instruction": ["at most 30 words"]},
    "tip": "",
    "attempts": [{"changes": {"find.instruction": "Take the first word."}, "score": 0.75, "rows": 40}],
    "worse": [],
    "runs": side_by_side(
        [Row("1", {"text": "red, level"}, {"answer": "red"}, 0.0, 1.0, "no", {"answer": "der"}, calls=[WHOLE])]
    ),
}
SIGNATURES = {
    "amend": optim.Amend,
    "improve": optim.Improve,
    "improve_solution": optim.ImproveSolution,
    "propose": optim.ProposeInstruction,
    "revise": search.Revise,
}


@pytest.mark.parametrize("name", sorted(INPUTS))
def test_the_prompt_is_the_one_on_file(name):
    messages = nn.Predict(SIGNATURES[name]).render(**INPUTS[name])
    text = "\n".join(f"----- {message['role']}\n{message['content']}" for message in messages) + "\n"
    assert text == (GOLDEN / f"{name}.txt").read_text()


def test_they_are_ordinary_programs_with_visible_prompts():
    model = nn.Predict("word -> answer")
    opt = optim.TGD(model.parameters(), lm="pocket")
    assert isinstance(opt.proposer, nn.Predict)
    assert opt.proposer.instruction.data.startswith("You improve one instruction")
    opt.proposer.instruction.data = "Rewrite."
    seen = []

    def writer(messages):
        seen.append(messages[0].content)
        return "Spell the word."

    opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer))
    opt.proposer.instruction.data = "Rewrite it."
    from promptgrad.autograd import Critique, Gradient

    model.instruction.grad = Gradient([Critique("e", "", 0, "instruction", "say how")])
    opt.step()
    assert seen[0].startswith("Rewrite it.")


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("reply", ["<html>502 Bad Gateway</html>", "Answer in one word.", '"Answer in one word."'])
def test_a_reply_that_does_not_name_the_text_is_asked_again_and_never_installed(adapter, reply):
    asked = []

    def respond(messages):
        asked.append(messages)
        return reply

    program = nn.Predict("question -> answer", instruction="Answer.")
    example = pg.Example(question="q", answer="a").with_inputs("question")

    class Critic:
        async def critique(self, failure):
            return {"instruction": "be brief"}

    program.to(pg.lm.FunctionLM(lambda prompt: "[[ ## answer ## ]]\nno"))
    nn.MetricLoss(pg.metrics.exact_match, critic=Critic())(program.map([example]), [example]).backward()
    writer = pg.lm.FunctionLM(respond)
    writer.adapter = adapter
    report = optim.TGD(program.parameters(), lm=writer, proposals=1).step()
    assert program.instruction.data == "Answer."
    assert "does not name the field `new_instruction`" in report.changes[0].reason
    assert len(asked) == 2


def test_a_model_that_knows_only_its_own_tasks_finds_an_instruction_from_rows_that_no_critic_saw():
    asked = []

    def spying(messages):
        asked.append([message.text for message in messages])
        return "say the last word"

    wrong = Row("1", {"text": "red blue"}, {"answer": "red"}, 0.0, feedback="the answer should be blue")
    rows = [replace(wrong, expected={"answer": "blue"}), Row("2", {"text": "big wolf"}, {"answer": "wolf"}, 1.0), wrong]
    model = nn.Predict("text -> answer", instruction="do the task")
    rewriter = search.Rewriter(search.Attempts({}, 8))
    evidence = search.Evidence(model.instruction, "instruction", "do the task", "the program", rows)
    evidence = replace(evidence, lm=lm.FunctionLM(spying, adapter="pocket"))
    edit = aio.run(rewriter.write(evidence))
    assert edit.text == "say the last word"
    assert asked[0][0] == pg.data.pocket.INDUCT_INSTRUCTION
    shown = re.findall(r"\[\[text\]\] (.*?) \[\[answer\]\] (\w+)", asked[0][1])
    assert sorted(shown) == [("big wolf", "wolf"), ("red blue", "blue")]
    said = replace(evidence, rows=[replace(wrong, critique="the answer should be the last word")])
    aio.run(rewriter.write(said))
    assert asked[1][0] == pg.data.pocket.IMPROVE_INSTRUCTION
    assert "[[critique]] the answer should be the last word" in asked[1][1]


@pytest.mark.parametrize(
    "make",
    [
        lambda params: optim.TGD(params, steps=2, batch_size=4),
        lambda params: optim.GEPA(params, steps=2),
        lambda params: optim.Auto(params, steps=2, demos=()),
    ],
)
def test_optimizers_have_it_find_from_six_rows_at_most_other_ones_each_time(make):
    asked = []

    def spying(messages):
        system, user = messages[0].text, messages[-1].text
        assert "critique" not in system
        if system == pg.data.pocket.INDUCT_INSTRUCTION:
            asked.append(user)
            return ("say the last word", "say the first word", "count the fruits")[len(asked) % 3]
        return "red"

    task = pg.data.pocket.task("count-fruit")
    train, val, _ = task.split(train=24, val=10, test=1)
    model = nn.Predict("text -> answer", instruction="do the task").to(lm.FunctionLM(spying, adapter="pocket"))
    pg.Trainer(model, make(model.parameters()), metric=task.metric, seed=0, progress=False).fit(train, val)
    assert len(set(asked)) == len(asked) >= 4
    assert {len(re.findall(r"\[\[answer\]\]", text)) for text in asked} == {6}
