"""A server of tools, written with the official SDK: on stdin and stdout, or with "http" on a free port of loopback."""

import asyncio
import base64
import os
import socket
import sys

import pydantic
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.prompts.base import AssistantMessage, UserMessage
from mcp_types import ImageContent

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
server = MCPServer("lab", log_level="CRITICAL")
started = []


class Place(pydantic.BaseModel):
    city: str
    country: str = "Norway"


@server.tool()
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def visit(place: Place, days: list[int]) -> Place:
    """Go somewhere."""
    return Place(city=place.city.upper(), country=f"{place.country} {days}")


@server.tool()
def picture() -> list[str | Image]:
    """Draw."""
    return ["A point:", Image(data=PNG, format="png")]


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ValueError(why)


@server.tool()
async def slow() -> str:
    """Take an hour."""
    started.append(1)
    await asyncio.sleep(3600)
    return "done"


@server.tool()
def count_slow() -> int:
    """How often `slow` was begun."""
    return len(started)


@server.tool()
def large(size: int) -> str:
    """Say a lot."""
    return "x" * size


@server.tool()
async def learn(called: str, context: Context) -> str:
    """Have one more tool."""
    server.add_tool(lambda: "it is new", name=called, description="It came later.")
    await context.notify_tools_changed()
    return "done"


@server.resource("note://today", description="What is on today.")
def today() -> str:
    return "tea at four"


@server.resource("picture://dot", mime_type="image/png")
def dot() -> bytes:
    return PNG


@server.prompt()
def review(code: str, style: str = "short") -> list[UserMessage | AssistantMessage]:
    """Review code."""
    picture = ImageContent(type="image", data=base64.b64encode(PNG).decode(), mime_type="image/png")
    return [UserMessage(f"Review, {style}:"), UserMessage(picture), AssistantMessage("Gladly."), UserMessage(code)]


@server.tool()
def crash() -> str:
    """End the server."""
    os._exit(3)


if __name__ == "__main__":
    if sys.argv[1:] == ["http"]:
        import uvicorn

        listener = socket.create_server(("127.0.0.1", 0))
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(server.streamable_http_app(), log_level="critical")
        uvicorn.Server(config).run(sockets=[listener])
    else:
        server.run("stdio")
