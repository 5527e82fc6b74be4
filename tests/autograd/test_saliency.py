"""Gradients at the words of an instruction: against finite differences, for right replies and for scored runs."""

from __future__ import annotations

import copy
from functools import partial

import pytest

import promptgrad as pg
from promptgrad import aio, autograd, lm, nn
from promptgrad.data import Example, pocket
from promptgrad.errors import GraphError, InputError
from tests.lm.conftest import make_model, make_tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

INSTRUCTION = "w1 w2\n  w3"
DATA = [Example(x=f"w{i} w2", y=f"w{i + 9} w8").with_inputs("x") for i in range(4)]


@pytest.fixture
def local():
    model = make_model().double()
    made = lm.Local(model, make_tokenizer(), name="tiny", temperature=1.5, max_tokens=6)
    yield made.requires_grad_(False)
    made.close()


def asks(local, signature="x -> y", instruction=INSTRUCTION):
    return nn.Predict(signature, instruction=instruction, adapter="json", retries=0, allow_cut=True).to(local)


def close(value):
    return pytest.approx(value, rel=2e-2, abs=2e-4)


def derivative(local, measure, places):
    """d loss / d scale of the embeddings at some places of every prompt, by finite differences."""

    def scaled(output, by):
        factor = torch.ones(output.shape[1], dtype=output.dtype)
        factor[places] = 1 + by
        return output * factor[None, :, None]

    return slope(local, measure, scaled)


def slope(local, measure, change, step=0.03):
    """The slope of the loss at 0 of a change of the embeddings; four points, as norms and logits are float32 inside."""
    values = {}
    for by in (-2, -1, 1, 2):
        hook = partial(lambda by, module, args, output: change(output, by * step), by)
        handle = local.model.get_input_embeddings().register_forward_hook(hook)
        values[by] = measure()
        handle.remove()
    return (values[-2] - 8 * values[-1] + 8 * values[1] - values[2]) / (12 * step)


def value(model, data):
    """The loss of right replies, one prompt after the other, so that places in the prompts are places in a pass."""
    losses = [nn.NLLLoss()(model, [example]) for example in data]
    weights = [loss.rows[0].weight for loss in losses]
    return sum(w * loss.item() for w, loss in zip(weights, losses, strict=True)) / sum(weights)


def places_of(local, word, ids):
    token = local.tokenizer.convert_tokens_to_ids(word)
    return [place for place, other in enumerate(ids) if other == token]


def test_it_is_the_derivative_of_the_loss_of_right_replies(local):
    data = [Example(x=f"w{i} w20", y=f"w{i + 9} w8").with_inputs("x") for i in range(30, 33)]
    model = asks(local)
    loss = nn.NLLLoss()(model, data)
    saliency = autograd.saliency(loss, model.instruction)
    assert [word.word for word in saliency.words] == ["w1", "w2", "w3"]
    ids = loss.rows[0].target.prompt_ids
    for word in saliency.words:
        (place,) = places_of(local, word.word, ids)
        wanted = derivative(local, lambda: value(model, data), [place])
        assert word.attribution == close(wanted)
        assert word.norm > 0
    assert sum(word.share for word in saliency.words) == pytest.approx(1)
    assert saliency.replies == 3
    assert all(weight.grad is None for weight in local.model.parameters())


def test_of_scored_runs_it_is_the_derivative_of_the_surrogate():
    shared = lm.pocket(temperature=1.5)
    local = shared.with_model(copy.deepcopy(shared.model), "mine").requires_grad_()
    task = pocket.task("last")
    train = task.split(2, 2, 2)[0]
    model = nn.Predict("text -> answer", instruction="the first word").to(local)
    loss = nn.MetricLoss(lambda example, output: len(set(str(output.answer))) / 100)(model.map(train, n=3), train)
    rows = [row for row in loss.rows if row.error is None]
    own = [[other.score for other in rows if other.example_id == row.example_id] for row in rows]
    advantages = [row.score - sum(scores) / len(scores) for row, scores in zip(rows, own, strict=True)]
    traces = [row.tape.nodes[0].weight_traces[0] for row in rows]
    assert sum(map(bool, advantages)) > 1

    def surrogate():
        return -sum(a * type(t).log_likelihoods([t])[0] for a, t in zip(advantages, traces, strict=True))

    saliency = autograd.saliency(loss, model.instruction)
    start = places_of(local, "first", traces[0].prompt_ids)[0] - 1
    for number, word in enumerate(saliency.words):
        assert word.attribution == close(derivative(local, surrogate, [start + number]))
    loss.backward(inputs=[model.demos])  # it left the record as it was
    with pytest.raises(GraphError, match="freed"):
        autograd.saliency(loss, model.instruction)


class Chain(nn.Module):
    def __init__(self, local):
        super().__init__()
        self.pick = nn.Predict("text -> reasoning", instruction="say a word").to(local)
        self.tell = nn.Predict("text -> answer", instruction="name a property").to(local)

    def forward(self, text):
        return self.tell(text=self.pick(text=text).reasoning)


def test_scored_runs_reach_the_words_of_a_module_whose_outputs_have_no_label():
    """Below another module, whose reply alone is judged: the likelihood of its own replies, by how the runs ended."""
    shared = lm.pocket(temperature=1.5)
    local = shared.with_model(copy.deepcopy(shared.model), "mine").requires_grad_()
    train = pocket.task("color-of-last").split(3, 2, 2)[0]
    model = Chain(local)
    loss = nn.MetricLoss(lambda example, output: len(set(str(output.answer))) / 100)(model.map(train, n=4), train)
    rows = [row for row in loss.rows if row.error is None]
    own = [[other.score for other in rows if other.example_id == row.example_id] for row in rows]
    known = [(row.score - sum(each) / len(each), row.tape.nodes) for row, each in zip(rows, own, strict=True)]
    assert sum(bool(advantage) for advantage, _ in known) > 1
    for path, asked in (("pick", model.pick), ("tell", model.tell)):
        told = [(a, next(n for n in nodes if n.path == path).weight_traces[0]) for a, nodes in known]

        def surrogate(told=told):
            return -sum(a * type(trace).log_likelihoods([trace])[0] for a, trace in told)

        saliency = autograd.saliency(loss, asked.instruction)
        assert saliency.replies == sum(bool(advantage) for advantage, _ in known)
        start = places_of(local, str(asked.instruction).split()[0], told[0][1].prompt_ids)[0]
        for number, word in enumerate(saliency.words):
            assert word.attribution == close(derivative(local, surrogate, [start + number]))
        assert max(abs(word.attribution) for word in saliency.words) > 1e-3


def test_the_words_of_the_embedded_model_and_how_they_are_shown():
    task = pocket.task("last")
    train = task.split(8, 4, 4)[0]
    model = nn.Predict("text -> answer", instruction=task.instruction("precise")).to("pocket")
    saliency = autograd.saliency(nn.NLLLoss()(model.map(train), train), model.instruction)
    assert saliency.text == task.instruction("precise")
    assert [word.word for word in saliency.words] == saliency.text.split()
    assert saliency.name == "instruction"
    top = saliency.top(2)
    assert top[0].share >= top[1].share > 0
    assert f"{saliency.words[0].word} " in repr(saliency)
    assert repr(saliency).count("\n") == len(saliency.words)
    assert saliency._repr_html_().count("<span") == len(saliency.words)


def test_each_place_in_the_shared_part_counts_and_the_inputs_do_not(local):
    model = nn.Predict("x -> y", instruction="w1 w2 w3\nw1 w2 w3", adapter="json").to(local)
    data = [Example(x="w1 w2 w3", y="w4").with_inputs("x")]
    part = pg.Parameter("w1 w2 w3", name="part")  # a text that stands there twice, and in the input
    loss = nn.NLLLoss()(model, data)
    places = places_of(local, "w2", loss.rows[0].target.prompt_ids)
    assert len(places) == 3
    wanted = derivative(local, lambda: nn.NLLLoss()(model, data).item(), places[:2])
    assert autograd.saliency(loss, part).words[1].attribution == close(wanted)


def test_what_has_no_gradient_is_said(local):
    model = asks(local)
    loss = nn.NLLLoss()(model, DATA)
    with pytest.raises(TypeError, match="text"):
        autograd.saliency(loss, model.demos)
    with pytest.raises(GraphError, match="does not stand in the prompts"):
        autograd.saliency(loss, pg.Parameter("w40 w41", name="other"))
    metric = nn.MetricLoss(lambda example, output: 0.5)
    with pytest.raises(GraphError, match="requires_grad_"):
        autograd.saliency(metric(model.map(DATA), DATA), model.instruction)
    local.requires_grad_()
    with pytest.raises(GraphError, match="same score"):
        autograd.saliency(metric(model.map(DATA), DATA), model.instruction)
    with pytest.raises(GraphError, match="no call that this loss is about read other"):
        autograd.saliency(nn.NLLLoss()(model.map(DATA), DATA), pg.Parameter("w1", name="other"))
    slow = copy.copy(local.tokenizer)
    slow.__class__ = type("Slow", (type(slow),), {"is_fast": False})
    other = nn.NLLLoss()(asks(lm.Local(local.model, slow, name="slow")), DATA)
    with pytest.raises(InputError, match="fast"):
        autograd.saliency(other, asks(local).instruction)


def test_a_model_that_embeds_prompts_apart_is_refused(local):
    model = asks(local)
    loss = nn.NLLLoss()(model, DATA)
    embedding = local.model.get_input_embeddings()
    twice = local.model.register_forward_pre_hook(lambda *_: (embedding(torch.tensor([[1, 2]])), None)[1])
    with pytest.raises(GraphError, match="LlamaForCausalLM embeds them apart"):
        autograd.saliency(loss, model.instruction)
    twice.remove()
    assert autograd.saliency(loss, model.instruction).replies == len(DATA)  # nothing is left in the model


def test_in_a_coroutine(local):
    model = asks(local)

    async def go():
        return await autograd.asaliency(await nn.NLLLoss().acall(model, DATA), model.instruction)

    assert aio.run(go()) == autograd.saliency(nn.NLLLoss()(model, DATA), model.instruction)


def test_swaps_promise_what_one_step_along_the_gradient_gives(local):
    model = asks(local)
    loss = nn.NLLLoss()(model, DATA)
    swaps = autograd.token_swaps(loss, model.instruction, 6)
    assert 0 < len(swaps) <= 6
    ids = list(loss.rows[0].target.prompt_ids)
    assert [swap.gain for swap in swaps] == sorted((swap.gain for swap in swaps), reverse=True)
    for swap in swaps:
        words = swap.text.split()
        assert words[swap.word] == swap.new
        assert [w for i, w in enumerate(words) if i != swap.word] == [
            w for i, w in enumerate(INSTRUCTION.split()) if i != swap.word
        ]
        assert swap.text.count("\n  ") == 1  # white space stays
        # the estimate: (new embedding - old embedding) . gradient, here by a small step towards the new one
        embedding = local.model.get_input_embeddings()
        old = local.tokenizer.convert_tokens_to_ids(swap.old)
        move = embedding.weight[local.tokenizer.convert_tokens_to_ids(swap.new)] - embedding.weight[old]

        def moved(output, by, move=move, old=old):
            output = output.clone()
            output[:, ids.index(old)] += by * move
            return output

        measured = slope(local, lambda: value(model, DATA), moved, step=0.01)
        assert swap.gain == close(-measured)
    assert autograd.token_swaps(loss, model.instruction, 6) == swaps
    with pytest.raises(ValueError, match="count"):
        autograd.token_swaps(loss, model.instruction, 0)


@pytest.fixture(scope="module", params=["bytes", "pieces"])
def parts(request):
    """A tiny model whose tokenizer cuts words into parts, as those of GPT-2 or of Llama 2 do, without a template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE(unk_token="<unk>"))
    if request.param == "bytes":
        words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    text = ["Answer in one word, please.", "Answering takes words: one or two.", "a word is a word", "{name} says no"]
    special = ["<unk>", "<end>"]
    words.train_from_iterator(text * 4, trainers.BpeTrainer(vocab_size=60, special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>", pad_token="<end>")
    model = make_model(vocab_size=len(tokenizer), eos_token_id=1, max_position_embeddings=1024).requires_grad_(False)
    made = lm.Local(model, tokenizer, name=request.param)
    yield made
    made.close()


def test_words_of_several_tokens(parts):
    text = "Answer {name}\nin one word, please."
    model = asks(parts, instruction=text)
    loss = nn.NLLLoss()(model, [Example(x="one word", y="two").with_inputs("x")])
    saliency = autograd.saliency(loss, model.instruction)
    assert [word.word for word in saliency.words] == text.split()
    for word in saliency.words:
        assert "".join(token.text for token in word.tokens) == word.word  # each letter once
        assert word.attribution == pytest.approx(sum(token.attribution for token in word.tokens))
    assert max(len(word.tokens) for word in saliency.words) > 1
    swaps = autograd.token_swaps(loss, model.instruction, 24)
    assert swaps
    for swap in swaps:
        old, new = text.split(), swap.text.split()
        assert [place for place in range(len(old)) if old[place] != new[place]] == [swap.word]
        assert swap.text.count("\n") == 1
        assert "{name}" in swap.text
        assert "<" not in swap.text
