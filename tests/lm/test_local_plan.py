"""What a local model will take of memory, what it took, and models in 4 bits."""

from importlib.util import find_spec

import pytest

from promptgrad.errors import LMError, MissingExtraError
from promptgrad.finetune import Conversation, sft
from promptgrad.lm import Local, LocalPlan, Message, Request
from promptgrad.nn import Predict

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture
def folder(models, tokenizer, tmp_path):
    models["llama"].save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_plan_is_made_without_loading(folder, models):
    (folder / "model.safetensors").write_bytes(b"never read")
    lm = Local(folder, device="cpu", max_batch=10)
    plan = lm.plan()
    assert lm._engine is None
    assert plan.weights == sum(weight.numel() * 4 for weight in models["llama"].parameters())
    assert plan.kv_token == 2 * 2 * 16 * 4  # layers, keys and values, one head of 16 numbers, float32
    assert (plan.rows, plan.context, plan.kv) == (10, 128, 10 * 128 * plan.kv_token)
    assert plan.total == plan.weights + plan.kv + plan.prefixes
    assert plan.fits is not False
    assert str(plan).startswith("tiny on cpu in float32: ")
    assert "10 replies of 128 tokens, 256 bytes each" in str(plan)
    small = lm.plan(context=20, rows=2)
    assert small.kv == 2 * 20 * plan.kv_token
    assert Local(folder, device="cpu", dtype="bfloat16").plan().weights * 2 == plan.weights
    assert lm.lora("a").plan().weights == plan.weights


def test_a_plan_of_a_model_that_is_there(models, tokenizer):
    loaded = Local(models["sliding"], tokenizer).plan(rows=3)
    assert loaded.weights == sum(weight.numel() * 4 for weight in models["sliding"].parameters())
    assert loaded.kv == 3 * 6 * loaded.kv_token  # a window of six tokens


def test_what_does_not_fit_is_said():
    plan = LocalPlan("m", "cuda", "bfloat16", 2**30, 2**17, 4, 1000, 4 * 1000 * 2**17, 0, 2**20)
    assert plan.fits is False
    assert "1.5 GiB, and only 1.0 MiB are free" in str(plan)


def test_no_plan_without_a_configuration(tmp_path):
    with pytest.raises(LMError, match=r"there is no model in .*: a folder of one has config.json"):
        Local(tmp_path).plan()
    (tmp_path / "config.json").write_text('{"model_type": "nonesuch"}')
    with pytest.raises(LMError, match="cannot plan local model"):
        Local(tmp_path).plan()


def test_speed_and_memory_are_reported(models, tokenizer):
    lm = Local(models["llama"], tokenizer, name="llama")
    assert lm.stats() == {}
    asked = Request.of("w1 w2 w3", temperature=1.5, max_tokens=9)
    used = [lm(asked, replicate=index).usage for index in range(3)]
    stats = lm.stats()
    assert stats["requests"] == 3
    assert stats["device"] == "cpu"
    assert stats["output_tokens"] == sum(usage.output_tokens for usage in used)
    assert stats["input_tokens"] == sum(usage.input_tokens for usage in used)
    assert stats["tokens_per_second"] == pytest.approx(stats["output_tokens"] / stats["seconds"])
    assert stats["weight_bytes"] == lm.plan().weights
    assert stats["kv_bytes"] >= lm.plan().kv_token * max(usage.input_tokens for usage in used)
    assert stats["peak_bytes"] > stats["weight_bytes"] + stats["kv_bytes"]
    assert lm.lora("a")("w1", max_tokens=1).usage.calls == 1
    assert lm.lora("a").stats() == lm.stats()
    assert lm.stats()["requests"] == 4
    lm.close()


def test_four_bits_are_for_a_folder(models, tokenizer, folder):
    with pytest.raises(ValueError, match="quantize is '4bit' or None, not '3bit'"):
        Local(folder, quantize="3bit")
    with pytest.raises(ValueError, match="a model object is used as it is"):
        Local(models["llama"], tokenizer, quantize="4bit")
    packed = Local(folder, device="cpu", quantize="4bit")
    assert packed.identity() != Local(folder, device="cpu").identity()
    linear = sum(w.numel() for name, w in models["llama"].named_parameters() if "proj" in name)
    whole = Local(folder, device="cpu").plan().weights
    assert packed.plan().weights == pytest.approx(whole - 3.5 * linear, rel=0.02)
    assert packed.plan().dtype == "4bit and float32"


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_without_bitsandbytes_it_says_what_to_install(folder):
    with pytest.raises(
        MissingExtraError, match=r"quantize=.4bit. needs bitsandbytes.*pip install bitsandbytes accelerate"
    ):
        Local(folder, quantize="4bit")("w1")


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes, which computes on CPUs too")
@pytest.mark.filterwarnings("ignore")
def test_in_four_bits(folder):
    """Its layers are as wide as the blocks of 4 bits, which some CPUs need."""
    from tests.lm.conftest import make_model

    make_model("llama", hidden_size=64, intermediate_size=128, num_key_value_heads=2).save_pretrained(folder)
    lm = Local(folder, device="cpu", quantize="4bit", temperature=0, max_tokens=6)
    assert lm("w1 w2").text
    assert lm.stats()["weight_bytes"] < Local(folder, device="cpu").plan().weights / 2
    program = Predict("text -> answer").to(lm)
    said = [Conversation((Message("user", "w1"),), "w40 w41")]
    with pytest.raises(ValueError, match="which are not trained: train a LoRA beside them"):
        sft(program, said, steps=1)
    result = sft(program, said, lora="mine", steps=30, lr=2e-2)
    assert result.lm([Message("user", "w1")], max_tokens=3).text == "w40 w41"
    lm.close()
