"""Several LoRAs on one local model: an LM each, one base, one thread, one batch."""

import asyncio
import copy
import json
import pickle
import random
import warnings

import pytest

from promptgrad import aio, nn, no_grad
from promptgrad.errors import JournalError, LMError
from promptgrad.lm import Cache, Local, Message, Prefix, Request

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
load_file, save_file = (getattr(pytest.importorskip("safetensors.torch"), name) for name in ("load_file", "save_file"))

DEMOS = Prefix([Message("system", "w1 w2 w3 w4 w5 w6 w7 w8"), Message("user", "w9"), Message("assistant", "w10 w11")])


def train(lm, seed):
    """Change the matrices up, so that the LoRA matters."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, side in lm.model.named_parameters():
            if name.endswith("lora_B"):
                side.normal_(0, 0.3, generator=source)
    return lm


@pytest.fixture
def base(models, tokenizer):
    made = Local(copy.deepcopy(models["llama"]), tokenizer, name="llama", threads=1)
    yield made
    made.close()


@pytest.fixture
def lms(base):
    return base, train(base.lora("a"), 1), train(base.lora("b", r=3, alpha=5), 2)


def requests(count=18):
    draw = random.Random(1)
    prefixes = [DEMOS, Prefix([Message("system", "w7")])]
    return [
        Request(
            draw.choice(prefixes),
            (Message("user", f"w{draw.randrange(50)} w{index}"),),
            draw.choice([0.0, 1.0]),
            draw.choice([3, 12]),
            replicate=index,
        )
        for index in range(count)
    ]


def together(asked):
    async def main():
        return await asyncio.gather(*[lm.sample(request, logprobs=True) for lm, request in asked])

    return aio.run(main())


def test_a_mixed_batch_gives_each_the_reply_of_its_lora_alone(lms):
    asked = [(lms[index % 3], request) for index, request in enumerate(requests())]
    seen, forward = [], lms[0].model.forward

    def watch(*args, **kwargs):
        seen.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    alone = [aio.drive(lm.sample(request, logprobs=True)) for lm, request in asked]
    lms[0].model.forward = watch
    for _ in range(2):  # with prefixes computed, and kept from before
        for one, made in zip(alone, together(asked), strict=True):
            assert one.ids == made.ids
            assert made.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    assert max(seen) > 6  # more rows than there are requests of one
    assert len({aio.drive(lm.sample(asked[0][1].replace(max_tokens=12))).ids for lm in lms}) == 3


def test_replies_are_those_of_peft(lms, tmp_path):
    peft = pytest.importorskip("peft")
    base, *loras = lms
    for lora in loras:
        lora.save_lora(tmp_path / lora.title)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft reads names that transformers has renamed
            model = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), str(tmp_path / lora.title)).eval()
        ids = torch.tensor([[5, 6, 7, 8]])
        with torch.no_grad():
            expected = model(input_ids=ids).logits
            assert torch.allclose(lora.model(input_ids=ids).logits, expected, atol=1e-5)
            assert not torch.allclose(base.model(input_ids=ids).logits, expected, atol=1e-2)
        assert "llama" not in json.loads((tmp_path / lora.title / "adapter_config.json").read_text())["target_modules"]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]},
        {"r": 4, "use_rslora": True, "target_modules": "all-linear"},
        {
            "r": 4,
            "alpha_pattern": {"q_proj": 1},
            "rank_pattern": {"0.self_attn.k_proj": 2},
            "target_modules": r".*\d.*",
        },
    ],
)
def test_what_peft_wrote_is_loaded(base, tmp_path, options):
    peft = pytest.importorskip("peft")
    if options["target_modules"] == r".*\d.*":
        options = {**options, "target_modules": r".*\.self_attn\.[qk]_proj"}
    torch.manual_seed(0)
    model = peft.get_peft_model(copy.deepcopy(base.model), peft.LoraConfig(init_lora_weights=False, **options)).eval()
    model.save_pretrained(str(tmp_path))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(
            base.lora("p", tmp_path).model(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5
        )


def test_a_new_one_changes_nothing_and_is_the_same_for_the_same_name(base, models, tokenizer):
    request = Request.of("w1 w2", temperature=0, max_tokens=6)
    new = base.lora("new")
    assert new(request).text == base(request).text
    other = Local(copy.deepcopy(models["llama"]), tokenizer, name="llama").lora("new")
    assert other.identity() == new.identity()
    for one, same in zip(new.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, same)
    assert base.lora("newer").identity() != new.identity() != base.identity()


def test_one_name_is_one_lora(base, tmp_path):
    made = base.lora("a", r=4)
    assert base.lora("a") is base.lora("a", {"r": 4}) is made.lora("a") is made
    assert (made.base, base.base, made.title, base.title) == (base, base, "a", "")
    assert repr(made) == "Local('llama', device='cpu').lora('a')"
    assert base.adapter == made.adapter == "chat"  # still the name of the adapter that writes prompts
    with pytest.raises(ValueError, match="'llama' has another LoRA of the name 'a'"):
        base.lora("a", r=8)
    with pytest.raises(ValueError, match="there is no LoRA in"):
        base.lora("b", tmp_path)
    for name in ("", "a/b", "../a", ".a"):
        with pytest.raises(ValueError, match="a LoRA's name has letters"):
            base.lora(name)
    with pytest.raises(ValueError, match="not 'rank'"):
        base.lora("b", rank=4)
    with pytest.raises(ValueError, match="r and alpha above 0"):
        base.lora("b", r=0)
    with pytest.raises(LMError, match=r"cannot load the LoRA 'b'.*there are down_proj, gate_proj"):
        base.lora("b", target_modules=["query"])("w1")
    with pytest.raises(ValueError, match="'llama' has no LoRA"):
        base.save_lora(tmp_path)


def test_weights_of_the_base_are_frozen_and_those_of_each_lora_its_own(lms):
    base, a, b = lms
    assert base.weights() == a.weights() == []
    program = nn.ModuleList([nn.Predict("q -> a").to(a), nn.Predict("q -> a").to(b), nn.Predict("q -> a").to(base)])
    a.requires_grad_()
    assert {id(weight) for weight in program.weights()} == {id(weight) for weight in a.model.parameters()}
    request = Request.of("w1 w2", temperature=1.5, max_tokens=8)
    assert b(request).trace is None
    assert base(request).trace is None
    trace = a(request).trace
    assert trace.log_likelihood().tolist() == pytest.approx(list(trace.logprobs), abs=1e-4)
    trace.backward(1.0)
    assert all(weight.grad is None for lm in (base, b) for weight in lm.model.parameters())
    assert any(weight.grad.abs().sum() > 0 for weight in a.weights())
    version, before = base.version(), base(request).text
    torch.optim.SGD(a.weights(), lr=0.5).step()
    assert base.version() == version
    assert trace.version != a.version()
    assert base(request).text == before
    with no_grad():
        assert a(request).trace is None


@pytest.mark.parametrize("place", [0, 1])
def test_weights_are_known_by_a_name_until_they_change(lms, place):
    lm, usual = lms[place], [lm.identity() for lm in lms]
    request = Request(DEMOS, (Message("user", "w1"),), 0.0, 4)
    lm.known_as("what it learned")
    assert lm.identity() == usual[place].replace(lm._weights_fingerprint(), "what it learned") != usual[place]
    assert lm(request).text
    lm.known_as("what it will learn", here=False)
    with pytest.raises(JournalError, match="the weights that gave it are not here"):
        lm(request)
    assert [other.identity() == old for other, old in zip(lms, usual, strict=True)].count(False) == 1
    with torch.no_grad():
        next(iter(lm.model.parameters())).mul_(1)  # a change in place
    assert lm.identity() == usual[place]
    assert lm(request).text


def test_a_step_changes_identity_and_answers_of_that_lora_alone(lms):
    a = lms[1]
    request = Request(DEMOS, (Message("user", "w1"),), 0.0, 12)
    for lm in lms:
        together([(lm, request.replace(replicate=i)) for i in range(3)])  # the prefix is kept now
    before = [lm.identity() for lm in lms]
    cached = Cache(a)
    first = cached(request)
    train(a, 7)
    assert [lm.identity() == old for lm, old in zip(lms, before, strict=True)] == [True, False, True]
    again = cached(request)
    assert not again.cached
    assert again.text != first.text
    fresh = a.lora("fresh")
    fresh.model.load_state_dict(a.model.state_dict())  # no key is kept of the old matrices
    assert fresh(request).text == again.text


def test_another_models_lora_is_refused(lms, models, tokenizer, tmp_path):
    from tests.lm.conftest import make_model

    lms[1].save_lora(tmp_path)
    wide = Local(make_model("llama", hidden_size=48), tokenizer, name="wide")
    with pytest.raises(
        LMError, match=r"not one of this model: layer \S+down_proj maps 64 to 32 numbers there, and 64 to 48"
    ):
        wide.lora("a", tmp_path)  # before it is called
    assert wide.lora("a").folder is None  # the name is still free
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "use_dora": True}))
    with pytest.raises(LMError, match=r"no plain LoRA \(use_dora\)"):
        lms[0].lora("dora", tmp_path)


def test_a_lora_of_other_weights_of_the_same_shapes_is_refused(lms, models, tokenizer, tmp_path):
    """Where the file says what it was trained on, and in the type of numbers that it was trained in."""
    lms[1].save_lora(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    other = copy.deepcopy(models["llama"])
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[3, 5] += 1e-3
    with pytest.raises(LMError, match="not one of this model: it was trained on other weights of the same shapes"):
        Local(other, tokenizer).lora("a", tmp_path)("w1")
    with torch.no_grad():
        other.model.embed_tokens.weight[3, 5] += 1e-3  # no layer that the LoRA stands beside
        other.model.layers[0].mlp.up_proj.weight.copy_(models["llama"].model.layers[0].mlp.up_proj.weight)
    for fits in (other, other.bfloat16()):
        assert Local(fits, tokenizer).lora("a", tmp_path)("w1").text
    save_file(load_file(file), file, metadata={"format": "pt"})  # as peft writes it
    assert Local(other.float(), tokenizer).lora("a", tmp_path)("w1").text


def test_what_peft_wrote_for_another_base_of_the_same_shapes(models, tokenizer, tmp_path):
    """Its settings name the base: a folder is compared, and another name is told."""
    peft = pytest.importorskip("peft")
    other = copy.deepcopy(models["llama"])
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[3, 5] += 1e-2
    for name, model in (("one", models["llama"]), ("two", other)):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    model = type(other).from_pretrained(tmp_path / "one")
    config = peft.LoraConfig(init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads names that transformers has renamed
        peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "a"))
    for dtype in ("float32", "bfloat16"):
        assert Local(tmp_path / "one", dtype=dtype).lora("a", tmp_path / "a")("w1").text
        with pytest.raises(LMError, match=r"was trained on '.*one', whose weights are others of the same shapes"):
            Local(tmp_path / "two", dtype=dtype).lora("a", tmp_path / "a")("w1")

    settings = tmp_path / "a" / "adapter_config.json"
    told = json.loads(settings.read_text())
    settings.write_text(json.dumps({**told, "base_model_name_or_path": "org/TWO"}))
    assert Local(tmp_path / "two").lora("a", tmp_path / "a")("w1").text
    with pytest.warns(UserWarning, match=r"says that it was trained on 'org/TWO', and this is '.*one'"):
        assert Local(tmp_path / "one").lora("a", tmp_path / "a")("w1").text


def test_settings_and_weights_that_cannot_be_read_are_named(lms, tmp_path):
    lms[1].save_lora(tmp_path)
    settings, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    good, told = weights.read_bytes(), json.loads(settings.read_text())
    weights.write_bytes(good[:-10])
    with pytest.raises(LMError, match=r"adapter_model.safetensors' cannot be read: .* copy it again"):
        lms[0].lora("cut", tmp_path)
    weights.write_bytes(good)
    for odd, says in (
        ("{", "adapter_config.json' cannot be read"),
        ("[]", "it holds a list, and no object"),
        (json.dumps({**told, "lora_alpha": None}), "has a lora_alpha that is no number"),
    ):
        settings.write_text(odd)
        with pytest.raises(LMError, match=says):
            lms[0].lora("odd", tmp_path)


def test_another_models_lora_is_refused_before_the_base_is_loaded(lms, models, tokenizer, tmp_path):
    from tests.lm.conftest import make_model

    lms[1].save_lora(tmp_path / "a")
    for name, model in (("same", models["llama"]), ("deep", make_model("llama", num_hidden_layers=1))):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    same, deep = Local(tmp_path / "same"), Local(tmp_path / "deep")
    assert same.lora("a", tmp_path / "a").folder == str(tmp_path / "a")
    with pytest.raises(
        LMError, match=r"'a' of 'deep': .* not one of this model: the model has no layer model.layers.1"
    ):
        deep.lora("a", tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(LMError, match=r"cannot load the LoRA 'b' of 'same'"):
        same.lora("b", tmp_path / "a")
    assert same._engine is None
    assert deep._engine is None


def test_by_path_nothing_is_loaded_before_the_first_use(models, tokenizer, tmp_path):
    models["llama"].save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    lm = Local(tmp_path / "m", temperature=0, max_tokens=4)
    lora = lm.lora("a")
    before = lora.identity()
    assert lm._engine is None
    assert lora.weights() == []
    assert lora("w1").text == lm("w1").text
    assert lora.identity() == before
    assert lora._load() is lm._load()
    again = pickle.loads(pickle.dumps([lora, lm.lora("b", r=2)]))
    assert [one.identity() for one in again] == [before, lm.lora("b").identity()]
    assert again[0].base is again[1].base
    train(lora, 1).save_lora(tmp_path / "a")
    with pytest.raises(TypeError, match="a pickle would lose them"):
        pickle.dumps(lora)
    loaded = lm.lora("saved", tmp_path / "a")
    assert loaded("w1 w2").text == lora("w1 w2").text
    assert pickle.loads(pickle.dumps(loaded)).identity() == loaded.identity()
    assert lm.lora("saved", tmp_path / "a") is loaded
    lm.close()


def test_a_copy_of_the_base_knows_no_lora(lms):
    base, a, _ = lms
    ids = torch.tensor([[5, 6, 7]])
    copied = copy.deepcopy(base.model)
    with torch.no_grad():
        plain = base.model(input_ids=ids).logits
        with base._load().decoder.loras.through([a.model]):
            assert torch.equal(copied(input_ids=ids).logits, plain)
            assert not torch.equal(base.model(input_ids=ids).logits, plain)
        assert torch.equal(base.model(input_ids=ids).logits, plain)
    assert a.model.generate(input_ids=ids, max_new_tokens=3, do_sample=False, attention_mask=ids > 0).shape[0] == 1
