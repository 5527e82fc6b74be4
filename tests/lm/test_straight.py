"""What litellm sends: nowhere but where it is told to, and with answers of bounded size."""

import importlib.util
import os
import subprocess
import sys
import threading
import tracemalloc
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from promptgrad.errors import BadRequestError, LMError, LMReplyError, LMStatusError
from promptgrad.lm import LiteLLM
from promptgrad.testing import Garbage, LoopbackLM

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="litellm is not installed"),
    pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class:UserWarning"),  # of litellm
]

KEY = "sk-very-secret-0123456789"
SIZE = 200 * 2**20


def bomb():
    """A gzip of so much, in little memory."""
    packing = zlib.compressobj(1, wbits=31)
    return b"".join([*(packing.compress(b" " * 2**20) for _ in range(SIZE // 2**20)), packing.flush()])


class Flood(BaseHTTPRequestHandler):
    """Answers with 200 MB of spaces, or with as much in a small gzip; counts what was taken."""

    protocol_version = "HTTP/1.1"
    taken = 0
    packed = b""
    encodings = ()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Flood.encodings = (*Flood.encodings, self.headers["Accept-Encoding"])
        packed = "zip" in self.path
        body = Flood.packed if packed else b" " * 2**20
        times = 1 if packed else SIZE // 2**20
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) * times))
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        try:
            for _ in range(times):
                self.wfile.write(body)
                Flood.taken += len(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *arguments):
        pass


class Quiet(ThreadingHTTPServer):
    """A client that goes away is what is wanted here."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@pytest.fixture(scope="module")
def flood():
    Flood.packed = bomb()
    made = Quiet(("127.0.0.1", 0), Flood)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join(60)
    made.server_close()


REACHED = [
    "openai/m",
    "hosted_vllm/m",
    "anthropic/claude-x",
    "gemini/gemini-2.5-flash",
    "azure/dep",
    "groq/m",
    "mistral/m",
    "ollama_chat/m",
    "cohere_chat/m",
    "together_ai/m",
    "databricks/m",
    "text-completion-openai/m",
    "bedrock/anthropic.claude-3-sonnet-20240229-v1:0",
]


def made(name, url):
    options = {"api_version": "2024-10-21"} if name.startswith("azure") else {}
    if name.startswith("bedrock"):
        options = {
            "settings": {
                "aws_bedrock_runtime_endpoint": url,
                "aws_access_key_id": "a",
                "aws_secret_access_key": "b",
                "aws_region_name": "us-east-1",
            }
        }
    return LiteLLM(name, KEY, base_url=url, **options)


@pytest.mark.parametrize("name", REACHED)
def test_a_redirect_takes_the_prompt_nowhere(name):
    with LoopbackLM() as server, LoopbackLM() as elsewhere:
        server.script(*[Garbage(b"", 307, content_type=f"text/plain\r\nLocation: {elsewhere.url}/x")] * 3)
        with pytest.raises(LMError) as caught:
            made(name, server.url)("q")
        assert server.received, caught.value
        assert elsewhere.received == 0


@pytest.mark.parametrize("name", ["openai/m", "anthropic/claude-x", "gemini/gemini-2.5-flash", "cohere/command-r"])
def test_the_error_says_what_to_set(name):
    with LoopbackLM() as server:
        server.script(Garbage(b"", 307, content_type="text/plain\r\nLocation: http://127.0.0.1:9/x"))
        with pytest.raises(LMStatusError, match="redirects are not followed") as caught:
            LiteLLM(name, KEY, base_url=server.url)("q")
        assert caught.value.status == 307


@pytest.mark.parametrize("name", ["openai/m", "anthropic/claude-x", "gemini/gemini-2.5-flash"])
@pytest.mark.parametrize("path", ["", "/zip"])
def test_a_body_without_end_is_not_read_to_its_end(name, path, flood):
    lm = LiteLLM(name, KEY, base_url=flood + path)
    Flood.taken = 0
    tracemalloc.start()
    try:
        with pytest.raises(LMReplyError, match="longer than 64 MiB and was not read to its end") as caught:
            lm("q")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not caught.value.transient
    assert Flood.taken < SIZE
    assert most < 160 * 2**20


def test_no_other_compression_is_asked_for(flood):
    with pytest.raises(LMReplyError):
        LiteLLM("openai/m", KEY, base_url=flood + "/zip")("q")
    assert {*Flood.encodings} == {"gzip, deflate"}


def test_what_goes_around_httpx_is_refused():
    with LoopbackLM() as server:
        with pytest.raises(BadRequestError, match=r"write 'openai/\.\.\.'"):
            LiteLLM("aiohttp_openai/m", KEY, base_url=server.url)("q")
        assert server.received == 0


def test_others_in_the_process_are_as_they_were():
    import httpx

    from promptgrad.lm._litellm import load_litellm

    load_litellm()
    with LoopbackLM() as server, LoopbackLM() as elsewhere:
        server.script(Garbage(b"", 307, content_type=f"text/plain\r\nLocation: {elsewhere.url}/x"))
        with httpx.Client(follow_redirects=True) as client:
            client.post(server.url, json={})
        assert elsewhere.received == 1


CLOSED = """
import sys
from promptgrad.lm import LiteLLM
for name in ("openai/m", "anthropic/claude-x", "gemini/gemini-2.5-flash"):
    try:
        LiteLLM(name, "k", base_url=sys.argv[1])("q")
    except Exception as error:
        print(type(error).__name__)
"""


def test_connections_are_closed_at_exit():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with LoopbackLM("Paris") as server:
        done = subprocess.run(
            [sys.executable, "-W", "always::ResourceWarning", "-c", CLOSED, server.url],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert server.received == 3
    assert done.returncode == 0
    assert "nclosed" not in done.stderr, done.stderr
