"""`promptgrad._error_text`: errors as language models are shown them, without addresses and secrets."""

import socket
import ssl
import urllib.error

import pytest

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad._error_text import error_message, error_text
from promptgrad.errors import LMStatusError, ToolServerError
from promptgrad.lm import ToolCall

PUBLIC = "https://en.wikipedia.org/wiki/Rome?page=2"


class Odd(Exception):
    def __str__(self):
        raise ValueError("no words")


class RequestException(Exception):
    """As the package requests calls the class above its errors."""


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("no such town: Rome"), "ValueError: no such town: Rome"),
        (ValueError(f"{PUBLIC} is cited twice."), f"ValueError: {PUBLIC} is cited twice."),
        (ValueError("see https://me:pass@en.wikipedia.org/x"), "ValueError: see https://en.wikipedia.org/x"),
        (ValueError("at http://10.0.0.7:8000/v1?key=a, again"), "ValueError: at [address], again"),
        (ValueError("at 'http://search/v1'"), "ValueError: at '[address]'"),
        (ValueError("postgresql://bo:secret@db.internal/x fails"), "ValueError: [address] fails"),
        (ValueError("no one at localhost:11434"), "ValueError: no one at [address]"),
        (ValueError("no one at 127.0.0.1:80 or [::1]:80"), "ValueError: no one at [address] or [address]"),
        (ValueError("version 1.2.3.4 of [1] and list[int], a[1:2]"), None),
        (ValueError("line 3:12 of a.py:12, at 12:30"), None),
        (ValueError("the password is wrong: too short; a key: value pair; token: x; host: Rome"), None),
        (KeyError("skill-set"), "KeyError: 'skill-set'"),
        (ValueError("Authorization: Bearer abcdefgh.ij-k"), "ValueError: Authorization: Bearer ***"),
        (ValueError("key sk-proj-abcdefghijklmnop1234 is bad"), "ValueError: key sk-*** is bad"),
        (ValueError("login(user='bo', password='p4ss w')"), "ValueError: login(user='bo', password='*** w')"),
        (ValueError('{"api_key": "12345", "n": 1}'), 'ValueError: {"api_key": "***", "n": 1}'),
        (ValueError("https://x.org/a?api_key=12&n=1"), "ValueError: https://x.org/a?api_key=***&n=1"),
        (LMStatusError(f"{PUBLIC} answered 500: oh", status=500), "LMStatusError: [address] answered 500: oh"),
        (ToolServerError("the server 'https://a.org/mcp' ended"), "ToolServerError: the server '[address]' ended"),
        (urllib.error.URLError("host api.example.com:443 is down"), "URLError: <urlopen error host [address] is down>"),
        (ssl.SSLError(1, "wrong version number at db.example.com:5432"), "SSLError: wrong version number at [address]"),
        (
            RequestException("HTTPSConnectionPool(host='api.example.com', port=443): Max retries exceeded"),
            "RequestException: HTTPSConnectionPool(host='[address]): Max retries exceeded",
        ),
        (
            ssl.SSLCertVerificationError(
                1, "[SSL: X] Hostname mismatch, certificate is not valid for 'api.example.com'. (y)"
            ),
            "SSLCertVerificationError: [SSL: X] Hostname mismatch, certificate is not valid for '[address]'. (y)",
        ),
        (
            ssl.SSLError(1, "certificate is not valid for 'search', not valid for 'fd00::7'"),
            "SSLError: certificate is not valid for '[address]', not valid for '[address]'",
        ),
        (
            ssl.SSLError(1, "hostname 'a.example.com' doesn't match either of 'b.example.org', '*.example.org'"),
            "SSLError: hostname '[address]' doesn't match either of '[address]', '[address]'",
        ),
        (
            RequestException("x509: certificate is valid for a.example.com, b.example, not c.example.com"),
            "RequestException: x509: certificate is valid for [address], [address], not [address]",
        ),
        (
            socket.gaierror(-2, "lookup api.example.com: no such host"),
            "gaierror: [Errno -2] lookup [address]: no such host",
        ),
        (
            RequestException("<urllib3.connection.HTTPSConnection object>: Failed to resolve 'db.example.com'"),
            "RequestException: <urllib3.connection.HTTPSConnection object>: Failed to resolve '[address]'",
        ),
        (
            ConnectionError('could not translate host name "db" to an address at "a.example.com"'),
            'ConnectionError: could not translate host name "[address]" to an address at "[address]"',
        ),
        (OSError("certificate is not valid for 'en.wikipedia.org'"), None),
        (ConnectionError("[Errno 112] Host is down, no route to host"), None),
        (LMStatusError("m answered 400: unsupported 'text.format', see docs.example.com", status=400), None),
        (ConnectionRefusedError("10.1.2.3 said no at db.example.com:5432"), None),
        (Odd(), "Odd"),
        (ValueError(), "ValueError: "),
    ],
)
def test_an_error_is_told_without_what_is_nobody_s_business(error, shown):
    if isinstance(error, ConnectionRefusedError):
        shown = "ConnectionRefusedError: [address] said no at [address]"
    assert error_text(error) == (shown or f"{type(error).__name__}: {error}")


def test_a_long_error_is_cut_and_none_takes_long():
    for piece in ("a.", "a-", "eyJ-", "://", "host ", "1.", "[:", "Bearer ", "a_token", "api_key=", "'"):
        text = piece * (1_000_000 // len(piece))
        said = error_message(ConnectionError(text))
        assert said.endswith(f"... ({len(text) - 20_000} characters more)")


def leaking(question: str) -> str:
    """Look something up."""
    raise RuntimeError("GET http://10.0.0.7:8000/v1?q=1 with Bearer abcdefghijk failed: no such river")


def seen_by(model):
    """The texts of all messages that a function as a language model was sent."""
    return "\n".join(str(message.preview) for request in model for message in request.messages)


def answering(asked, replies):
    def respond(request: pg.lm.Request) -> pg.lm.Completion:
        asked.append(request)
        return pg.lm.Completion(replies(len(asked) - 1, request))

    return pg.lm.FunctionLM(respond, name="scripted")


def test_a_tool_that_fails_tells_its_model_what_but_not_where():
    shown = pg.Tool(leaking).result(ToolCall("1", "leaking", {"question": "x"}))
    assert shown.content == "RuntimeError: GET [address] with Bearer *** failed: no such river"
    asked = []
    steps = [("leaking", '{"question": "a"}'), ("finish", '{"answer": "b"}')]
    words = "[[ ## thought ## ]]\nx\n[[ ## tool ## ]]\n{}\n[[ ## arguments ## ]]\n{}"
    lm = answering(asked, lambda number, _: words.format(*steps[number]))
    assert nn.ReAct("question -> answer", [leaking]).to(lm)("?").answer == "b"
    assert "no such river" in seen_by(asked)
    assert "10.0.0.7" not in seen_by(asked)


class Fails(nn.Module):
    """Its second half is code that fails where a server is."""

    def __init__(self):
        super().__init__()
        self.ask = nn.Predict("question -> query")

    def forward(self, question):
        return leaking(self.ask(question=question).query)


@pytest.mark.parametrize("blame", ["critic", "writer"])
def test_who_criticises_and_writes_is_not_told_where(blame):
    asked = []
    examples = [pg.Example(question=f"q{n}", answer="x").with_inputs("question") for n in range(3)]
    model = Fails().to(pg.lm.FunctionLM(lambda messages: "[[ ## query ## ]]\nrivers", name="m"))
    other = answering(asked, lambda number, request: "[[ ## findings ## ]]\n[]\n\n[[ ## new_text ## ]]\nx")
    criterion = nn.MetricLoss(lambda example, output: 0.0, critic=other if blame == "critic" else None)
    optimizer = optim.TGD(model.parameters(), lm=other)
    loss = criterion(model.map(examples), examples)
    loss.backward()
    optimizer.step()
    assert asked
    assert "no such river" in seen_by(asked)
    assert "10.0.0.7" not in seen_by(asked)
    assert "abcdefghijk" not in seen_by(asked)
