"""Thoughts in the text of a reply: which are split off, and what is an answer about thoughts."""

from __future__ import annotations

import asyncio

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.errors import ParseError
from promptgrad.lm import (
    Completion,
    FunctionLM,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    TextPart,
    ToolCall,
    record,
    replay,
    without_thinking,
)
from promptgrad.lm._thinking import ThinkingFeed

SIGNS = "\N{WHITE LEFT-POINTING TRIANGLE}{}\N{WHITE RIGHT-POINTING TRIANGLE}"
DIALECTS = [
    "<think>It is Paris.</think>\n\nParis",
    "  \n<think>\nIt is Paris.\n</think>\nParis\n",
    "<THINK>It is Paris.</THINK>Paris",
    "<thinking>It is Paris.</thinking>\nParis",
    "<reasoning>\nIt is Paris.\n</reasoning>\nParis",
    '<think lang="en">It is Paris.</think>Paris',
    "<seed:think>It is Paris.</seed:think>Paris",
    "<thought>It is Paris.</thought>Paris",
    "<scratchpad>It is Paris.</scratchpad>\n\nParis",
    "<thought_process>It is Paris.</thought_process>\n\nParis",
    "<think_fast>It is Paris.</think_fast>\n\nParis",
    "<chain-of-thought>It is Paris.</chain-of-thought>Paris",
    "<|think|>It is Paris.<|/think|>Paris",
    "\\<think\\>It is Paris.\\</think\\>Paris",
    "\N{FULLWIDTH LESS-THAN SIGN}think\N{FULLWIDTH GREATER-THAN SIGN}It is Paris."
    "\N{FULLWIDTH LESS-THAN SIGN}/think\N{FULLWIDTH GREATER-THAN SIGN}Paris",
    "\ufeff\N{ZERO WIDTH SPACE}<think>It is Paris.</think>Paris",
    "<|im_start|>assistant\n<think>It is Paris.</think>Paris",
    "<think/><think>It is Paris.</think>Paris",
    "<|inner_prefix|>It is Paris.<|inner_suffix|>Paris",
    "<think>It is Paris.</think><|begin_of_box|>Paris<|end_of_box|>",
    "analysis<|message|>It is Paris.<|end|><|start|>assistant<|channel|>final<|message|>Paris",
    "It is Paris.\n</reasoning>\n\nParis",
    "[THINK]It is Paris.[/THINK]Paris",
    "<|begin_of_thought|>It is Paris.<|end_of_thought|>\n\n<|begin_of_solution|>\nParis\n<|end_of_solution|>",
    "<|START_THINKING|>It is Paris.<|END_THINKING|><|START_RESPONSE|>Paris<|END_RESPONSE|>",
    "<|channel>thought\nIt is Paris.<channel|>Paris",
    "<unused94>thought\nIt is Paris.<unused95>Paris",
    "<|channel|>analysis<|message|>It is Paris.<|end|><|start|>assistant<|channel|>final<|message|>Paris<|return|>",
    "analysisIt is Paris.assistantfinalParis",
    f"{SIGNS.format('think')}It is Paris.{SIGNS.format('/think')}Paris",
    "Here is my thought process: It is Paris.\n\nHere is my response:\n\nParis",
    "It is Paris.\n</think>\n\nParis",
    "It is Paris.</think>\n\nParis",
    "It is Paris.</think>Paris",
    "It is Paris.<|end_of_thought|>Paris",
    "It is Paris.[/THINK]Paris",
    "It is Paris.<unused95>Paris",
    f"It is Paris.{SIGNS.format('/think')}Paris",
    "[think]It is Paris.[/think]Paris",
    "<s>[THINK]It is Paris.[/THINK]Paris</s>",
    "[gMASK]<sop><|assistant|>\n<think>It is Paris.</think>\nParis<|user|>",
    "[|assistant|]<thought>It is Paris.</thought>\nParis[|endofturn|]",
    "<|im_start|>assistant<|im_sep|><think>It is Paris.</think>Paris<|im_end|>",
    "<SPECIAL_11>Assistant\n<think>It is Paris.</think>\nParis\n<SPECIAL_12>",
    "<role>ASSISTANT</role><think>It is Paris.</think>Paris<|role_end|>",
    "<|begin|>assistant<|think|>It is Paris.<|end|><|begin|>assistant<|content|>Paris<|end|>",
    "<|START_THINKING|>It is Paris.<|END_THINKING|><|START_TEXT|>Paris<|END_TEXT|>",
    "<|im_start|>think\nIt is Paris.\n<|im_start|>answer\nParis",
    "/think\nIt is Paris.\n<|im_start|>assistant\nParis",
    "<ctrl94>thought\nIt is Paris.<ctrl95>Paris",
    "&lt;think&gt;It is Paris.&lt;/think&gt;Paris",
    "<|reasoning|>It is Paris.<|/reasoning|>Paris",
    "<|begin_of_thinking|>It is Paris.<|end_of_thinking|>Paris",
    "<\uff5cbegin\u2581of\u2581thinking\uff5c>It is Paris.<\uff5cend\u2581of\u2581thinking\uff5c>Paris",
    "Here's my thought process: It is Paris.\n\nHere's my response: Paris",
    "Here are my reasoning steps:\nIt is Paris.\n[BEGIN FINAL RESPONSE]\nParis\n[END FINAL RESPONSE]",
    "It is Paris.\n[BEGIN FINAL RESPONSE]\nParis\n[END FINAL RESPONSE]\n<|end|>",
    "analysis It is Paris. assistantfinal Paris",
    "analysis\nIt is Paris.\nassistantfinal\nParis",
    "It is Paris.assistantfinalParis",
    "It is Paris.<|end|><|start|>assistant<|channel|>final<|message|>Paris<|return|>",
    "<think>It is Paris.</think><|begin_of_box|>Par<|end_of_box|>is",
]


@pytest.mark.parametrize("reply", DIALECTS)
def test_a_thought_is_split_off_in_every_dialect(reply: str) -> None:
    lm = FunctionLM(lambda messages: reply)
    ends = ("<|user|>", "[|endofturn|]", "<|im_end|>", "<SPECIAL_12>", "<|role_end|>", "</s>", "<|end|>", "<|return|>")
    found = lm("Capital of France?")
    text = next((found.text.removesuffix(end) for end in ends if found.text.endswith(end)), found.text)  # of the turn
    assert (text.strip(), found.reasoning) == ("Paris", "It is Paris.")
    prediction = nn.Predict("question -> capital").to(lm)(question="France?")
    assert prediction.capital == "Paris"


@pytest.mark.parametrize(
    ("reply", "answer", "thought"),
    [
        ("<think>\n\n</think>\n\nParis", "Paris", ""),
        ("so, Paris<|END_THINKING|><|START_RESPONSE|>Paris<|END_RESPONSE|>", "Paris", "so, Paris"),
        ("<think>a</think><think>b</think>Paris", "Paris", "a\n\nb"),
        ("<think>a<think>b</think>c</think>Paris", "Paris", "a<think>b</think>c"),
        ("so, it is Paris</think>Paris", "Paris", "so, it is Paris"),
        ("<think/>Paris", "Paris", ""),
        ("<think>It might be Paris, or", "", "It might be Paris, or"),
        ("<think>say </think> there?\n</think>\nParis", "Paris", "say\n\nthere?"),
        ("<|channel|>analysis<|message|>It might be", "", "It might be"),
        ("analysisWe might say Paris, or", "", "We might say Paris, or"),
        ("<|think|>It might be Paris, or", "", "It might be Paris, or"),
        ("<|message|>Paris<|return|>", "Paris", ""),
        ("<think>it is</think>Use `</think>` to end it.", "Use `</think>` to end it.", "it is"),
    ],
)
def test_odd_thoughts(reply: str, answer: str, thought: str) -> None:
    found = without_thinking(Completion(reply))
    assert (found.text, found.reasoning) == (answer, thought)
    assert without_thinking(found) is found


@pytest.mark.parametrize(
    "reply",
    [
        "Write <think>hm</think> before the answer.",
        "The tag `</think>` ends a thought.",
        'A thought ends with "</think>".',
        "The token <|end_of_thought|> ends a thought, [/THINK] too.",
        "```html\n<b>x</b>\n</think>\n```",
        "<b>bold</b> and <i>italic</i>",
        '{"html": "Done.</think>"}',
        "[[ ## answer ## ]]\nIt ends so.\n</think>\n\n[[ ## completed ## ]]",
        "<answer>Paris</answer>",
        "<p>First.</p>\n<p>Second.</p>",
        "analysis of the text: good",
        "analysisMode is the variable",
        "[Thinking] He looks at the map.",
        'It prints "assistantfinal" at the end.',
        "Here's my response: Paris",
        "The model writes <|end_of_thinking|> behind its thoughts.",
        "<s>struck</s>",
        "Paris<|im_end|>\n<|im_start|>assistant\nAnd Lyon.",
        "[1] and [/1]",
        "A thought looks like <think>this.\n</think>\n\nThat is all.",
        "A thought looks like <THINK>this.\n</think>\n\nThat is all.",
    ],
)
def test_an_answer_that_holds_such_tags_stays_whole(reply: str) -> None:
    completion = Completion(reply)
    assert without_thinking(completion) is completion
    assert FunctionLM(lambda messages: reply)("?").content == reply


def test_a_tag_that_was_asked_for_is_a_field() -> None:
    reply = "<reasoning>It is the capital.</reasoning>\n<answer>Paris</answer>"
    lm = FunctionLM(lambda messages: reply)
    found = nn.Predict("question -> reasoning, answer").to(lm)(question="France?")
    assert found.to_dict() == {"reasoning": "It is the capital.", "answer": "Paris"}
    assert lm("Think inside <reasoning> tags.").content == reply
    assert lm("Capital of France?").reasoning == "It is the capital."
    assert nn.Predict("question -> answer").to(lm)(question="France?").answer == "Paris"


def test_a_draft_inside_the_thought_is_not_the_answer() -> None:
    for thought in (
        "<think>I must reply with\n[[ ## answer ## ]]\nLyon? No.</think>\n\n",
        "I must reply with\n[[ ## answer ## ]]\nLyon? No.\n</think>\n\n",
        '<think>{"answer": "Lyon"}</think>',
    ):
        lm = FunctionLM(lambda messages, t=thought: t + "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]")
        assert nn.Predict("question -> answer").to(lm)(question="?").answer == "Paris"
        lm = FunctionLM(lambda messages, t=thought: t + '{"answer": "Paris"}')
        assert nn.Predict("question -> answer", adapter="json").to(lm)(question="?").answer == "Paris"


def test_a_thought_that_never_ends_is_no_answer() -> None:
    asked = []

    def think(messages):
        asked.append(messages)
        return "<think>It might be Paris, or"

    with pytest.raises(ParseError, match="it ends within its thoughts"):
        nn.Predict("question -> answer").to(FunctionLM(think))(question="?")
    assert [message.role for message in asked[1]] == ["system", "user"]  # an empty turn is left out


def test_the_thought_is_on_the_node_and_in_the_history() -> None:
    program = nn.Sequential(nn.Predict("question -> answer"))
    program.to(FunctionLM(lambda messages: "<think>hm</think>Paris"))
    row = program.map([{"question": "?"}]).rows[0]
    assert (row.tape.nodes[0].reply, row.tape.nodes[0].reasoning) == ("Paris", "hm")
    assert "<reasoning hm>" in repr(pg.inspect_history(1))


def test_journals_and_cassettes_have_the_reply_as_it_came(tmp_path) -> None:
    lm = FunctionLM(lambda messages: "<think>hm</think>Paris", name="thinker")
    with record(tmp_path / "c.jsonl"):
        assert lm("?").text == "Paris"
    assert "<think>hm</think>Paris" in (tmp_path / "c.jsonl").read_text()
    with replay(tmp_path / "c.jsonl"):
        found = lm("?")
    assert found.content == (ReasoningPart("hm"), TextPart("Paris"))
    assert Completion.from_dict(found.to_dict()) == found


def test_calls_of_tools_stay_beside_the_text() -> None:
    call = ToolCall("1", "search", "{}")
    found = without_thinking(Completion((TextPart("<think>hm</think>"), call)))
    assert found.content == (ReasoningPart("hm"), call)
    apart = Completion((ReasoningPart("hm"), TextPart("<think> is a tag")))
    assert without_thinking(apart) is apart
    left = without_thinking(Completion((ReasoningPart("hm"), TextPart("\n</think>\n\nParis"))))
    assert left.content == (ReasoningPart("hm"), TextPart("Paris"))
    with_calls = without_thinking(Completion((ReasoningPart("hm"), TextPart("</think>Paris"), call, call)))
    assert with_calls.content == (ReasoningPart("hm"), TextPart("Paris"), call, call)


@pytest.mark.parametrize("piece", ["<think>", "</think>", "assistant", "<|channel|>", "[/THINK]", "< ", "\n</think>\n"])
def test_a_long_reply_is_searched_in_linear_time(piece: str) -> None:
    for head in ("analysis", ""):
        short, long = (without_thinking(Completion(head + piece * count)) for count in (40, 100_000 // len(piece)))
        assert (bool(long.text), bool(long.reasoning)) == (bool(short.text), bool(short.reasoning))
        assert len(long.text) + len(long.reasoning) <= 100_008


def fed(text: str, size: int) -> tuple[str, str]:
    feed = ThinkingFeed()
    told = [part for at in range(0, len(text), size) for part in feed.feed(text[at : at + size])]
    told += feed.rest()
    return "".join(t for is_thought, t in told if is_thought), "".join(t for is_thought, t in told if not is_thought)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_pieces_of_a_stream_are_told_apart_as_they_come(size: int) -> None:
    starts = ("<think>", "<THINK>", "<thinking>", "[THINK]", "<|channel>", "<unused94>", "<|inner_prefix|>")
    starts += ("<ctrl94>", "<|reasoning|>", "<|begin_of_th", "<\uff5cbegin")
    for reply in (reply for reply in DIALECTS if reply.lstrip().startswith(starts) and "box" not in reply):
        if "begin_of_solution" in reply:
            continue
        thought, answer = fed(reply, size)
        assert (thought.strip(), answer.strip()) == ("It is Paris.", "Paris")
    assert fed("<think>It might < 3", size) == ("It might < 3", "")
    assert fed("<think>a</think>\n<think>b</think>c", size) == ("ab", "c")
    assert fed("<think>a<think>b</think>c</think>d", size) == ("a<think>b</think>c", "d")
    assert fed("<think>a<think>b</think>c", size) == ("a<think>b</think>c", "")
    for whole in (
        "Paris <think>",
        "<b>x</b>",
        "[1] x",
        "<",
        " <p> <think>a</think>",
        "<reasoning>a</reasoning>",
        "  Paris",
    ):
        assert fed(whole, size) == ("", whole)


def test_what_is_no_thought_is_not_held_back() -> None:
    feed = ThinkingFeed()
    assert feed.feed("Par") == [(False, "Par")]
    assert feed.feed("is <think>") == [(False, "is <think>")]
    feed = ThinkingFeed()
    assert feed.feed("<thi") == []
    assert feed.feed("nk>It is") == [(True, "It is")]
    assert feed.feed(" Paris</") == [(True, " Paris")]
    assert feed.feed("think>\n\nParis") == [(False, "Paris")]


def test_a_streamed_thought_is_reasoning() -> None:
    async def think(messages):
        for piece in ("<thi", "nk>It is", " Paris.</thi", "nk>\n\nPa", "ris"):
            yield piece

    async def events():
        return [event async for event in FunctionLM(think).stream("?")]

    *deltas, completion = asyncio.run(events())
    assert "".join(d.text for d in deltas if isinstance(d, ReasoningDelta)) == "It is Paris."
    assert "".join(d.text for d in deltas if isinstance(d, TextDelta)) == "Paris"
    assert completion.content == (ReasoningPart("It is Paris."), TextPart("Paris"))


@pytest.mark.parametrize(
    "text",
    [
        "<|start_header_id|>assistant<|end_header_id|>\n\n<think>x</think>Paris",
        "<|assistant|><think>x</think>Paris",
        "<start_of_turn>model\n<think>x</think>\nParis",
        "<|im_start|>assistant\n<think>x</think>Paris",
        "assistantanalysisxassistantfinalParis",
        "<|thought_start|>x<|thought_end|>Paris",
        "<|reasoning_start|>x<|reasoning_end|>\nParis",
        "Thinking...\nx\n...done thinking.\n\nParis",
        "<think>x</think>Paris<think>y</think>",
        "<think>x</think>\nParis\n<thinking>\ny\n</thinking>",
    ],
)
def test_turns_that_begin_and_thoughts_behind_the_answer_are_no_part_of_it(text: str) -> None:
    found = without_thinking(Completion(text))
    assert (found.text, found.reasoning[0]) == ("Paris", "x")


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("Paris <think>y</think>", ""),
        ("Thinking... of Paris", ""),
        ("assistants are here", ""),
        ("<|assistant|> is a token", ""),
    ],
)
def test_what_only_looks_like_it_stays(text: str, prompt: str) -> None:
    assert without_thinking(Completion(text), prompt=prompt).text == text


def test_a_thought_behind_the_answer_that_is_spoken_of_twice_stays() -> None:
    text = "<think>x</think>Use <think> and <think>y</think>"
    assert without_thinking(Completion(text)).text == "Use <think> and <think>y</think>"


@pytest.mark.parametrize("name", ["think", "thinking", "cot", "scratchpad", "reasoning"])
@pytest.mark.parametrize("form", ["xml", "template"])
@pytest.mark.parametrize("before", ["", "<thought>hm</thought>\n"])
def test_tags_that_were_asked_for_are_no_thoughts(name: str, form: str, before: str) -> None:
    """In a plain call, which splits thoughts off at the transport, and in a stream, wherever it is cut."""
    adapter = "xml" if form == "xml" else pg.adapters.template("{q}", reply=f"<{name}>{{{name}}}</{name}>\n{{answer}}")
    step = nn.Predict(f"q -> {name}, answer", adapter=adapter, retries=0)
    answer = "<answer>Paris</answer>" if form == "xml" else "Paris"
    reply = f"{before}<{name}>It is so.</{name}>\n{answer}"
    wanted = {name: "It is so.", "answer": "Paris"}
    assert step(q="?", lm=FunctionLM(lambda messages: reply)).to_dict() == wanted
    for at in range(1, len(reply)):

        async def pieces(messages, at=at):
            for piece in (reply[:at], reply[at:]):
                yield piece

        events = list(step.stream_sync(q="?", lm=FunctionLM(pieces)))
        assert not any(isinstance(event, nn.Voided) for event in events)
        told = dict.fromkeys(wanted, "")
        for event in events:
            if isinstance(event, nn.FieldDelta):
                told[event.field] += event.delta
        assert told == wanted
