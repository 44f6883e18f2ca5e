"""`banyan bench`, run as a person would, for rows beside those of the peers."""

import json
import subprocess
from pathlib import Path


def speed(
    binary: Path, base: Path, dtype: str, batches: list[int], prompt: int, decode: int, phases: str
) -> list[dict]:
    """Prefill and decode of one repeat by batch, base alone."""
    flags = ["--batch", ",".join(map(str, batches)), "--adapters", "0", "--phase", phases, "--ceiling-mib", "0"]
    flags += ["--prompt-tokens", str(prompt), "--decode-tokens", str(decode), "--repeats", "1"]
    rows = bench(binary, "speed", base, dtype, flags)
    return [
        {
            "batch": row["batch"],
            "prefill": row["prefill_tokens_per_second"],
            "decode": row["decode_tokens_per_second"],
        }
        for row in rows
    ]


def clients(binary: Path, base: Path, dtype: str, count: int, adapters: list[int], prompt: int, decode: int) -> list:
    """One burst of so many clients for each number of adapters."""
    flags = ["--clients", str(count), "--adapters", ",".join(map(str, adapters)), "--repeats", "1"]
    flags += ["--prompt-tokens", str(prompt), "--decode-tokens", str(decode)]
    rows = bench(binary, "clients", base, dtype, flags)
    return [
        {
            "adapters": row["adapters"],
            "tokens_per_s": row["tokens_per_second"],
            "ttft_p50_s": row["ttft_p50_seconds"],
            "ttft_p95_s": row["ttft_p95_seconds"],
            "itl_p50_s": row["itl_p50_seconds"],
        }
        for row in rows
    ]


def machine(binary: Path) -> dict:
    """The machine's ceilings and the line that names it."""
    return run([binary, "bench", "machine", "--json"])


def bench(binary: Path, mode: str, base: Path, dtype: str, flags: list[str]) -> list[dict]:
    return run([binary, "bench", mode, "--base", base, "--dtype", dtype, "--json", *flags])["rows"]


def run(command: list) -> dict:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout)
