"""`Api`: what a server that answers chat completions offers beside them, such as files and jobs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from promptgrad import aio
from promptgrad.lm._body import read_body
from promptgrad.lm._http import HTTP
from promptgrad.lm._retry import REFUSALS, Retry
from promptgrad.lm._secret import is_secret_name

T = TypeVar("T")

LEAST_SECRET = 16
"""Characters of a value of the environment from which it can be told from a word."""


class Api:
    """The other requests to the server of an `HTTP`: with its address, key, connections and kinds of errors.

    What may pass is asked again as `Retry` does it. A POST is asked again only where the server did not look at it
    (429, overload): after a lost connection or a 500 nobody knows whether it was done, so the error is raised at once.

    Cost: no LM call.

    Args:
        http: The LM whose server is asked.
        sleep: Function that waits between attempts; tests pass their own.
    """

    def __init__(self, http: HTTP, *, sleep: Callable[[float], Awaitable[object]] = aio.sleep) -> None:
        self.http = http
        self._retry = Retry(http, turns=9, sleep=sleep)

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Get what is at a path below `base_url`, with the parameters that are not None.

        Raises:
            LMError: The server could not be reached, or answered with an error or with something other than an object.
        """
        given = {name: value for name, value in query.items() if value is not None}
        return await self._ask("GET", path, query=given)

    async def download(self, path: str) -> bytes:
        """Get what is at a path as it is, such as the content of a file.

        Raises:
            LMError: As `get`, except that it may be no object.
        """
        return await self._persist("GET", self._target(path), partial(self._raw, "GET", self._target(path), path), "")

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str = "") -> dict[str, Any]:
        """Post a body in JSON to a path; `key` is sent as `Idempotency-Key`.

        Raises:
            LMError: As `get`.
        """
        return await self._ask("POST", path, json.dumps(body or {}).encode(), key=key)

    async def post_once(self, path: str, body: Mapping[str, Any], *, key: str = "") -> dict[str, Any]:
        """As `post`, and whatever fails is raised at once: for callers that have retries of their own.

        Raises:
            LMError: As `get`.
        """
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        send = partial(self._send, "POST", self._target(path), path, json.dumps(body).encode(), headers)
        return await (aio.on_transport(send) if aio.is_driven() else send())

    async def upload(self, path: str, name: str, data: bytes, *, key: str = "", **fields: str) -> dict[str, Any]:
        """Post a file, as a form with further fields.

        Raises:
            LMError: As `get`.
        """
        border = f"promptgrad-{token_hex(16)}"
        parts = [f'name="{field}"\r\n\r\n{value}'.encode() for field, value in fields.items()]
        kind = "Content-Type: application/octet-stream"
        parts.append(f'name="file"; filename="{name}"\r\n{kind}\r\n\r\n'.encode() + data)
        body = b"".join(b"--%s\r\nContent-Disposition: form-data; %s\r\n" % (border.encode(), part) for part in parts)
        body += b"--%s--\r\n" % border.encode()
        return await self._ask("POST", path, body, kind=f"multipart/form-data; boundary={border}", key=key)

    def secret_in(self, text: str) -> str:
        """Name a secret that is part of a text: the key, or a long value of a variable with a name like `*_KEY`.

        Empty if there is none that is known.
        """
        if self.http._scrub(text) != text:
            return "the key of this server"
        for name, value in os.environ.items():
            if len(value) >= LEAST_SECRET and is_secret_name(name) and value in text:
                return f"the value of ${name}"
        return ""

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        kind: str = "application/json",
        key: str = "",
    ) -> dict[str, Any]:
        target = self._target(path, query)
        headers = {"Content-Type": kind} if body is not None else {}
        if key:
            headers["Idempotency-Key"] = key
        return await self._persist(method, target, partial(self._send, method, target, path, body, headers), key)

    async def _persist(self, method: str, target: str, send: Callable[[], Awaitable[T]], key: str) -> T:
        if aio.is_driven():
            send = partial(aio.on_transport, send)  # type: ignore[arg-type]
        return await self._retry.persist(
            send,
            lambda text: hashlib.blake2b(f"{text} {method} {target} {key}".encode(), digest_size=8).hexdigest(),
            may=lambda error: method == "GET" or isinstance(error, REFUSALS),
        )

    def _target(self, path: str, query: Mapping[str, Any] | None = None) -> str:
        base, _, version = self.http._endpoint.target.partition("?")
        asked = "&".join(filter(None, (version, urlencode(query or {}, safe="[]"))))
        return f"{base.removesuffix('/chat/completions')}/{quote(path)}" + (f"?{asked}" if asked else "")

    async def _send(
        self, method: str, target: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        return self.http._parse(await self._raw(method, target, path, body, headers))

    async def _raw(
        self, method: str, target: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        http = self.http
        client, overtime, _ = await http._session()
        authorization = http._authorization()
        headers = {**(headers or {}), **({"Authorization": authorization} if authorization else {})}
        mark, answered = http._traffic.begin(), False
        try:
            with overtime:
                asked = client.request(method, target, data=body, headers=headers, allow_redirects=False)
                async with asked as response:
                    raw = await read_body(response)
            answered = True
        except Exception as error:
            if (lost := http._lost(error, mark)) is None:
                raise
            raise lost from None
        finally:
            http._traffic.end(answered)
        if not 200 <= response.status < 300:
            raise http._status_error(response.status, raw, response.headers, asked=f"to {method} {path}")
        return raw
