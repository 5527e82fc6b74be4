"""`HTTP`: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping
from functools import lru_cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.errors import (
    AuthenticationError,
    LMConnectionError,
    LMError,
    LMReplyError,
    LMStatusError,
    LMTimeoutError,
)
from promptgrad.lm._codec import canonical_json
from promptgrad.lm._completion import Completion, Usage
from promptgrad.lm._dialect import read_logprobs, read_message, write_messages
from promptgrad.lm._endpoint import Endpoint
from promptgrad.lm._fork import reset_after_fork
from promptgrad.lm._message import is_text, json_messages
from promptgrad.lm._parts import weigh
from promptgrad.lm._prices import Prices, cost, find_prices
from promptgrad.lm._request import Request
from promptgrad.lm._retry_after import read_retry_after
from promptgrad.lm._secret import Secret
from promptgrad.lm._sse import DONE, Assembly, read_events
from promptgrad.lm._status import error_kind
from promptgrad.lm._transport import Transport

if TYPE_CHECKING:
    import aiohttp

    from promptgrad.lm._sessions import Sessions
    from promptgrad.lm._stream import Listener

OPENAI_URL = "https://api.openai.com/v1"

SHOWN = 500
"""Most characters of a server's answer in an error message; the error's `body` has all of it."""

EVENTS = "text/event-stream"

_OURS = frozenset({"model", "messages", "stream", "n"})
_NOT_FIELDS = frozenset({"replicate"})


class HTTP(Transport):
    """A model behind an OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp, and many others.

    There is one keep-alive session for each event loop, and `concurrency` is the only limit on connections. Called from
    a coroutine, it works on the running loop; called from a plain function, on promptgrad's transport loop.

    Images, audio, files, tools and reasoning are sent and received in OpenAI's chat dialect; `stream` passes on the
    server's events as they come. With a `seed`, replicate `r` sends `seed + r`. For api.openai.com, `max_tokens`
    becomes `max_completion_tokens`.

    Cost: one request for each call.

    Args:
        model: The model's name on the server.
        base_url: The address before `/chat/completions`. User and password in it are sent as basic authentication and
            shown nowhere.
        api_key: The key, sent as bearer token. If None, it is read at each call from the variable `api_key_env` of the
            environment, and sent only over https or to this machine.
        timeout: Seconds for a whole reply.
        concurrency: The most requests in flight; None for no limit.
        prices: US dollars for a million input and a million output tokens. If None, the entry of `name` in litellm's
            table; a model without one has no known price.
        name: Name of the LM; `model` if empty.
        api_key_env: The variable of the environment that holds the key; None for no key.
        headers: Further headers, sent with each request and shown nowhere.
        adapter: Name of the adapter that writes prompts for it.
        options: Sampling options for requests that leave them open.

    Raises:
        ValueError: `base_url` is not an http address, or an option cannot be sent.
    """

    in_place = True

    def __init__(
        self,
        model: str,
        base_url: str = OPENAI_URL,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        concurrency: int | None = None,
        prices: Prices | None = None,
        name: str = "",
        api_key_env: str | None = "OPENAI_API_KEY",
        headers: Mapping[str, str] | None = None,
        adapter: str = "chat",
        **options: Any,
    ) -> None:
        super().__init__(name or model, adapter=adapter, options=options)
        endpoint = Endpoint.of(base_url)
        self.model = model
        self.base_url = endpoint.url
        self.timeout = timeout
        self._endpoint = endpoint
        self._api_key = None if api_key is None else Secret(api_key)
        self._api_key_env = api_key_env
        self._prices = prices
        self._headers = {key: Secret(value) for key, value in (headers or {}).items()}
        self.concurrency = concurrency
        self._places: aio.Semaphore | None = None
        self.after_fork()
        reset_after_fork(self)
        self._sessions: Sessions | None = None
        self._limit_name = "max_completion_tokens" if endpoint.host == "api.openai.com" else "max_tokens"
        self._identity = f"{model} {endpoint.url} {canonical_json(self.options)}"
        _encode_fields(model, self._limit_name, self.with_defaults(Request()))

    def after_fork(self) -> None:
        """Free all places: the calls in flight belong to the parent."""
        self._places = None if self.concurrency is None else aio.Semaphore(self.concurrency)

    @property
    def prices(self) -> Prices | None:
        """US dollars for a million input and a million output tokens; None where they are not known."""
        return self._prices or find_prices(self.name)

    async def _send(self, request: Request, key: str) -> Completion:
        size = 0
        if request.prefix.is_text and is_text(request.tail):
            messages = (request.prefix.encoded + json_messages(request.tail).encode("ascii"))[:-1]
        else:
            messages = json.dumps(write_messages(request.messages), separators=(",", ":")).encode("ascii")[1:-1]
            size = sum([weigh(m.content) for m in request.messages])
        body = b'{"messages":[' + messages + _encode_fields(self.model, self._limit_name, request)
        listener = request.listener
        if listener is not None:
            body = body[:-1] + _streamed(request)
        size = size or len(body)
        places = self._places
        if places is not None:
            await places.acquire()
        try:
            if aio.is_driven():
                return await aio.on_transport(self._post, body, key, size, listener)
            return await self._post(body, key, size, listener)
        finally:
            if places is not None:
                places.release()

    async def _post(self, body: bytes, key: str, size: int, listener: Listener | None) -> Completion:
        import asyncio

        import aiohttp

        started = perf_counter()
        if self._sessions is None:
            self._sessions = self._pool()
        session = await self._sessions.get()
        headers = {}
        authorization = self._authorization()
        if authorization:
            headers["Authorization"] = authorization
        if key:
            headers["Idempotency-Key"] = key
        if listener is not None:
            headers["Accept"] = EVENTS
        url = self._endpoint.target
        reply = None
        try:
            # awaited by itself: aiohttp's context manager would be a coroutine more for each call in flight
            async with await session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                if listener is not None and response.status == 200 and response.content_type == EVENTS:
                    reply = await self._listen(response, listener)
                else:
                    raw = await response.read()
        except asyncio.TimeoutError:
            raise LMTimeoutError(f"no answer from {self.base_url} within {self.timeout:g} s") from None
        except aiohttp.ClientPayloadError as error:
            raise LMReplyError(f"the answer of {self.base_url} was cut: {self._scrub(str(error))}") from None
        except (aiohttp.ClientError, OSError) as error:
            reason = self._scrub(str(error)) or type(error).__name__
            raise LMConnectionError(f"cannot reach {self.base_url}: {reason}; does the server run there?") from None
        if response.status != 200:
            raise self._status_error(response.status, raw, response.headers)
        return self._read(self._parse(raw) if reply is None else reply, size, perf_counter() - started)

    async def _listen(self, response: aiohttp.ClientResponse, listener: Listener) -> dict[str, Any]:
        """Read a stream to its end."""
        assembly = Assembly(listener)
        async for data in read_events(response.content.iter_any()):
            if data == DONE:
                assembly.ended = True
                continue
            raw = data.encode()
            chunk = self._parse(raw)
            if chunk.get("error"):
                raise self._stream_error(chunk["error"], raw, response.headers)
            try:
                assembly.add(chunk)
            except (KeyError, TypeError, AttributeError):
                raise self._spoilt(raw, "is not a chunk of a completion") from None
        if not assembly.ended:
            raise LMReplyError(f"the answer of {self.base_url} was cut after {assembly.size} characters")
        return assembly.reply()

    def _stream_error(self, error: Any, raw: bytes, headers: Mapping[str, str]) -> LMError:
        """The error that a server sends as an event, with its status if it has one."""
        status = error.get("code") if isinstance(error, Mapping) else None
        if isinstance(status, int) and 400 <= status < 600:
            return self._status_error(status, raw, headers)
        return self._spoilt(raw, "ended with an error")

    def _pool(self) -> Sessions:
        from promptgrad.lm._sessions import Sessions

        headers = {name: secret.reveal() for name, secret in self._headers.items()}
        sessions = Sessions(partial(_open_session, self._endpoint, self.timeout, headers))
        weakref.finalize(self, sessions.close).atexit = False  # at exit the loops close them
        return sessions

    def _authorization(self) -> str:
        if self._api_key is not None:
            return f"Bearer {self._api_key.reveal()}" if self._api_key else ""
        if self._endpoint.login:
            return f"Basic {self._endpoint.login.reveal()}"
        if self._api_key_env and self._endpoint.private:
            key = os.environ.get(self._api_key_env, "").strip()
            return f"Bearer {key}" if key else ""
        return ""

    def _scrub(self, text: str) -> str:
        secrets = [self._api_key, self._endpoint.login, self._endpoint.password, *self._headers.values()]
        if self._api_key_env:
            secrets.append(Secret(os.environ.get(self._api_key_env, "").strip()))
        for secret in secrets:
            if secret is not None:
                text = secret.scrub(text)
        return text

    def _parse(self, raw: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(raw)
        except ValueError:
            raise self._spoilt(raw, "is not JSON") from None
        if not isinstance(reply, dict):
            raise self._spoilt(raw, "is not a JSON object")
        return reply

    def _read(self, reply: dict[str, Any], size: int, seconds: float) -> Completion:
        try:
            choice = reply["choices"][0]
            content, refusal = read_message(choice["message"])
            logprobs = read_logprobs(choice) if choice.get("logprobs") else ()
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise self._spoilt(json.dumps(reply).encode(), "has no choices[0].message") from None
        used = reply.get("usage")
        if not isinstance(used, dict):
            used = {}
        paid, got = used.get("prompt_tokens"), used.get("completion_tokens")
        paid = paid if isinstance(paid, int) else size // 4 + 1
        got = got if isinstance(got, int) else weigh(content) // 4 + 1
        model, reason = reply.get("model"), choice.get("finish_reason")
        return Completion(
            content,
            Usage(1, paid, got, cost(self.prices, paid, got), 0, seconds),
            model if isinstance(model, str) else self.model,
            reason if isinstance(reason, str) else "stop",
            refusal=refusal,
            logprobs=logprobs,
        )

    def _spoilt(self, raw: bytes, fault: str) -> LMReplyError:
        body = self._scrub(raw.decode("utf-8", "replace"))
        return LMReplyError(f"the answer of {self.base_url} {fault}: {_cut(body)!r}", body=body)

    def _status_error(self, status: int, raw: bytes, headers: Mapping[str, str]) -> LMStatusError:
        body = self._scrub(raw.decode("utf-8", "replace"))
        kind = error_kind(status, body)
        advice = ""
        if kind is AuthenticationError:
            variable = self._api_key_env or "an environment variable"
            advice = f"; set {variable}, or pass api_key="
            if self._api_key is None and self._api_key_env and not self._endpoint.private:
                advice = "; a key from the environment is not sent over plain http: use https, or pass api_key="
        elif status == 429:
            wait = read_retry_after(headers)
            asked = "" if wait is None else f"; it asks to wait {wait:g} s"
            advice = f"{asked}; lower concurrency= if it is the rate that is too high"
        elif status == 404:
            advice = f"; is {self.model!r} served there, and does base_url end where /chat/completions begins?"
        elif 300 <= status < 400:
            advice = "; redirects are not followed: give base_url as the server wants it"
        return kind(
            f"{self.base_url} answered {status} for model {self.model!r}: {_cut(body)}{advice}",
            status=status,
            body=body,
            retry_after=read_retry_after(headers),
        )

    def close(self) -> None:
        """Close the connections."""
        if self._sessions is not None:
            self._sessions.close()

    def __repr__(self) -> str:
        return f"HTTP({self.model!r}, base_url={self.base_url!r})"


def _open_session(endpoint: Endpoint, timeout: float, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    import aiohttp

    from promptgrad import __version__

    fixed = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"promptgrad/{__version__}",
    }
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=timeout),
        headers={**fixed, **headers},
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=endpoint.proxy(),
    )


@lru_cache(maxsize=1024)
def _encode_fields_of(model: str, limit_name: str, options: tuple[tuple[str, Any], ...], typed: str) -> bytes:
    fields: dict[str, Any] = {"model": model}
    raw: dict[str, str] = {}
    for name, value in options:
        if name == "max_tokens":
            fields[limit_name] = value
        elif name == "response_format":
            raw[name] = value
        elif name == "extra":
            raw.update(value)
        elif name not in _NOT_FIELDS:
            fields[name] = value
    taken = sorted(set(raw) & (_OURS | set(fields)))
    if taken:
        raise ValueError(f"{', '.join(taken)} cannot be given as an option of a request to an OpenAI-compatible server")
    encoded = json.dumps(fields, separators=(",", ":"))[1:-1]
    more = "".join(f",{json.dumps(name)}:{text}" for name, text in raw.items())
    return f"],{encoded}{more}}}".encode("ascii")


def _encode_fields(model: str, limit_name: str, request: Request) -> bytes:
    """Encode the fields that follow the messages in the body."""
    options = request.options()
    if not options:
        return _encode_fields_of(model, limit_name, (), "")
    if options.get("seed") is not None:
        options["seed"] += request.replicate
    options.pop("replicate", None)
    settled = tuple(options.items())
    return _encode_fields_of(model, limit_name, settled, repr(settled))


def _streamed(request: Request) -> bytes:
    """The end of a body that requests a stream, with the usage at its end unless the request sets otherwise."""
    asked = any(name == "stream_options" for name, _ in request.extra)
    return b',"stream":true}' if asked else b',"stream":true,"stream_options":{"include_usage":true}}'


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
