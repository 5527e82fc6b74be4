"""`Embedder`: batches, memory, budget, journal, cassettes and retries, against a real server and a real small model."""

import asyncio
import json
import pickle
import threading
from functools import lru_cache

import numpy as np
import pytest

import promptgrad as pg
from promptgrad import Embedder, lm, nn, run
from promptgrad.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceeded,
    LMError,
    LMReplyError,
    OverloadedError,
    ReplayError,
    UnknownPriceError,
)
from promptgrad.lm import record, replay, track_usage
from promptgrad.testing import Drop, Garbage, Hang, Status
from tests.lm.conftest import WORDS, make_tokenizer

ANIMALS = ["a horse", "a goat", "a donkey", "a zebra"]


def letters(text):
    return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]


def sent(server):
    return [request.json["input"] for request in server.requests]


@pytest.fixture
def embedder(server):
    made = []

    def make(**settings):
        made.append(Embedder("letters", base_url=server.url, prices=(2.0, 0.0), **settings))
        return made[-1]

    yield make
    for embed in made:
        embed.close()


class TestVectors:
    def test_texts_become_rows_and_one_text_a_vector(self, embedder, server):
        vectors = embedder()(ANIMALS)
        assert vectors.dtype == np.float32
        assert vectors.tolist() == [letters(text) for text in ANIMALS]
        assert embedder()("a cow").tolist() == letters("a cow")
        assert server.requests[0].path == "/v1/embeddings"
        assert server.requests[0].json["model"] == "letters"

    def test_nothing_is_sent_for_no_texts(self, embedder, server):
        assert embedder()([]).shape == (0, 0)
        assert server.received == 0

    def test_it_is_awaited_on_any_loop_and_called_from_any_thread(self, embedder):
        embed = embedder()
        assert asyncio.run(embed.acall(["a", "b"])).shape == (2, 26)
        found = []
        thread = threading.Thread(target=lambda: found.append(embed("c")))
        thread.start()
        thread.join()
        assert found[0].tolist() == letters("c")

    def test_fields_of_the_request(self, embedder, server):
        assert embedder(dimensions=4, extra_body={"input_type": "query"})(["a", "b"]).shape == (2, 4)
        assert {**server.requests[0].json, "input": None} == {
            "model": "letters",
            "input": None,
            "dimensions": 4,
            "input_type": "query",
            "encoding_format": "base64",
        }

    def test_a_server_without_base64_is_asked_for_numbers_from_then_on(self, embedder, server):
        server.script(Status(400, message="Unknown parameter: 'encoding_format'"))
        embed = embedder(batch_size=1)
        assert embed(["a"]).tolist() == embedder()(["a"]).tolist()
        embed(["b"])
        assert ["encoding_format" in request.json for request in server.requests] == [True, False, True, False]

    @pytest.mark.parametrize(
        "body",
        [
            {"data": []},
            {"data": [{"index": 1, "embedding": [1.0]}]},
            {"data": [{"index": 0, "embedding": ["x"]}]},
            {"data": [{"index": 0, "embedding": "!"}]},
            {"data": [{"index": 0, "embedding": 1.0}]},
            {"data": None},
            {},
        ],
    )
    def test_what_is_no_vector_is_an_error(self, embedder, server, body):
        server.script(Garbage(json.dumps(body).encode()))
        with pytest.raises(LMReplyError):
            embedder(attempts=1)(["a"])

    def test_a_number_that_is_none_is_an_error(self):
        with pytest.raises(LMReplyError, match="numbers that are not finite"):
            Embedder(lambda texts: [[float("nan")] for _ in texts], name="nan", attempts=1)(["a"])


class TestBatches:
    def test_each_text_is_sent_once_and_batches_are_full(self, embedder, server):
        embed = embedder(batch_size=2)
        vectors = embed(["a", "b", "a", "c", "d", "e", "b"])
        assert vectors.tolist() == [letters(text) for text in "abacdeb"]
        assert sorted(sent(server)) == [["a", "b"], ["c", "d"], ["e"]]

    def test_long_texts_go_apart(self, embedder, server):
        embedder()(["x" * 300_000, "y" * 300_000, "z"])
        assert sorted(map(len, sent(server))) == [1, 2]

    def test_batches_are_sent_side_by_side_up_to_the_cap(self, embedder, server):
        server.hold()
        embed = embedder(batch_size=1, concurrency=3)
        thread = threading.Thread(target=embed, args=(list("abcdef"),))
        thread.start()
        server.wait_for(3)
        assert server.in_flight == 3
        server.release()
        thread.join()
        assert server.received == 6
        assert server.in_flight_high_water == 3


class TestMemory:
    def test_what_is_known_is_not_sent_again(self, embedder, server):
        embed = embedder()
        embed(["a", "b"])
        with track_usage() as used:
            assert embed(["b", "c", "a"]).tolist() == [letters(text) for text in "bca"]
            assert embed("b").tolist() == letters("b")
        assert sent(server) == [["a", "b"], ["c"]]
        assert (used.calls, used.cached, used.input_tokens) == (1, 1, 1)

    def test_vectors_of_another_length_are_others(self, embedder, server, tmp_path):
        embedder(cache=tmp_path)("a")
        embedder(cache=tmp_path, dimensions=3)("a")
        assert server.received == 2

    def test_a_file_is_shared_with_later_ones(self, embedder, server, tmp_path):
        first = embedder(cache=tmp_path)
        first(ANIMALS)
        first.close()
        assert embedder(cache=tmp_path)(ANIMALS).tolist() == [letters(text) for text in ANIMALS]
        assert server.received == 1
        assert [path.name for path in tmp_path.glob("*.db")] == ["lm.db"]

    def test_without_a_cache_all_is_sent(self, embedder, server):
        embed = embedder(cache=False)
        embed("a")
        embed("a")
        assert server.received == 2


class TestCalls:
    def test_usage_counts_a_batch_as_a_call_with_its_price(self, embedder):
        with track_usage() as used:
            embedder(batch_size=2)(["one two", "three", "four"])
        assert (used.calls, used.input_tokens, used.output_tokens) == (2, 4, 0)
        assert used.usd == pytest.approx(4 * 2.0 / 1e6)

    def test_retries_are_those_of_the_lm_layers(self, embedder, server):
        server.script(Status(503), Drop())
        assert embedder()("a").tolist() == letters("a")
        assert server.received == 3
        server.script(*[Status(503)] * 9)
        with pytest.raises(OverloadedError):
            embedder(attempts=1)("b")

    def test_errors_are_of_their_kind_and_show_no_key(self, server):
        server.script(Status(401, message="no"), Status(400, message="too long for sk-secret-key"))
        embed = Embedder("m", base_url=server.url, api_key="sk-secret-key")
        with pytest.raises(AuthenticationError):
            embed("a")
        with pytest.raises(BadRequestError) as caught:
            embed("a")
        assert "sk-secret-key" not in str(caught.value) + repr(embed) + embed.lm.identity()
        assert server.requests[0].headers["authorization"] == "Bearer sk-secret-key"

    def test_a_budget_holds_and_an_unknown_price_is_refused(self, embedder, server):
        embed = embedder(batch_size=1)
        ledger = run.Ledger(pg.Budget(calls=2))
        with run.active(ledger=ledger):
            with pytest.raises(BudgetExceeded):
                embed(list("abc"))
            assert server.received == 2
        with run.active(ledger=run.Ledger(pg.Budget(usd=1.0))), pytest.raises(UnknownPriceError):
            Embedder("no-such-model", base_url=server.url)("a")

    def test_a_run_is_resumed_without_a_request(self, embedder, server, tmp_path):
        def program(embed):
            with run.Journal(tmp_path / "run.jsonl") as journal, run.active(journal=journal) as active:
                both = embed(["a", "b"]), embed(["b", "c"])
                journal.append("decision", length=len(both))
                spent = active.ledger.spent
            return [vectors.tolist() for vectors in both], spent

        first, spent = program(embedder())
        assert sent(server) == [["a", "b"], ["c"]]
        again, respent = program(embedder())  # with an empty memory
        assert again == first
        assert server.received == 2
        assert (respent.calls, respent.tokens, respent.usd, respent.sent) == (spent.calls, spent.tokens, spent.usd, 0)

    def test_a_run_is_resumed_whatever_is_in_the_memory(self, embedder, server, tmp_path):
        def program(embed):
            with run.Journal(tmp_path / "run.jsonl") as journal, run.active(journal=journal) as active:
                return embed(["a", "b"]).tolist(), active.ledger.spent.calls, active.ledger.spent.tokens

        warm = embedder()
        warm("a")
        first = program(warm)
        assert sent(server) == [["a"], ["b"]]
        full = embedder()
        full(["a", "b"])
        assert program(embedder()) == program(full) == first
        assert server.received == 3

    def test_a_hit_counts_as_a_call_without_tokens_in_a_run_and_after_it(self, embedder, server, tmp_path):
        embed = embedder()
        embed(["a", "b"])
        for lms in (embed, embedder()):
            with run.Journal(tmp_path / "run.jsonl") as journal, run.active(journal=journal) as active:
                assert lms(["b", "a"]).tolist() == [letters("b"), letters("a")]
                assert (active.ledger.spent.calls, active.ledger.spent.tokens) == (1, 0)
        assert server.received == 1

    def test_a_cassette_answers_and_an_unknown_text_is_refused(self, embedder, server, tmp_path):
        path = tmp_path / "tape.jsonl"
        with record(path):
            embedder()(ANIMALS)
        embed = embedder()
        embed("other")
        with replay(path):
            assert embed(ANIMALS).tolist() == [letters(text) for text in ANIMALS]
        with pytest.raises(ReplayError), replay(path):
            embed("other")
        assert server.received == 2

    def test_a_cancelled_call_ends_at_the_server(self, embedder, server):
        server.script(Hang())

        async def cancelled():
            task = asyncio.ensure_future(embedder().acall(["a"]))
            await asyncio.to_thread(server.wait_for, 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(cancelled())
        server.wait_idle()


class TestFunctions:
    def test_plain_and_async_functions(self):
        calls = []

        def plain(texts):
            calls.append(texts)
            return [[1.0, len(text)] for text in texts]

        async def waiting(texts):
            await asyncio.sleep(0)
            return np.array([[2.0, len(text)] for text in texts])

        embed = Embedder(plain)
        assert embed(["a", "bb", "a"]).tolist() == [[1, 1], [1, 2], [1, 1]]
        assert calls == [["a", "bb"]]
        assert embed.name == "plain"
        assert Embedder(waiting)(["a"]).tolist() == asyncio.run(Embedder(waiting).acall(["a"])).tolist() == [[2, 1]]

    def test_what_it_returns_is_checked(self):
        asked = []
        with pytest.raises(LMError, match="one vector for each text of its list, and gave 1x1 numbers for 2 texts"):
            Embedder(lambda texts: asked.append(texts) or [[1.0]], name="few")(["a", "b"])
        with pytest.raises(LMError, match=r"and gave an array of 1 numbers for 1 text$"):
            Embedder(lambda texts: asked.append(texts) or [1.0], name="flat")("a")
        assert len(asked) == 2, "a function that is written wrong is not asked again"
        with pytest.raises(LMError, match="one vector for each text, all of one length"):
            Embedder(lambda texts: [[1.0], [1.0, 2.0]], name="ragged")(["a", "b"])

    @pytest.mark.parametrize("waits", [False, True])
    def test_what_it_raises_is_the_cause_of_an_error_of_the_model(self, waits):
        def plain(texts):
            raise ConnectionResetError("mine")

        async def waiting(texts):
            plain(texts)

        with pytest.raises(
            LMError, match=r"the function of the embedder '.*' raised ConnectionResetError: mine"
        ) as got:
            Embedder(waiting if waits else plain)(["a"])
        assert isinstance(got.value.__cause__, ConnectionResetError)


class TestArguments:
    def test_what_is_no_list_of_texts(self):
        with pytest.raises(TypeError, match="a text or a list of texts, not int"):
            Embedder(lambda texts: [[1.0] for _ in texts], name="one")(3)

    @pytest.mark.parametrize(
        ("arguments", "error", "said"),
        [
            (("cohere/embed-v3",), ValueError, "base_url"),
            ((lambda texts: texts,), ValueError, "needs a name"),
            ((3,), TypeError, "name, a folder or a function"),
            ((len,), None, ""),
        ],
    )
    def test_models(self, arguments, error, said):
        if error is None:
            assert Embedder(*arguments).name == "len"
            return
        with pytest.raises(error, match=said):
            Embedder(*arguments)

    def test_numbers_and_texts_are_checked(self, embedder):
        with pytest.raises(ValueError, match="batch_size"):
            embedder(batch_size=0)
        with pytest.raises(ValueError, match="dimensions: only"):
            Embedder(len, dimensions=3)
        with pytest.raises(TypeError, match="number 2 of 2 is of type int"):
            embedder()(["a", 3])

    def test_another_process_makes_it_anew(self, server, monkeypatch):
        embed = Embedder("letters", base_url=server.url, api_key="sk-never", batch_size=3)
        data = pickle.dumps(embed)
        assert b"sk-never" not in data
        again = pickle.loads(data)
        assert (again.name, again.batch_size, again.lm.identity()) == (embed.name, 3, embed.lm.identity())

    def test_a_name_of_a_provider_goes_to_its_address(self, server, monkeypatch):
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
        Embedder("openai/text-embedding-3-small")("a")
        assert server.requests[0].json["model"] == "text-embedding-3-small"
        assert server.requests[0].headers["authorization"] == "Bearer sk-from-the-environment"


# ---- a folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    place = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.4,
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(place)
    make_tokenizer().save_pretrained(place)
    return place


TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10", "w1 w2 w3 w4"]


@lru_cache(maxsize=1)
def loaded(folder):
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    return transformers.AutoTokenizer.from_pretrained(folder), model


def hidden_states(folder, text):
    import torch

    tokenizer, model = loaded(folder)
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()


class TestFolder:
    def test_the_mean_of_the_last_hidden_states_whatever_the_padding(self, folder):
        vectors = Embedder(folder, device="cpu")(TEXTS)
        for text, vector in zip(TEXTS, vectors, strict=True):
            np.testing.assert_allclose(vector, hidden_states(folder, text).mean(0), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("mode", ["cls_token", "max_tokens", "lasttoken", "weightedmean_tokens"])
    def test_pooling_of_sentence_transformers(self, folder, tmp_path, mode):
        place = sentence_folder(folder, tmp_path, {f"pooling_mode_{mode}": True}, normalize=True)
        vectors = Embedder(str(place), device="cpu")(TEXTS)
        for text, vector in zip(TEXTS, vectors, strict=True):
            states = hidden_states(folder, text)
            weights = np.arange(1, len(states) + 1)[:, None]
            wanted = {
                "cls_token": states[0],
                "max_tokens": states.max(0),
                "lasttoken": states[-1],
                "weightedmean_tokens": (states * weights).sum(0) / weights.sum(),
            }[mode]
            np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), rtol=1e-4, atol=1e-5)

    def test_it_searches_an_index_by_vectors(self, folder):
        index = pg.retrieve.Dense(TEXTS, Embedder(folder, device="cpu"))
        means = {text: hidden_states(folder, text).mean(0) for text in [*TEXTS, "w4 w3 w2"]}
        unit = {text: mean / np.linalg.norm(mean) for text, mean in means.items()}
        order = sorted(TEXTS, key=lambda text: -float(unit[text] @ unit["w4 w3 w2"]))
        found = index.search("w4 w3 w2", 4)
        assert [str(passage) for passage in found] == order
        assert found[0].score == pytest.approx(float(unit[order[0]] @ unit["w4 w3 w2"]), abs=1e-5)

    def test_prompt_and_length_of_the_folder(self, folder, tmp_path):
        place = sentence_folder(folder, tmp_path, {"pooling_mode": "mean"})
        (place / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 3}))
        settings = {"prompts": {"query": "w9 "}, "default_prompt_name": "query"}
        (place / "config_sentence_transformers.json").write_text(json.dumps(settings))
        vector = Embedder(place, device="cpu")("w1 w2 w3 w4")
        np.testing.assert_allclose(vector, hidden_states(folder, "w9 w1 w2").mean(0), rtol=1e-4, atol=1e-5)

    def test_an_unknown_module_is_refused(self, folder, tmp_path):
        place = sentence_folder(folder, tmp_path, {"pooling_mode_mean_tokens": True}, last="WordWeights")
        with pytest.raises(ValueError, match="'WordWeights', which is not known"):
            Embedder(place)
        place = sentence_folder(folder, tmp_path / "other", {"pooling_mode_mean_tokens": False})
        with pytest.raises(ValueError, match="pools by nothing"):
            Embedder(place)

    def test_other_weights_have_other_keys(self, folder, tmp_path):
        other = sentence_folder(folder, tmp_path, {"pooling_mode_cls_token": True})
        assert Embedder(folder).lm.identity() != Embedder(other).lm.identity()


def sentence_folder(folder, place, pooling, *, normalize=False, last=""):
    """The same model, as sentence-transformers keeps it."""
    import shutil

    shutil.copytree(folder, place, dirs_exist_ok=True)
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = [("", "sentence_transformers.models.Transformer"), ("1_Pooling", "sentence_transformers.models.Pooling")]
    if normalize or last:
        modules.append(("2_Last", f"sentence_transformers.models.{last or 'Normalize'}"))
    listed = [{"idx": number, "path": path, "type": kind} for number, (path, kind) in enumerate(modules)]
    (place / "modules.json").write_text(json.dumps(listed))
    return place


# ---- where it is used


class TestNeighbours:
    ROWS = tuple(
        pg.Example(question=text, answer=text[-1]).with_inputs("question") for text in ("aaa", "bbb", "abab", "ccc")
    )

    @staticmethod
    def program(embed, **settings):
        return nn.Predict(
            "question -> answer",
            demos=nn.Neighbours(TestNeighbours.ROWS, k=2, vectorizer=embed, **settings),
        ).to(lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nx", name="x"))

    def test_an_embedder_chooses_demos_in_every_way_of_calling(self, embedder, server):
        embed = embedder()
        program = self.program(embed)
        wanted = ["abab", "bbb"]
        assert [demo.question for demo in program.demos.data.select({"question": "bbba"})] == wanted
        program(question="bbba")
        asyncio.run(program.acall(question="bbba"))
        program.map([{"question": "bbba"}, {"question": "ccca"}])
        assert sent(server) == [[row.question for row in self.ROWS], ["bbba"], ["ccca"]]

        class Outer(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = program

            async def forward(self, question):
                return await self.inner.acall(question=question)

        Outer()(question="bbbc")
        assert server.received == 4

    def test_it_is_saved_by_name(self, embedder):
        embed = embedder(name="letters-26")
        state = self.program(embed).state_dict()
        nn.register_vectorizer(embed.name, embed)
        other = nn.Predict("question -> answer")
        other.load_state_dict(state)
        assert other.demos.data == self.program(embed).demos.data
