"""llama.cpp: its batch benchmark and its server, with the flags that suit each best."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from clients import all_at_once

# How long a server may take to load.
START_S = 120
# Runs of the batch benchmark until its output is whole.
ATTEMPTS = 3
# Prompts are token ids below this: every shape's vocabulary has them.
PROMPT_VOCAB = 1000


def convert(python: Path, source: Path, folder: Path, adapters: int) -> None:
    """GGUF files of the base in both types, and of the adapters in f16 (its bf16 path is 2× slower, f32 is larger)."""
    here = Path(__file__).parent
    for outtype in ("q8_0", "bf16"):
        target = folder / f"base-{outtype}.gguf"
        if not target.exists():
            script = [python, here / "gguf_base.py", source, folder / "base"]
            run([*script, "--outfile", target.with_suffix(".part"), "--outtype", outtype])
            target.with_suffix(".part").rename(target)
    for index in range(adapters):
        target = folder / f"adapter-{index:02}.gguf"
        if not target.exists():
            script = [python, source / "convert_lora_to_gguf.py", "--base", folder / "base", "--outtype", "f16"]
            run([*script, "--outfile", target.with_suffix(".part"), folder / f"adapter-{index:02}"])
            target.with_suffix(".part").rename(target)


def batched_bench(bin_dir: Path, model: Path, threads: int, prompt: int, decode: int, batches: list[int]) -> list[dict]:
    """Decode and prefill without a server: {batch, prefill, decode} in tokens per second."""
    command = [bin_dir / "llama-batched-bench", "-m", model, "-c", "8192", "-b", "2048", "-ub", "512"]
    command += ["-t", str(threads), "-npp", str(prompt), "-ntg", str(decode), "-npl", ",".join(map(str, [*batches, 1]))]
    for _ in range(ATTEMPTS):
        output = run([*command, "--output-format", "jsonl"])
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{") and '"speed_tg"' in line]
        # It writes through a thread of its own and sometimes ends before its last line is out: hence one more batch.
        found = lines[: len(batches)]
        if [line["pl"] for line in found] == batches:
            return [{"batch": line["pl"], "prefill": line["speed_pp"], "decode": line["speed_tg"]} for line in found]
    raise RuntimeError(f"llama-batched-bench gave {len(lines)} results for {len(batches)} batches:\n{output}")


@contextmanager
def server(bin_dir: Path, model: Path, adapters: list[Path], threads: int, slots: int, unified_kv: bool):
    """A running llama-server; gives its port and process id. Its output goes to a file beside the model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [bin_dir / "llama-server", "-m", model, "-t", str(threads), "-tb", str(threads)]
    command += ["-np", str(slots), "-c", str(256 * slots), "-b", "2048", "-ub", "512", "--port", str(port)]
    command += ["--cache-ram", "0", "--no-cache-prompt", "--no-ui", *(["-kvu"] if unified_kv else [])]
    if adapters:
        command += ["--lora", ",".join(map(str, adapters)), "--lora-init-without-apply"]
    with open(model.with_suffix(".server.log"), "wb") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
        try:
            wait_until_healthy(process, port)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_healthy(process: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"llama-server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"llama-server did not become healthy within {START_S} s")


def closed_loop(port: int, clients: int, adapters: int, loaded: int, prompt: int, decode: int) -> dict:
    """Each client sends one request. `adapters` distinct ones are given out in turn; 0 is the base.

    Every request names its adapters: without the field, llama-server runs it with all that are loaded, at scale 1."""
    bodies = []
    for client in range(clients):
        ids = [(client * 7919 + at * 104729 + 17) % PROMPT_VOCAB + 300 for at in range(prompt)]
        chosen = {"id": client % adapters, "scale": 1.0} if adapters else {"id": 0, "scale": 0.0}
        body = {"prompt": ids, "n_predict": decode, "stream": True, "temperature": 0.0, "ignore_eos": True}
        bodies.append(body | {"cache_prompt": False} | ({"lora": [chosen]} if loaded else {}))
    result = all_at_once("127.0.0.1", port, "/completion", bodies)
    if result["tokens"] != clients * decode:
        raise RuntimeError(f"llama-server gave {result['tokens']} tokens of {clients * decode}")
    return result


def resident_bytes(pid: int) -> int:
    """Physical memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(command: list) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout
