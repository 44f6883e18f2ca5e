"""Banyan beside llama.cpp and transformers + PEFT: the same random model, adapters and requests, in turn.

    python3 bench/peers --shape qwen2.5-0.5b --banyan target/release/banyan --json figures.json

Makes what it needs on the first run (an environment, a build of llama.cpp, a checkpoint, 16 adapters and their GGUF
forms) and keeps it in --folder. Every round runs every measurement once; medians over the rounds are printed. Runs
during which other processes took the machine are left out of the medians as far as quiet ones exist.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import banyan
import environment
import llama
import quiet
import report
from shapes import SHAPES

ADAPTERS = 16
RANK = 16
CLIENTS = 16
PROMPT, DECODE = 64, 64
BATCHES = [1, 8, 16]
DECODE_STEPS = 32
LONG_PROMPT = 512
PARTS = ["decode", "prefill", "clients", "transformers"]


def main() -> None:
    args = arguments()
    python = args.python_venv / "bin" / "python" if args.python_venv else environment.python_environment(args.folder)
    if args.llama_bin:
        programs, source = args.llama_bin, args.llama_source
    else:
        programs, source = environment.llama_cpp(args.folder)
    folder = args.folder / args.shape
    folder.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).parent
    made = [python, here / "checkpoint.py", "--shape", args.shape, "--adapters", ADAPTERS, "--rank", RANK]
    llama.run([*made, "--out", folder])
    llama.convert(python, source, folder, ADAPTERS)
    machine = banyan.machine(args.banyan)
    samples = report.Samples()
    bench = Bench(args, python, programs, folder, samples)
    for number in range(args.rounds):
        say(f"round {number + 1} of {args.rounds}")
        for part in args.parts:
            getattr(bench, part)()
    rows = samples.medians()
    print(json.dumps(machine["machine"]))
    print(report.table(rows, ours=f"banyan {args.dtypes[-1]}"))
    if args.json:
        facts = {"shape": args.shape, "rounds": args.rounds, "threads": args.threads, "machine": machine}
        args.json.write_text(json.dumps(facts | {"rows": rows}, indent=2))


class Bench:
    """One method for each part of a round."""

    def __init__(self, args: argparse.Namespace, python: Path, programs: Path, folder: Path, samples: report.Samples):
        self.args, self.python, self.programs, self.folder, self.samples = args, python, programs, folder, samples
        self.adapters = [folder / f"adapter-{index:02}.gguf" for index in range(ADAPTERS)]

    def decode(self) -> None:
        """Decode by batch, without a server."""
        base, threads = self.folder / "base", self.args.threads
        for gguf in ("q8_0", "bf16"):
            model = self.folder / f"base-{gguf}.gguf"
            given = (self.programs, model, threads, PROMPT, DECODE_STEPS, BATCHES)
            self.by_batch(f"llama.cpp {gguf}", "decode", llama.batched_bench, *given)
        for dtype in self.args.dtypes:
            given = (self.args.banyan, base, dtype, BATCHES, PROMPT, DECODE_STEPS, "decode")
            self.by_batch(f"banyan {dtype}", "decode", banyan.speed, *given)

    def prefill(self) -> None:
        """One long prompt."""
        base, threads = self.folder / "base", self.args.threads
        for gguf in ("q8_0", "bf16"):
            model = self.folder / f"base-{gguf}.gguf"
            given = (self.programs, model, threads, LONG_PROMPT, 1, [1])
            self.by_batch(f"llama.cpp {gguf}", "prefill", llama.batched_bench, *given)
        for dtype in self.args.dtypes:
            given = (self.args.banyan, base, dtype, [1], LONG_PROMPT, 2, "prefill")
            self.by_batch(f"banyan {dtype}", "prefill", banyan.speed, *given)

    def clients(self) -> None:
        """Clients at once: the base, one adapter, an adapter each."""
        for gguf in ("q8_0", "bf16"):
            model = self.folder / f"base-{gguf}.gguf"
            with llama.server(self.programs, model, self.adapters, self.args.threads, CLIENTS, self.args.kvu) as at:
                port, pid = at
                llama.closed_loop(port, 2, 1, ADAPTERS, 16, 8)
                for adapters in (0, 1, ADAPTERS):
                    with self.measured() as others:
                        figures = llama.closed_loop(port, CLIENTS, adapters, ADAPTERS, PROMPT, DECODE)
                    figures["resident_bytes"] = llama.resident_bytes(pid)
                    self.add(f"{CLIENTS} clients, {adapters} adapters", f"llama-server {gguf}", figures, others)
        for dtype in self.args.dtypes:
            counts = [0, 1, ADAPTERS]
            base = self.folder / "base"
            with self.measured() as others:
                rows = banyan.clients(self.args.banyan, base, dtype, CLIENTS, counts, PROMPT, DECODE)
            for row in rows:
                self.add(f"{CLIENTS} clients, {row.pop('adapters')} adapters", f"banyan {dtype}", row, others)

    def transformers(self) -> None:
        """A batch of 16 with torch: the base, and PEFT with an adapter for each row."""
        for dtype in ("bf16", "f32"):
            for adapters in (0, ADAPTERS):
                flags = ["--dtype", dtype, "--adapters", adapters, "--batch", CLIENTS, "--prompt", PROMPT]
                flags += ["--decode", DECODE, "--threads", self.args.threads, "--repeats", 1]
                script = Path(__file__).parent / "hf.py"
                with self.measured() as others:
                    output = llama.run([self.python, script, "--folder", self.folder, *flags])
                figures = json.loads(output.splitlines()[-1])
                figures |= {"ttft_p50_s": figures["ttft_s"], "ttft_p95_s": figures["ttft_s"]}
                who = f"{'PEFT' if adapters else 'transformers'} {dtype}"
                self.add(f"{CLIENTS} clients, {adapters} adapters", who, figures, others)

    def by_batch(self, who: str, figure: str, run, *given) -> None:
        with self.measured() as others:
            rows = run(*given)
        for row in rows:
            self.add(f"{figure}, batch {row['batch']}", who, {figure: row[figure]}, others)

    def measured(self):
        """Begins when nobody else computes, and sees who does meanwhile."""
        if not quiet.wait_until_quiet(report.OTHERS_CORES_MAX, patience_s=self.args.patience):
            say("the machine does not become quiet; measuring all the same")
        return quiet.others()

    def add(self, workload: str, who: str, figures: dict, others: quiet.Others) -> None:
        say(f"{workload}: {who}: {json.dumps(figures)}, others took {others.cores} cores")
        self.samples.add(workload, who, figures, others.cores)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument(
        "--banyan", type=Path, default=Path("target/release/banyan"), help="our binary, a release build"
    )
    default = Path(tempfile.gettempdir()) / "banyan-peers"
    parser.add_argument("--folder", type=Path, default=default, help="where everything made is kept")
    parser.add_argument("--python-venv", type=Path, help="an environment that has torch, transformers and peft")
    parser.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's programs; needs --llama-source")
    parser.add_argument("--llama-source", type=Path, help="folder of its source, for its converters")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", type=listed, default=["bf16", "int8"], help="of banyan; the last is compared")
    parser.add_argument("--parts", type=listed, default=PARTS, help=",".join(PARTS))
    parser.add_argument("--kvu", action="store_true", help="llama-server with one KV cache for all slots")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a quiet machine each time")
    parser.add_argument("--json", type=Path, help="write the medians there")
    args = parser.parse_args()
    if args.llama_bin and not args.llama_source:
        parser.error("--llama-bin needs --llama-source")
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))}")
    return args


def listed(text: str) -> list[str]:
    return text.split(",")


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
