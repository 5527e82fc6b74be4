import json
import re
from typing import Literal

import pydantic
import pytest

import promptgrad as pg
from promptgrad import Text, lm, nn
from promptgrad.errors import (
    AsyncUsageError,
    ConstraintError,
    InputError,
    LMConnectionError,
    NoLMError,
    ParseError,
    SignatureError,
)


def test_a_call_asks_the_model_and_returns_a_record(scripted):
    model = scripted(lambda question: {"answer": question.upper()})
    predict = nn.Predict("question -> answer").to(model)
    prediction = predict(question="why?")
    assert prediction.answer == "WHY?"
    assert len(model.asked) == 1


def test_a_sole_input_may_be_passed_by_position(scripted):
    predict = nn.Predict("question -> answer").to(scripted(lambda question: {"answer": question}))
    assert predict("why?").answer == "why?"
    with pytest.raises(InputError, match="twice"):
        predict("why?", question="why?")


def test_several_inputs_are_passed_by_name(scripted):
    predict = nn.Predict("question, context -> answer").to(scripted(lambda question, context: {"answer": "x"}))
    with pytest.raises(InputError, match=r"by name, \(question=\.\.\., context=\.\.\.\)"):
        predict("a", "b")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "is missing the inputs 'question', 'context'"),
        (
            {"question": "a", "contxt": "b"},
            r"missing the input 'context', and has no input 'contxt' \(did you",
        ),
        ({"question": "a", "context": "b", "answer": "c"}, r"has no input 'answer' \(it is an output\)"),
        ({"question": "a", "context": "b", "temperature": 1}, r"config=\{'temperature': \.\.\.\}"),
        ({"question": 3, "context": "b"}, r"input 'question' \(str\): must be str, not int"),
    ],
)
def test_wrong_inputs_are_named_before_anything_is_sent(scripted, inputs, said):
    model = scripted(lambda **_: {"answer": "x"})
    with pytest.raises(InputError, match=said):
        nn.Predict("question, context -> answer").to(model)(**inputs)
    assert model.asked == []


def test_a_whole_prediction_is_not_a_text(scripted):
    predict = nn.Predict("question -> answer").to(scripted(lambda question: {"answer": "x"}))
    with pytest.raises(InputError, match=r"a whole Prediction was passed: pass one of its fields \(\.answer\)"):
        predict(question=predict(question="a"))


def test_no_language_model_is_an_error_that_names_all_ways():
    with pytest.raises(NoLMError, match="configure") as caught:
        nn.Predict("question -> answer")(question="a")
    assert ".to(" in str(caught.value)
    assert "context(" in str(caught.value)


def test_order_of_language_models(scripted):
    def named(name):
        return scripted(lambda question: {"answer": name}, name=name)

    predict = nn.Predict("question -> answer")
    with pg.context(lm=named("context")):
        assert predict(question="a").answer == "context"
        predict.to(named("module"))
        assert predict(question="a").answer == "module"
        with pg.context(lm=named("override"), override=True):
            assert predict(question="a").answer == "override"
            assert predict(question="a", lm=named("call")).answer == "call"


def test_types_are_parsed_and_validated(scripted):
    class Person(pydantic.BaseModel):
        name: str
        age: int

    predict = nn.Predict(
        "question, notes: list[str] -> n: int, ok: bool, kind: Literal['a', 'b'], tags: list[str], who: Person",
        types={"Person": Person, "Literal": Literal},
    ).to(
        scripted(
            lambda question, notes: {
                "n": "3",
                "ok": "true",
                "kind": "a",
                "tags": '["x", "y"]',
                "who": '{"name": "Ann", "age": 4}',
            }
        )
    )
    prediction = predict(question="a", notes=["one", "two"])
    assert prediction.to_dict() == {
        "n": 3,
        "ok": True,
        "kind": "a",
        "tags": ["x", "y"],
        "who": Person(name="Ann", age=4),
    }
    node = prediction.grad_fn
    texts = [prediction.kind, *prediction.tags, prediction.who.name]
    assert all(type(text) is Text and text.grad_fn is node for text in texts)
    assert type(prediction.n) is int
    assert prediction.who.model_dump() == {"name": "Ann", "age": 4}
    with pytest.raises(InputError, match="input 'notes'"):
        predict(question="a", notes=3)


def test_types_are_the_same_with_and_without_grad(scripted):
    predict = nn.Predict("question -> answer").to(scripted(lambda question: {"answer": "x"}))
    recorded = predict(question="a")
    assert recorded.answer.grad_fn is recorded.grad_fn
    for mode in (pg.no_grad, pg.inference_mode):
        with mode():
            free = predict(question="a")
        assert type(free.answer) is Text
        assert free.answer.grad_fn is None
        assert free.grad_fn is None
        assert free == recorded
    predict.requires_grad_(False)
    assert predict(question="a").grad_fn is None


def test_the_node_knows_the_call(scripted):
    model = scripted(lambda question: {"answer": "x"})
    predict = nn.Predict("question -> answer", demos=[{"question": "q", "answer": "a"}]).to(model)
    node = predict(question="a").grad_fn
    assert (node.path, node.index, node.module_name, node.lm) == ("", 0, "Predict", model)
    assert node.inputs == {"question": "a"}
    assert node.outputs == {"answer": "x"}
    assert [(read.name, read.parameter) for read in node.reads] == [
        ("instruction", predict.instruction),
        ("demos", predict.demos),
    ]
    assert node.messages == model.asked[0].messages
    assert node.reply == "[[ ## answer ## ]]\nx"
    assert node.usage.calls == 1


def test_demos_and_instruction_are_in_the_prompt(scripted):
    model = scripted(lambda question: {"answer": "x"})
    predict = nn.Predict("question -> answer", instruction="Be brief.").to(model)
    predict.demos.data = [pg.Example(question="two plus two", answer="four")]
    predict(question="a")
    contents = [m.content for m in model.asked[0].messages]
    assert "Be brief." in contents[0]
    assert "two plus two" in contents[1]
    assert "four" in contents[2]
    predict.instruction.data = "Be long."
    predict(question="a")
    assert "Be long." in model.asked[1].messages[0].content
    with predict.candidate({"instruction": "Be odd."}):
        predict(question="a")
    assert "Be odd." in model.asked[2].messages[0].content
    assert predict.signature.instruction == "Be long."


def test_options_are_laid_over_one_another(scripted):
    model = scripted(lambda question: {"answer": "x"})
    predict = nn.Predict("question -> answer", temperature=0.5, max_tokens=9).to(model)
    predict(question="a", config={"temperature": 0.9, "replicate": 2})
    predict(question="a")
    with pg.context(replicate=4):
        node = predict(question="a").grad_fn
        own = predict(question="a", config={"replicate": 1}).grad_fn
    first, second, third, fourth = model.asked
    assert fourth.replicate == own.replicate == 1  # the call's own number, whatever the context
    assert (first.temperature, first.max_tokens, first.replicate) == (0.9, 9, 2)
    assert (second.temperature, second.replicate) == (0.5, 0)
    assert third.replicate == node.replicate == 4
    with pytest.raises(InputError, match="config= is a dict"):
        predict(question="a", config=3)
    with pytest.raises(ValueError, match="temperature"):
        predict(question="a", config={"temperature": -1})


def test_an_input_called_lm_or_config_is_an_input(scripted):
    predict = nn.Predict("lm, config -> answer").to(scripted(lambda lm, config: {"answer": lm + config}))
    assert predict(lm="a", config="b").answer == "ab"


# --------------------------------------------------------------------- replies that do not parse


def flaky(scripted, *replies):
    waiting = list(replies)
    return scripted(lambda **_: waiting.pop(0))


def test_a_reply_that_does_not_parse_is_asked_again_with_the_reason(scripted):
    model = flaky(scripted, "[[ ## n ## ]]\nmany", "[[ ## n ## ]]\n3")
    prediction = nn.Predict("question -> n: int").to(model)(question="a")
    assert prediction.n == 3
    assert prediction.reasks == 1
    assert prediction.usage.calls == 2
    assert prediction.grad_fn.usage.calls == 2
    again = model.asked[1].messages
    assert again[:-2] == model.asked[0].messages
    assert again[-2].content == "[[ ## n ## ]]\nmany"
    assert "`n`" in again[-1].content
    assert prediction.grad_fn.messages == model.asked[0].messages
    assert prediction.grad_fn.reply == "[[ ## n ## ]]\n3"


def test_after_the_last_try_the_error_says_what_was_wrong(scripted):
    model = flaky(scripted, "[[ ## n ## ]]\nmany", "[[ ## n ## ]]\nmore")
    predict = nn.Predict("question -> n: int").to(model)
    with pytest.raises(ParseError, match=r"does not parse \(asked 2 times\).*`n`") as caught:
        predict(question="a")
    assert caught.value.reply == "[[ ## n ## ]]\nmore"
    assert len(model.asked) == 2


def test_retries_can_be_switched_off(scripted):
    model = flaky(scripted, "[[ ## n ## ]]\nmany")
    with pytest.raises(ParseError):
        nn.Predict("question -> n: int", retries=0).to(model)(question="a")
    with pytest.raises(ValueError, match="retries"):
        nn.Predict("a -> b", retries=-1)


def test_a_reply_that_was_cut_says_so():
    def respond(messages):
        return lm.Completion("[[ ## x ## ]]\n1", finish_reason="length")

    with pytest.raises(ParseError, match="raise max_tokens"):
        nn.Predict("question -> x, y").to(lm.FunctionLM(respond))(question="a")


def test_a_failed_call_leaves_a_node_with_its_error(scripted):
    def down(messages):
        raise LMConnectionError("nobody there")

    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Predict("question -> n: int", retries=0)

        def forward(self, question):
            return self.step(question=question).n

    row = Program().to(lm.FunctionLM(down)).map([{"question": "a"}]).rows[0]
    node = row.tape.nodes[0]
    assert isinstance(node.error, LMConnectionError)
    assert node.reply is None
    row = Program().to(flaky(scripted, "[[ ## n ## ]]\nmany")).map([{"question": "a"}]).rows[0]
    node = row.tape.nodes[0]
    assert isinstance(node.error, ParseError)
    assert (node.path, node.reply) == ("step", "[[ ## n ## ]]\nmany")
    assert node.reads[0].name == "instruction"


# --------------------------------------------------------------------- the prompt is visible


def test_render_is_exactly_what_is_sent(scripted):
    model = scripted(lambda question, notes: {"answer": "x"})
    predict = nn.ChainOfThought(
        "question, notes: list[str] -> answer", demos=[{"question": "q", "notes": ["n"], "answer": "a"}]
    )
    rendered_without_lm = predict.render(question="why?", notes=["b", "c"])
    predict.to(scripted(lambda question, notes: {"reasoning": "r", "answer": "x"}))
    model = predict.lm
    predict(question="why?", notes=["b", "c"])
    sent = [{"role": m.role, "content": m.content} for m in model.asked[0].messages]
    assert predict.render(question="why?", notes=["b", "c"]) == rendered_without_lm == sent
    with pytest.raises(InputError, match="missing"):
        predict.render(question="why?")


def test_export_has_the_prompts_with_places_for_the_inputs(scripted):
    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Predict("question, notes: list[str] -> n: int", temperature=0.3)

    exported = json.loads(json.dumps(Program().export()))
    assert list(exported) == ["step"]
    step = exported["step"]
    assert step["inputs"] == {"question": "str", "notes": "list[str]"}
    assert step["outputs"] == {"n": "int"}
    assert step["options"] == {"temperature": 0.3}
    assert "{question}" in step["messages"][-1]["content"]
    filled = step["messages"][-1]["content"].replace("{question}", "why?").replace("{notes}", '["b"]')
    assert filled == Program().step.render(question="why?", notes=["b"])[-1]["content"]


def test_inspect_history_shows_the_last_calls(scripted):
    predict = nn.Predict("question -> n: int", retries=1).to(flaky(scripted, "[[ ## n ## ]]\nmany", "[[ ## n ## ]]\n3"))
    predict(question="how many, I wonder")
    history = pg.inspect_history()
    assert len(history) == 1
    shown = repr(history)
    assert "how many, I wonder" in shown
    assert "asked 2 times" in shown
    assert shown.endswith("[[ ## n ## ]]\n3")
    predict.to(flaky(scripted, "no", "no"))
    with pytest.raises(ParseError):
        predict(question="b")
    assert "failed: ParseError" in repr(pg.inspect_history(2)[-1])
    with pytest.raises(ValueError, match="at least 1"):
        pg.inspect_history(0)


def test_the_history_is_bounded(scripted):
    predict = nn.Predict("question -> answer").to(scripted(lambda question: {"answer": "x"}))
    for number in range(60):
        predict(question=str(number))
    history = pg.inspect_history(1000)
    assert len(history) == 50
    assert "59" in history[-1].messages[-1]["content"]


# --------------------------------------------------------------------- construction


def test_a_class_signature_with_input_and_output(scripted):
    class QA(pg.Signature):
        """Answer in one word."""

        question: str = pg.Input(desc="a question")
        answer: str = pg.Output(desc="one word")

    predict = nn.Predict(QA)
    assert predict.instruction.data == "Answer in one word."
    assert predict.to(scripted(lambda question: {"answer": "x"}))(question="a").answer == "x"


def test_wrong_arguments_are_refused():
    with pytest.raises(SignatureError):
        nn.Predict("question answer")
    with pytest.raises(ConstraintError, match="no input field"):
        nn.Predict("question -> answer", demos=[{"answer": "a"}])
    with pytest.raises(TypeError, match="not one"):
        nn.Predict("question -> answer", demos={"question": "a", "answer": "b"})
    with pytest.raises(ValueError, match="adapter"):
        nn.Predict("question -> answer", adapter="chta")
    with pytest.raises(ValueError, match="not an option of a request"):
        nn.Predict("question -> answer", api_key="sk-1")


def test_adapters_of_module_context_and_model(scripted):
    seen = []

    def respond(messages):
        seen.append(messages[0].content)
        return '{"answer": "x"}'

    chat = nn.Predict("question -> answer").render(question="a")
    model = lm.FunctionLM(respond)
    predict = nn.Predict("question -> answer", adapter="json").to(model)
    assert predict(question="a").answer == "x"
    assert seen[0] != chat[0]["content"]
    with pg.context(adapter="json"):
        nn.Predict("question -> answer").to(model)(question="a")
    assert seen[1] == seen[0]
    nn.Predict("question -> answer").to(lm.FunctionLM(respond, adapter="json"))(question="a")
    assert seen[2] == seen[0]
    predict = nn.Predict("question -> answer").to(model)
    predict.adapter = "json"  # as it is given to the constructor
    predict(question="a")
    assert seen[3] == seen[0]


def test_chain_of_thought_writes_its_reasoning_first(scripted):
    cot = nn.ChainOfThought("question -> answer")
    assert list(cot.signature.outputs) == ["reasoning", "answer"]
    assert cot.instruction.data == nn.Predict("question -> answer").instruction.data
    prediction = cot.to(scripted(lambda question: {"reasoning": "so", "answer": "x"}))(question="a")
    assert prediction == {"reasoning": "so", "answer": "x"}
    assert list(nn.ChainOfThought("q -> answer, reasoning").signature.outputs) == ["answer", "reasoning"]
    with pytest.raises(SignatureError):
        nn.ChainOfThought("reasoning -> answer")


def test_a_call_from_promptgrads_own_loop_names_acall(scripted):
    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Predict("question -> answer")

        async def forward(self, question):
            return self.step(question=question)

    program = Program().to(scripted(lambda question: {"answer": "x"}))
    with pytest.raises(AsyncUsageError, match=re.escape("await module.acall(...)")):
        program(question="a")


def test_an_output_called_like_a_method_of_prediction_is_told_how_to_read():
    with pytest.warns(UserWarning, match=r"read it as prediction\['items'\]"):
        predict = nn.Predict("text -> items: list[str]")
    predict.to(lm.FunctionLM(lambda prompt: '[[ ## items ## ]]\n["a", "b"]'))
    assert predict(text="x")["items"] == ["a", "b"]


@pytest.mark.parametrize(
    "signature", ["image: bytes -> answer", "pages: list[bytes] -> answer", "sound: bytes | None -> answer"]
)
def test_an_input_of_bytes_is_refused(signature):
    with pytest.raises(SignatureError, match=r"would show base64.*an input of the type pg\.Image"):
        nn.Predict(signature)


def test_bytes_for_a_text_name_what_to_write():
    with pytest.raises(InputError, match=r"bytes were passed: decode text with data.decode\(\); an image is an input"):
        nn.Predict("question -> answer")(question=b"\x89PNG")


@pytest.mark.parametrize("kind", [nn.Predict, nn.ChainOfThought])
def test_a_warning_of_a_new_module_points_at_the_users_line(kind):
    with pytest.warns(UserWarning, match="called like a method") as said:
        kind("question -> items: list[str]")
    assert [one.filename for one in said] == [__file__]
