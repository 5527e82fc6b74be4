import asyncio
import http.client
import json
import socket
import threading
import time

import pytest

from promptgrad.testing import (
    Cut,
    Delay,
    Drop,
    Garbage,
    Hang,
    LoopbackLM,
    LoopbackProcess,
    Reply,
    Status,
)


@pytest.fixture
def server():
    with LoopbackLM() as server:
        yield server


@pytest.fixture
def client(server):
    connection = connect(server.url)
    yield connection
    connection.close()


def connect(url):
    return http.client.HTTPConnection(url.split("/")[2], timeout=60)


def ask(client, *contents, **more):
    messages = [{"role": "user", "content": content} for content in contents or ("one two three",)]
    body = json.dumps({"model": "m", "messages": messages, **more})
    client.request("POST", "/v1/chat/completions", body, {"X-Test": "yes"})
    with client.getresponse() as response:
        return response, response.read()


def text(answer):
    return json.loads(answer[1])["choices"][0]["message"]["content"]


def test_the_script_is_answered_in_order_on_one_connection(server, client):
    server.script("Paris", 'quoted "ü"\n', "Rome")
    assert [text(ask(client)) for _ in range(3)] == ["Paris", 'quoted "ü"\n', "Rome"]
    assert server.connections == 1


def test_a_completion_is_what_openai_sends(server, client):
    server.script("four words of reply")
    response, body = ask(client, "one two three", "four")
    payload = json.loads(body)
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert payload["object"] == "chat.completion"
    assert payload["model"] == "m"
    assert payload["choices"][0]["finish_reason"] == "stop"
    assert payload["usage"] == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}


def test_a_reply_says_its_own_usage_model_and_reason(server, client):
    server.script(Reply("x", finish_reason="length", usage=(7, 11), model="other"))
    payload = json.loads(ask(client)[1])
    assert payload["usage"]["total_tokens"] == 18
    assert payload["model"] == "other"
    assert payload["choices"][0]["finish_reason"] == "length"


def test_requests_are_recorded_with_headers_and_body(server, client):
    server.script("a", "b")
    ask(client, "hello there")
    ask(client, "again", temperature=0.5)
    first, second = server.requests
    assert (first.method, first.path, first.index) == ("POST", "/v1/chat/completions", 0)
    assert first.headers["x-test"] == "yes"
    assert first.prompt == "hello there"
    assert second.json["temperature"] == 0.5


def test_respond_gets_the_messages_after_the_script():
    with LoopbackLM(lambda messages: messages[-1]["content"].upper()) as server:
        server.script("scripted")
        client = connect(server.url)
        assert text(ask(client, "hello")) == "scripted"
        assert text(ask(client, "hello")) == "HELLO"
        client.close()


def test_an_ended_script_and_a_raising_respond_are_told_to_the_client(server, client):
    response, body = ask(client)
    assert response.status == 400
    assert b"script has ended" in body
    server._script.respond = lambda messages: messages[99]
    response, body = ask(client)
    assert response.status == 500
    assert b"IndexError" in body


def test_a_status_carries_retry_after_and_its_code(server, client):
    server.script(Status(429, retry_after=7), Status(400, kind="context_length_exceeded"), "ok")
    response, _ = ask(client)
    assert (response.status, response.headers["Retry-After"]) == (429, "7")
    response, body = ask(client)
    assert response.headers["Retry-After"] is None
    assert json.loads(body)["error"]["code"] == "context_length_exceeded"
    assert text(ask(client)) == "ok"


def test_a_cut_body_is_shorter_than_promised(server, client):
    server.script(Cut())
    with pytest.raises(http.client.IncompleteRead):
        ask(client)


def test_a_dropped_connection_sends_nothing(server, client):
    server.script(Drop())
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        ask(client)


def test_garbage_is_a_complete_reply_that_is_no_completion(server, client):
    server.script(Garbage(), Garbage(b"{}", code=502))
    response, body = ask(client)
    assert (response.status, body) == (200, b"<html>502 Bad Gateway</html>")
    assert ask(client)[0].status == 502


def test_a_hanging_request_is_in_flight_until_the_client_leaves(server):
    server.script(Hang(), "next")
    impatient = socket.create_connection(server.url.split("/")[2].split(":"), timeout=60)
    impatient.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
    server.wait_for(1)
    assert server.in_flight == 1
    impatient.settimeout(0.05)
    with pytest.raises(TimeoutError):
        impatient.recv(100)
    with pytest.raises(TimeoutError, match="1 requests still wait"):
        server.wait_idle(timeout=0.01)
    impatient.close()
    server.wait_idle()
    client = connect(server.url)
    assert text(ask(client)) == "next"
    client.close()


def test_a_delay_waits_then_gives_the_next_of_the_script(server, client):
    server.script(Delay(0.05), "late", Delay(0.02, Status(500)))
    start = time.perf_counter()
    assert text(ask(client)) == "late"
    assert time.perf_counter() - start >= 0.05
    assert ask(client)[0].status == 500


def test_held_requests_are_answered_together_and_counted(server):
    server.hold()
    server.script(*"abcde")
    answers = []

    def call():
        client = connect(server.url)
        answers.append(text(ask(client)))
        client.close()

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    server.wait_for(5)
    assert answers == []
    assert server.in_flight == 5
    server.release()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == list("abcde")
    assert server.in_flight_high_water == 5
    assert server.in_flight == 0


def test_waiting_for_requests_that_do_not_come_times_out(server):
    with pytest.raises(TimeoutError, match="0 of 1 requests"):
        server.wait_for(1, timeout=0.01)


def test_split_pipelined_and_chunked_requests_are_understood(server):
    server.script("one", "two")
    body = json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode()
    plain = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    chunked = (
        b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    )
    with socket.create_connection(server.url.split("/")[2].split(":"), timeout=60) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        both = plain + chunked
        for start in range(0, len(both), 37):
            raw.sendall(both[start : start + 37])
        received = b"".join(iter(lambda: raw.recv(65536), b""))
    assert received.index(b'"one"') < received.index(b'"two"')


def events(body):
    return [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]


def test_a_stream_sends_the_reply_in_events_and_then_the_usage_if_asked(server, client):
    reply = Reply("one two", reasoning="hm", tool_calls=[("go", {"x": 1})], refusal="no", logprobs=[("one", -0.5)])
    server.script(reply, reply)
    response, body = ask(client, stream=True, stream_options={"include_usage": True})
    assert response.getheader("content-type") == "text/event-stream"
    *chunks, last = events(body)
    assert last == "[DONE]"
    chunks = [json.loads(chunk) for chunk in chunks]
    assert chunks.pop()["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("content") for delta in deltas if delta.get("content")] == ["one ", "two"]
    assert [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta] == ["hm"]
    assert [delta["refusal"] for delta in deltas if "refusal" in delta] == ["no"]
    calls = [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta]
    assert (calls[0]["name"], "".join(call["arguments"] for call in calls)) == ("go", '{"x": 1}')
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any("usage" in chunk for chunk in map(json.loads, events(ask(client, stream=True)[1])[:-1]))


def test_nonsense_is_refused_as_a_bad_request(server, client):
    server.script("x")
    client.request("POST", "/v1/chat/completions", b"not json")
    response = client.getresponse()
    assert response.status == 400
    assert b"not a chat completion request" in response.read()


def test_a_reset_forgets_requests_counts_and_script(server, client):
    server.script("a", "b")
    ask(client)
    server.reset()
    assert (server.requests, server.in_flight_high_water) == ([], 0)
    assert ask(client)[0].status == 400


def test_a_taken_port_raises_where_the_server_is_made(server):
    port = int(server.url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match="address already in use"):
        LoopbackLM(port=port)


def test_closing_twice_is_fine_and_refuses_new_connections():
    server = LoopbackLM("x")
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        ask(connect(server.url))


def test_the_process_serves_counts_and_ends_with_its_owner():
    with LoopbackProcess("hi there", latency=0.01) as server:
        client = connect(server.url)
        assert text(ask(client)) == "hi there"
        assert text(ask(client)) == "hi there"
        client.close()
        stats = server.stats()
        assert (stats["requests"], stats["in_flight"], stats["in_flight_high_water"]) == (2, 0, 1)
        server.reset()
        assert server.stats()["requests"] == 0
        process = server._process
    assert process.returncode == 0


def test_many_at_once_are_all_in_flight_together():
    async def one(host, port):
        reader, writer = await asyncio.open_connection(host, port)
        body = b'{"messages":[{"role":"user","content":"x"}]}'
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def all_of_them(host, port):
        calls = asyncio.gather(*(one(host, port) for _ in range(200)))
        await asyncio.to_thread(server.wait_for, 200)
        server.release()
        return await calls

    with LoopbackLM("ok") as server:
        server.hold()
        host, port = server.url.split("/")[2].split(":")
        answers = asyncio.run(all_of_them(host, int(port)))
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert server.in_flight_high_water == 200


def test_no_two_servers_of_a_process_have_one_address():
    addresses = []
    for _ in range(150):
        with LoopbackLM("x") as server:
            addresses.append(server.url)
    assert len({*addresses}) == 150  # a system gives a port again: one pair of these, two times of three


def test_no_server_of_another_process_comes_to_an_address_where_one_was():
    with LoopbackLM("Paris") as server:
        used = connect(server.url)
        ask(used)
        used.close()
        host, port = server.url.split("/")[2].split(":")
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((host, int(port)))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    with LoopbackLM("Rome", port=int(port)) as again:  # who names it may have it again
        assert again.url == server.url
