import asyncio
import copy
import gc
import json
import os
import pickle
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from promptgrad import aio, run
from promptgrad.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceeded,
    ContextWindowError,
    LMConnectionError,
    LMReplyError,
    LMStatusError,
    LMTimeoutError,
    OverloadedError,
    RateLimitError,
)
from promptgrad.lm import HTTP, Message, Prefix, Request
from promptgrad.testing import Cut, Drop, Garbage, Hang, Reply, Status
from tests.waiting import until

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def lm(server):
    made = HTTP("tiny", server.url)
    yield made
    made.close()


def body(content, **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return Garbage(json.dumps({"choices": [choice], **more}).encode())


def test_one_call(server, lm):
    server.script(Reply("Paris", finish_reason="length", usage=(7, 2), model="tiny-0613"))
    completion = lm("Capital of France?")
    assert completion.text == "Paris"
    assert completion.model == "tiny-0613"
    assert completion.finish_reason == "length"
    used = completion.usage
    assert (used.calls, used.input_tokens, used.output_tokens, used.usd, used.cached) == (1, 7, 2, None, 0)
    assert used.seconds > 0


def test_what_is_sent(server, lm):
    prefix = Prefix([Message("system", 'Be brief. "ü"')])
    request = Request(prefix, (Message("user", "hi ☃"),), 0.5, 9, 0.9, ("x",), 3)
    lm(request.replace(response_format={"type": "json_object"}, top_k=4, replicate=2))
    sent = server.requests[-1]
    assert sent.path == "/v1/chat/completions"
    assert sent.json == {
        "model": "tiny",
        "messages": [{"role": "system", "content": 'Be brief. "ü"'}, {"role": "user", "content": "hi ☃"}],
        "temperature": 0.5,
        "max_tokens": 9,
        "top_p": 0.9,
        "stop": ["x"],
        "seed": 5,
        "response_format": {"type": "json_object"},
        "top_k": 4,
    }
    assert sent.headers["content-type"] == "application/json"
    assert "authorization" not in sent.headers
    assert "idempotency-key" not in sent.headers


def test_a_request_may_be_a_prefix_alone_or_a_tail_alone(server, lm):
    lm(Prefix([Message("user", "a")]))
    lm("b")
    assert [[m["content"] for m in r.messages] for r in server.requests] == [["a"], ["b"]]


def test_options_that_would_break_the_call_are_refused(lm):
    for name in ("stream", "model", "messages", "n"):
        with pytest.raises((TypeError, ValueError), match=name):
            lm("hi", **{name: 2})
    with pytest.raises(ValueError, match="stream"):
        HTTP("m", stream=True)


def test_openai_itself_is_told_max_completion_tokens():
    from promptgrad.lm._fields import encode_fields

    assert b'"max_completion_tokens":5' in encode_fields("m", HTTP("m")._habits.lacks, Request.of("x", max_tokens=5))


def test_threads_loops_and_a_notebook_cell(server, lm):
    async def caller():
        many = await asyncio.gather(*[lm.acall(str(i)) for i in range(20)])
        return [c.text for c in many], lm("cell").text

    expected = [f"echo {i}" for i in range(20)], "echo cell"
    assert asyncio.run(caller()) == expected
    assert asyncio.run(caller()) == expected  # a second loop, after the first one was closed
    assert [c.text for c in aio.run(_gather(lm, 20))] == expected[0]
    texts = [""] * 20
    threads = [threading.Thread(target=lambda i=i: texts.__setitem__(i, lm(str(i)).text)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == expected[0]


async def _gather(lm, count):
    return await asyncio.gather(*[lm.acall(str(i)) for i in range(count)])


@pytest.fixture
def plain_server():
    """A server that answers every request as `answer(handler)` says, and keeps what it was sent."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path, dict(self.headers)))
            status, headers = made.answer(self.path)
            reply = body("Paris").body
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(reply))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST

        def log_message(self, *arguments):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.requests = requests
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join(60)
    made.server_close()


def test_no_redirect_is_followed_with_the_key(plain_server):
    elsewhere = f"http://127.0.0.1:{plain_server.server_port}/elsewhere"
    plain_server.answer = lambda path: (200, {}) if path == "/elsewhere" else (307, {"Location": elsewhere})
    made = HTTP("tiny", f"http://127.0.0.1:{plain_server.server_port}/v1", KEY)
    with pytest.raises(LMStatusError, match="redirects are not followed") as caught:
        made("hi")
    made.close()
    assert caught.value.status == 307
    assert [path for path, _ in plain_server.requests] == ["/v1/chat/completions"]


def test_no_cookie_is_kept(plain_server):
    plain_server.answer = lambda path: (200, {"Set-Cookie": "session=1; Path=/"})
    made = HTTP("tiny", f"http://localhost:{plain_server.server_port}/v1")
    assert [made("hi").text for _ in range(2)] == ["Paris", "Paris"]
    made.close()
    assert [headers.get("Cookie") for _, headers in plain_server.requests] == [None, None]


def test_connections_are_kept_alive(server, lm):
    for i in range(5):
        lm(str(i))
    assert server.connections == 1


def test_256_in_flight(server, lm):
    server.hold()
    done = []
    thread = threading.Thread(target=lambda: done.extend(aio.run(_gather(lm, 256))))
    thread.start()
    server.wait_for(256)
    server.release()
    thread.join(60)
    assert len(done) == 256
    assert server.in_flight_high_water == 256


def test_concurrency_caps_what_is_in_flight(server):
    lm = HTTP("tiny", server.url, concurrency=3)
    server.hold()
    done = []
    thread = threading.Thread(target=lambda: done.extend(aio.run(_gather(lm, 10))))
    thread.start()
    server.wait_for(3)
    server.release()
    thread.join(60)
    assert len(done) == 10
    assert server.in_flight_high_water == 3


def test_cancelling_gives_the_place_back(server):
    lm = HTTP("tiny", server.url, concurrency=1)
    server.script(Hang())

    async def main():
        hanging = asyncio.ensure_future(lm.acall("a"))
        await asyncio.to_thread(server.wait_for, 1)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        return (await lm.acall("b")).text

    assert asyncio.run(main()) == "echo b"


def test_a_server_that_is_down():
    lm = HTTP("tiny", "http://127.0.0.1:9/v1")
    with pytest.raises(LMConnectionError, match=r"cannot reach http://127\.0\.0\.1:9/v1.*does the server run"):
        lm("hi")


def test_a_host_that_does_not_exist(escapes):
    with pytest.raises(LMConnectionError):
        HTTP("tiny", "http://no-such-host.invalid/v1")("hi")
    escapes.clear()


def test_timeout(server):
    server.script(Hang())
    with pytest.raises(LMTimeoutError, match=r"within 0\.05 s"):
        HTTP("tiny", server.url, timeout=0.05)("hi")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status(429, retry_after=7), RateLimitError),
        (Status(500), LMStatusError),
        (Status(401), AuthenticationError),
        (Status(403), AuthenticationError),
        (Status(404), BadRequestError),
        (Status(503), OverloadedError),
        (Status(418), BadRequestError),
        (Status(400, kind="context_length_exceeded"), ContextWindowError),
        (Status(400, message="This model's maximum context length is 10 tokens"), ContextWindowError),
        (Status(307), LMStatusError),
    ],
)
def test_statuses(server, lm, status, kind):
    server.script(status)
    with pytest.raises(LMStatusError) as caught:
        lm("hi")
    error = caught.value
    assert type(error) is kind
    assert error.status == status.code
    assert error.retry_after == status.retry_after
    assert status.message in error.body
    assert str(status.code) in str(error)


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_retry_after_as_a_date(seconds):
    from promptgrad.lm._retry_after import read_retry_after

    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)
    assert read_retry_after({"Retry-After": date}) == pytest.approx(max(0, seconds), abs=120)


def test_retry_after_in_other_spellings():
    from promptgrad.lm._retry_after import read_retry_after

    assert read_retry_after({"retry-after-ms": "1500"}) == 1.5
    assert read_retry_after({"Retry-After": "0.25"}) == 0.25
    assert read_retry_after({"Retry-After": "soon"}) is None
    for text, seconds in (("5s", 5), ("5 seconds", 5), ("1m30s", 90), ("250ms", 0.25)):
        assert read_retry_after({"retry-after": text}) == seconds
    assert read_retry_after({"x-ms-retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    moment = datetime.now(timezone.utc) + timedelta(seconds=300)
    for text in (moment.isoformat(), f"{moment:%Y-%m-%dT%H:%M:%SZ}", str(int(moment.timestamp()))):
        assert read_retry_after({"retry-after": text}) == pytest.approx(300, abs=120)
    assert read_retry_after({}) is None


def test_an_error_in_a_list_is_read_also_in_an_answer_of_status_200(server, lm):
    server.script(Garbage(b'[{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}]'))
    with pytest.raises(AuthenticationError):
        lm("hi")


def test_spoilt_bodies(server, lm):
    server.script(Cut(), Garbage(), Garbage(b"[]"), Garbage(b"{}"), Garbage(b'{"choices": []}'), Garbage(b"\xff\xfe"))
    server.script(Garbage(b'{"choices": [{"message": {"content": 3}}]}'), Garbage(b'{"error": "x"}'), Garbage(b""))
    for _ in range(9):
        with pytest.raises(LMReplyError):
            lm("hi")
    server.script(Garbage(b'{"choices": [{"message": {}}]}'))
    with pytest.raises(LMReplyError, match=r"no choices\[0\]\.message") as caught:
        lm("hi")
    assert caught.value.body == '{"choices": [{"message": {}}]}'


def test_a_dropped_connection(server, lm):
    server.script(Drop())
    with pytest.raises(LMConnectionError):
        lm("hi")
    assert lm("hi").text == "echo hi"


def test_missing_usage_is_estimated(server, lm):
    server.script(body("x" * 40), body("x" * 40, usage=None), body("x" * 40, usage={"prompt_tokens": None}))
    for _ in range(3):
        used = lm("hi").usage
        assert used.calls == 1
        assert used.output_tokens == 11
        assert used.input_tokens > 0
    server.script(body("x", usage=None), body("x", usage=None))
    short, long = (lm("x" * letters).usage.input_tokens for letters in (40, 4040))
    assert long == short + 1000
    assert short < 100


def test_a_server_that_reports_0_tokens_does_not_count_them(server, lm):
    async def streamed():
        return [event async for event in lm.stream("hi")][-1]

    for ask in (lambda: lm("hi"), lambda: aio.run(streamed())):
        server.script(*[Reply("x" * 40, usage=usage) for usage in ((0, 0), (0, 7), (9, 0))])
        used = [ask().usage for _ in range(3)]
        assert [(one.input_tokens > 0, one.output_tokens) for one in used] == [(True, 11), (True, 7), (True, 0)]


def test_a_budget_of_tokens_holds_with_a_server_that_reports_none(server, lm):
    server.respond = lambda messages: Reply("x" * 40, usage=(0, 0))
    ledger = run.Ledger(run.Budget(tokens=400))
    with run.active(ledger=ledger), pytest.raises(BudgetExceeded):
        [lm(f"question {number}", max_tokens=20) for number in range(100)]
    assert 1 < server.received < 40
    assert 0 < ledger.spent.tokens <= 400


def test_content_null_refusals_and_parts(server, lm):
    server.script(body(None))
    assert lm("hi").text == ""
    refusal = {"choices": [{"message": {"content": None, "refusal": "I cannot."}, "finish_reason": None}]}
    server.script(Garbage(json.dumps(refusal).encode()))
    completion = lm("hi")
    assert (completion.text, completion.refusal, completion.finish_reason) == ("", "I cannot.", "stop")
    server.script(body([{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]))
    assert lm("hi").text == "ab"


def test_prices(server):
    server.script(Reply("x", usage=(1_000_000, 2_000_000)))
    assert HTTP("tiny", server.url, prices=(0.5, 2.0))("hi").usage.usd == pytest.approx(4.5)
    server.script(Reply("x", usage=(1_000_000, 0)))
    known = HTTP("gpt-4o-mini", server.url, name="openai/gpt-4o-mini")("hi")
    assert known.usage.usd == pytest.approx(0.15)


def test_a_key_is_sent_and_never_shown(server, monkeypatch):
    lm = HTTP("tiny", server.url, KEY, headers={"X-Team": "secret-team"})
    server.script(Status(401, message=f"Incorrect API key provided: {KEY} for secret-team"))
    with pytest.raises(AuthenticationError) as caught:
        lm("hi")
    sent = server.requests[-1].headers
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["x-team"] == "secret-team"
    error = caught.value
    shown = [repr(lm), str(lm), lm.identity(), lm.name, lm.base_url, repr(vars(lm)), str(error), error.body]
    shown += [f"{lm._api_key}", str(lm._api_key)]
    assert not [text for text in shown if KEY in text or "secret-team" in text]
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(lm._api_key)
    assert copy.deepcopy(lm) is lm


def test_a_key_from_the_environment_is_read_at_each_call(server, monkeypatch):
    lm = HTTP("tiny", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    server.script(Status(500, message=f"oops {KEY}"))
    with pytest.raises(LMStatusError) as caught:
        lm("hi")
    assert KEY not in str(caught.value) + caught.value.body + repr(vars(lm))
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    lm("hi")
    assert server.requests[-1].headers["authorization"] == "Bearer other"
    HTTP("tiny", server.url, api_key_env=None)("hi")
    assert "authorization" not in server.requests[-1].headers
    HTTP("tiny", server.url, "")("hi")
    assert "authorization" not in server.requests[-1].headers


def test_a_key_from_the_environment_is_not_sent_in_the_clear(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert HTTP("m", "http://far.example/v1")._authorization() == ""
    assert HTTP("m", "https://far.example/v1")._authorization() == f"Bearer {KEY}"
    assert HTTP("m", "http://far.example/v1", "mine")._authorization() == "Bearer mine"


def test_user_and_password_in_the_address_are_sent_and_not_shown(server):
    lm = HTTP("tiny", server.url.replace("http://", "http://me:p%40ss@"))
    lm("hi")
    assert server.requests[-1].headers["authorization"] == "Basic bWU6cEBzcw=="
    assert lm.base_url == server.url
    shown = repr(lm) + lm.identity() + repr(vars(lm))
    assert "p@ss" not in shown
    assert "p%40ss" not in shown
    assert "bWU6cEBzcw" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://x/v1",
        "",
        "http://",
        "file:///etc/passwd",
        "http://http://h/v1",
        "unix:///tmp/s",
        "//h/v1",
    ],
)
def test_an_address_must_be_an_address(url):
    with pytest.raises(ValueError, match="must look like"):
        HTTP("m", url)


def test_a_host_alone_is_told_where_chats_may_be(server):
    host = server.url.removesuffix("/v1")
    server.script(Status(404), Status(404), Status(404), "hi")
    for form in (host, f"{host}/"):
        with pytest.raises(BadRequestError, match=f"is its base_url {host}/v1\\?"):
            HTTP("tiny", form)("hi")
    with pytest.raises(BadRequestError, match="does base_url end where /chat/completions begins"):
        HTTP("tiny", f"{host}/v1/models")("hi")
    assert HTTP("tiny", f"{host}/v1//")("hi").text


def test_an_address_holds_no_query():
    with pytest.raises(ValueError, match="must end where") as caught:
        HTTP("m", "http://h/v1?api-key=sk-1")
    assert "sk-1" not in str(caught.value)
    with pytest.raises(ValueError, match="must look like") as caught:
        HTTP("m", "ftp://me:pass@h/v1?api-key=sk-1")
    assert "pass" not in str(caught.value)


def test_identity_tells_endpoints_models_and_options_apart():
    made = [HTTP("a", "http://h/v1"), HTTP("b", "http://h/v1"), HTTP("a", "http://g/v1")]
    made.append(HTTP("a", "http://h/v1", temperature=0))
    assert len({lm.identity() for lm in made}) == 4
    assert HTTP("a", "http://h/v1/", "key").identity() == made[0].identity()


def test_proxies_come_from_the_environment(monkeypatch):
    from promptgrad.lm._endpoint import Endpoint

    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert Endpoint.of("http://far.example/v1").proxy() is None
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Endpoint.of("http://far.example/v1").proxy() == "http://proxy:3128"
    assert Endpoint.of("http://127.0.0.1/v1").proxy() is None


def test_a_session_that_somebody_else_closed_is_replaced_once(server, lm):
    """What one who finds the session of aiohttp may do to it; the one in its place stays open."""

    async def calls():
        await lm.complete(Request(Prefix(), (Message("user", "1"),)))
        closed = lm._sessions.find()
        await closed.client.close()
        await lm.complete(Request(Prefix(), (Message("user", "2"),)))
        made = lm._sessions.find()
        for number in range(3, 6):
            gc.collect()
            await asyncio.sleep(0)
            await lm.complete(Request(Prefix(), (Message("user", str(number)),)))
        return made is closed, made is lm._sessions.find(), made.client.closed

    assert asyncio.run(calls()) == (False, True, False)
    assert len(server.requests) == 5


def test_it_works_again_after_close(server, lm):
    lm("a")
    lm.close()
    assert lm("b").text == "echo b"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_and_its_parent_both_go_on(server, lm):
    assert lm("before").text == "echo before"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if lm("child").text == "echo child" else 2
        finally:
            os._exit(status)
    ended = []

    def has_ended():
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            ended.append(status)
        return done

    until(has_ended)
    assert ended == [0]
    assert lm("after").text == "echo after"
    assert {r.prompt for r in server.requests} == {"before", "child", "after"}


def test_another_model_at_the_same_endpoint(server, monkeypatch):
    made = HTTP(
        "tiny", server.url, KEY, name="openai/tiny", prices=(1.0, 2.0), headers={"X-A": "b"}, top_p=0.5, concurrency=2
    )
    other = made.with_model("ft:tiny:x")
    server.script("a", "b")
    other("q")
    made("q")
    first, second = server.requests[-2:]
    assert (first.json["model"], second.json["model"]) == ("ft:tiny:x", "tiny")
    assert first.json["top_p"] == 0.5
    assert (first.headers["authorization"], first.headers["x-a"]) == (f"Bearer {KEY}", "b")
    assert (other.name, other.concurrency, other.prices) == ("openai/ft:tiny:x", 2, None)
    assert made.prices == (1.0, 2.0)
    assert other.identity() == HTTP("ft:tiny:x", server.url, top_p=0.5).identity() != made.identity()
    assert other.endpoint == HTTP("ft:tiny:x", server.url).endpoint
    assert other.stats()["requests"] == made.stats()["requests"] == 1
    again = pickle.loads(pickle.dumps(other))
    assert (again.name, again.identity(), again.prices) == (other.name, other.identity(), None)
    assert KEY.encode() not in pickle.dumps(other)
    free = HTTP("tiny", server.url, prices=(0.0, 0.0)).with_model("x")
    assert free.prices == (0.0, 0.0)
    for lm in (made, other, free):
        lm.close()
