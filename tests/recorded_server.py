"""A server of ours that speaks the recorded formats of vLLM, SGLang and llama-cpp-python, each with planted faults.

It is none of them: no engine computes here. It answers with the field names that those servers have, and with
log-probabilities that are a function of the ids, so a test works them out by hand. It runs as a real process:
`python recorded_server.py KIND TOKENIZER_FOLDER [PORT]`, prints its port, and reads what it shall do wrong from POST
/fault.
"""

import itertools
import json
import math
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tokenizers import Tokenizer

VERSIONS = {"vllm": "0.12.0", "sglang": "0.5.6", "openai-echo": "0.3.36"}
ABOUT = {"vllm": "/version", "sglang": "/get_server_info", "openai-echo": "/openapi.json"}
"""The path of each kind's version; no other kind has it."""


def nats(before: int, token: int, shift: float = 0.0) -> float:
    """The log-probability of a token after another one: between -1.0 and -0.1, in tenths."""
    return -((3 * before + token) % 10 + 1) / 10 - shift


class Server(ThreadingHTTPServer):
    """What is served, and the fault that is planted."""

    daemon_threads = True

    def __init__(self, kind: str, tokenizer: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Answers)
        self.kind, self.tokenizer = kind, Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
        self.fault, self.left = "", 0
        """The fault, and on how many further questions it begins."""
        self.seen: list[str] = []
        """The Authorization of each question."""
        self.lock, self.now, self.most = threading.Lock(), 0, 0


class Answers(BaseHTTPRequestHandler):
    """One question."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server: Server = self.server
        models = [{"id": "tiny", "object": "model", "owned_by": "vllm", "max_model_len": 2049}]
        if server.fault == "adapter":
            models.append({"id": "ad", "object": "model", "owned_by": "vllm", "parent": "tiny", "max_model_len": None})
        if server.fault == "short context":
            models[0]["max_model_len"] = 41
        if server.fault == "endless context":
            models[0]["max_model_len"] = math.inf
        if server.fault == "odd version":
            return self._send(
                200, {"data": models} if self.path == "/v1/models" else {"version": "\x1b]0;x\x07\x9b0.12"}
            )
        if server.fault == "odd list":
            models = ["tiny"]
        if server.fault == "llama.cpp":
            models[0]["owned_by"] = "llamacpp"
        version = {"version": VERSIONS[server.kind]}
        told = {
            "/v1/models": {"object": "list", "data": models},
            ABOUT[server.kind]: {"info": version} if server.kind == "openai-echo" else version,
            "/seen": {"authorization": server.seen, "most": server.most},
        }
        self._send(200, told[self.path]) if self.path in told else self._send(404, {"error": "no such path"})

    def do_POST(self) -> None:
        server: Server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/fault":
            server.fault, server.left, server.most = body["fault"], body.get("after", 0), 0
            return self._send(200, {})
        with server.lock:
            server.seen.append(self.headers.get("Authorization", ""))
            server.left -= 1
            fault = server.fault if server.left < 0 else ""
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            return self._fail(fault) or self._answer(body, fault)
        finally:
            with server.lock:
                server.now -= 1

    def _fail(self, fault: str) -> bool:
        server: Server = self.server
        time.sleep({"slow": 0.2, "stuck": 6}.get(fault, 0))
        if fault == "dies":
            os._exit(1)
        if fault in ("busy once", "broken once"):
            server.fault = ""
        status = {"busy": 429, "broken": 500, "bad": 400, "long": 400}.get(fault.split()[0] if fault else "")
        if status:
            words = "This model's maximum context length is 41 tokens." if fault == "long" else f"planted {status}"
            self._send(status, {"error": {"message": words, "type": "planted"}})
        if fault == "no http":
            self.wfile.write(b"hello\r\n\r\n")
            self.close_connection = True
            return True
        if fault == "half":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            self.close_connection = True
            return True
        return bool(status)

    def _answer(self, body: dict, fault: str) -> None:
        form = {"vllm": self._vllm, "sglang": self._sglang, "openai-echo": self._echo}[self.server.kind]
        self._send(200, form(body, fault))

    def _ids(self, ids: list[int], fault: str) -> list[int]:
        if fault == "cuts":
            return ids[3:]
        if fault == "adds BOS":
            return [1, *ids]
        return [*ids[:-2], ids[-2] ^ 1, ids[-1]] if fault == "other ids" else ids

    def _nats(self, ids: list[int], fault: str) -> list[float | None]:
        shift = {"other model": 0.5, "chance": 20.0}.get(fault, 0.0)
        if fault == "no number":
            shift = float("nan")
        found = [None, *(nats(before, token, shift) for before, token in itertools.pairwise(ids))]
        return [*found[:-2], -9999.0, found[-1]] if fault == "clamps" else found

    def _vllm(self, body: dict, fault: str) -> dict:
        assert (body["max_tokens"], body["prompt_logprobs"]) == (1, 0)
        fault = {"tiny": fault, "ad": "other model"}[body["model"]]
        assert body["return_token_ids"] and "truncate_prompt_tokens" not in body
        (sent,) = body["prompt"]
        ids = self._ids(sent, fault)
        entries = [value if value is None else {str(t): {"logprob": value, "rank": 1, "decoded_token": "?"}}
                   for t, value in zip(ids, self._nats(ids, fault), strict=True)]  # fmt: skip
        choice = {"index": 0, "text": "x", "prompt_logprobs": None if fault == "no numbers" else entries}
        return {"model": "tiny", "choices": [choice | {"prompt_token_ids": ids, "token_ids": [5]}]}

    def _sglang(self, body: dict, fault: str) -> dict:
        assert body["return_logprob"] and body["sampling_params"] == {"temperature": 0, "max_new_tokens": 0}
        fault = {None: fault, "ad": "other model"}[body.get("lora_path")]
        ids, first = self._ids(body["input_ids"], fault), body["logprob_start_len"]
        values = [None, *self._nats(ids, fault)[first + 1 :]]
        entries = [[value, token, None] for value, token in zip(values, ids[first:], strict=True)]
        meta = {"prompt_tokens": len(ids), "completion_tokens": 0, "input_token_logprobs": entries}
        if fault == "no numbers":
            del meta["input_token_logprobs"]
        return {"text": "", "meta_info": meta}

    def _echo(self, body: dict, fault: str) -> dict:
        assert body["echo"] and body["logprobs"] == 1 and isinstance(body["prompt"], str)
        tokenizer = self.server.tokenizer
        ids = self._ids(tokenizer.encode(body["prompt"]).ids, fault)
        # As llama-cpp-python 0.3.36: a first BOS moves the tokens to their numbers, and no BOS is listed at all.
        known = (tokenizer.token_to_id(name) for name in ("<s>", "<|im_start|>"))
        bos = None if fault == "no BOS" else next(each for each in known if each is not None)
        begins = ids[0] == bos
        values = self._nats(ids, fault)[1:] if begins else [nats(i, i) for i in ids]
        pairs = zip([*ids[begins:], 5], [*values, -0.5][: len(ids)], strict=False)
        listed = [(tokenizer.decode([i]).replace("\ufffd", ""), value) for i, value in pairs if i != bos]
        tokens, numbers = [token for token, _ in listed], [None, *(value for _, value in listed[1:])]
        found = {"tokens": tokens, "token_logprobs": numbers, "text_offset": [], "top_logprobs": []}
        choice = {"index": 0, "text": body["prompt"], "logprobs": None if fault == "no numbers" else found}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        return {"model": "tiny", "choices": [choice | {"finish_reason": "length"}], "usage": usage}

    def _send(self, status: int, content: dict) -> None:
        data = b"[" * 100_000 + b"]" * 100_000 if self.server.fault == "nested" else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    serving = Server(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    print(serving.server_address[1], flush=True)
    serving.serve_forever()
