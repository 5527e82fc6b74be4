"""`HTTP`: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Coroutine, Mapping
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad._numbers import optional_count
from promptgrad.errors import AuthenticationError, LMError, LMReplyError, LMStatusError
from promptgrad.lm._advice import advise, out_of_time, proxy_name, unreachable
from promptgrad.lm._body import read_body, read_pieces
from promptgrad.lm._citations import read_citations
from promptgrad.lm._codec import canonical_json
from promptgrad.lm._completion import Completion, make_completion, make_usage
from promptgrad.lm._count import billed, counts_of, read_cached
from promptgrad.lm._dialect import in_order, read_logprobs, read_message, read_more
from promptgrad.lm._endpoint import KEYED, Endpoint
from promptgrad.lm._fields import encode_fields, streamed
from promptgrad.lm._finish import message_of, reason_of
from promptgrad.lm._fork import reset_after_fork
from promptgrad.lm._habits import Habits, stopped, written_without
from promptgrad.lm._options import check_headers, hear, take
from promptgrad.lm._parts import weigh
from promptgrad.lm._prices import FREE, Prices, cost, find_prices
from promptgrad.lm._request import Request
from promptgrad.lm._request_body import encode_body
from promptgrad.lm._secret import Secret, sendable
from promptgrad.lm._silence import SILENCE, check_silence
from promptgrad.lm._sse import DONE, Assembly, EventReader
from promptgrad.lm._status import Fault, is_error, read_fault
from promptgrad.lm._traffic import Traffic
from promptgrad.lm._transport import Transport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    import aiohttp

    from promptgrad.lm._sessions import LoopSession, Sessions
    from promptgrad.lm._stream import Listener

OPENAI_URL = "https://api.openai.com/v1"

SHOWN = 500
"""Most characters of a server's answer in an error message; the error's `body` has all of it."""

EVENTS = "text/event-stream"

_SETTINGS = frozenset({"base_url", "api_key", "timeout", "concurrency", "headers"})
"""Settings that have names elsewhere."""


class HTTP(Transport):
    """A model behind an OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp, and many others.

    There is one keep-alive session for each event loop, and `concurrency` is the only limit on connections. Called from
    a coroutine, it works on the running loop; called from a plain function, on promptgrad's transport loop.

    Images, audio, files, tools and reasoning are sent and received in OpenAI's chat dialect; `stream` passes on the
    server's events as they come. With a `seed`, replicate `r` sends `seed + r`.

    What the endpoint does not take is learnt from its error, said once, and left out from then on: system messages,
    `response_format`, `temperature`, `top_p`, `seed`, `stop`, `max_tokens` (then `max_completion_tokens` is sent), and
    what `docs/guide/errors.md` names; `without` says it from the start.

    Cost: one request for each call, and one refused request for each thing that is learnt.

    Args:
        model: The model's name on the server.
        base_url: The address before `/chat/completions`. User and password in it are sent as basic authentication and
            shown nowhere.
        api_key: The key, sent as bearer token. If None, it is read at each call from the variable `api_key_env` of the
            environment, and sent only over https or to this machine.
        timeout: The longest silence, in seconds: until the reply begins, and between two pieces of it. A whole reply
            may take six times as long. What was silent for so long is not sent again, since it may still be running.
        concurrency: The most requests in flight; None for no limit.
        prices: US dollars for a million input and a million output tokens. If None, the entry of `name` in litellm's
            table; a model without one has no known price.
        name: Name of the LM; `model` if empty.
        api_key_env: The variable of the environment that holds the key; None for no key.
        headers: Further headers, sent with each request and shown nowhere.
        without: What the endpoint is known not to take: names of those above, and `max_completion_tokens`,
            `stream_options`.
        api_version: Sent as the parameter `api-version` of the address, as Azure wants it.
        adapter: Name of the adapter that writes prompts for it.
        options: Sampling options for requests that leave them open. What only the server knows goes through
            `extra_body={...}`; `api_base`, `organization` and `extra_headers` are understood.

    Raises:
        TypeError: An option is not known.
        ValueError: `base_url` is not an http address, or an option cannot be sent.
    """

    in_place = True

    def __init__(
        self,
        model: str,
        base_url: str = OPENAI_URL,
        api_key: str | None = None,
        *,
        timeout: float = SILENCE,
        concurrency: int | None = None,
        prices: Prices | None = None,
        name: str = "",
        api_key_env: str | None = "OPENAI_API_KEY",
        headers: Mapping[str, str] | None = None,
        without: Iterable[str] = (),
        api_version: str | None = None,
        adapter: str = "chat",
        **options: Any,
    ) -> None:
        if options:
            options = hear("lm.HTTP", options, _SETTINGS)
            base_url = take(options, "base_url", base_url, OPENAI_URL)
            api_key = take(options, "api_key", api_key)
            timeout = take(options, "timeout", timeout, SILENCE)
            concurrency = take(options, "concurrency", concurrency)
            headers = {**options.pop("headers", {}), **check_headers(headers)}
        super().__init__(name or model, adapter=adapter, options=options)
        endpoint = Endpoint.of(base_url, api_version)
        self.model = model
        self.base_url = endpoint.url
        self.timeout = check_silence(timeout)
        self._endpoint = endpoint
        self._api_key = None if api_key is None else Secret(sendable(api_key, "api_key"))
        self._api_key_env = api_key_env
        self._prices = prices
        self._headers = {
            sendable(name, "the name of a header"): Secret(sendable(value, f"header {name}"))
            for name, value in check_headers(headers).items()
        }
        self.concurrency: int | None = optional_count("concurrency", concurrency)
        self._places: aio.Semaphore | None = None
        self.after_fork()
        reset_after_fork(self)
        self._sessions: Sessions | None = None
        self._proxy: str | None = None
        self._habits = Habits(endpoint.url, model, without)
        if endpoint.host == "api.openai.com":
            self._habits.lacks |= {"max_tokens"}
        self._traffic = Traffic()
        self._name_endpoint()
        encode_fields(model, self._habits.lacks, self.with_defaults(Request()))

    def _name_endpoint(self) -> None:
        self.endpoint = f"{self._endpoint.url} {self.model}"
        self._identity = f"{self.model} {self._endpoint.url} {canonical_json(self.options)}"

    def after_fork(self) -> None:
        """Free all places: the calls in flight belong to the parent."""
        self._places = None if self.concurrency is None else aio.Semaphore(self.concurrency)

    @property
    def prices(self) -> Prices | None:
        """US dollars for a million input and a million output tokens; None where they are not known."""
        return self._prices or find_prices(self.name)

    def stats(self) -> dict[str, Any]:
        """The requests of this LM: `requests` sent, `answered`, `failed`, and `in_flight` now."""
        return self._traffic.stats()

    def complete(self, request: Request) -> Coroutine[Any, Any, Completion]:
        """Answer one request; with `concurrency`, when it has a place, so that a budget sees it no earlier."""
        places = self._places
        return super().complete(request) if places is None else self._in_place(places, request)

    async def _in_place(self, places: aio.Semaphore, request: Request) -> Completion:
        async with places:
            return await super().complete(request)

    async def _send(self, request: Request, key: str) -> Completion:
        if self._prices is None:
            self._prices = find_prices(self.name)  # before it is sent, so that nothing stands between reply and caller
        driven = aio.is_driven()
        while True:
            lacks = self._habits.lacks
            asked = request if not lacks else written_without(request, lacks)
            body, size = encode_body(self.model, lacks, asked)
            listener = asked.listener
            if listener is not None:
                body = body[:-1] + streamed(asked, lacks)
            try:
                if driven:
                    return stopped(await aio.on_transport(self._post, body, key, size, listener), request, lacks)
                return stopped(await aio.apart(self._post(body, key, size, listener)), request, lacks)
            except LMStatusError as error:
                if not self._habits.learn(error, request, lacks):
                    raise

    def body(self, request: Request) -> bytes:
        """The body in which a request is sent."""
        lacks, whole = self._habits.lacks, self.with_defaults(request)
        return encode_body(self.model, lacks, written_without(whole, lacks) if lacks else whole)[0]

    async def _post(self, body: bytes, key: str, size: int, listener: Listener | None) -> Completion:
        started = perf_counter()
        client, overtime, _ = (self._sessions and self._sessions.find()) or await self._session()
        headers = {}
        authorization = self._authorization()
        if authorization:
            headers["Authorization"] = authorization
        if key:
            headers["Idempotency-Key"] = key
        if listener is not None:
            headers["Accept"] = EVENTS
        url, reply, traffic = self._endpoint.target, None, self._traffic
        mark, answered = traffic.begin(), False
        try:
            with overtime:
                # awaited by itself: aiohttp's context manager would be a coroutine more for each call in flight
                async with await client.post(url, data=body, headers=headers, allow_redirects=False) as response:
                    if listener is not None and response.status == 200 and response.content_type == EVENTS:
                        reply = await self._listen(response, listener)
                    else:
                        raw = await read_body(response)
            answered = True
        except Exception as error:
            if (lost := self._lost(error, mark)) is None:
                raise
            raise lost from None
        finally:
            traffic.end(answered)
        if response.status != 200:
            raise self._status_error(response.status, raw, response.headers)
        if reply is None:
            reply = self._parse(raw)
            if is_error(reply) or not reply.get("choices"):
                fault = "is an error" if is_error(reply) else "has no choices[0].message"
                raise billed(self._told_error(raw, response.headers, fault), reply, self._prices)
        return self._read(reply, size, perf_counter() - started)

    def _lost(self, error: Exception, mark: int) -> LMError | None:
        """The error of a request that was not answered, or not to its end; None for another error."""
        import asyncio

        import aiohttp

        if isinstance(error, asyncio.TimeoutError):
            return out_of_time(error, self.base_url, self.timeout, self._traffic.passed_by(mark))
        if isinstance(error, aiohttp.ClientPayloadError):
            return LMReplyError(f"the answer of {self.base_url} was cut: {self._scrub(str(error))}")
        if not isinstance(error, (aiohttp.ClientError, OSError)):
            return None
        return unreachable(error, self._endpoint, self._scrub(str(error)))

    async def _listen(self, response: aiohttp.ClientResponse, listener: Listener) -> dict[str, Any]:
        """Read a stream to its end."""
        assembly, reader = Assembly(listener), EventReader()
        async for piece in read_pieces(response):
            for data in reader.feed(piece):
                self._add_event(assembly, data, response.headers)
        for data in reader.rest():
            self._add_event(assembly, data, response.headers)
        if not assembly.ended:
            cut = LMReplyError(f"the answer of {self.base_url} was cut after {assembly.size} characters")
            raise billed(cut, assembly.reply(), self._prices)
        return assembly.reply()

    def _add_event(self, assembly: Assembly, data: str, headers: Mapping[str, str]) -> None:
        """Add an event of a stream to its reply."""
        if data == DONE:
            assembly.ended = True
            return
        chunk = self._parse(data)
        if '"error"' in data and (chunk.get("error") or is_error(chunk)):
            told = self._told_error(data.encode(), headers, "ended with an error")
            raise billed(told, {**assembly.reply(), **chunk}, self._prices)
        try:
            assembly.add(chunk)
        except (LookupError, TypeError, ValueError, AttributeError):
            spoilt = self._spoilt(data.encode(), "is not a chunk of a completion")
            raise billed(spoilt, assembly.reply(), self._prices) from None

    def _told_error(self, raw: bytes, headers: Mapping[str, str], fault: str) -> LMError:
        """The error that a server puts into an answer of status 200, or sends as an event."""
        found = read_fault(200, raw.decode("utf-8", "replace"), headers)
        known = found.status or found.kind is not LMStatusError
        return self._status_error(200, raw, headers, found) if known else self._spoilt(raw, fault)

    def _session(self) -> Awaitable[LoopSession]:
        """The session of the running loop."""
        if self._sessions is None:
            self._sessions = self._pool()
        return self._sessions.get()

    def _pool(self) -> Sessions:
        from promptgrad.lm._sessions import Sessions, open_session

        headers = {name: secret.reveal() for name, secret in self._headers.items()}
        self._proxy = self._endpoint.proxy()
        sessions = Sessions(partial(open_session, self._proxy, self.timeout, headers), self.timeout)
        weakref.finalize(self, sessions.close).atexit = False  # at exit the loops close them
        return sessions

    def _authorization(self) -> str:
        endpoint, proxied = self._endpoint, self._proxy is not None and not self._endpoint.private
        found = ""
        if self._api_key is not None:
            found = f"Bearer {self._api_key.reveal()}" if self._api_key else ""
        elif endpoint.login:
            found = f"Basic {endpoint.login.reveal()}"
        elif self._api_key_env and endpoint.private:
            key = os.environ.get(self._api_key_env, "").strip()
            found = f"Bearer {key}" if key else ""
        if proxied and (found or self._headers):
            raise AuthenticationError(
                f"the key for {self.base_url} would pass the proxy {proxy_name(self._proxy)} in the clear, so nothing "
                f"was sent: use https, or name {endpoint.host} in NO_PROXY"
            )
        if not found and endpoint.host in KEYED and not self._headers:
            raise AuthenticationError(
                f"there is no key for {self.base_url}, so nothing was sent: set {self._api_key_env or 'a variable'} in "
                "the environment, or pass api_key="
            )
        return found

    def _scrub(self, text: str) -> str:
        secrets = [self._api_key, self._endpoint.login, self._endpoint.password, *self._headers.values()]
        if self._api_key_env:
            secrets.append(Secret(os.environ.get(self._api_key_env, "").strip()))
        for secret in secrets:
            if secret is not None:
                text = secret.scrub(text)
        return text

    def _parse(self, raw: bytes | str) -> dict[str, Any]:
        try:
            reply = json.loads(raw)
        except (ValueError, RecursionError):
            fault = "is not JSON"
        else:
            if isinstance(reply, list) and len(reply) == 1:
                reply = reply[0]  # Google's errors
            if isinstance(reply, dict):
                return reply
            fault = "is not a JSON object"
        raise self._spoilt(raw.encode() if isinstance(raw, str) else raw, fault)

    def _read(self, reply: dict[str, Any], size: int, seconds: float) -> Completion:
        try:
            choices = reply["choices"]
            if len(choices) > 1:
                choices = in_order(choices)
            choice = choices[0]
            content, refusal = read_message(message := message_of(choice, reason := reason_of(choice)))
            citations = read_citations(message, reply, content)
            logprobs = read_logprobs(choice) if choice.get("logprobs") else ()
            more = read_more(choices[1:]) if len(choices) > 1 else ()
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError):
            raise billed(self._spoilt(_written(reply), "has no choices[0].message"), reply, self._prices) from None
        paid, got = counts_of(reply)
        if not paid:  # some servers say 0 where they do not count
            paid, got = size // 4 + 1, got or None
        if got is None:
            got = weigh(content) // 4 + 1 + sum([weigh(other.content) // 4 + 1 for other in more])
        cached = read_cached(reply.get("usage"), paid)
        usage = make_usage(paid, got, cost(self._prices, paid, got, cached), seconds, cached)
        model = name if isinstance(name := reply.get("model"), str) else self.model
        if logprobs or more or citations:
            return Completion(
                content, usage, model, reason, refusal=refusal, logprobs=logprobs, more=more, citations=citations
            )
        return make_completion(content, usage, model, reason, refusal)

    def _spoilt(self, raw: bytes, fault: str) -> LMReplyError:
        body = self._scrub(raw.decode("utf-8", "replace"))
        return LMReplyError(f"the answer of {self.base_url} {fault}: {_cut(body)!r}", body=body)

    def _status_error(
        self, status: int, raw: bytes, headers: Mapping[str, str], fault: Fault | None = None, asked: str = ""
    ) -> LMStatusError:
        body = self._scrub(raw.decode("utf-8", "replace"))
        found = fault or read_fault(status, body, headers)
        variable = self._api_key_env
        if self._api_key is None and self._api_key_env and not self._endpoint.private:
            variable = ""
        advice = "" if asked and found.status == 404 else advise(found, self.model, variable, self.base_url)
        return found.kind(
            f"{self.base_url} answered {status} {asked or f'for model {self.model!r}'}: {_cut(body)}{advice}",
            status=found.status,
            body=body,
            retry_after=found.retry_after,
        )

    def with_model(self, model: str) -> HTTP:
        """The same endpoint with another model: same address, key, headers and options, and connections of its own.

        Prices that were given are those of this model, so they are not passed on, unless a call costs nothing.
        """
        prefix = self.name.removesuffix(self.model) if self.name.endswith(self.model) else ""
        other: HTTP = object.__new__(type(self))
        other.__dict__.update(self.__dict__, model=model, name=f"{prefix}{model}", options=dict(self.options))
        other._prices = self._prices if self._prices == FREE else None
        other._sessions, other._traffic = None, Traffic()
        other._habits = Habits(self._endpoint.url, model, self._habits.lacks)
        other._name_endpoint()
        other.after_fork()
        reset_after_fork(other)
        made_by = other.__dict__.pop("_made_by", None)
        if made_by is not None:
            make, given, named = made_by
            named = {**named, "model": model, "name": other.name, "prices": other._prices}
            other.__dict__["_made_by"] = (make, (), {**dict(zip(("model", "base_url"), given, strict=False)), **named})
        return other

    def close(self) -> None:
        """Close the connections."""
        if self._sessions is not None:
            self._sessions.close()

    def __repr__(self) -> str:
        return f"HTTP({self.model!r}, base_url={self.base_url!r})"


def _written(reply: object) -> bytes:
    try:
        return json.dumps(reply).encode()
    except (RecursionError, ValueError):
        return b"(nested too deeply to be shown)"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
