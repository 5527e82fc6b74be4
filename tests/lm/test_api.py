"""What a server offers beside completions, over the connections, key and errors of an `HTTP`."""

import asyncio

import pytest

from promptgrad.errors import AuthenticationError, BadRequestError, LMConnectionError, LMReplyError, LMStatusError
from promptgrad.lm import HTTP, Api
from promptgrad.testing import Drop, Garbage, LoopbackJobs, LoopbackLM, Status

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def jobs():
    return LoopbackJobs()


@pytest.fixture
def server(jobs):
    with LoopbackLM("ok", jobs=jobs) as made:
        yield made


@pytest.fixture
def waits():
    return []


@pytest.fixture
def api(server, waits):
    async def note(seconds):
        waits.append(seconds)

    return Api(HTTP("tiny", server.url, KEY), sleep=note)


def test_a_file_goes_there_whole(api, jobs):
    data = bytes(range(256)) + b"\r\n--x\r\n"
    made = asyncio.run(api.upload("files", "data.bin", data, purpose="fine-tune"))
    assert jobs.files[made["id"]] == ("data.bin", "fine-tune", data)


def test_it_uses_the_connections_and_the_key_of_its_lm(api, server, jobs):
    seen = []
    answer = jobs.answer
    jobs.answer = lambda request: (seen.append(request), answer(request))[1]

    async def all_three():
        await api.http.acall("hi")
        await api.get("files", purpose="fine-tune", after=None)
        await api.upload("files", "f", b"", key="mark", purpose="fine-tune")
        return await api.post("fine_tuning/jobs", {"training_file": "file-1"})

    asyncio.run(all_three())
    assert server.connections == 1
    assert [request.path for request in seen] == ["/v1/files?purpose=fine-tune", "/v1/files", "/v1/fine_tuning/jobs"]
    assert [request.headers["authorization"] for request in seen] == [f"Bearer {KEY}"] * 3
    assert [request.headers.get("idempotency-key") for request in seen] == [None, "mark", None]
    assert seen[2].json == {"training_file": "file-1"}
    assert api.http.stats()["answered"] == 4


def test_a_version_stays_in_the_address(server, jobs):
    seen = []
    answer = jobs.answer
    jobs.answer = lambda request: (seen.append(request.path), answer(request))[1]
    api = Api(HTTP("tiny", server.url, KEY, api_version="2024-10-21"))
    asyncio.run(api.get("files", limit=3))
    assert seen == ["/v1/files?api-version=2024-10-21&limit=3"]


def test_what_passes_is_asked_again_and_what_was_perhaps_done_is_not(api, jobs, waits):
    jobs.script(Status(429, retry_after=3), Status(500), Drop(), Garbage(b"["))
    assert asyncio.run(api.get("files"))["data"] == []
    assert len(waits) == 3  # a GET whose kept connection was closed goes out anew at once
    assert waits[0] >= 3
    jobs.script(Status(429), Status(503), Status(500))
    with pytest.raises(LMStatusError, match="answered 500 to POST files"):
        asyncio.run(api.upload("files", "f", b"", purpose="fine-tune"))
    jobs.script(Drop())
    with pytest.raises(LMConnectionError):
        asyncio.run(api.post("fine_tuning/jobs", {}))
    assert jobs.requests.count("POST files") == 3
    assert jobs.requests.count("POST fine_tuning/jobs") == 1


def test_errors_are_told_by_kind_and_without_the_key(api, jobs):
    jobs.script(Status(401, message=f"the key {KEY} is wrong", kind="invalid_api_key"))
    with pytest.raises(AuthenticationError, match=r"to GET files: .*the key \*\*\* is wrong") as caught:
        asyncio.run(api.get("files"))
    assert KEY not in str(caught.value) + caught.value.body
    with pytest.raises(BadRequestError, match=r"404 to GET fine_tuning/jobs/x: .*no job x") as caught:
        asyncio.run(api.get("fine_tuning/jobs/x"))
    assert "served there" not in str(caught.value)
    jobs.script(*[Garbage(b"[1]")] * 5)
    with pytest.raises(LMReplyError, match="is not a JSON object"):
        asyncio.run(api.get("files"))


def test_known_secrets_are_found(api, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("SHORT_TOKEN", "yes")
    assert api.secret_in(f"say {KEY}") == "the key of this server"
    assert api.secret_in("x0123456789abcdefx") == "the value of $SOME_API_KEY"
    assert api.secret_in("yes 0123456789abcde") == ""
