"""Sequence-to-sequence models: tiny random ones of the shapes of T5 and BART, and a tokenizer made here."""

import asyncio
import copy
import random
import warnings

import pytest

from promptgrad import aio, nn, no_grad
from promptgrad.errors import ContextWindowError
from promptgrad.finetune import Conversation, Preference, dpo, sft
from promptgrad.lm import Completion, Local, Message, Prefix, Request, TextDelta, Tokens, reply_logprobs
from tests.lm.conftest import WORDS

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def plain():
    """Words, no chat template, and an end behind every text, as T5's tokenizer has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", eos_token="<end>")


@pytest.fixture(scope="session")
def shapes():
    from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

    ids = {"vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": 3}
    torch.manual_seed(0)
    t5 = T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
                  decoder_start_token_id=0, initializer_factor=1.0, feed_forward_proj="gated-gelu", **ids)  # fmt: skip
    bart = BartConfig(d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, bos_token_id=2,
                      decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
                      decoder_start_token_id=3, init_std=0.4, dropout=0.0, **ids)  # fmt: skip
    made = {"t5": T5ForConditionalGeneration(t5), "bart": BartForConditionalGeneration(bart)}
    made["bart"].generation_config.forced_bos_token_id = 2
    made["bart"].generation_config.forced_eos_token_id = None
    return {name: model.eval().requires_grad_(False) for name, model in made.items()}


@pytest.fixture(params=["t5", "bart"])
def lm(request, shapes, plain):
    made = Local(shapes[request.param], plain, name=request.param, threads=1)
    yield made
    made.close()


@pytest.fixture
def t5(shapes, plain):
    made = Local(copy.deepcopy(shapes["t5"]), plain, name="t5", threads=1)
    yield made
    made.close()


def requests(count=20):
    draw = random.Random(0)
    return [
        Request.of(
            " ".join(f"w{draw.randrange(50)}" for _ in range(draw.choice([1, 3, 25]))),
            temperature=draw.choice([0.0, 0.7, 1.5]),
            max_tokens=draw.choice([1, 4, 20]),
            top_p=draw.choice([None, 0.9]),
            replicate=index,
        )
        for index in range(count)
    ]


def together(lm, asked, **options):
    async def main():
        return await asyncio.gather(*[lm.sample(one, **options) for one in asked])

    return aio.run(main())


def test_greedy_replies_are_those_of_transformers(lm, plain):
    asked = [one.replace(temperature=0, top_p=None, max_tokens=12) for one in requests(6)]
    skipped = 2 if lm.name == "bart" else 1  # what the decoder begins with
    for request, made in zip(asked, together(lm, asked), strict=True):
        ids = plain(request.messages[-1].text, return_tensors="pt", return_token_type_ids=False)
        out = lm.model.generate(**ids, max_new_tokens=12 + skipped - 1, do_sample=False, num_beams=1)
        assert list(made.ids) == out[0, skipped:].tolist()


def test_a_reply_does_not_depend_on_its_batch(lm):
    asked = requests()
    alone = [aio.drive(lm.sample(one, logprobs=True)) for one in asked]
    assert len({made.ids for made in alone}) > 10
    order = list(range(len(asked)))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        for index, made in zip(order, together(lm, [asked[i] for i in order], logprobs=True), strict=True):
            assert made.ids == alone[index].ids
            assert made.logprobs == pytest.approx(alone[index].logprobs, abs=1e-4)


def test_equal_prompts_are_read_once_and_replicates_differ(t5):
    read = []
    hook = t5.model.get_encoder().register_forward_pre_hook(
        lambda module, args, kwargs: read.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    request = Request.of("w1 w2", temperature=1.5, max_tokens=12)
    made = together(t5, [request.replace(replicate=i) for i in range(8)])
    hook.remove()
    assert max(read) == 1
    assert len({one.text for one in made}) > 4
    assert t5(request, replicate=3).text == made[3].text
    assert t5(request, seed=1).text != made[0].text


def test_stop_length_stream_and_log_probabilities(t5):
    request = Request.of("w1 w2 w3", temperature=1.5, max_tokens=30, logprobs=True)
    completion = next(one for i in range(30) if len({*(one := t5(request, replicate=i)).text.split()[:5]}) == 5)
    words = completion.text.split()
    request = next(request.replace(replicate=i) for i in range(30) if t5(request, replicate=i).text == completion.text)
    stopped = t5(request, stop=[f"{words[3]} {words[4]}"])
    assert (stopped.text.split(), stopped.finish_reason) == (words[:3], "stop")
    assert t5(request, max_tokens=2).finish_reason == "length"
    assert len(completion.logprobs) == completion.usage.output_tokens

    async def listen():
        return [event async for event in t5.stream(request)]

    *deltas, last = asyncio.run(listen())
    assert isinstance(last, Completion)
    assert all(isinstance(delta, TextDelta) for delta in deltas)
    assert "".join(delta.text for delta in deltas) == last.text == completion.text
    assert len(deltas) > 1


def test_a_single_task_is_read_without_roles_and_a_conversation_with_them(t5, plain):
    def read(*messages):
        return plain.decode(t5.encode(Request.of([Message(role, text) for role, text in messages])))

    assert read(("user", "w1 w2")) == "w1 w2 <end>"
    assert read(("system", "w5"), ("user", "w1")) == "w5 w1 <end>"
    shown = read(("system", "w5"), ("user", "w1"), ("assistant", "w2"), ("user", "w3"))
    assert shown == "<unk> w5 <unk> w1 <unk> w2 <unk> w3 <unk> <end>"
    assert t5(Request(Prefix([Message("system", "w5")]), (Message("user", "w1"),), 0.0, 3)).usage.input_tokens == 3


def test_the_contexts_of_prompt_and_reply_are_apart(shapes, plain):
    bart = Local(shapes["bart"], plain, name="bart")
    assert bart("w1 " * 60, temperature=1.5, max_tokens=50, top_k=40).usage.output_tokens > 3
    with pytest.raises(ContextWindowError, match="has 71 tokens, and local model 'bart' reads at most 64: use fewer"):
        bart("w1 " * 70)
    bart.close()


def test_log_probabilities_of_replies_and_their_gradient(lm):
    """Those of one forward pass with labels, whatever else is in the batch."""
    model = copy.deepcopy(lm.model).requires_grad_(True)
    draw = random.Random(3)
    prompts = [[draw.randrange(4, 60) for _ in range(size)] + [3] for size in (3, 9, 5)]
    batch = [Tokens((*prompts[row % 3], *(draw.randrange(4, 60) for _ in range(2 + row)), 3), len(prompts[row % 3]))
             for row in range(6)]  # fmt: skip
    batch[1] = Tokens(batch[1].ids, batch[1].start, temperature=0.5)
    expected = torch.tensor(0.0)
    for row in batch:
        reply = torch.tensor([row.ids[row.start :]])
        first = torch.tensor([[3, 2] if lm.name == "bart" else [0]])
        out = model(
            input_ids=torch.tensor([row.ids[: row.start]]), decoder_input_ids=torch.cat([first, reply[:, :-1]], 1)
        )
        scores = torch.log_softmax(out.logits[0, first.shape[1] - 1 :] / row.temperature, -1)
        expected = expected + scores.gather(-1, reply[0, :, None]).sum()
    expected.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    total, rows = 0.0, []
    for scored in reply_logprobs(model, batch):
        rows += scored.rows
        assert scored.logprobs[~scored.mask].eq(0).all()
        total += scored.logprobs.sum().item()
        scored.logprobs.sum().backward()
    assert sorted(rows) == list(range(6))
    assert total == pytest.approx(expected.item(), abs=1e-3)
    for name, weight in model.named_parameters():
        if name in wanted:
            assert torch.allclose(weight.grad, wanted[name], atol=1e-4 * float(1 + wanted[name].abs().max())), name


def test_a_trace_leads_to_the_weights(t5):
    t5.requires_grad_()
    for temperature in (0.0, 1.5):
        trace = t5(Request.of("w1 w2", temperature=temperature, max_tokens=8)).trace
        assert trace.log_likelihood().tolist() == pytest.approx(list(trace.logprobs), abs=1e-4)
    before = trace.log_likelihood().sum().item()
    trace.backward(1.0)
    torch.optim.SGD(t5.weights(), lr=1e-5).step()
    assert trace.log_likelihood().sum().item() > before
    with no_grad():
        assert t5("w1", max_tokens=2).trace is None


SAID = [
    Conversation((Message("user", f"w{index}"),), reply)
    for index, reply in enumerate(["w40 w41", "w42", "w43 w44 w45"])
]


def texts(lm):
    return [lm(list(one.messages), temperature=0, max_tokens=6).text for one in SAID]


@pytest.mark.filterwarnings("ignore:.*enable_input_require_grads:UserWarning")
@pytest.mark.parametrize("lora", [None, {"r": 4}, "mine"], ids=["all", "merged", "kept"])
def test_it_learns_from_replies(t5, lora, tmp_path):
    pytest.importorskip("peft")
    program = nn.Predict("text -> answer").to(t5)
    before = texts(t5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads names that transformers has renamed
        result = sft(program, SAID, lora=lora, steps=40, lr=2e-2 if lora else 5e-3)
    assert result.losses[-1] < 0.3 * result.losses[0]
    assert texts(result.lm) == [one.reply for one in SAID]
    assert texts(t5) == before
    result.save(tmp_path / "t5")
    again = t5.lora("again", tmp_path / "t5") if lora == "mine" else Local(tmp_path / "t5")
    assert texts(again) == [one.reply for one in SAID]
    again.close()


def test_it_learns_from_preferences(t5):
    program = nn.Predict("text -> answer").to(t5)
    pairs = [Preference(one.messages, one.reply, "w50") for one in SAID]
    result = dpo(program, pairs, steps=6, lora="mine", beta=0.5)
    assert result.losses[-1] < 0.5 * result.losses[0]


def test_loras_of_one_t5_in_one_batch(t5):
    loras = [t5.lora("a"), t5.lora("b")]
    for seed, lora in enumerate(loras):
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, side in lora.model.named_parameters():
                if name.endswith("lora_B"):
                    side.normal_(0, 0.3, generator=source)
    asked = [([t5, *loras][i % 3], Request.of("w1 w2", temperature=1.0, max_tokens=8, replicate=i)) for i in range(9)]

    async def main():
        return await asyncio.gather(*[lm.sample(request) for lm, request in asked])

    alone = [aio.drive(lm.sample(request)).ids for lm, request in asked]
    assert [made.ids for made in aio.run(main())] == alone
    assert len({aio.drive(lm.sample(Request.of("w1", temperature=0, max_tokens=8))).ids for lm in [t5, *loras]}) == 3


def test_replies_are_held_to_a_grammar_as_those_of_other_models(shapes, plain):
    pytest.importorskip("llguidance")
    for model in shapes.values():
        held = Local(model, plain, name="held", threads=1, constrain=True)
        asked = [Request.of(f"w{n}", temperature=1.5, grammar='start: "w1 " | "w2 w3 "') for n in range(12)]
        free = Request.of("w1", temperature=1.5, max_tokens=6)  # in the same batch
        *texts, other = [made.text for made in together(held, [*asked, free])]
        held.close()
        assert set(texts) == {"w1", "w2 w3"}
        assert other not in texts
