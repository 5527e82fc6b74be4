"""Reading the body of an answer, up to a size, also where a server compresses it though it was asked not to."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from promptgrad.errors import LMReplyError

if TYPE_CHECKING:
    import aiohttp

MAX_BODY = 64 * 2**20
"""Most bytes of an answer that are read, after decompression: sixteen times the longest text that a model writes."""

_PIECE = 2**20


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer.

    Raises:
        LMReplyError: It is too large, or compressed in a way that was not asked for.
    """
    length = response.content_length
    if "Content-Encoding" not in response.headers and length is not None and length <= MAX_BODY:
        return await response.read()
    return b"".join([piece async for piece in read_pieces(response)])


async def read_pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body of an answer as it comes.

    Raises:
        LMReplyError: It is too large, or compressed in a way that was not asked for.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise _unreadable(f"the answer is compressed as {encoding!r}, which was not asked for")
    inflater = None if encoding in ("identity", "") else zlib.decompressobj(wbits=47)
    size = 0
    async for piece in response.content.iter_any():
        left = piece
        while left:
            data, left = left, b""
            if inflater is not None:
                try:
                    data = inflater.decompress(data, _PIECE)
                except zlib.error:
                    raise LMReplyError(f"the answer says that it is compressed as {encoding!r}, and is not") from None
                left = inflater.unconsumed_tail
            size += len(data)
            if size > MAX_BODY:
                raise _unreadable(f"the answer is longer than {MAX_BODY // 2**20} MiB and was not read to its end")
            if data:
                yield data


def _unreadable(why: str) -> LMReplyError:
    error = LMReplyError(why)
    error.transient = False  # it would be as large once more
    return error
