"""Reading the body of an answer, up to a size, also where a server compresses it though it was asked not to."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
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
    meter = Meter(response.headers.get("Content-Encoding", ""))
    async for piece in response.content.iter_any():
        for data in meter.feed(piece):
            yield data


class Meter:
    """Inflates the pieces of one answer, and counts them.

    Args:
        encoding: How the answer says that it is compressed.

    Raises:
        LMReplyError: It is not a way that was asked for.
    """

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding = encoding.strip().lower() or "identity"
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise _unreadable(f"the answer is compressed as {encoding!r}, which was not asked for")
        self._inflater = None if encoding == "identity" else zlib.decompressobj(wbits=47)
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield what is in a piece, in parts of 1 MiB.

        Raises:
            LMReplyError: The answer is too large, or not compressed as it says.
        """
        while piece:
            data, piece = piece, b""
            if self._inflater is not None:
                try:
                    data = self._inflater.decompress(data, _PIECE)
                except zlib.error:
                    raise LMReplyError(
                        f"the answer says that it is compressed as {self.encoding!r}, and is not"
                    ) from None
                piece = self._inflater.unconsumed_tail
            self._size += len(data)
            if self._size > MAX_BODY:
                raise _unreadable(f"the answer is longer than {MAX_BODY // 2**20} MiB and was not read to its end")
            if data:
                yield data

    def count(self, piece: bytes) -> None:
        """Count a piece that somebody else inflates."""
        for _ in self.feed(piece):
            pass


def _unreadable(why: str) -> LMReplyError:
    error = LMReplyError(why)
    error.transient = False  # it would be as large once more
    return error
