"""A server of ours that speaks the format of chat completions, with planted faults. No model answers here.

It runs as a real process: `python chat_server.py`, prints its port, and reads what it shall do wrong from POST /fault.
A response is a function of the prompt, the seed and its number, so a test works it out by hand.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def said(prompt: str, seed: int | None, number: int) -> str:
    """The text of a response: its prompt's last word, its seed and its number in the question."""
    return f"{prompt.split()[-1]} {seed} {number}"


class Server(ThreadingHTTPServer):
    """What is served, and the fault that is planted."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.fault, self.left = "", 0
        """The fault, and on how many further questions it begins."""
        self.seen: list[dict] = []
        """Each question, with the header Authorization."""
        self.lock, self.now, self.most = threading.Lock(), 0, 0


class Answers(BaseHTTPRequestHandler):
    """One question."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "chat/1.2", ""

    def log_message(self, *_) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server: Server = self.server
        if self.path == "/seen":
            return self._send(200, {"seen": server.seen, "most": server.most})
        if self.path == "/v1/models" and server.fault == "rude list":
            return self._send(200, {"data": [{"id": "\x1b]0;x\x07\x9btiny"}]})
        if self.path == "/v1/models" and server.fault == "nested list":
            return self._send(200, b"[" * 100_000 + b"]" * 100_000)
        if self.path == "/v1/models" and server.fault != "no list":
            return self._send(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})
        return self._send(404, {"error": {"message": "Not Found"}})

    def do_POST(self) -> None:
        server: Server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/fault":
            server.fault, server.left, server.seen = body["fault"], body.get("after", 0), []
            server.most = 0
            return self._send(200, {})
        with server.lock:
            server.seen.append(body | {"authorization": self.headers.get("Authorization", "")})
            server.left -= 1
            fault = server.fault if server.left < 0 else ""
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            return self._fail(fault, body) or self._answer(body, fault)
        finally:
            with server.lock:
                server.now -= 1

    def _fail(self, fault: str, body: dict) -> bool:
        server: Server = self.server
        time.sleep({"slow": 0.3, "stuck": 6}.get(fault, 0))
        if fault.endswith("once"):
            server.fault = ""
        fields = {"refuses n": {"n"}, "refuses n and seed": {"n", "seed"}}.get(fault, set()) & set(body)
        known = {"busy": 429, "broken": 500, "token": 401, "missing": 404, "long": 400, "moved": 307}
        status = known.get(fault.partition(" ")[0])
        if self.path != "/v1/chat/completions":
            status = 404
        if fields:
            self._send(422, {"detail": f"Unexpected fields in the request: {fields}"})
        elif status:
            key = "." * 180 * fault.endswith("far") + str(self.headers.get("Authorization"))
            words = {404: "The model does not exist", 401: f"wrong key {key}"}
            self._send(status, {"error": {"message": words.get(status, f"planted {status}")}})
        elif fault == "half":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            self.close_connection = True
        elif fault.startswith("told"):
            error = "planted words" if fault == "told" else {"code": 429, "message": "planted 429"}
            self._send(200, {"error": error})
        elif fault == "page":
            self._send(200, "a page")
        elif fault == "nested":
            self._send(200, b"[" * 100_000 + b"]" * 100_000)
        return bool(fields or status or fault in ("half", "page", "nested") or fault.startswith("told"))

    def _answer(self, body: dict, fault: str) -> None:
        assert body["max_tokens"] == 7 and body["temperature"] == 0.5 and "top_p" not in body
        n, prompt = 1 if fault == "ignores n" else body.get("n", 1), body["messages"][-1]["content"]
        choices = [
            {"index": i, "message": {"role": "assistant", "content": said(prompt, body.get("seed"), i)},
             "finish_reason": "length" if i == 1 else "stop"}
            for i in range(n)
        ]  # fmt: skip
        if fault == "half a pair":
            choices[0]["message"]["content"] = "a\ud83d b\ude00 \ud83d\ude00"
        if fault == "parts":
            for choice in choices:
                thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
                choice["message"]["content"] = [thought, {"type": "text", "text": choice["message"]["content"]}]
        if fault == "other parts":
            choices[0]["message"]["content"] = {"text": "a"}
        if fault == "only thinks":
            for choice in choices:
                choice |= {"message": {"role": "assistant", "content": None}, "finish_reason": "length"}
        if fault == "filters":
            choices[0]["finish_reason"] = "content_filter"
        if fault.startswith("breaks off"):
            choices[0] |= {"finish_reason": "error", "error": {"code": 502, "message": "planted 502"}}
        if fault == "empty":
            choices[0]["message"]["content"] = None
        model = {"other model": "other", "own name": "loaded"}.get(fault, body["model"])
        self._send(200, {"id": "x", "object": "chat.completion", "model": model, "choices": choices})

    def _send(self, status: int, content: object) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0.1")
        if status == 307:
            self.send_header("Location", self.path)
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    server = Server()
    print(server.server_address[1], flush=True)
    server.serve_forever()
