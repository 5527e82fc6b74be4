import asyncio

import pytest

from promptgrad import aio, nn
from promptgrad.data import pocket as world
from promptgrad.errors import CutReplyError
from promptgrad.lm import Message, Prefix, Request, pocket

pytest.importorskip("torch")
pytest.importorskip("transformers")


def test_one_object_for_the_process():
    assert pocket() is pocket()
    assert (pocket().name, pocket().adapter, pocket().options, pocket().threads) == (
        "pocket",
        "pocket",
        {"temperature": 0.0},
        1,
    )
    other = pocket(temperature=0.7)
    assert other is not pocket()
    assert other.options == {"temperature": 0.7}


def test_in_another_adapter_it_warns_once_of_what_it_cannot_read():
    lm = pocket(max_tokens=4)  # another object than that of the process
    model = nn.Predict("text -> answer", adapter="chat", retries=0).to(lm)
    with pytest.raises(CutReplyError), pytest.warns(UserWarning, match="does not know these words.*'pocket'"):
        model(text="cat dog")
    model(text="dog cat")  # a second warning would be an error here


def test_it_knows_its_world_in_batches_and_alone():
    task = world.task("color-of-last")
    test = list(task.split()[2])[:32]
    prefix = Prefix([Message("system", task.instruction("precise"))])
    asked = [Request(prefix, (Message("user", f"[[text]] {example.text} [[answer]]"),)) for example in test]

    async def main():
        return await asyncio.gather(*[pocket().complete(one) for one in asked])

    replies = [completion.text for completion in aio.run(main())]
    assert [pocket()(one).text for one in asked[:4]] == replies[:4]
    right = sum(text == example.answer for text, example in zip(replies, test, strict=True))
    assert right >= 24


def test_a_program_on_it_streams_its_tokens():
    task = world.task("label-map-kind")
    model = nn.Predict("text -> answer", instruction=task.instruction("precise")).to(pocket())
    text = next(iter(task.split()[2])).text
    events = list(model.stream_sync(text=text))
    deltas = [event.delta for event in events if isinstance(event, nn.FieldDelta)]
    assert "".join(deltas) == events[-1].answer == model(text=text).answer
