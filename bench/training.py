"""Training small jobs: Banyan's together, Banyan's one after the other, and PEFT's one after the other, on one machine.

    cargo build --release -p engine --example training_speed
    python3 bench/training.py --python VENV/bin/python        # an environment with torch, transformers and peft

Every job has an adapter of its own (rank 8 on all linear layers, f32), AdamW with clipping and cosine, and makes steps from
the same number of sequences of one length, whose last third is learnt. Rounds run each program once, in turn; medians are
printed. PEFT gets what suits it: one batch without padding, as many threads as cores, logits of the learnt positions only
where the model class can be asked for them (`logits_to_keep`), SDPA attention, no gradient but that of the adapter.
With `--threads 1` both are timed on the processor, so that other programs disturb neither; with more, by the clock, for which
the machine must be quiet.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHAPES = [(1, 16), (1, 32), (1, 64), (4, 32), (4, 128)]  # sequences and length of a step of one job


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="a Python with torch, transformers and peft; without it, Banyan alone")
    parser.add_argument("--jobs", type=int, nargs="*", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--base", default=str(ROOT / "adapters/seed/base"))
    parser.add_argument("--binary", default=str(ROOT / "target/release/examples/training_speed"))
    parser.add_argument("--shapes", nargs="*", default=SHAPES, type=lambda text: tuple(map(int, text.split("x"))),
                        help="sequences and length of a step of one job, as 4x32")
    parser.add_argument("--peft", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peft:
        return peft(arguments)
    print(f"{arguments.threads} threads, {arguments.rounds} rounds of {arguments.steps} steps; tokens/s, MiB at the peak")
    print("| jobs | tokens of a step | PEFT | one after the other | together | together / alone | alone / PEFT | together / PEFT | PEFT MiB | Banyan MiB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for sequences, length in arguments.shapes:
        for jobs in arguments.jobs:
            measure(arguments, jobs, sequences, length)


def measure(arguments, jobs, sequences, length):
    banyan, other = [], []
    for _ in range(arguments.rounds):
        shape = ["--sequences", str(sequences), "--length", str(length)]
        common = ["--steps", str(arguments.steps), "--threads", str(arguments.threads), "--base", arguments.base]
        banyan.append(run([arguments.binary, "--jobs", str(jobs), *shape, *common]))
        if arguments.python:
            other.append(run([arguments.python, __file__, "--peft", f"{sequences}x{length}", *common]))
    assert all(result["same_bits"] for result in banyan), "a job trained together is not what it is alone"
    middle = lambda key, results: statistics.median(result[key] for result in results)
    alone, together = (middle(f"tokens_per_second_{how}", banyan) for how in ("in_sequence", "together"))
    peak = f"{middle('peak_mib_in_sequence', banyan):.0f}, {middle('peak_mib_together', banyan):.0f}"
    row = [str(jobs), f"{sequences} × {length}"]
    if other:
        peft_speed = middle("tokens_per_second", other)
        row += [f"{peft_speed:.0f}", f"{alone:.0f}", f"{together:.0f}", f"{together / alone:.2f}",
                f"{alone / peft_speed:.2f}", f"{together / peft_speed:.2f}", f"{middle('peak_mib', other):.0f}", peak]
    else:
        row += ["", f"{alone:.0f}", f"{together:.0f}", f"{together / alone:.2f}", "", "", "", peak]
    print("|", " | ".join(row), "|", flush=True)


def run(command):
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def peft(arguments):
    """One job: the others would take as long, one after the other."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

    torch.set_num_threads(arguments.threads)
    sequences, length = map(int, arguments.peft.split("x"))
    model = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=torch.float32, attn_implementation="sdpa")
    layer = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=8, target_modules=layer))
    values = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(values, lr=2e-3, weight_decay=0.0, foreach=True)
    schedule = get_cosine_schedule_with_warmup(optimiser, 0, arguments.steps + 1)
    learnt = length // 3
    tokens = torch.tensor([[100 + (i * 31 + 977 * n) % 3900 for i in range(length)] for n in range(sequences)])
    targets = tokens[:, -learnt:].reshape(-1)

    def step():
        logits = model(tokens, use_cache=False, logits_to_keep=learnt + 1).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(values, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)

    model.train()
    for _ in range(3):
        step()
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    begin = clock()
    for _ in range(arguments.steps):
        step()
    seconds = clock() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"tokens_per_second": sequences * length * arguments.steps / seconds, "peak_mib": peak}))


if __name__ == "__main__":
    sys.exit(main())
