import pytest

from promptgrad import lm, nn
from promptgrad.testing import Fields, LoopbackProcess


def test_each_field_that_is_asked_for_is_answered():
    signature = "question, n: int -> answer: float, sure: bool, words: list[str], kind: Literal['a', 'b']"
    model = nn.ChainOfThought(signature)
    model.to(lm.FunctionLM(Fields("because", words="[]"), name="fields"))
    found = model(question="2?", n=3)
    assert found.to_dict() == {"reasoning": "because", "answer": 7.0, "sure": True, "words": [], "kind": "a"}


def test_whole_numbers_and_lists_have_answers_of_their_kind():
    model = nn.Predict("q -> n: int, m: Optional[int], words: list[str], sizes: list[int]")
    model.to(lm.FunctionLM(Fields(), name="fields"))
    assert model(q="?").to_dict() == {"n": 7, "m": 7, "words": [], "sizes": []}


def test_an_answer_may_be_a_function_of_the_inputs():
    model = nn.Predict("question, topic -> answer", demos=[{"question": "q", "topic": "t", "answer": "a"}])
    model.to(lm.FunctionLM(Fields(answer=lambda inputs: f"{inputs['topic']}: {inputs['question']}"), name="fields"))
    assert model(question="two\n\nlines", topic="x").answer == "x: two\n\nlines"


def test_a_prompt_of_another_adapter_is_refused():
    with pytest.raises(ValueError, match="asks for no fields"):
        Fields()([{"role": "user", "content": "hello"}])


def test_a_server_in_a_process_answers_fields():
    with LoopbackProcess({"answer": "Rome"}) as server:
        model = nn.Predict("question -> answer, note").to(lm.HTTP("m", server.url, "none"))
        assert model(question="?").to_dict() == {"answer": "Rome", "note": "ok"}
