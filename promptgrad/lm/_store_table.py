"""The tables of a `Store`, and what is read from them and written to them."""

from __future__ import annotations

import json
import sqlite3
import zlib
from contextlib import suppress

from promptgrad._patterns import late_pattern
from promptgrad.lm._completion import Completion

TABLE = "CREATE TABLE IF NOT EXISTS completion (key BLOB PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID"
ENTRIES = (
    "CREATE TABLE IF NOT EXISTS entry (key BLOB PRIMARY KEY, made REAL NOT NULL, used REAL NOT NULL, "
    "size INTEGER NOT NULL, model TEXT NOT NULL) WITHOUT ROWID"
)
"""Beside the replies, what is told of them. Versions that do not know it leave entries out, which are added later."""
FIND = {
    False: "SELECT reply, NULL FROM completion WHERE key=?",
    True: "SELECT reply, (SELECT used FROM entry WHERE entry.key=completion.key) FROM completion WHERE key=?",
}
_MISSING = (
    "INSERT OR IGNORE INTO entry SELECT key, 0, 0, length(reply), '' FROM completion "
    "WHERE key NOT IN (SELECT key FROM entry)",
    "DELETE FROM entry WHERE key NOT IN (SELECT key FROM completion)",
)
EXCESS = (
    "SELECT key FROM (SELECT key, sum(size) OVER latest AS total, row_number() OVER latest AS place FROM entry "
    "WINDOW latest AS (ORDER BY used DESC, made DESC, key)) WHERE total > ? OR place > ?"
)
"""The least recently used entries, without which the others are within their bounds."""
IS_THERE = "SELECT 1 FROM sqlite_master WHERE type='table' AND name='entry'"
NO_BOUND = 2**62
TOUCH = 3600.0
"""Seconds after which the use of an entry is written again."""

Row = tuple[bytes, tuple[str, float, int, str] | None]
"""A key; and its reply in written form, when it was made, its size and its model, or None to remove it."""


def insert_rows(
    database: sqlite3.Connection, rows: list[Row], touched: list[tuple[float, bytes]] | tuple[()] = ()
) -> None:
    """Write and remove rows, and when others were used, in one transaction."""
    latest = dict(rows)
    made = [(key, *told) for key, told in latest.items() if told is not None]
    gone = [(key,) for key, told in latest.items() if told is None]
    database.execute("BEGIN IMMEDIATE")
    try:
        if made:
            database.executemany("INSERT OR REPLACE INTO completion VALUES (?, ?)", [row[:2] for row in made])
            database.executemany(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)",
                [(key, time, time, size, model) for key, _, time, size, model in made],
            )
        if gone:
            database.executemany("DELETE FROM completion WHERE key=?", gone)
            database.executemany("DELETE FROM entry WHERE key=?", gone)
        if touched:
            database.executemany("UPDATE entry SET used=max(used, ?) WHERE key=?", touched)
        database.execute("COMMIT")
    except sqlite3.Error:
        with suppress(sqlite3.Error):  # SQLite may have done it
            database.execute("ROLLBACK")
        raise


def tell_of_all(database: sqlite3.Connection) -> None:
    """Tell of the entries that versions wrote or removed which tell nothing of them."""
    database.execute("BEGIN IMMEDIATE")
    try:
        for statement in _MISSING:
            database.execute(statement)
        database.execute("COMMIT")
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


_CHECKSUM = late_pattern(r"\n([0-9a-f]{8})\Z")


def _checksum(key: str, reply: str) -> str:
    return f"{zlib.crc32((key + reply).encode()):08x}"


def encode_reply(key: str, completion: Completion) -> str:
    """The JSON of a reply, and a line with the checksum of it and its key."""
    plain = completion.to_dict()
    plain.pop("usage", None)  # a reply from a cache costs nothing
    reply = json.dumps(plain, separators=(",", ":"))
    return f"{reply}\n{_checksum(key, reply)}"


def decode_reply(key: str, reply: str) -> Completion:
    if checksum := _CHECKSUM.search(reply, max(len(reply) - 9, 0)):
        reply = reply[: checksum.start()]
        if checksum[1] != _checksum(key, reply):
            raise ValueError("the checksum of an entry does not fit")
    found = json.loads(reply)
    if isinstance(found, list):
        text, model, reason = found[:3]
        return Completion(text, model=model, finish_reason=reason).as_cached()
    return Completion.from_dict(found).as_cached()
