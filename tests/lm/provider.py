"""A server on loopback in the place of Anthropic's and Gemini's, for what litellm sends them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Provider:
    """Answers as Anthropic, at once or in events, and as Gemini, and keeps what it was sent.

    Attributes:
        url: Its address.
        bodies: The requests.
        blocks: The texts of the replies, as Anthropic's blocks.
        grounding: What Gemini tells of the places where it searched.
    """

    def __init__(self, text=""):
        self.bodies, self.blocks, self.grounding = [], [{"type": "text", "text": text}], None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                provider.bodies.append(body)
                stream = body.get("stream", False) or "streamGenerateContent" in self.path
                is_gemini = "enerateContent" in self.path
                message = provider.gemini() if is_gemini else provider.message()
                told = json.dumps(message).encode()
                reply = told if not stream else b"data: " + told + b"\n\n" if is_gemini else provider.events()
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream" if stream else "application/json")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def message(self):
        usage = {"input_tokens": 5, "output_tokens": 2}
        head = {"id": "m", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn"}
        return {**head, "content": self.blocks, "usage": usage}

    def gemini(self):
        parts = [{"text": block["text"]} for block in self.blocks]
        usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
        candidate |= {"groundingMetadata": self.grounding} if self.grounding else {}
        return {"candidates": [candidate], "usageMetadata": usage}

    def events(self):
        told = [{"type": "message_start", "message": {**self.message(), "content": [], "stop_reason": None}}]
        for index, block in enumerate(self.blocks):
            start = {"type": "text", "text": "", **({"citations": []} if "citations" in block else {})}
            told.append({"type": "content_block_start", "index": index, "content_block": start})
            deltas = [{"type": "citations_delta", "citation": one} for one in block.get("citations", ())]
            for delta in [*deltas, {"type": "text_delta", "text": block["text"]}]:
                told.append({"type": "content_block_delta", "index": index, "delta": delta})
            told.append({"type": "content_block_stop", "index": index})
        told.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}})
        told.append({"type": "message_stop"})
        return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in told)

    def close(self):
        self._server.shutdown()
        self._thread.join(60)
        self._server.server_close()
