"""Servers at an address that ask who is there: tokens, functions that give them, OAuth by the official SDK."""

import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad.errors import ToolServerError

pytest.importorskip("mcp")
GUARDED = [sys.executable, str(Path(__file__).with_name("guarded_server.py"))]
SECRET = pg.ToolCall("c1", "secret", {})


def serving(kind):
    with subprocess.Popen([*GUARDED, kind], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/mcp"
        process.kill()


@pytest.fixture(scope="module")
def tokens():
    yield from serving("tokens")


@pytest.fixture(scope="module")
def logins():
    yield from serving("oauth")


def test_a_token_is_sent_and_shown_to_nobody(tokens):
    server = pg.Toolset.from_mcp(url=tokens, auth="tool-always")
    with server as tools:
        assert tools["secret"].run(SECRET) == "the cake is real"
        assert "tool-always" not in repr(server) + repr(tools) + repr(tools["secret"].function)
    for refused in ({}, {"auth": "wrong"}):
        with pytest.raises(
            ToolServerError, match=r"cannot be reached .*; it answered 401: give its token as auth="
        ) as caught:
            pg.Toolset.from_mcp(url=tokens, **refused).open()
        assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_function_gives_the_token_of_each_request_and_another_where_it_is_refused(tokens, kind):
    given = []

    def token():
        given.append(f"tool-{kind}-{len(given) // 4}")  # the server takes it three times: the fourth is refused
        return given[-1]

    async def atoken():
        return token()

    with pg.Toolset.from_mcp(url=tokens, auth=token if kind == "plain" else atoken) as tools:
        for _ in range(8):
            assert tools["secret"].run(SECRET) == "the cake is real"
    assert len(set(given)) > 2


class Storage:
    """What the SDK keeps of a login."""

    def __init__(self):
        self.tokens = self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def test_oauth_by_the_sdk(logins):
    from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
    from mcp.shared.auth import OAuthClientMetadata

    came, storage = [], Storage()

    async def browse(url):  # a person's browser
        came.append(await pg.aio.in_thread(follow, url))

    def follow(url):
        try:
            urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({})).open(url)
        except urllib.error.HTTPError as found:
            return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(found.headers["Location"]).query))
        raise AssertionError("no redirect")

    async def result():
        return AuthorizationCodeResult(**came[-1])

    def provider():
        metadata = OAuthClientMetadata(client_name="test", redirect_uris=["http://127.0.0.1:9/back"])
        return OAuthClientProvider(logins, metadata, storage, redirect_handler=browse, callback_handler=result)

    with pg.Toolset.from_mcp(url=logins, auth=provider()) as tools:
        assert tools["secret"].run(SECRET) == "the cake is real"
    with pg.Toolset.from_mcp(url=logins, auth=provider()) as tools:  # who logged in before need not again
        assert tools["secret"].run(SECRET) == "the cake is real"
    assert len(came) == 1
    assert storage.tokens.access_token == "granted-0"


def test_what_is_no_token_is_told():
    with pytest.raises(ValueError, match="header Authorization, which is in headers= too"):
        pg.Toolset.from_mcp(url="http://x", auth="a", headers={"authorization": "Bearer b"})
    with pytest.raises(TypeError, match="auth= is a token, a function that gives one, or a provider"):
        pg.Toolset.from_mcp(url="http://x", auth=("me", "secret"))
    with pytest.raises(ValueError, match="auth= belong to url="):
        pg.Toolset.from_mcp("x", auth="a")
