"""Real model servers, each a process of its own, for slow tests: `transformers serve` and llama-cpp-python's server.

What a server needs besides the test environment goes into a folder of its own, so the environment stays as it is. The
tests skip with the reason where pip cannot fetch it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

LLAMA_VARIABLE = "DRSOW_LLAMA_PYTHON"
"""The environment variable with a Python that has `llama-cpp-python[server]`, whose build takes half an hour."""

STARTS_S = 300


def serving_packages(folder: Path) -> Path:
    """A folder for PYTHONPATH with what `transformers serve` needs."""
    wanted = ["fastapi", "uvicorn", "openai>=1.98"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "0"]
    done = subprocess.run([*command, "--target", str(folder), *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        pytest.skip(f"pip cannot fetch {', '.join(wanted)}: {reason}")
    return folder


def llama_python() -> str:
    """A Python that has llama-cpp-python's server; skips the test if there is none."""
    python = os.environ.get(LLAMA_VARIABLE, sys.executable)
    known = "import llama_cpp.server.app"
    done = subprocess.run([python, "-c", known], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(
            f"{python}: it has no llama-cpp-python server; install 'llama-cpp-python[server]' into an environment and "
            f"name its Python in {LLAMA_VARIABLE}"
        )
    return python


class RealServer:
    """A server process that has answered once."""

    def __init__(
        self, words: Sequence[str], port: int, model: str, *, ready: str, variables: Mapping[str, str], log: Path
    ) -> None:
        """Start the server and wait for its first answer.

        Args:
            words: The command.
            port: Where it listens on this machine.
            model: The model's name on the server.
            ready: A path that it answers when it is ready.
            variables: More environment variables.
            log: The file that its output goes to.
        """
        self.url, self.model = f"http://127.0.0.1:{port}", model
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
        with log.open("wb") as output:
            self.process = subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT)
        ends = time.monotonic() + STARTS_S
        while time.monotonic() < ends and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url + ready, timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self.end()
        raise AssertionError(f"{' '.join(words)}: does not answer: {log.read_text(errors='replace')[-2000:]}")

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def chat_server(model: Path, scratch: Path) -> RealServer:
    """`transformers serve` with the model of a folder, in float32 on the CPU, without the hub.

    It serves a copy whose generation_config.json says `do_sample`: the server (transformers 5.23) takes the greedy text
    at every temperature if the file does not say so. It answers POST /v1/chat/completions with one choice, also if `n`
    asks for more. A seed is set for the whole process, so it holds only for questions that are asked one by one.
    GET /v1/models lists what is in the hub's cache, not the folder.
    """
    copy = Path(shutil.copytree(model, scratch / "model"))
    (copy / "generation_config.json").write_text(json.dumps({"do_sample": True}))
    packages = serving_packages(scratch / "packages")
    (scratch / "home" / "hub").mkdir(parents=True)
    port = free_port()
    served = ["serve", str(copy), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    paths = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {"HF_HOME": str(scratch / "home"), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "transformers.cli.transformers", *served]
    return RealServer(command, port, str(copy), ready="/health", variables=variables, log=scratch / "serve.log")


def llama_server(gguf: Path, scratch: Path, *, n_context: int = 2048) -> RealServer:
    """llama-cpp-python's server with a GGUF file, which keeps the numbers of every token for `echo`."""
    port = free_port()
    about = ["--model", str(gguf), "--model_alias", "tiny", "--n_ctx", str(n_context), "--logits_all", "true"]
    where = ["--host", "127.0.0.1", "--port", str(port), "--n_threads", "1", "--n_threads_batch", "1"]
    command = [llama_python(), "-m", "llama_cpp.server", *about, *where]
    return RealServer(command, port, "tiny", ready="/v1/models", variables={}, log=scratch / "llama.log")
