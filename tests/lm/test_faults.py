"""What a server does wrong: one request where nothing can pass, and an error that says what to set."""

import contextlib
import gzip
import json
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad import aio, errors, run
from promptgrad.lm import HTTP, Completion, Retry, resolve, usage
from promptgrad.lm._completion import Usage
from promptgrad.testing import Delay, Garbage, Hang, LoopbackLM, Reply, Status
from tests.waiting import given_time

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sleep():
    async def none(seconds):
        pass

    return none


def json_body(value, code=200):
    return Garbage(json.dumps(value).encode(), code)


def completion(message, **more):
    return json_body({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more})


# -- meaning ---------------------------------------------------------------------------------------------------------

ONCE = {
    "key in 200": (json_body({"error": {"code": 401, "message": "no"}}), errors.AuthenticationError),
    "quota": (
        json_body({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, 429),
        errors.BillingError,
    ),
    "anthropic's length": (
        json_body({"error": {"message": "prompt is too long: 207889 tokens > 200000 maximum"}}, 400),
        errors.ContextWindowError,
    ),
    "filter": (json_body({"error": {"code": "content_filter", "message": "no"}}, 400), errors.ContentFilterError),
    "another key in 200": (json_body({"code": 401, "msg": "token invalid"}), errors.AuthenticationError),
    "a message in 200": (json_body({"status": 401, "message": "Unauthorized"}), errors.AuthenticationError),
    "billing in 200": (json_body({"success": False, "message": "Insufficient balance"}), errors.BillingError),
    "length in 200": (json_body({"error": "Context size has been exceeded."}), errors.ContextWindowError),
    "length in 500": (
        json_body({"error": {"code": 500, "message": "the request exceeds the available context size"}}, 500),
        errors.ContextWindowError,
    ),
}


@pytest.mark.parametrize("name", ONCE)
def test_what_cannot_pass_is_sent_once(server, sleep, name):
    answer, kind = ONCE[name]
    server.script(answer)
    with pytest.raises(kind) as caught:
        Retry(HTTP("m", server.url), sleep=sleep)("q")
    assert type(caught.value) is kind
    assert len(server.requests) == 1


TWICE = {
    "overload in 200": json_body({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "429 in 200": json_body({"error": {"code": 429, "message": "slow down"}}),
    "loading as 400": json_body({"error": "model is loading"}, 400),
    "an unknown error in 200": json_body({"error": "x"}),
    "a broken provider": json_body(
        {"choices": [{"error": {"code": 502}, "message": {"content": ""}, "finish_reason": "error"}]}
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_what_can_pass_is_sent_again(server, sleep, name):
    server.script(TWICE[name], "Paris")
    assert Retry(HTTP("m", server.url), sleep=sleep)("q").text == "Paris"
    assert len(server.requests) == 2


def test_a_wait_that_the_body_asks_for_is_obeyed(server):
    waits = []

    async def note(seconds):
        waits.append(seconds)

    server.script(json_body({"error": {"message": "Rate limit reached. Please try again in 7.5s."}}, 429), "Paris")
    assert Retry(HTTP("m", server.url), sleep=note)("q").text == "Paris"
    assert 7.5 <= waits[0] < 15


def test_a_bare_name_is_told_to_give_its_key(server):
    server.script(Status(401), Status(401))
    with pytest.raises(errors.AuthenticationError, match=r"; pass api_key=$"):
        resolve("m", base_url=server.url, cache=False)("q")
    with pytest.raises(errors.AuthenticationError, match=r"; set OPENAI_API_KEY, or pass api_key=$"):
        resolve("openai/m", base_url=server.url, cache=False)("q")


# -- silence ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def raw():
    """A server that sends given bytes, one after the other, and is then silent; `raw.seen` counts requests."""
    sockets = []

    class Raw:
        def __init__(self):
            self.seen = 0
            self.pieces = []
            self.pause = 0.0
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
            self.over = threading.Event()
            self.thread = threading.Thread(target=self.serve, daemon=True)
            self.thread.start()

        def serve(self):
            while True:
                try:
                    sock, _ = self.listener.accept()
                except OSError:
                    return
                sockets.append(sock)
                threading.Thread(target=self.answer, args=(sock,), daemon=True).start()

        def answer(self, sock):
            if not sock.recv(65536):
                return
            self.seen += 1
            with contextlib.suppress(OSError):  # the client has given it up
                for piece in list(self.pieces):
                    sock.sendall(piece)
                    self.over.wait(self.pause)

    made = Raw()
    yield made
    made.over.set()
    made.listener.shutdown(socket.SHUT_RDWR)  # closed while it is waited on, its number would be another's
    made.thread.join(60)
    made.listener.close()
    for sock in sockets:
        sock.close()


def test_a_silent_server_is_asked_once_and_the_error_names_the_setting(server, sleep):
    def check(seconds):
        server.reset()
        server.script(Hang(), "Paris")
        said = rf"{seconds:g} s of silence \(timeout=\).*may still be running"
        with pytest.raises(errors.LMTimeoutError, match=said) as caught:
            Retry(HTTP("m", server.url, timeout=seconds), sleep=sleep)("q")
        server.wait_for(1)
        assert len(server.requests) == 1
        assert not caught.value.transient

    given_time(check, 0.1)


def test_the_limit_is_on_silence_and_not_on_the_whole(raw):
    body = completion({"content": "Paris"}).body
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)

    def check(seconds):
        raw.pieces, raw.pause = [head, body[:9], body[9:20], body[20:30], body[30:]], 0.4 * seconds
        assert HTTP("m", raw.url, timeout=seconds)("q").text == "Paris"  # it takes 1.6 times as long in all

    given_time(check, 0.4)


def test_a_reply_that_stops_in_the_middle_is_silence_too(raw):
    raw.pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"]
    with pytest.raises(errors.LMTimeoutError, match="timeout="):
        HTTP("m", raw.url, timeout=0.1)("q")


def test_a_request_that_later_ones_overtook_is_lost_rather_than_slow():
    def check(seconds):
        with LoopbackLM(lambda messages: Hang() if messages[-1]["content"] == "lost" else "ok") as server:
            lm = HTTP("m", server.url, timeout=seconds)
            failures = []

            def lost():
                try:
                    lm("lost")
                except errors.LMTimeoutError as error:
                    failures.append(error)

            thread = threading.Thread(target=lost)
            thread.start()
            server.wait_for(1)
            for number in range(9):
                lm(str(number))
            thread.join()
            assert [error.transient for error in failures] == [True]

    given_time(check, 0.5)


def test_a_slow_reply_comes(server):
    server.script(Delay(0.2, "Paris"))
    assert HTTP("m", server.url)("q").text == "Paris"
    assert HTTP("m", server.url).timeout >= 300


# -- addresses -------------------------------------------------------------------------------------------------------


def test_nothing_listens_there_and_it_is_said_at_once(sleep):
    waits = []

    async def note(seconds):
        waits.append(seconds)

    with socket.socket() as taken:  # by one who does not listen, so that nobody else will
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(errors.LMConnectionError, match=r"nothing listens there.*base_url="):
            Retry(HTTP("m", url), sleep=note)("q")
    assert waits == []


def test_a_missing_key_is_said_at_once_and_nothing_is_sent(sleep, escapes):
    with pytest.raises(errors.AuthenticationError, match=r"nothing was sent: set OPENAI_API_KEY .* or pass api_key="):
        Retry(HTTP("gpt-4o-mini"), sleep=sleep)("q")
    assert not escapes


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.1", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_this_machine_is_never_reached_through_a_proxy(monkeypatch, host):
    from promptgrad.lm._endpoint import Endpoint

    for name in ("http_proxy", "HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for scheme in ("http", "https"):
        assert Endpoint.of(f"{scheme}://{host}:8000/v1").proxy() is None


def test_a_proxy_gets_nothing_that_is_for_this_machine(server, monkeypatch):
    with LoopbackLM("from the proxy") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        assert HTTP("m", server.url, KEY)("q").text == "echo q"
        assert proxy.received == 0


def test_a_proxy_gets_no_key_in_the_clear(monkeypatch):
    with LoopbackLM("from the proxy") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        for more in ({"api_key": KEY}, {"headers": {"X-Key": KEY}}):
            with pytest.raises(errors.AuthenticationError, match=r"in the clear.*use https") as caught:
                HTTP("m", "http://far.example/v1", **more)("q")
            assert KEY not in str(caught.value)
        with pytest.raises(errors.AuthenticationError, match="in the clear"):
            HTTP("m", "http://me:pass@far.example/v1")("q")
        assert proxy.received == 0
        monkeypatch.setenv("OPENAI_API_KEY", KEY)  # of the environment: not sent, but nothing is refused
        assert HTTP("m", "http://far.example/v1")("q").text == "from the proxy"
        assert "authorization" not in proxy.requests[-1].headers


@pytest.mark.parametrize(
    "address",
    [
        "htp://me:pa55word@h/v1",
        "me:pa55word@h/v1",
        "http:/me:pa55word@h/v1",
        "http//me:pa55word@h/v1",
        "//me:pa55word@h:80/v1",
        "http://me:pa55word@h:port/v1",
        "http://me:pa55word@[::1/v1",
        "https://me:x/pa55word@h/v1",
        "https://me:x?pa55word@h/v1",
        "https://me:x#pa55word@h/v1",
        "http://me:pa55word@/v1",
        "http://h /v1?key=pa55word",
        "ftp://h/v1?api-key=pa55word",
        "http://me:pa55word@h\u2100/v1",
    ],
)
def test_a_misspelt_address_shows_no_password(address):
    with pytest.raises(ValueError, match="base_url must") as caught:
        HTTP("m", address)
    assert "pa55word" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_whole_address_of_the_service_is_an_address_too(server):
    assert HTTP("m", f"{server.url}/chat/completions")("q").text == "echo q"


def test_a_version_of_the_service_is_part_of_the_address(server):
    HTTP("m", server.url, api_version="2024-10-21")("q")
    assert server.requests[-1].path == "/v1/chat/completions?api-version=2024-10-21"


def test_a_key_is_sent_without_the_blanks_around_it_or_refused(server):
    HTTP("m", server.url, f" {KEY}\n")("q")
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    for bad in (f"{KEY}\nX-Other: 1", "schlüssel-geheim"):
        with pytest.raises(ValueError, match="api_key holds characters") as caught:
            HTTP("m", server.url, bad)
        assert bad not in str(caught.value)


# -- bodies ----------------------------------------------------------------------------------------------------------


def compressed(data, encoding="gzip"):
    return Garbage(data, content_type=f"application/json\r\nContent-Encoding: {encoding}")


def test_a_small_body_that_inflates_without_end_is_refused(server, sleep, monkeypatch):
    from promptgrad.lm import _body

    monkeypatch.setattr(_body, "MAX_BODY", 2**20)
    bomb = gzip.compress(b" " * (50 * 2**20))
    assert len(bomb) < 60_000
    server.script(compressed(bomb), "never asked")
    with pytest.raises(errors.LMReplyError, match="longer than 1 MiB"):
        Retry(HTTP("m", server.url), sleep=sleep)("q")
    assert server.received == 1


def test_a_body_without_end_is_refused(raw, monkeypatch):
    from promptgrad.lm import _body

    monkeypatch.setattr(_body, "MAX_BODY", 10_000)
    raw.pieces = [b"HTTP/1.1 200 OK\r\n\r\n", b" " * 20_000]
    with pytest.raises(errors.LMReplyError, match="longer than"):
        HTTP("m", raw.url)("q")
    raw.pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n", b" " * 20_000]
    with pytest.raises(errors.LMReplyError, match="longer than"):
        HTTP("m", raw.url)("q")


def test_a_compressed_body_is_read(server):
    body = completion({"content": "Paris"}).body
    server.script(compressed(gzip.compress(body)), compressed(gzip.compress(body)[:20]), compressed(b"no"))
    server.script(compressed(body, "br"))
    lm = HTTP("m", server.url)
    assert lm("q").text == "Paris"
    for _ in range(3):
        with pytest.raises(errors.LMReplyError):
            lm("q")


ODD = {
    "a number": {"content": 3},
    "texts": {"content": ["a"]},
    "transcript": {"content": None, "audio": {"data": "aGk=", "transcript": 5}},
    "a refusal that is none": {"content": None, "refusal": {"a": 1}},
    "reasoning": {"content": "x", "reasoning_content": ["a"]},
    "a part": {"content": [{"type": "text", "text": 3}]},
    "tool calls": {"content": None, "tool_calls": [{"function": {"name": 3, "arguments": "{}"}}]},
    "tool call": {"content": None, "tool_calls": ["a"]},
    "images": {"content": None, "images": [3]},
    "audio": {"content": None, "audio": {"data": "!"}},
    "no message": None,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_messages_are_reply_errors(server, name):
    server.script(completion(ODD[name]))
    with pytest.raises(errors.LMReplyError):
        HTTP("m", server.url)("q")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"choices":' * 30_000, b'{"a": ' + b"9" * 5000 + b"}", b"\x00"])
def test_odd_bodies_are_reply_errors(server, body):
    server.script(Garbage(body))
    with pytest.raises(errors.LMReplyError):
        HTTP("m", server.url)("q")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just("text"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "content",
                    "refusal",
                    "tool_calls",
                    "type",
                    "text",
                    "function",
                    "name",
                    "arguments",
                    "audio",
                    "images",
                    "reasoning_content",
                    "reasoning_details",
                    "thinking_blocks",
                    "image_url",
                    "url",
                    "data",
                    "thinking",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON)
@settings(max_examples=300, deadline=None)
def test_whatever_a_body_holds_it_is_a_completion_or_a_reply_error(message, usage, more):
    lm = HTTP("m", "http://127.0.0.1:9/v1")
    choice = {"message": message, "finish_reason": more, "logprobs": more}
    try:
        made = lm._read({"choices": [choice], "usage": usage, "model": more}, 10, 0.0)
    except errors.LMReplyError:
        return
    assert Completion.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.text == str(made.text)
    assert made.usage.input_tokens >= 0
    assert made.usage.output_tokens >= 0


@pytest.mark.parametrize("value", [-500, True, 1e30, 10**30, "7", None, [7]])
def test_usage_that_no_call_can_have_is_estimated(server, value):
    server.script(completion({"content": "x" * 40}, usage={"prompt_tokens": value, "completion_tokens": value}))
    used = HTTP("m", server.url, prices=(1.0, 1.0))("q").usage
    assert isinstance(used, Usage)
    assert (used.output_tokens, type(used.input_tokens)) == (11, int)
    assert 0 < used.input_tokens < 1000


def test_the_price_is_known_before_anything_is_sent(server, monkeypatch):
    from promptgrad.lm import _http

    asked = []
    monkeypatch.setattr(_http, "find_prices", lambda name: asked.append((name, server.received)) or (1.0, 1.0))
    lm = HTTP("m", server.url)
    server.script(Reply("x", usage=(10**6, 0)))
    assert lm("q").usage.usd == 1.0
    lm("q")
    assert asked == [("m", 0)]


def test_counts_are_those_of_the_server(server):
    server.script(Status(500), "a", Garbage(), "b")
    lm = HTTP("m", server.url)
    for _ in range(4):
        with contextlib.suppress(errors.LMError):
            lm("q")
    stats = lm.stats()
    assert (stats["requests"], stats["in_flight"]) == (server.received, 0)


@pytest.mark.parametrize(("answer", "kind", "received"), [(Hang(), "silent", 3), (Status(504), "too slow", 7)])
def test_a_silence_counts_against_a_budget_of_calls_and_what_the_server_says_does_not(server, answer, kind, received):
    """What was silent may still be running there, and be billed."""
    server.script(*[answer] * 7)
    lm = HTTP("m", server.url, timeout=0.05)
    with run.active(ledger=run.Ledger(run.Budget(calls=3))) as session:
        for number in range(7):
            with pytest.raises((errors.LMTimeoutError, errors.BudgetExceeded)):
                lm(f"{kind} {number}")
        spent = session.ledger.spent
    assert server.received == spent.failed == received
    assert (spent.calls, spent.failed_calls) == (0, 3 if kind == "silent" else 0)


def event(**chunk):
    return f"data: {json.dumps(chunk)}\n\n"


USAGE = {"prompt_tokens": 70, "completion_tokens": 30}
BILLED = {
    "no message": Garbage(json.dumps({"choices": [{"finish_reason": "stop"}], "usage": USAGE}).encode()),
    "no choices": Garbage(json.dumps({"choices": [], "usage": USAGE}).encode()),
    "an error": Garbage(json.dumps({"error": {"message": "it fell over", "code": 500}, "usage": USAGE}).encode()),
}


@pytest.mark.parametrize("kind", ["calls", "tokens"])
@pytest.mark.parametrize("name", BILLED)
def test_what_a_failed_request_cost_counts_as_far_as_it_is_known(server, tmp_path, name, kind):
    path, lm = tmp_path / "j", HTTP("m", server.url, prices=(1.0, 2.0))
    server.script(*[BILLED[name]] * 9)
    for wanted in (3, 5):  # the second process goes on with what the first one left
        with run.Journal(path) as journal:
            budget = run.Budget(calls=wanted) if kind == "calls" else run.Budget(tokens=wanted * 100)
            ledger = run.Ledger(budget, journal)
            with run.active(journal=journal, ledger=ledger):
                for number in range(9):
                    with contextlib.suppress(errors.LMError, errors.BudgetExceeded):
                        lm(f"{wanted} {number}", max_tokens=8)
        assert server.received == wanted
        assert journal.billed == (wanted, wanted * 100, wanted * 130 * 10**6, 0)
        assert journal.totals == (0, 0, 0, 0)
        spent = ledger.spent
        assert (spent.calls, spent.failed_calls) == (0, wanted)
        assert spent.failed == (3 if wanted == 3 else 2)
        assert (spent.tokens, spent.failed_tokens, spent.failed_usd) == (0, wanted * 100, wanted * 130 / 1e6)
        again = run.Ledger(run.Budget(), run.Journal(path, readonly=True)).spent
        assert (again.tokens, again.failed_tokens, again.failed_usd) == (0, spent.failed_tokens, spent.failed_usd)
    with pytest.raises(errors.LMError) as caught:
        lm("q")
    assert caught.value.billed == {"input_tokens": 70, "output_tokens": 30, "usd": 130e-6}
    with usage() as used, contextlib.suppress(errors.LMError):
        lm("q")
    assert (used.calls, used.input_tokens, used.output_tokens, used.usd) == (0, 70, 30, 130e-6)
    assert used.by_lm["m"].tokens == used.by_module["(elsewhere)"].tokens == 100


@pytest.mark.parametrize(
    ("end", "billed"),
    [
        (event(choices=[], usage=USAGE), (70, 30)),  # and then it breaks off
        (event(choices=[{"delta": 5}], usage=USAGE), (70, 30)),
        (event(error={"message": "it fell over", "code": 500}, usage=USAGE), (70, 30)),
        (event(choices=[{"delta": {"content": "b"}}]), None),
        (event(choices=[], usage={"prompt_tokens": -5, "completion_tokens": "x"}), None),
    ],
)
def test_so_in_a_stream(server, end, billed):
    body = (event(choices=[{"delta": {"content": "a"}}]) + end).encode()
    server.script(Garbage(body, content_type="text/event-stream"))

    async def streamed():
        return [delta async for delta in HTTP("m", server.url).stream("q")]

    with pytest.raises(errors.LMError) as caught:
        aio.run(streamed())
    found = caught.value.billed
    assert (found and (found["input_tokens"], found["output_tokens"])) == billed


def test_what_is_written_is_for_its_owner_alone(server, tmp_path):
    import stat

    from promptgrad import lm, nn, run, save

    model = nn.Predict("question -> answer")
    save(model.state_dict(), tmp_path / "state.json")
    save(model, tmp_path / "program")
    with run.Journal(tmp_path / "journal.jsonl") as journal, run.active(journal=journal):
        HTTP("m", server.url)("q")
    with lm.record(tmp_path / "cassette.jsonl"):
        HTTP("m", server.url)("other")
    for name in ("state.json", "program", "journal.jsonl", "cassette.jsonl"):
        mode = stat.S_IMODE((tmp_path / name).stat().st_mode)
        assert mode & 0o077 == 0, (name, oct(mode))
