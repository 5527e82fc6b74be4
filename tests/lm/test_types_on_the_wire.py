"""Each type of content, from a signature to the wire of each dialect and back, and again after its program was saved.

Properties: whatever the values are, the servers of loopback find the very bytes in the very order, and decode them.
"""

import base64
import importlib.util
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.content import Audio, Citation, Document, File, History, Image
from promptgrad.errors import InputError
from promptgrad.testing import LoopbackLM, Reply
from tests.lm.provider import Provider
from tests.made_files import pdf, png, read_pdf, read_png, read_wav, wav
from tests.nn.test_seeing import ALL, IMAGES, ROWS, WORDS

LITELLM = pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="litellm is not installed")
TEXT = "[[ ## answer ## ]]\nyes\n\n[[ ## code ## ]]\nx = 1\n\n[[ ## completed ## ]]"
READERS = {"image": read_png, "audio": read_wav, "file": read_pdf}


def media_of(request):
    """The images, sounds and files of a request in their order: kind, and bytes or address."""
    return [
        (part.kind, part.data or part.url)
        for message in request.messages
        if not isinstance(message.content, str)
        for part in message.content
        if part.kind in READERS
    ]


def unpacked(kind, text):
    """The bytes of a base64 text, which must be a whole file of this kind."""
    data = base64.b64decode(text, validate=True)
    READERS[kind](data)
    return data


def of_url(kind, url):
    head, comma, body = url.partition(";base64,")
    return unpacked(kind, body) if comma and head.startswith("data:") else url


def openai_media(body):
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image_url":
                found.append(("image", of_url("image", part["image_url"]["url"])))
            elif part["type"] == "input_audio":
                assert part["input_audio"]["format"] == "wav"
                found.append(("audio", unpacked("audio", part["input_audio"]["data"])))
            elif part["type"] == "file":
                found.append(("file", of_url("file", part["file"]["file_data"])))
            else:
                assert part["type"] == "text"
    return found


def anthropic_media(body):
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] in ("image", "document"):
                kind, source = "image" if part["type"] == "image" else "file", part["source"]
                if source["type"] == "text":
                    continue
                found.append((kind, source["url"] if source["type"] == "url" else unpacked(kind, source["data"])))
            else:
                assert part["type"] == "text"
    return found


def gemini_media(body):
    found = []
    for message in body["contents"]:
        for part in message["parts"]:
            if "inline_data" in part:
                family = part["inline_data"]["mime_type"].partition("/")[0]
                kind = {"application": "file"}.get(family, family)
                found.append((kind, unpacked(kind, part["inline_data"]["data"])))
    return found


@pytest.fixture(scope="module")
def server():
    with LoopbackLM(lambda messages: TEXT) as made:
        yield made


def saved_and_loaded(program, signature=ALL):
    other = nn.Predict(signature)
    other.load_state_dict(json.loads(json.dumps(program.state_dict())))
    return other


class TestOpenAI:
    @settings(max_examples=8, deadline=None)
    @given(ROWS, ROWS)
    def test_all_types_in_inputs_demos_and_histories(self, server, row, demo):
        model = lm.HTTP("m", server.url)
        program = nn.Predict(ALL, demos=[pg.Example(**demo, answer="a", code="b")]).to(model)
        found = program(**row)
        assert (found.answer, found.code) == ("yes", "x = 1")
        request = program.request(**row)
        sent = server.requests[-1].body
        assert sent == model.body(request)
        body = json.loads(sent)
        assert openai_media(body) == media_of(request)
        assert [message["role"] for message in body["messages"]] == [m.role for m in request.messages]
        program.demos.data = [*program.demos.data, pg.Example({**row, **found.to_dict()})]
        assert model.body(saved_and_loaded(program).request(**row)) == model.body(program.request(**row))

    @settings(max_examples=12, deadline=None)
    @given(IMAGES, st.floats(0.01, 0.1), WORDS.filter(str.strip))
    def test_images_sounds_and_thoughts_of_replies(self, server, picture, seconds, thought):
        """Reply, prediction, state, loaded, the same request."""
        signature = "question -> thoughts: Reasoning, picture: Image, sound: Audio, caption"
        sound = Audio(wav(seconds))
        url = {"type": "image_url", "image_url": {"url": picture.data_url}}
        told = {"data": base64.b64encode(sound.data).decode(), "format": "wav"}
        text = "[[ ## caption ## ]]\nc\n\n[[ ## completed ## ]]"
        server.script(Reply(text, reasoning=thought, more={"images": [url], "audio": told}))
        model = lm.HTTP("m", server.url)
        program = nn.Predict(signature).to(model)
        found = program(question="?")
        assert (found.picture, found.sound, found.caption) == (picture, sound, "c")
        assert found.thoughts == thought
        program.demos.data = [pg.Example(question="?", **found)]
        other = saved_and_loaded(program, signature)
        assert other.demos.data == program.demos.data
        assert model.body(other.request(question="!")) == model.body(program.request(question="!"))
        assert openai_media(json.loads(model.body(program.request(question="!"))))[0] == ("image", picture.data)

    @settings(max_examples=12, deadline=None)
    @given(st.lists(st.builds(Document, WORDS, WORDS), min_size=1, max_size=3), st.data())
    def test_documents_and_citations(self, server, documents, data):
        signature = "documents: list[Document], question -> answer, citations: list[Citation]"
        cites = st.builds(Citation, st.integers(0, 3), WORDS, WORDS, WORDS, WORDS)
        known = data.draw(st.lists(cites, max_size=2))
        server.script(f"[[ ## answer ## ]]\na\n\n[[ ## citations ## ]]\n{json.dumps([c.to_dict() for c in known])}")
        model = lm.HTTP("m", server.url)
        program = nn.Predict(signature).to(model)
        found = program(documents=documents, question="?")
        assert found.citations == known
        program.demos.data = [pg.Example(documents=documents, question="?", **found)]
        other = saved_and_loaded(program, signature)
        asked = {"documents": documents, "question": "!"}
        assert model.body(other.request(**asked)) == model.body(program.request(**asked))
        content = json.loads(model.body(program.request(**asked)))["messages"][-1]["content"]
        assert isinstance(content, str)
        assert f"document {len(documents)}: " in content


HTTPS = st.just(Image("https://example.org/a.png"))
HISTORIES = st.lists(
    st.tuples(st.just("user"), st.lists(WORDS.filter(str.strip) | IMAGES, min_size=1, max_size=2).map(tuple))
    | st.tuples(st.just("assistant"), WORDS.filter(str.strip)),
    max_size=3,
).map(History)
SEEN = "history: History, pictures: list[Image], best: Image | None, paper: File, question -> answer, code: Code"


def rows(image):
    return st.fixed_dictionaries(
        {
            "history": HISTORIES,
            "pictures": st.lists(image, max_size=2),
            "best": st.none() | image,
            "paper": st.sampled_from(["one", "two"]).map(lambda page: File(pdf(page))),
            "question": WORDS.filter(str.strip),
        }
    )


@LITELLM
@pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class:UserWarning")
class TestLiteLLM:
    """The shapes that litellm sends to Anthropic and Gemini, whose servers are played on loopback."""

    @settings(max_examples=6, deadline=None)
    @given(rows(IMAGES | HTTPS), rows(IMAGES))
    def test_anthropic(self, provider, row, demo):
        self.check(provider, "anthropic/claude-x", SEEN, row, demo, anthropic_media)

    @settings(max_examples=6, deadline=None)
    @given(rows(IMAGES), rows(IMAGES), st.floats(0.01, 0.1))
    def test_gemini(self, provider, row, demo, seconds):
        sound = Audio(wav(seconds))
        signature = SEEN.replace("paper", "sound: Audio, paper")
        row, demo = {**row, "sound": sound}, {**demo, "sound": sound}
        self.check(provider, "gemini/gemini-2.5-flash", signature, row, demo, gemini_media)

    def check(self, provider, name, signature, row, demo, media):
        model = lm.LiteLLM(name, "key", api_base=provider.url)
        program = nn.Predict(signature, demos=[pg.Example(**demo, answer="a", code="b")]).to(model)
        found = program(**row)
        assert (found.answer, found.code) == ("yes", "x = 1")
        request = program.request(**row)
        assert media(provider.bodies[-1]) == media_of(request)
        program.demos.data = [*program.demos.data, pg.Example({**row, **found.to_dict()})]
        other = saved_and_loaded(program, signature).to(model)
        program(**row)
        other(**row)
        assert provider.bodies[-1] == provider.bodies[-2]

    def test_what_litellm_would_leave_out_is_refused_before(self, provider):
        before = len(provider.bodies)
        look = nn.Predict("history: History, question -> answer").to(
            lm.LiteLLM("anthropic/claude-x", "key", api_base=provider.url)
        )
        for part in (Image(png()), File(pdf("one"))):
            talk = History([("user", "Draw."), ("assistant", ("Here: ", part))])
            with pytest.raises(
                InputError, match=r"takes texts alone of the assistant, and message 3 holds <(image|file)"
            ):
                look(history=talk, question="?")
        assert len(provider.bodies) == before


@pytest.fixture(scope="module")
def provider():
    made = Provider(TEXT)
    yield made
    made.close()
