"""Records of every adapter: what the program sends and reads, with the loss on the reply alone; or a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.data import Example
from promptgrad.errors import DataError, InputError
from promptgrad.finetune import collect, collect_preferences, labeled, load_conversations, sft
from promptgrad.finetune._tokens import encode
from promptgrad.lm._local_tools import read_calls
from promptgrad.testing import LoopbackLM, Reply
from tests.lm.test_local_tools import TEMPLATE

TYPES = {"Kind": Literal["ham", "spam"]}
SIGNATURE = "text -> why, kind: Kind, tags: list[str]"
DATA = [
    Example(text=f"mail {n}", why=f"it says {n}\nkind: so", kind="ham" if n % 2 else "spam", tags=["a", f"{n}"])
    for n in range(4)
]
OWN = pg.adapters.template("{text} =>", reply="Why: {why}\n=> {kind}\n# {tags}")
READ_ONLY = pg.adapters.template("{text} =>", parse=r"(?P<why>.*) (?P<kind>ham|spam) (?P<tags>.*)")
ADAPTERS = ["chat", "json", "xml", "compact", OWN]


def named(adapter: Any) -> str:
    return adapter if isinstance(adapter, str) else adapter.name


def right(example: Any, output: Any) -> float:
    return float(output.kind == example.kind and list(output.tags) == example.tags)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=named)
def test_labels_become_what_the_adapter_reads_again(adapter: Any, tmp_path: Path) -> None:
    model = nn.Predict(SIGNATURE, types=TYPES, adapter=adapter, demos=[DATA[0]]).to(lm.FunctionLM(lambda m: ""))
    made = labeled(model, DATA)
    form = pg.adapters.get_adapter(adapter)
    for sample, example in zip(made, DATA, strict=True):
        assert sample.messages == model.messages(text=example.text)
        found = form.parse(model.signature, sample.reply)
        assert found == {name: example[name] for name in ("why", "kind", "tags")}
    assert list(load_conversations(made.save(tmp_path / "x.jsonl"))) == list(made)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=named)
def test_a_reply_that_was_sent_for_is_kept_as_it_came_and_any_other_is_written_anew(adapter: Any) -> None:
    form = pg.adapters.get_adapter(adapter)
    student = nn.Predict(SIGNATURE, types=TYPES, adapter=adapter)
    told = form.format(student.signature).assistant({"why": "w", "kind": "spam", "tags": ["a", "0"]}) + "\n "
    own = collect(student.to(lm.FunctionLM(lambda m: told)), [DATA[0].with_inputs("text")], right)
    assert [sample.reply for sample in own] == [told]
    teacher = nn.Predict(SIGNATURE, types=TYPES, adapter="json" if adapter == "chat" else "chat")
    said = teacher.adapter.format(student.signature).assistant({"why": "w", "kind": "spam", "tags": ["a", "0"]})
    other = collect(student, [DATA[0].with_inputs("text")], right, teacher=teacher.to(lm.FunctionLM(lambda m: said)))
    assert [sample.reply for sample in other] == [told.strip()]
    assert [sample.messages for sample in other] == [sample.messages for sample in own]


@pytest.fixture(scope="module")
def wide() -> Any:
    pytest.importorskip("peft")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    try:
        import random_schemas
    finally:
        sys.path.pop(0)
    tokenizer = random_schemas.byte_tokenizer(500)
    model = random_schemas.byte_model(tokenizer)
    model.name_or_path = ""  # its rows are not those of any folder
    made = lm.Local(model, tokenizer, name="bytes", threads=1)
    yield made
    made.close()


def loss_of_replies(local: lm.Local, rows: list[Any]) -> float:
    """Mean over the tokens of replies, in nats, one row at a time."""
    import torch

    lost, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = local.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        told = row.ids[row.start :]
        lost -= sum(float(logits[row.start + at - 1, token]) for at, token in enumerate(told))
        count += len(told)
    return lost / count


@pytest.mark.parametrize("adapter", ["xml", "compact", OWN], ids=named)
def test_the_loss_is_on_the_reply_and_its_end_alone(adapter: Any, wide: lm.Local) -> None:
    model = nn.Predict(SIGNATURE, types=TYPES, adapter=adapter, demos=[DATA[0]]).to(wide)
    made = labeled(model, DATA[1:])
    rows = [encode(wide, sample) for sample in made]
    for sample, row in zip(made, rows, strict=True):
        assert wide.tokenizer.decode(row.ids[: row.start]) == wide.tokenizer.apply_chat_template(
            [message.to_dict() for message in sample.messages], tokenize=False, add_generation_prompt=True
        )
        assert wide.tokenizer.decode(row.ids[row.start :]) == sample.reply + wide.tokenizer.eos_token
    before = [weight.detach().clone() for weight in wide.model.parameters()]
    tuned = sft(model, made, steps=8, lr=1e-2, batch_size=3, progress=False)
    assert tuned.samples == 3
    assert tuned.losses[0] == pytest.approx(loss_of_replies(wide, rows), rel=1e-3)
    assert tuned.losses[-1] < tuned.losses[0]
    assert all((old == new).all() for old, new in zip(before, wide.model.parameters(), strict=True))


def test_both_calls_of_two_steps_are_records() -> None:
    def reply(messages: Any) -> str:
        if "Find the fields" in messages[0]["content"]:
            return "[[ ## kind ## ]]\nspam\n\n[[ ## completed ## ]]"
        return "I would call it spam."

    model = nn.Predict("text -> kind: Kind", types=TYPES, adapter="two_step").to(lm.FunctionLM(reply))
    made = collect(model, [DATA[0].with_inputs("text")], lambda example, output: output.kind == example.kind)
    assert [(sample.path, sample.reply) for sample in made] == [
        ("", "I would call it spam."),
        ("extract", "[[ ## kind ## ]]\nspam\n\n[[ ## completed ## ]]"),
    ]
    assert "I would call it spam." in made.samples[1].messages[-1].text
    assert [sample.reply for sample in labeled(model, [Example(text="a", kind="ham")])] == ["kind: ham"]


class Tagged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tag = nn.Predict("text -> kind: Kind", types=TYPES, adapter="tools")

    def forward(self, text: str) -> Any:
        return self.tag(text=text)


FUNCTION = {"kind": {"type": "string", "enum": ["ham", "spam"]}}


def read_back(made: Any, folder: Path) -> list[Any]:
    """The records, after each of the forms that keep them was written and read."""
    found = [list(load_conversations(made.save(folder / f"{form}.jsonl", form))) for form in FORMS]
    assert found[0] == found[1]
    return found[0]


FORMS = ["chat", "prompt-completion"]


def test_the_call_of_the_adapter_tools_is_a_record(tmp_path: Path) -> None:
    with LoopbackLM(lambda body: Reply(tool_calls=[("reply", {"kind": "spam"})])) as server:
        model = Tagged().to(lm.HTTP("m", base_url=server.url))
        model.tag.demos.data = [Example(text="b", kind="ham")]
        data = [DATA[0].with_inputs("text")]
        made = collect(model, data, lambda example, output: output.kind == example.kind, n=2).dedup()
        (sample,) = made
        assert (made.dropped, sample.reply, sample.path) == ({"duplicate": 1}, "", "tag")
        assert [(call.id, call.name, json.loads(call.arguments)) for call in sample.calls] == [
            ("call_1", "reply", {"kind": "spam"})
        ]
        assert json.loads(sample.tools) == json.loads(json.dumps(server.requests[0].json["tools"]))
        assert json.loads(sample.tools)[0]["function"]["parameters"]["properties"] == FUNCTION
        assert read_back(made, tmp_path) == [sample]
        row = json.loads(made.save(tmp_path / "o.jsonl", "openai").read_text())
        assert [*row] == ["messages", "tools"]
        assert row["messages"][:-1] == [
            {**m, "weight": 0} if m["role"] == "assistant" else m for m in server.requests[0].messages
        ]
        assert row["messages"][-1]["tool_calls"][0]["function"]["name"] == "reply"
        assert row["messages"][-1]["content"] is None
        (labelled,) = labeled(model, [Example(text="mail 0", kind="spam")])
        assert (labelled.messages, labelled.tools) == (sample.messages, sample.tools)
        assert json.loads(labelled.calls[0].arguments) == {"kind": "spam"}
        replies = iter(["spam", "ham"])
        server.respond = lambda body: Reply(tool_calls=[("reply", {"kind": next(replies)})])
        pairs = collect_preferences(model, data, lambda e, output: output.kind == e.kind, n=2, concurrency=1)
        reason = "the adapter 'tools' passes tools beside the messages, and a pair holds texts alone"
        assert (len(pairs), pairs.dropped) == (0, {reason: 1})


def look(word: str) -> str:
    """Look it up."""
    return word


def test_calls_of_a_signature_with_tools_are_records_and_so_is_an_answer_without(tmp_path: Path) -> None:
    signature = "text, tools: list[Tool] -> said, calls: list[ToolCall]"
    demo = Example(text="x", said="", calls=[lm.ToolCall("", "look", '{"word": "x"}')])
    model = nn.Predict(signature, demos=[demo]).to(lm.FunctionLM(lambda m: ""))
    calls = [lm.ToolCall("", "look", '{"word": "a"}'), lm.ToolCall("", "look", '{"word": "b"}')]
    made = labeled(
        model,
        [
            Example(text="a", tools=[pg.Tool(look)], said="Let me see.", calls=calls),
            Example(text="b", tools=[pg.Tool(look)], said="No need.", calls=[]),
        ],
    )
    one, other = made
    assert [(call.id, call.arguments) for call in one.calls] == [
        ("call_1", '{"word": "a"}'),
        ("call_2", '{"word": "b"}'),
    ]
    assert "Let me see." in one.reply
    assert (other.calls, other.tools) == ((), one.tools)
    assert json.loads(one.tools)[0]["function"]["name"] == "look"
    assert [message.role for message in one.messages] == ["system", "user", "assistant", "tool", "user"]
    assert read_back(made, tmp_path) == [one, other]


def test_a_local_model_learns_calls_as_its_template_writes_them() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    local = tool_model()
    model = nn.Predict("text -> kind: Kind", types=TYPES, adapter="tools").to(local)
    rows = [Example(text=text, kind=kind).with_inputs("text") for text, kind in (("a", "ham"), ("b", "spam"))]
    for sample, row in zip(labeled(model, rows), rows, strict=True):
        tokens = encode(local, sample)
        request = model.request(text=row.text).replace(tools=json.loads(sample.tools))
        assert list(tokens.ids[: tokens.start]) == local.encode(request)
        written = local.tokenizer.decode(tokens.ids[tokens.start :])
        (call,) = read_calls(written.removesuffix("<|end|>"), "c")
        assert (call.name, json.loads(call.arguments)) == ("reply", {"kind": row.kind})
    tuned = sft(model, rows, steps=6, lr=0.01, lora=None, progress=False)
    assert tuned.losses[-1] < tuned.losses[0]
    blind = tool_model("{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}")
    with pytest.raises(InputError, match="has no place for tools"):
        sft(model.to(blind), rows, steps=1, lora=None, progress=False)
    local.close()
    blind.close()


def tool_model(template: str = TEMPLATE) -> lm.Local:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    try:
        import random_schemas
    finally:
        sys.path.pop(0)
    tokenizer = random_schemas.byte_tokenizer(500)
    tokenizer.chat_template = template
    return lm.Local(random_schemas.byte_model(tokenizer), tokenizer, name="bytes", threads=1)


def test_a_template_that_only_reads_has_no_text_for_a_label() -> None:
    model = nn.Predict(SIGNATURE, types=TYPES, adapter=READ_ONLY).to(lm.FunctionLM(lambda m: 'so spam ["a", "0"]'))
    with pytest.raises(DataError, match="the adapter 'template' cannot write the reply: a template with parse= and"):
        labeled(model, DATA)
    made = collect(model, [DATA[0].with_inputs("text")], right)
    assert [sample.reply for sample in made] == ['so spam ["a", "0"]']  # as it came
