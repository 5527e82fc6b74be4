import asyncio
import copy
import os
import random
import sys
import threading
from collections import deque

import pytest

from promptgrad import aio, no_grad
from promptgrad.errors import ContextWindowError, InputError, LMError, MissingExtraError
from promptgrad.lm import (
    Cache,
    Completion,
    ImagePart,
    Local,
    Message,
    Prefix,
    Request,
    TextDelta,
    TextPart,
    ToolCall,
    ToolResult,
    track_usage,
)
from tests.lm.conftest import make_tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

DEMOS = Prefix(
    [Message("system", "w1 w2 w3 w4 w5 w6 w7 w8"), Message("user", "w9"), Message("assistant", "w10 w11 w12")]
)


@pytest.fixture(params=["llama", "qwen3", "sliding"])
def lm(request, models, tokenizer):
    made = Local(models[request.param], tokenizer, name=request.param, threads=1)
    yield made
    made.close()


@pytest.fixture
def llama(models, tokenizer):
    made = Local(models["llama"], tokenizer, name="llama", threads=1)
    yield made
    made.close()


def requests(count=24):
    draw = random.Random(0)
    made = []
    for index in range(count):
        words = " ".join(f"w{draw.randrange(50)}" for _ in range(draw.choice([1, 3, 25])))
        prefix = draw.choice([DEMOS, Prefix([Message("system", "w7")]), Prefix()])
        made.append(
            Request(
                prefix,
                (Message("user", words),),
                draw.choice([0.0, 0.7, 1.5]),
                draw.choice([1, 4, 20]),
                draw.choice([None, 0.9]),
                replicate=index,
            )
        )
    return made


def together(lm, asked, **options):
    async def main():
        return await asyncio.gather(*[lm.sample(one, **options) for one in asked])

    return aio.run(main())


def reference(model, tokenizer, request, most):
    """Greedy decoding by transformers' own loop."""
    told = [{"role": m.role, "content": m.content} for m in request.messages]
    text = tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)
    out = model.generate(**ids, max_new_tokens=most, do_sample=False)
    return out[0, ids["input_ids"].shape[1] :].tolist()


def test_greedy_replies_are_those_of_transformers(lm, models, tokenizer):
    asked = [one.replace(temperature=0, top_p=None, max_tokens=12) for one in requests(5)]
    expected = [reference(models[lm.name], tokenizer, one, 12) for one in asked]
    assert [list(made.ids) for made in together(lm, asked)] == expected
    assert [list(made.ids) for made in together(lm, asked)] == expected  # with prefixes kept from before


def test_a_reply_does_not_depend_on_its_batch(lm):
    asked = requests()
    alone = [aio.drive(lm.sample(one, logprobs=True)) for one in asked]
    order = list(range(len(asked)))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        for index, made in zip(order, together(lm, [asked[i] for i in order], logprobs=True), strict=True):
            assert made.ids == alone[index].ids
            assert made.text == alone[index].text
            assert made.logprobs == pytest.approx(alone[index].logprobs, abs=1e-4)


def test_replies_repeat_and_replicates_differ(llama, models, tokenizer):
    request = Request.of("w1 w2", temperature=1.5, max_tokens=20)
    first = llama(request)
    assert llama(request).text == first.text
    assert len({llama(request, replicate=i).text for i in range(5)}) == 5
    assert llama(request, seed=1).text != first.text
    other = Local(models["llama"], tokenizer, name="llama", seed=5)
    assert other(request).text != first.text
    assert other.identity() != llama.identity()
    other.close()


def test_requests_that_come_together_are_computed_together(llama):
    seen = []
    forward = llama.model.forward

    def watch(*args, **kwargs):
        seen.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    llama._load()
    llama.model.forward = watch
    try:
        together(llama, [Request.of(f"w{i}", temperature=1, max_tokens=20) for i in range(40)])
    finally:
        del llama.model.forward
    assert max(seen) >= 30
    assert sum(seen) <= 40 * 20 + 40


def test_a_common_prefix_is_read_once(llama):
    asked = [Request(DEMOS, (Message("user", f"w{i}"),), 0.0, 2) for i in range(8)]
    read = []
    llama._load()
    forward = llama.model.forward

    def watch(*args, **kwargs):
        read.append(kwargs["input_ids"].numel())
        return forward(*args, **kwargs)

    llama.model.forward = watch
    try:
        together(llama, asked)
        first = sum(read)
        read.clear()
        together(llama, asked)
    finally:
        del llama.model.forward
    whole = sum(len(llama.encode(one)) for one in asked)
    assert first < whole
    assert sum(read) < first


def test_max_batch(models, tokenizer):
    lm = Local(models["qwen3"], tokenizer, max_batch=3)
    made = together(lm, requests(20))
    assert len(made) == 20
    lm.close()


@pytest.mark.parametrize("source", ["./gone", "../gone", "~/gone", "/gone", "models/of/mine"])
def test_a_path_without_a_folder_is_told_at_once(source):
    with pytest.raises(ValueError, match="there is no folder"):
        Local(source)


def test_a_name_of_the_hub_is_no_path():
    assert Local("owner/model").name == "model"


def test_the_weights_of_what_is_not_loaded_yet(models, tokenizer, tmp_path):
    """A folder's are frozen, and asking for them loads nothing; those of a model object are its own."""
    assert Local(tmp_path).weights() == []  # there is nothing in it to load
    model = copy.deepcopy(models["llama"])
    lm = Local(model, tokenizer)
    assert lm.weights() == []
    model.lm_head.requires_grad_()
    assert [id(weight) for weight in lm.weights()] == [id(weight) for weight in model.lm_head.parameters()]


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")
@pytest.mark.parametrize("at_once", [1, 5])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_who_comes_while_others_are_answered_waits_until_there_is_room(llama, most, at_once):
    from promptgrad.lm._decode import Decoder, Decoding
    from promptgrad.lm._sampling import Sampling

    llama._load()
    forward, rows, done, waiting = llama.model.forward, [], [], deque()

    def job(is_over=None):
        return Decoding([5, 6, 7], 0, 6, Sampling(0.0, None, None, 0), False, is_over, done.append)

    def more_come(ids):
        waiting.extend(later[:at_once])
        del later[:at_once]
        return False

    def watch(*args, **kwargs):
        rows.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    later = [job() for _ in range(5)]
    waiting.append(job(more_come))
    decoder = Decoder(llama.model, frozenset(), 0, most, 0)  # reads what the model's own forward takes
    llama.model.forward = watch
    try:
        decoder.run(waiting)
    finally:
        del llama.model.forward
    assert len(done) == 6
    assert len({tuple(job.ids) for job in done}) == 1
    assert max(rows) == most


def test_stop_length_and_end(llama):
    requests = [Request.of("w1 w2 w3", temperature=1.5, max_tokens=30, replicate=i) for i in range(40)]
    texts = [made.text.split() for made in together(llama, requests)]
    words = max(texts, key=lambda text: len(set(text[:5])))
    request = requests[texts.index(words)]
    assert len(set(words[:5])) == 5
    stopped = aio.drive(llama.sample(request.replace(stop=[f"{words[3]} {words[4]}", "never"])))
    assert stopped.text.split() == words[:3]
    assert stopped.finish_reason == "stop"
    assert len(stopped.ids) == 5
    cut = llama(request, max_tokens=2)
    assert (cut.text.split(), cut.finish_reason, cut.usage.output_tokens) == (words[:2], "length", 2)
    ended = aio.drive(llama.sample(requests[texts.index(min(texts, key=len))]))
    assert (ended.finish_reason, ended.ids[-1]) == ("stop", 3)
    assert "<end>" not in ended.text


def test_log_probabilities_are_of_the_tempered_distribution(llama):
    request = Request.of("w1", temperature=2.0, max_tokens=1)
    made = aio.drive(llama.sample(request, logprobs=True))
    with torch.no_grad():
        logits = llama.model(torch.tensor([made.prompt_ids])).logits[0, -1] / 2.0
    assert made.logprobs[0] == pytest.approx(torch.log_softmax(logits, -1)[made.ids[0]].item(), abs=1e-5)
    assert aio.drive(llama.sample(request)).logprobs == ()


def test_usage(llama):
    with track_usage() as usage:
        completion = llama("w1 w2", temperature=0, max_tokens=3)
    assert usage.total == completion.usage
    assert (usage.calls, usage.usd, usage.output_tokens) == (1, 0.0, 3)
    assert usage.input_tokens == len(llama.encode(Request.of("w1 w2")))
    assert completion.model == "llama"


def test_a_prompt_that_is_too_long(llama):
    with pytest.raises(ContextWindowError, match=r"has 1\d\d tokens, and local model 'llama' reads at most 128"):
        llama("w1 " * 130)
    completion = llama("w1 " * 120, temperature=1.0, max_tokens=50, top_k=5)
    assert completion.usage.output_tokens <= 4


@pytest.mark.parametrize("option", [{"presence_penalty": 1}, {"logit_bias": {}}])
def test_unknown_options_are_errors(llama, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        llama("w1", **option)


def test_a_failure_reaches_its_callers_and_the_next_call_works(llama):
    llama._load()

    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    llama.model.forward = broken
    try:

        async def many():
            return await asyncio.gather(*[llama.acall(f"w{i}") for i in range(5)], return_exceptions=True)

        errors = aio.run(many())
    finally:
        del llama.model.forward
    assert [type(error) for error in errors] == [LMError] * 5
    assert "out of memory" in str(errors[0])
    assert llama("w1", max_tokens=1).usage.output_tokens == 1


def test_a_reply_of_no_numbers_is_an_error_and_its_neighbours_are_answered(models, tokenizer):
    base = Local(copy.deepcopy(models["llama"]), tokenizer, name="m", temperature=0, max_tokens=4)
    broken = base.lora("broken")
    with torch.no_grad():
        for weight in broken.model.parameters():
            weight.fill_(float("nan"))
    expected = base("w1 w2").text

    async def both():
        asked = [lm.acall("w1 w2") for lm in (base, broken)]
        return await asyncio.gather(*asked, return_exceptions=True)

    good, bad = asyncio.run(both())
    assert good.text == expected
    assert isinstance(bad, LMError)
    assert "computed no numbers (NaN) for token 1 of a reply" in str(bad)
    assert isinstance(bad.__cause__, FloatingPointError)


def test_a_template_that_refuses(models, tokenizer):
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('no system messages here') }}"
    with pytest.raises(LMError, match="no system messages here"):
        Local(models["llama"], strict, name="strict")("w1")


def test_a_template_that_leaves_system_messages_out(models, tokenizer):
    """As that of the first Phi-3 did, without an error: instruction and demos would be lost."""
    quiet = copy.deepcopy(tokenizer)
    quiet.chat_template = (
        "<s>{% for m in messages %}{% if m.role == 'user' %}{{ ' user ' + m.content }}"
        "{% elif m.role == 'assistant' %}{{ ' assistant ' + m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' assistant' }}{% endif %}"
    )
    lm = Local(models["llama"], quiet, name="leaves system messages out")
    asked = Request(tail=(Message("system", "w1 w2"), Message("user", "w3")))
    with pytest.warns(UserWarning, match="system messages go into the first user message"):
        assert quiet.decode(lm.encode(asked)) == "<s> user w1 w2 w3 assistant"
    lm.close()


def test_a_template_that_leaves_the_user_out(models, tokenizer):
    still = copy.deepcopy(tokenizer)
    still.chat_template = "<s> w1"
    with pytest.raises(LMError, match="leaves out what the user says"):
        Local(models["llama"], still, name="still")("w1")


def test_a_token_that_was_added_to_model_and_tokenizer_after_a_reply(models, tokenizer):
    more = copy.deepcopy(tokenizer)
    lm = Local(copy.deepcopy(models["llama"]), more, name="more")
    lm("w1", max_tokens=2)
    more.add_tokens(["w57"])
    lm.model.resize_token_embeddings(len(more))
    assert lm("w57", max_tokens=2).usage.output_tokens <= 2
    lm.close()


def test_the_tokenizer_of_another_model(models, tokenizer):
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["w57"])
    lm = Local(models["llama"], other, name="other")
    with pytest.raises(LMError, match=r"is not the model's: it writes token 64 \('w57'\), and the model knows 64"):
        lm("w57")
    assert lm("w1", max_tokens=2).usage.output_tokens <= 2
    lm.close()


def test_without_a_template_roles_are_written_out(models, tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    lm = Local(models["llama"], bare)
    assert bare.decode(lm.encode(Request.of("w1"))) == "<unk> w1 <unk>"
    assert lm("w1", max_tokens=2).usage.output_tokens <= 2
    lm.close()


def test_a_cancelled_call_is_dropped(llama):
    async def main():
        calls = [asyncio.ensure_future(llama.acall("w1", temperature=1, replicate=i)) for i in range(8)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(main())
    assert [isinstance(r, asyncio.CancelledError) for r in results] == [True, False] * 4
    assert llama._load()._under_way == {}


def test_a_cancelled_call_stops_computing(llama):
    passes, begun, gone = [], threading.Event(), threading.Event()

    def watch(*_):
        passes.append(1)
        if len(passes) == 3:
            begun.set()
            assert gone.wait(20)

    async def main():
        call = asyncio.ensure_future(llama.acall("w1", **long))
        await asyncio.to_thread(begun.wait, 20)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        gone.set()

    options = ({"temperature": 1, "max_tokens": 100, "replicate": number} for number in range(100))
    long = next(one for one in options if llama("w1", **one).usage.output_tokens >= 40)
    hook = llama._load().model.register_forward_hook(watch)
    try:
        asyncio.run(main())
        before = len(passes)
        for word in range(10):
            llama(f"w{word}", max_tokens=1)
        assert len(passes) <= before + 10 + 1  # the pass in which it was cancelled may still end
    finally:
        hook.remove()


def test_loading_a_folder(tmp_path, models, tokenizer):
    folder = tmp_path / "tiny"
    models["llama"].save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    lm, again = Local(folder, temperature=0, max_tokens=4), Local(str(folder), temperature=0, max_tokens=4)
    before = lm.identity()
    assert lm.name == "tiny"
    assert "tiny" in repr(lm)
    assert lm.weights() == []
    assert f"device={str(lm.model.device)!r}" in repr(lm)
    direct = Local(models["llama"], tokenizer)
    assert lm("w1 w2").text == direct("w1 w2", temperature=0, max_tokens=4).text
    assert lm.identity() == before == again.identity()
    assert not any(weight.requires_grad for weight in lm.model.parameters())
    with torch.no_grad():
        lm.model.lm_head.weight.add_(1.0)
    assert lm.identity() != before
    for one in (lm, again, direct):
        one.close()
    (folder / "model.safetensors").write_bytes(b"broken")
    assert Local(folder).identity() != before
    with pytest.raises(LMError, match=r"tiny/model.safetensors' cannot be read"):
        Local(folder)("w1")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        Local(tmp_path / "nothing")
    with pytest.raises(ValueError, match="at least 1"):
        Local(tmp_path, max_batch=0)


def test_auto_takes_the_best_device_there_is(tmp_path, llama):
    from types import SimpleNamespace

    from promptgrad.lm._local_load import pick_device

    def machine(*there):
        found = {name: SimpleNamespace(is_available=lambda name=name: name in there) for name in ("cuda", "mps")}
        return SimpleNamespace(cuda=found["cuda"], backends=SimpleNamespace(mps=found["mps"]))

    assert pick_device(machine("cuda", "mps"), "auto") == "cuda"
    assert pick_device(machine("mps"), "auto") == "mps"
    assert pick_device(machine(), "auto") == "cpu"
    assert pick_device(machine("cuda"), "cpu") == "cpu"
    assert pick_device(machine(), torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert "device='auto'" in repr(Local(tmp_path))  # decided when the model is loaded
    assert repr(llama) == "Local('llama', device='cpu')"


def test_a_model_object_needs_a_tokenizer(models):
    with pytest.raises(LMError, match="needs a tokenizer"):
        Local(models["llama"], name="bare")("w1")


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install -e .\.\[local\].") as caught:
        Local(tmp_path)("w1")
    assert caught.value.extra == "local"


def test_weights_change_identity_and_answers(models, tokenizer):
    lm = Local(copy.deepcopy(models["llama"]), tokenizer, name="mine", temperature=0, max_tokens=8)
    cached = Cache(lm)
    request = Request(DEMOS, (Message("user", "w1 w2"),))
    with no_grad():
        first, before, version = cached(request), lm.identity(), lm.version()
        assert cached(request).cached
        cached(request, replicate=1)
        with torch.no_grad():
            for weight in lm.model.parameters():
                weight.add_(torch.randn_like(weight))
        assert lm.version() > version
        assert lm.identity() != before
        second = cached(request)
    assert not second.cached
    assert second.text != first.text
    fresh = Local(lm.model, tokenizer, temperature=0, max_tokens=8)  # nothing kept from the old weights
    with no_grad():
        assert fresh(request).text == second.text
    lm.close(), fresh.close()


def test_with_model_keeps_tokenizer_and_settings(llama, models):
    lm = Local(llama.model, llama.tokenizer, name="a", adapter="json", seed=3, temperature=0.5, top_k=4, stop="x")
    other = lm.with_model(models["qwen3"], "b")
    assert (other.name, other.adapter, other.seed, other.options) == ("b", "json", 3, lm.options)
    assert other.tokenizer is lm.tokenizer
    assert other.model is models["qwen3"]
    assert lm.with_model(models["qwen3"]).name == "a"


def test_threads_and_loops(llama):
    async def caller():
        return [(await llama.acall("w1", temperature=0)).text, llama("w1", temperature=0).text]

    expected = llama("w1", temperature=0).text
    assert asyncio.run(caller()) == [expected] * 2
    assert aio.run(llama.acall("w1", temperature=0)).text == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_its_own_thread(llama):
    expected = llama("w1", temperature=0, max_tokens=3).text
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if llama("w1", temperature=0, max_tokens=3).text == expected else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert llama("w1", temperature=0, max_tokens=3).text == expected


def stream(lm, request):
    async def listen():
        return [event async for event in lm.stream(request)]

    *deltas, last = asyncio.run(listen())
    assert isinstance(last, Completion)
    assert all(isinstance(delta, TextDelta) and delta.text for delta in deltas)
    return [delta.text for delta in deltas], last


def test_a_stream_gives_each_token_and_the_reply_of_complete(llama):
    for request in requests():
        pieces, last = stream(llama, request)
        assert "".join(pieces) == last.text == llama(request).text
        assert len(pieces) <= last.usage.output_tokens
        if last.usage.output_tokens > 3:
            assert len(pieces) > 1


def test_pieces_come_while_the_model_computes(llama):
    computed = []
    step = llama._load().decoder._step
    llama._load().decoder._step = lambda rows: (computed.append(1), step(rows))[1]

    async def first():
        events = llama.stream(Request.of("w1", max_tokens=100, temperature=1.5, seed=3))
        piece = await anext(events)
        await events.aclose()
        return piece

    assert isinstance(asyncio.run(first()), TextDelta)
    assert len(computed) < 99  # nobody waits for the rest, so it is not computed


def test_a_stop_text_is_never_told(llama):
    request = Request.of("w1", max_tokens=40, temperature=1.5)
    words = llama(request).text.split()
    stop = f"{words[5]} {words[6]}"
    pieces, last = stream(llama, request.replace(stop=stop))
    assert last.text == llama(request.replace(stop=stop)).text
    assert "".join(pieces) == last.text
    assert stop not in last.text


def test_parts_are_refused_before_anything_is_loaded_or_computed(tmp_path):
    lm = Local(tmp_path, name="absent")  # an empty folder: to load it is an error of another kind
    for part, shown in (
        (ImagePart(b"x", "image/png"), "message 2 .user. holds <image png, 1 bytes>"),
        (ToolResult("c", "x"), "holds <result x>"),
        (ToolCall("c", "f"), "holds <call f"),
    ):
        request = Request.of([Message("system", "w1"), Message("user", (TextPart("w2"), part))])
        with pytest.raises(InputError, match=shown):
            lm(request)
        with pytest.raises(InputError, match="takes text alone"):
            aio.run(lm.sample(request))
        with pytest.raises(InputError, match="takes text alone"):
            lm.encode(request)


def test_text_parts_are_read_as_text(llama):
    parts = Request.of([Message("user", (TextPart("w1 "), TextPart("w2")))])
    assert llama.encode(parts) == llama.encode(Request.of("w1 w2"))


def test_log_probabilities_come_with_the_completion_if_asked_for(llama):
    request = Request.of("w1 w2", max_tokens=5, temperature=0.7)
    made = together(llama, [request], logprobs=True)[0]
    completion = llama(request.replace(logprobs=True))
    assert [token.logprob for token in completion.logprobs] == pytest.approx(made.logprobs)
    assert "".join(token.token for token in completion.logprobs).replace("<end>", "") == made.text.replace(" ", "")
    assert llama(request).logprobs == ()


@pytest.mark.parametrize("way", [{"fused": True}, {"foreach": True}, {}], ids=["fused", "foreach", "one by one"])
@pytest.mark.parametrize("kind", ["whole", "lora"])
def test_no_step_of_any_optimizer_leaves_stale_answers(models, tokenizer, way, kind):
    """A fused AdamW changes weights, and torch does not count that as a change."""
    base = Local(copy.deepcopy(models["llama"]), tokenizer, name="mine", temperature=0, max_tokens=8)
    lm = base if kind == "whole" else base.lora("a", r=2)
    cached = Cache(lm)
    request = Request(DEMOS, (Message("user", "w1 w2"),))
    with no_grad():
        first, before, version = cached(request), lm.identity(), lm.version()
        cached(request, replicate=1)  # the prefix is kept now
    weights = list(lm.model.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(weights, lr=0.3, **way)
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert lm.version() > version
    assert lm.identity() != before
    with no_grad():
        second = cached(request)
    assert not second.cached
    assert second.text != first.text
    fresh = Local(copy.deepcopy(base.model), tokenizer, temperature=0, max_tokens=8)
    if kind == "lora":
        fresh.lora("a", r=2).model.load_state_dict(lm.model.state_dict())
    with no_grad():
        assert (fresh if kind == "whole" else fresh.lora("a"))(request).text == second.text
    base.close(), fresh.close()


def test_a_step_on_weights_of_others_is_left_alone(llama):
    """A graph of weights that answer nothing stays usable, or not, as torch has it."""
    assert llama.model is not None
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    before = weight._version
    torch.optim.AdamW([weight], fused=True).step()
    assert weight._version == before


def test_the_chat_template_reads_its_own_options(models):
    tokenizer = make_tokenizer()
    tokenizer.chat_template += "{% if enable_thinking is defined and not enable_thinking %} w1{{ note }}{% endif %}"
    lm = Local(models["llama"], tokenizer, name="thinker", threads=1, max_tokens=2)
    plain = lm.encode(Request.of("w5"))
    quick = Request.of("w5", enable_thinking=False)
    assert lm.encode(quick) == [*plain, tokenizer.convert_tokens_to_ids("w1")]
    asked = Request.of("w5", enable_thinking=False, extra_body={"chat_template_kwargs": {"note": " w2"}})
    assert lm.encode(asked)[-2:] == tokenizer.convert_tokens_to_ids(["w1", "w2"])
    assert lm(asked).usage.input_tokens == len(plain) + 2
    off = Local(models["llama"], tokenizer, name="thinker", threads=1, max_tokens=2, enable_thinking=False)
    assert off.encode(Request.of("w5")) == lm.encode(quick)
    assert off("w5").usage.input_tokens == len(plain) + 1
    lm.close()
    off.close()
