"""A server of tools that keeps to nothing: JSON-RPC by hand on pipes or over HTTP, with what no SDK would send."""

import contextlib
import gzip
import http.server
import io
import json
import os
import sys
import time

OBJECT = {"type": "object"}
NUMBER = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
PATH = {"path": {"type": "integr"}, "from": {"type": "integer"}}
TOOLS = [
    {"name": "files/read it!", "inputSchema": {"type": "object", "properties": PATH, "required": ["path"]}},
    {"name": "files.read it!", "inputSchema": OBJECT},
    {"name": "", "inputSchema": {"type": "object", "patternProperties": {}}},
    {"name": "liar", "inputSchema": OBJECT, "outputSchema": NUMBER},
    {"name": "silent", "inputSchema": OBJECT, "outputSchema": NUMBER},
    {
        "name": "broken_schema",
        "inputSchema": OBJECT,
        "outputSchema": {**OBJECT, "properties": {"count": {"type": "objekt"}}},
    },
    {"name": "picture", "inputSchema": OBJECT, "description": "y" * 100_000},
    {"name": "nothing", "inputSchema": OBJECT},
    {"name": "noise", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}},
    {"name": "stranger", "inputSchema": OBJECT},
    {"name": "half", "inputSchema": OBJECT},
    {"name": "refuse", "inputSchema": OBJECT},
    {"name": "who", "inputSchema": OBJECT},
    {"name": "endless_line", "inputSchema": OBJECT},
    {"name": "forget", "inputSchema": OBJECT},
    {"name": "packed", "inputSchema": OBJECT},
]


def text(words):
    return {"content": [{"type": "text", "text": words}]}


def write(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


class Handler(http.server.BaseHTTPRequestHandler):
    """The same over HTTP: what is written while a request is answered is the body, whatever it is."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_error(405)

    do_DELETE = do_GET

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = (asked.get("params") or {}).get("name")
        self.send_response(200 if "id" in asked else 202)
        self.send_header("Content-Type", "application/json")
        if name == "packed":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        sys.stdout = io.TextIOWrapper(self.wfile, write_through=True)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if name == "packed":
                self.wfile.write(gzip.compress(b" " * 50_000_000))
            else:
                answer(asked, "http")
        sys.stdout.detach()


def call(number, name, arguments):
    if name == "liar":
        write({"id": number, "result": {**text("many"), "structuredContent": {"count": "many"}}})
    elif name == "picture":
        blocks = [
            {"type": "image", "data": "not base64!", "mimeType": "image/png"},
            {"type": "image", "data": "AAAA", "mimeType": "text/html"},
            {"type": "resource_link", "name": "more", "uri": "file:///x"},
        ]
        write({"id": number, "result": {"content": blocks}})
    elif name == "nothing":
        write({"id": number, "result": {"content": "no list"}})
    elif name == "noise":
        sys.stdout.write("debug: here I am\n{\n[1, 2]\n")
        write({"method": "notifications/unheard", "params": {}})
        write({"id": number, "result": text("after the noise")})
    elif name == "stranger":
        write({"id": 10_000, "result": text("for somebody else")})
    elif name == "half":
        sys.stderr.write("the key is k-123\n")
        sys.stderr.flush()
        sys.stdout.write('{"jsonrpc": "2.0", "id": ')
        sys.stdout.flush()
        os._exit(1)
    elif name == "endless_line":
        sys.stdout.write('{"jsonrpc": "2.0", "result": "')
        while True:
            sys.stdout.write("x" * 65_536)
    elif name == "forget":
        TOOLS.pop(0)
        write({"method": "notifications/tools/list_changed"})
        write({"id": number, "result": text("one tool less")})
    elif name == "who":
        write({"id": number, "result": text(str(os.getpid()))})
    elif name == "refuse":
        write({"id": number, "error": {"code": -32602, "message": "not with me"}})
    else:
        write({"id": number, "result": text(json.dumps(arguments))})


def answer(asked, mode):
    number, method, params = asked.get("id"), asked.get("method"), asked.get("params") or {}
    if method == "initialize":
        known = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
        write({"id": number, "result": {**known, "serverInfo": {"name": "odd", "version": "1"}}})
    elif method == "tools/list" and mode == "endless":
        write({"id": number, "result": {"tools": TOOLS[:2] * 20, "nextCursor": "again"}})
    elif method == "tools/list" and mode == "nonsense":
        write({"id": number, "result": {"tools": [{"name": "a", "inputSchema": {"type": "object", "required": [3]}}]}})
    elif method == "tools/list":
        write({"id": number, "result": {"tools": TOOLS}})
    elif method == "tools/call":
        call(number, params["name"], params.get("arguments"))
    elif number is not None:
        write({"id": number, "error": {"code": -32601, "message": "no such method"}})


def main(mode="odd", *_):
    if mode == "mute":
        time.sleep(3600)
    if mode == "refuses":
        sys.exit("no licence")
    if mode == "http":
        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            sys.stdout.write(f"{server.server_port}\n")
            sys.stdout.flush()
            server.serve_forever()
    for line in sys.stdin:
        answer(json.loads(line), mode)


if __name__ == "__main__":
    main(*sys.argv[1:])
