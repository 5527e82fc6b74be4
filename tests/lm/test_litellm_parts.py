"""Images, sounds and files as litellm sends them to Anthropic and Gemini: the shapes that their servers take."""

import base64
import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from promptgrad import nn
from promptgrad.content import Audio, File, History, Image
from promptgrad.errors import BadRequestError, InputError
from promptgrad.lm import LiteLLM
from tests.made_files import pdf, png, read_pdf, read_png, read_wav, wav

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="litellm is not installed"),
    pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class:UserWarning"),  # of litellm
]

TEXT = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"
CLAUDE = {
    "id": "m", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": TEXT}], "usage": {"input_tokens": 5, "output_tokens": 2},
}  # fmt: skip
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": TEXT}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7},
}


class Provider(BaseHTTPRequestHandler):
    """Answers as Anthropic and as Gemini, and keeps what it was sent."""

    protocol_version = "HTTP/1.1"
    bodies = ()

    def do_POST(self):
        Provider.bodies = (*Provider.bodies, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        reply = json.dumps(GEMINI if "generateContent" in self.path else CLAUDE).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def url():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join(60)
    made.server_close()


@pytest.fixture(autouse=True)
def nothing_sent():
    Provider.bodies = ()


def model(name, url):
    return LiteLLM(name, "key", api_base=url)


def decoded(data):
    return base64.b64decode(data, validate=True)


SIGNATURE = "picture: Image, paper: File, history: History, question -> answer"
INPUTS = {
    "picture": Image(png()),
    "paper": File(pdf("one")),
    "history": History([("user", ("Look: ", Image(png(2, 2)))), ("assistant", "I see.")]),
    "question": "?",
}


def test_anthropic(url):
    assert nn.Predict(SIGNATURE).to(model("anthropic/claude-x", url))(**INPUTS).answer == "yes"
    (body,) = Provider.bodies
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    first, last = body["messages"][0]["content"], body["messages"][2]["content"]
    assert [part["type"] for part in first] == ["text", "image"]
    assert [part["type"] for part in last] == ["text", "image", "text", "document", "text"]
    assert (last[1]["source"]["type"], last[1]["source"]["media_type"]) == ("base64", "image/png")
    assert read_png(decoded(last[1]["source"]["data"])) == (64, 48, (255, 0, 0))
    assert read_png(decoded(first[1]["source"]["data"]))[:2] == (2, 2)
    assert last[3]["source"]["media_type"] == "application/pdf"
    assert read_pdf(decoded(last[3]["source"]["data"])) == ["one"]


def test_gemini(url):
    program = nn.Predict("picture: Image, sound: Audio, paper: File -> answer").to(
        model("gemini/gemini-2.5-flash", url)
    )
    assert program(picture=Image(png()), sound=Audio(wav(1.0)), paper=File(pdf("one"))).answer == "yes"
    (body,) = Provider.bodies
    found = [part["inline_data"] for part in body["contents"][-1]["parts"] if "inline_data" in part]
    assert [part["mime_type"] for part in found] == ["image/png", "audio/wav", "application/pdf"]
    assert read_png(decoded(found[0]["data"])) == (64, 48, (255, 0, 0))
    assert read_wav(decoded(found[1]["data"])) == 1.0
    assert read_pdf(decoded(found[2]["data"])) == ["one"]


def test_sound_is_refused_for_anthropic_before_anything_is_sent(url):
    with pytest.raises(InputError, match=r"'anthropic/claude-x' takes no sound, and message 2 \(user\) holds <audio"):
        nn.Predict("sound: Audio -> answer").to(model("anthropic/claude-x", url))(sound=Audio(wav()))
    assert Provider.bodies == ()


def test_an_address_that_the_provider_takes_is_passed_on(url):
    look = nn.Predict("picture: Image -> answer").to(model("anthropic/claude-x", url))
    assert look(picture="https://example.org/cat.png").answer == "yes"
    (body,) = Provider.bodies
    assert body["messages"][0]["content"][1]["source"] == {"type": "url", "url": "https://example.org/cat.png"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anthropic/claude-x", Image("http://example.org/cat.png")),  # it takes https: alone
        ("gemini/gemini-2.5-flash", Image("https://example.org/cat.png")),
        ("gemini/gemini-2.5-flash", File(url="https://example.org/a.pdf")),
        ("bedrock/anthropic.claude-3-sonnet-20240229-v1:0", Image("https://example.org/cat.png")),
    ],
)
def test_an_address_that_litellm_would_load_here_is_refused(url, name, value):
    program = nn.Predict(f"given: {type(value).__name__} -> answer").to(model(name, url))
    with pytest.raises(InputError, match=r"loads nothing from <.*example\.org/.*pass its bytes, \w+\(data\)"):
        program(given=value)
    assert Provider.bodies == ()


def test_where_litellm_loads_all_the_same_the_call_is_broken_off(url, monkeypatch):
    monkeypatch.setattr("promptgrad.lm._litellm.refuse_addresses", lambda model, messages: None)
    monkeypatch.setattr("litellm.user_url_validation", False, raising=False)  # else it looks the host up before
    look = nn.Predict("picture: Image -> answer").to(model("anthropic/claude-x", url))
    with pytest.raises(BadRequestError, match=r"would load an image or file from 127\.0\.0\.1 here"):
        look(picture=f"{url}/private.png")
    assert Provider.bodies == ()
