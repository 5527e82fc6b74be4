"""Bodies of fields as they are found in a reply: two that differ have no single reading."""

from __future__ import annotations


class Unclear(Exception):
    """A reply has no single reading; the message is the reason."""

    @classmethod
    def twice(cls, name: str) -> Unclear:
        return cls(f"the field `{name}` comes twice, with different values")


def add_body(found: dict[str, str], name: str, body: str) -> None:
    """Add the body of a field. An empty one does not count where there is another.

    Raises:
        Unclear: There is another body already.
    """
    if found.get(name) and body and body != found[name]:
        raise Unclear.twice(name)
    found[name] = found.get(name) or body
