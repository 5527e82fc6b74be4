"""A simulated language model with a small world of its own, for tests of optimizers and of the trainer.

The program has two steps, `text -> word` and `word -> answer`; the right answer is the last word, reversed. The
model takes the first word and copies it, until an instruction (or two consistent demos) tell it better. It also
plays the critic, the writer that improves an instruction and the one that proposes one, all as a function of the
messages alone.
"""

import hashlib
import json
import re

from promptgrad import nn
from promptgrad.data import Example, Score

_SECTION = re.compile(r"^\[\[ ## (\w+) ## \]\]\n(.*?)(?=^\[\[ ## |\Z)", re.DOTALL | re.MULTILINE)
PROPOSALS = {
    "pick": ("Take the last word.", "Take the word in the middle.", "Find the last one."),
    "spell": ("Reverse the word.", "Copy the word.", "Spell it in reverse."),
}
PROPOSALS["Predict"] = PROPOSALS["spell"]  # which has no other name where it is trained alone
WORDS = ["red", "green", "blue", "lime", "grey", "pink", "gold", "teal", "plum", "navy", "ruby", "sand"]


def sections(text):
    """The fields of one message."""
    found = {name: body.split("\n\nReply in the format")[0].strip() for name, body in _SECTION.findall(text)}
    found.pop("completed", None)
    return found


def answer(messages):
    """The reply of the simulated model to a chat."""
    system = messages[0]["content"]
    wanted = [name for name in re.findall(r"^\[\[ ## (\w+) ## \]\]", system, re.MULTILINE) if name != "completed"]
    asked = sections(messages[-1]["content"])
    instruction = system.split("\n\nYou are given")[0].lower()
    shown = [
        (sections(messages[i]["content"]), sections(messages[i + 1]["content"])) for i in range(1, len(messages) - 1, 2)
    ]
    reply = respond(instruction, shown, asked, wanted)
    return "\n\n".join([*(f"[[ ## {name} ## ]]\n{value}" for name, value in reply.items()), "[[ ## completed ## ]]"])


def respond(instruction, shown, asked, wanted):
    if "rows" in asked and "worse" in asked:
        return write(asked, json.loads(asked["rows"]), proposes=instruction.startswith("you write"))
    if "runs" in asked and "worse" in asked:
        return {"analysis": "see the runs", "revisions": json.dumps(revise(asked))}
    if "runs" in asked:
        return {"findings": json.dumps(judge(json.loads(asked["runs"])))}
    if "feedback" in asked:
        return criticise(asked, wanted)
    if "text" in asked:
        words = asked["text"].split()
        last = "last" in instruction or learnt(shown, lambda i, o: o.get("word") == i["text"].split()[-1])
        return {"word": words[-1] if last else words[0]}
    word = asked["word"]
    turn = "reverse" in instruction or learnt(shown, lambda i, o: o.get("answer") == i["word"][::-1])
    return {"answer": word[::-1] if turn else word}


def write(asked, rows, *, proposes):
    """A new instruction: a guess where one is proposed, else the present one and what the critiques or the rows say."""
    if proposes:
        examples = [{name: value for name, value in row.items() if name != "row"} for row in rows]
        seen = [json.dumps(examples, separators=(",", ":")), asked["tip"], asked["role"]]
        digest = hashlib.sha256(json.dumps(seen).encode()).digest()
        texts = PROPOSALS[asked["role"].split(":")[0]]
        return {"analysis": "a guess", "new_instruction": texts[digest[0] % len(texts)]}
    said = [text for row in rows if "critique" in row for text in row["critique"].split("\n")]
    said = [text for text in dict.fromkeys(said) if not text.startswith("as in row")] or reflect(rows)
    return {"analysis": "see the critiques", "new_instruction": " ".join([asked["instruction"], *said[:2]])}


def reflect(rows):
    """The rule that explains what went wrong in failed calls, as far as the feedback shows it."""
    for row in rows:
        gold = re.search(r"should be (\w+)", row.get("feedback", ""))
        if gold is None:
            continue
        if "text" in row["inputs"] and row["outputs"]["word"] != gold[1][::-1]:
            return ["Take the last word."]
        if "word" in row["inputs"] and row["inputs"]["word"] == gold[1][::-1]:
            return ["Reverse the word."]
    return ["Take care."]


def revise(asked):
    """The new texts of the parameters that whole runs speak against."""
    texts, said = json.loads(asked["parameters"]), {}
    for run in json.loads(asked["runs"]):
        for call in run.get("calls", ()) if run.get("score", 1) < 1 else ():
            (found,) = reflect([{**call, "feedback": run.get("feedback", "")}])
            right = call["outputs"].get("answer") == call["inputs"].get("word", "")[::-1]
            if found != "Take care." and not right:
                said[f"{call['call']}.instruction"] = found
            elif "word" in call["inputs"] and not right:
                said[f"{call['call']}.instruction"] = "Reverse the word."
    return [{"parameter": name, "new_text": f"{texts[name]} {text}"} for name, text in said.items() if name in texts]


def learnt(shown, holds):
    return len(shown) >= 2 and all(holds(inputs, outputs) for inputs, outputs in shown)


def criticise(asked, wanted):
    inputs, outputs = json.loads(asked["inputs"]), json.loads(asked["outputs"])
    gold = re.search(r"should be (\w+)", asked["feedback"])
    gold = gold.group(1) if gold else ""
    if "word" in inputs:
        word = inputs["word"]
        turned = outputs.get("answer") == word[::-1]
        reply = {"critique": "" if turned else "Reverse the word."}
        reply["critique_of_word"] = "" if word[::-1] == gold else f"the word should be {gold[::-1]}"
    else:
        reply = {"critique": "" if outputs.get("word") == gold else "Take the last word."}
    reply |= {"to_blame": reply["critique"] != "", "word_to_blame": reply.get("critique_of_word", "") != ""}
    return {name: reply.get(name, False if name.endswith("to_blame") else "") for name in wanted}


def judge(runs):
    """The findings about whole runs."""
    found = {}
    for run in runs:
        gold = re.search(r"should be (\w+)", run.get("feedback", ""))
        gold = gold.group(1)[::-1] if gold else ""
        for call in run["calls"] if run["result"] == "wrong" else ():
            inputs, outputs = call["inputs"], call.get("outputs", {})
            names = [name for name in call.get("follows", ()) if name.endswith("instruction")]
            if "text" in inputs and outputs.get("word") != gold:
                said = "Take the last word."
            elif "word" in inputs and outputs.get("answer") != inputs["word"][::-1]:
                said = "Reverse the word."
            else:
                continue
            for name in names:
                found.setdefault((name, said), []).append(run["run"])
    named = [(name, said, numbers) for (name, said), numbers in found.items()]
    return [{"runs": runs, "parameter": name, "critique": said, "to_blame": True} for name, said, runs in named]


class Program(nn.Module):
    """Two steps."""

    def __init__(self):
        super().__init__()
        self.pick = nn.Predict("text -> word")
        self.spell = nn.Predict("word -> answer")

    def forward(self, text):
        return self.spell(word=self.pick(text=text).word)


def metric(example, output):
    """Full for the right answer, half for the right letters."""
    if output.answer == example.answer:
        return 1.0
    letters = sorted(output.answer) == sorted(example.answer)
    return Score(0.5 * letters, feedback=f"the answer should be {example.answer}")


def examples(count, seed=0):
    """Examples with different texts."""
    import random

    rng = random.Random(seed)
    texts = {" ".join(rng.sample(WORDS, 3)): None for _ in range(3 * count)}
    return [Example(text=text, answer=text.split()[-1][::-1]).with_inputs("text") for text in list(texts)[:count]]


def single():
    """The second step alone, with its data."""
    model = nn.Predict("word -> answer")
    words = [word + tail for tail in "abcdef" for word in WORDS]
    return model, [Example(word=word, answer=word[::-1]).with_inputs("word") for word in words]


def optimizer(name, model):
    from promptgrad import optim

    if name == "mipro":
        return optim.MIPRO(
            model.parameters(), num_candidates=3, num_demo_sets=2, num_trials=7, minibatch_size=8, full_eval_every=3
        )
    if name == "gepa":
        return optim.GEPA(model.parameters(), steps=10, minibatch_size=4)
    return optim.TGD(model.parameters(), steps=4, batch_size=6, proposals=2)


def lm_at(url, concurrency=8):
    from promptgrad import lm

    return lm.Retry(lm.HTTP("simulated", base_url=url, api_key="none", concurrency=concurrency))
