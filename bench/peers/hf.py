"""transformers and PEFT, measured in a process of their own. Runs in the peers' environment.

    python hf.py --folder DIR --dtype bf16 --adapters 16 --batch 16 --prompt 64 --decode 32 --threads 2 --repeats 3

Greedy decoding with a dynamic cache, `sdpa` attention. Prints one JSON object.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--adapters", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.folder / "base", dtype=DTYPES[args.dtype]).eval()
    names, load_s = None, []
    if args.adapters:
        model, load_s = with_adapters(model, args.folder, args.adapters)
        names = [f"a{row % args.adapters}" for row in range(args.batch)]
    runs = []
    for repeat in range(args.repeats + 1):
        run = generate(model, names, args, repeat)
        # The first one warms up.
        if repeat:
            runs.append(run)
    result = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    if load_s:
        result["adapter_load_s"] = statistics.median(load_s)
    print(json.dumps(result))


def with_adapters(model, folder: Path, count: int):
    from peft import PeftModel

    load_s = []
    model = PeftModel.from_pretrained(model, folder / "adapter-00", adapter_name="a0")
    for index in range(1, count):
        begin = time.perf_counter()
        model.load_adapter(folder / f"adapter-{index:02}", adapter_name=f"a{index}")
        load_s.append(time.perf_counter() - begin)
    return model.eval(), load_s


@torch.inference_mode()
def generate(model, names: list[str] | None, args: argparse.Namespace, repeat: int) -> dict:
    """Tokens per second of the prompts and of the steps after them."""
    rows = torch.arange(args.batch).unsqueeze(1) + repeat * args.batch
    ids = (rows * 7919 + torch.arange(args.prompt) * 104729 + 17) % 1000 + 300
    # A model without adapters has no such argument.
    extra = {"adapter_names": names} if names else {}
    cache = DynamicCache(config=model.config)
    begin = time.perf_counter()
    out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **extra)
    token = out.logits[:, -1].argmax(-1, keepdim=True)
    first = time.perf_counter()
    steps = []
    for _ in range(args.decode - 1):
        step = time.perf_counter()
        out = model(input_ids=token, past_key_values=cache, use_cache=True, **extra)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        steps.append(time.perf_counter() - step)
    wall = time.perf_counter() - begin
    return {
        "prefill": args.batch * args.prompt / (first - begin),
        "decode": args.batch * len(steps) / sum(steps),
        "ttft_s": first - begin,
        "itl_p50_s": statistics.median(steps),
        "tokens_per_s": args.batch * args.decode / wall,
    }


if __name__ == "__main__":
    main()
