"""`SoftPrompt`: vectors before the prompt of a module on a local model."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
import warnings

import pytest

import promptgrad as pg
from promptgrad import aio, finetune, nn
from promptgrad.data import pocket
from promptgrad.errors import ConstraintError, LMError, NoLMError, StateDictError
from promptgrad.lm import Cache, Local, Message, Prefix, Request, SoftTokens, reply_logprobs
from promptgrad.testing import Fields, LoopbackLM
from tests.lm.conftest import WORDS, make_model, make_tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

HEAD = Prefix([Message("system", "w1 w2 w3 w4 w5 w6 w7 w8")])


@pytest.fixture(scope="module")
def task():
    return pocket.task("label-map-kind", seed=3)


@pytest.fixture
def base():
    made = Local(make_model("llama").requires_grad_(False), make_tokenizer(), name="llama", threads=1)
    yield made
    made.close()


@pytest.fixture
def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": len(WORDS)}
    config = T5Config(pad_token_id=0, eos_token_id=3, decoder_start_token_id=0, **sizes)
    made = Local(
        T5ForConditionalGeneration(config).eval().requires_grad_(False), make_tokenizer(), name="t5", threads=1
    )
    yield made
    made.close()


def on_pocket(task, count=8, **more):
    model = nn.Predict("text -> answer", instruction=task.instruction("vague")).to("pocket")
    model.soft_prompt = nn.SoftPrompt(count, **more)
    return model


def changed(tokens, seed, lm):
    """Vectors of their own, so that they matter."""
    view = tokens.on(lm)
    with torch.no_grad():
        view.model.vectors.normal_(0, 2.0, generator=torch.Generator().manual_seed(seed))
    return view


def embeddings(view, ids):
    """The embeddings of a prompt as torch users write them: the vectors, then those of its tokens."""
    layer, count = view.base.model.get_input_embeddings(), view.tokens.count
    return torch.cat([view.model.vectors, layer(torch.tensor(ids[count:]))])[None]


def test_it_learns_a_task_from_labels_and_the_model_stays_as_it_was(task):
    train, _, test = task.split(64, 0, 60)
    model = on_pocket(task, 16, init="say the kind of the last one")
    base = pg.lm.pocket()
    before = base.identity()
    assert pg.evaluate(model, test, task.metric, progress=False).score == 0
    result = finetune.sft(model, train, steps=30, lr=0.1, batch_size=8, progress=False)
    assert "soft prompt of 16 tokens" in repr(result)
    assert pg.evaluate(result.program, test, task.metric, progress=False).score >= 0.9
    assert base.identity() == before
    assert not model.soft_prompt.data.is_trained  # the student is as it was
    assert result.program.soft_prompt.data.is_trained
    again = finetune.sft(model, train, steps=30, lr=0.1, batch_size=8, progress=False)
    assert again.losses == result.losses
    assert again.program.soft_prompt.data.id == result.program.soft_prompt.data.id


def test_gradients_are_those_of_plain_autograd_on_the_embeddings(base):
    view = changed(SoftTokens(5), 1, base)
    request = [Request(HEAD, (Message("user", text),)) for text in ("w9", "w10 w11", "w12")]
    batch = [view.target(one, reply).tokens() for one, reply in zip(request, ("w20", "w21 w22", "w23"), strict=True)]
    for shared in (True, False):
        view.model.vectors.grad = None
        total = 0.0
        for scored in reply_logprobs(view.model, batch, shared=shared):
            loss = -scored.logprobs.sum()
            loss.backward()
            total += float(loss.detach())
        ours = view.model.vectors.grad.clone()
        view.model.vectors.grad = None
        losses = []
        for tokens in batch:
            logits = base.model(inputs_embeds=embeddings(view, tokens.ids)).logits[0]
            targets = torch.tensor(tokens.ids[tokens.start :])
            losses.append(torch.nn.functional.cross_entropy(logits[tokens.start - 1 : -1], targets, reduction="sum"))
        sum(losses).backward()
        assert total == pytest.approx(float(sum(losses).detach()), rel=1e-5)
        assert torch.allclose(ours, view.model.vectors.grad, rtol=1e-4, atol=1e-5)
        assert float(ours.norm()) > 0.1


def test_gradients_of_an_encoder(t5):
    view = changed(SoftTokens(3), 1, t5)
    tokens = view.target(Request(tail=(Message("user", "w9 w10"),)), "w20 w21").tokens()
    (scored,) = reply_logprobs(view.model, [tokens])
    (-scored.logprobs.sum()).backward()
    ours = view.model.vectors.grad.clone()
    view.model.vectors.grad = None
    labels = torch.tensor([tokens.ids[tokens.start :]])
    out = t5.model(inputs_embeds=embeddings(view, tokens.ids[: tokens.start]), labels=labels)
    (out.loss * labels.numel()).backward()
    assert torch.allclose(ours, view.model.vectors.grad, rtol=1e-4, atol=1e-5)
    assert float(ours.norm()) > 1e-3


def test_a_mixed_batch_gives_each_the_reply_of_its_vectors_alone(base):
    lora = base.lora("a")
    with torch.no_grad():
        for name, side in lora.model.named_parameters():
            if name.endswith("lora_B"):
                side.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
    lms = [base, changed(SoftTokens(9), 1, base), changed(SoftTokens(2), 2, base), lora]
    asked = [(lms[n % 4], Request(HEAD, (Message("user", f"w{n}"),), 0.0, 6, replicate=n)) for n in range(16)]

    async def together():
        return await asyncio.gather(*[lm.sample(request, logprobs=True) for lm, request in asked])

    alone = [aio.drive(lm.sample(request, logprobs=True)) for lm, request in asked]
    for _ in range(2):  # with prefixes computed, and kept from before
        for one, made in zip(alone, aio.run(together()), strict=True):
            assert one.ids == made.ids
            assert made.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    for (lm, _), one in zip(asked, alone, strict=True):
        if lm in lms[1:3]:
            with torch.no_grad():
                expected = base.model.generate(inputs_embeds=embeddings(lm, one.prompt_ids), do_sample=False,
                                               max_new_tokens=len(one.ids))  # fmt: skip
            assert tuple(expected[0].tolist()) == one.ids
    assert len({one.ids for one in alone[:4]}) == 4


def with_matrices(lora, seed=3):
    """Matrices of a LoRA that matter."""
    with torch.no_grad():
        for name, side in lora.model.named_parameters():
            if name.endswith("lora_B"):
                side.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    return lora


def test_below_it_a_lora_may_be(base):
    """Replies and gradients are those of the base with the matrices, behind the vectors."""
    lora = with_matrices(base.lora("a"))
    tokens = SoftTokens(5)
    plain, view = changed(tokens, 1, base), tokens.on(lora)
    assert view.base is base
    assert (view.name, plain.name) == ("llama:a:soft_prompt", "llama:soft_prompt")
    assert view.model.vectors is plain.model.vectors
    assert len({one.identity() for one in (base, lora, plain, view)}) == 4
    lms = [base, lora, plain, view]
    asked = [(lms[n % 4], Request(HEAD, (Message("user", f"w{n}"),), 0.0, 6, replicate=n)) for n in range(16)]

    async def together():
        return await asyncio.gather(*[lm.sample(request, logprobs=True) for lm, request in asked])

    alone = [aio.drive(lm.sample(request, logprobs=True)) for lm, request in asked]
    for one, made in zip(alone, aio.run(together()), strict=True):
        assert one.ids == made.ids
    rows = base._load().decoder.loras
    for (lm, _), one in zip(asked, alone, strict=True):
        if lm is view:
            with torch.no_grad(), rows.through([lora.model]):
                expected = base.model.generate(
                    inputs_embeds=embeddings(view, one.prompt_ids), do_sample=False, max_new_tokens=len(one.ids)
                )
            assert tuple(expected[0].tolist()) == one.ids
    assert len({one.ids for one in alone[:4]}) == 4

    lora.requires_grad_()
    assert next(name for name, _ in view.named_weights()) == "vectors"
    assert len(view.weights()) == 1 + len(lora.weights())
    batch = [view.target(one.replace(replicate=0), "w20 w21").tokens() for lm, one in asked if lm is view]
    found = []
    for ours in (True, False):
        for weight in view.weights():
            weight.grad = None
        if ours:
            for scored in reply_logprobs(view.model, batch):
                (-scored.logprobs.sum()).backward()
        else:
            for one in batch:
                with rows.through([lora.model]):
                    logits = base.model(inputs_embeds=embeddings(view, one.ids)).logits[0]
                targets = torch.tensor(one.ids[one.start :])
                torch.nn.functional.cross_entropy(logits[one.start - 1 : -1], targets, reduction="sum").backward()
        found.append([weight.grad.clone() for weight in view.weights()])
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-5) for one, other in zip(*found, strict=True))
    assert all(float(grad.norm()) > 0 for grad in found[0])
    version, known = view.version(), view.identity()
    with torch.no_grad():
        next(lora.model.parameters()).add_(1.0)
    assert view.version() != version
    assert view.identity() != known
    again = pickle.loads(pickle.dumps(tokens.on(base.lora("new"))))
    assert again.model.below is not None


def test_a_training_of_it_leaves_the_lora_below_as_it_is(task, tmp_path):
    train, _, _ = task.split(8, 0, 1)
    base = pg.lm.pocket().with_model(pg.lm.pocket().model, "base")
    first = nn.Predict("text -> answer", instruction=task.instruction("vague")).to(base.lora("one"))
    tuned = finetune.sft(first, train, steps=4, progress=False).program
    before = tuned.lm.identity()
    tuned.soft_prompt = nn.SoftPrompt(4)
    result = finetune.sft(tuned, train, steps=6, lr=0.1, progress=False)
    assert result.losses[-1] < result.losses[0]
    assert result.program.lm is tuned.lm
    assert tuned.lm.identity() == before
    assert result.lm.model.below is tuned.lm.model
    answers = [str(answer.answer) for answer in result.program.map(train)]
    pg.save(result.program, tmp_path / "both")
    loaded = nn.Predict("text -> answer").to(base)
    loaded.soft_prompt = nn.SoftPrompt(4)
    pg.load(tmp_path / "both", loaded)
    assert [str(answer.answer) for answer in loaded.map(train)] == answers


def test_a_loop_of_torch_trains_it(task):
    train, _, _ = task.split(16, 0, 1)
    model = nn.Sequential(on_pocket(task, init="the kind"))
    optimizer = torch.optim.AdamW(model.weights(), lr=0.05)
    assert [name for name, _ in model.named_weights()] == ["0.soft_prompt"]
    assert model.weights()[0].shape == (8, 128) == model[0].soft_prompt.shape
    criterion = nn.NLLLoss()
    losses = []
    for _ in range(6):
        loss = criterion(model.map(train, progress=False), train)
        loss.backward()
        optimizer.step()
        model.zero_grad()
        assert model.weights()[0].grad is None
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    assert criterion(model, train).item() < losses[0] - 1  # the same prompts, without a call
    model.requires_grad_(requires_grad=False)
    assert model.weights() == []
    assert not model[0].soft_prompt.data.vectors.requires_grad


def test_a_changed_prompt_is_another_lm_to_a_cache(base):
    model = nn.Predict("question -> answer", adapter="chat").to(Cache(base))
    model.soft_prompt = nn.SoftPrompt(4, "w1 w2")
    lm = model.lm_of_call()
    request = Request(tail=(Message("user", "w3"),), max_tokens=3)
    first = lm.identity()
    with pg.no_grad():  # a reply with a trace to the vectors is kept by nobody
        assert aio.drive(lm.complete(request)).usage.cached == 0
        assert aio.drive(lm.complete(request)).usage.cached == 1
        assert lm.identity() == first  # making the vectors changed nothing
        with torch.no_grad():
            model.weights()[0].add_(1.0)
        assert lm.identity() != first
        assert model.lm_of_call() is lm
        assert aio.drive(lm.complete(request)).usage.cached == 0


def test_it_begins_as_a_text_or_as_drawn_tokens(base):
    layer = base.model.get_input_embeddings().weight
    made = SoftTokens(5, "w1 w2").on(base).model.vectors
    assert torch.equal(made, layer[torch.tensor([WORDS.index(word) for word in ("w1", "w2", "w1", "w2", "w1")])])
    drawn = [SoftTokens(5, seed=seed).on(base).model.vectors for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    for wrong in (0, -1, True, 2.0):
        with pytest.raises(ValueError, match="at least one token"):
            nn.SoftPrompt(wrong)
    with pytest.raises(ValueError, match="begins as a text"):
        nn.SoftPrompt(2, init=" ")


def test_states_hold_it(task, tmp_path):
    model, text = on_pocket(task), task.split(0, 0, 1)[2][0].text
    fresh = model.state_dict()
    assert "vectors" not in fresh["soft_prompt"]
    weight = model.weights()[0]
    assert model.state_dict() == fresh  # they are what it begins with
    with torch.no_grad():
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    told = model(text=text).answer
    state = model.state_dict()
    assert state["soft_prompt"]["model"] == "pocket"
    assert state["soft_prompt"]["size"] == 128
    for place in ("folder", "one.json"):
        pg.save(model, tmp_path / place)
        other = pg.load(tmp_path / place, on_pocket(task))
        assert other.soft_prompt.data.id == model.soft_prompt.data.id
        assert torch.equal(other.weights()[0], weight)
        assert other(text=text).answer == told
        assert other.state_dict() == state
    twin = copy.deepcopy(model)
    again = pickle.loads(pickle.dumps(model.soft_prompt.data))
    assert again.id == twin.soft_prompt.data.id == model.soft_prompt.data.id
    with torch.no_grad():
        twin.weights()[0].add_(1.0)
    assert twin.soft_prompt.data.id != model.soft_prompt.data.id == again.id
    assert torch.equal(model.weights()[0], weight)
    model.load_state_dict(fresh)
    assert not model.soft_prompt.data.is_trained


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vectors": "!"}, "base64"),
        ({"vectors": "AAAA"}, "safetensors"),
        ({"tokens": 3}, "shape"),
        ({"size": 4}, "shape"),
        ({"tokens": "8"}, "tokens"),
        ({"model": None}, "name of a model"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_a_damaged_state_is_refused_and_nothing_changes(task, change, reason):
    model = on_pocket(task)
    with torch.no_grad():
        model.weights()[0].add_(1.0)
    state = json.loads(json.dumps(dict(model.state_dict())))
    state["soft_prompt"] |= change
    other = on_pocket(task)
    with pytest.raises(StateDictError, match=reason):
        other.load_state_dict(state)
    assert not other.soft_prompt.data.is_trained


def test_vectors_of_another_model_are_refused(task, base):
    model = on_pocket(task)
    with torch.no_grad():
        model.weights()[0].add_(1.0)
    other = nn.Predict("text -> answer", adapter="chat").to(base)
    other.soft_prompt = nn.SoftPrompt(8)
    other.soft_prompt.data = SoftTokens.from_dict(model.soft_prompt.data.to_dict())
    with pytest.raises(LMError, match="128 numbers, as the embeddings of 'pocket', and those of 'llama' have 32"):
        other(text="w1")


def test_other_lms_are_refused_before_anything_is_sent(task, base):
    with LoopbackLM(Fields(answer="4")) as server:
        model = nn.Predict("question -> answer").to(pg.LM("a", base_url=server.url))
        model.soft_prompt = nn.SoftPrompt(4)
        with pytest.raises(NoLMError, match="'a' is no local model"):
            model(question="2 + 2?")
        assert not server.requests
        model.soft_prompt = None
        assert model(question="2 + 2?").answer == "4"
    model = nn.Predict("question -> answer", adapter="chat").to(SoftTokens(2).on(base))
    model.soft_prompt = nn.SoftPrompt(4)
    with pytest.raises(NoLMError, match="has another one"):
        model(question="w1")


def test_it_has_one_place(task):
    model = on_pocket(task)
    for holder, name in ((nn.Sequential(), "soft_prompt"), (model, "other")):
        with pytest.raises(TypeError, match=r"module\.soft_prompt = "):
            setattr(holder, name, nn.SoftPrompt(2))
    with pytest.raises(ConstraintError, match="data of another SoftPrompt"):
        model.soft_prompt.data = "words"
    assert model.soft_prompt.kind == "soft_prompt"
    thinks = nn.ChainOfThought("text -> answer")
    thinks.soft_prompt = nn.SoftPrompt(2)
    assert [path for path, _ in thinks.named_parameters()][-1] == "soft_prompt"


def test_rewards_train_it(task):
    train, _, _ = task.split(8, 0, 1)
    model = finetune.sft(on_pocket(task, 4), train, steps=12, lr=0.1, batch_size=8, progress=False).program
    before = model.soft_prompt.data.id
    made = finetune.grpo(model, train, task.metric, steps=2, n=4, batch_size=8, lr=0.02, progress=False)
    assert made.program.soft_prompt.data.id != before == model.soft_prompt.data.id
    assert len(made.losses) == 2


def test_modules_may_share_one(task):
    shared = nn.SoftPrompt(4)
    model = nn.Sequential(on_pocket(task), on_pocket(task))
    model[0].soft_prompt = model[1].soft_prompt = shared
    assert len(model.weights()) == 1
    assert [*map(len, [paths for _, paths in finetune.local_lms(model)])] == [2]
    twin = copy.deepcopy(model)
    assert twin[0].soft_prompt is twin[1].soft_prompt is not shared


def test_the_summary_counts_it(task):
    model = on_pocket(task, 30)
    (with_it,) = pg.summary(model).modules
    model.soft_prompt = None
    (without,) = pg.summary(model).modules
    assert with_it.prompt == without.prompt + 30
    assert with_it.trained == without.trained + 1


def test_peft_reads_what_a_training_saves(base, tmp_path):
    peft = pytest.importorskip("peft")
    view = changed(SoftTokens(5), 1, base)
    view.save_lora(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), str(tmp_path)).eval()
    ids = [7, 8, 9]
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, 3)).logits[0, -1]
        ours = view.model(input_ids=torch.tensor([[*view.model.leading, *ids]])).logits[0, -1]
        assert torch.allclose(theirs, ours, atol=1e-4)


def test_words_of_the_prompt_have_their_gradients_behind_it(task):
    from promptgrad.autograd import saliency

    train, _, _ = task.split(4, 0, 1)
    model = on_pocket(task)
    found = saliency(nn.NLLLoss()(model.map(train, progress=False), train), model.instruction)
    assert " ".join(word.word for word in found.words) == model.instruction.data
    assert any(word.attribution for word in found.words)


LIVES = """
import os, signal, sys
import torch
from pathlib import Path
from torch.optim.optimizer import register_optimizer_step_pre_hook
from promptgrad import finetune, lm, nn
from promptgrad.data import pocket

torch.set_num_threads(1)
lm.pocket().model
home = Path(sys.argv[1])

def life(folder, dies_at):
    left = [dies_at]

    def step(*_):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_pre_hook(step)
    task = pocket.task("label-map-kind", seed=3)
    model = nn.Predict("text -> answer", instruction=task.instruction("vague")).to("pocket")
    model.soft_prompt = nn.SoftPrompt(4)
    made = finetune.sft(model, task.split(8, 0, 1)[0], steps=6, batch_size=4, checkpoint=home / folder,
                        checkpoint_every=2, progress=False)
    (home / f"{folder}.txt").write_text(f"{made.program.soft_prompt.data.id} {made.losses} {made.lm.name}")

def fork(*of):
    if (child := os.fork()) == 0:
        try:
            life(*of)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

print([fork("killed", 4), fork("killed", -1), fork("twin", -1)])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_training_goes_on_with_the_same_vectors(tmp_path):
    ran = subprocess.run([sys.executable, "-c", LIVES, tmp_path], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "[-9, 0, 0]", ran.stderr
    assert (tmp_path / "killed.txt").read_text() == (tmp_path / "twin.txt").read_text()
