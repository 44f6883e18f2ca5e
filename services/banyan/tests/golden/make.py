"""Makes the golden files of `banyan score` with transformers and peft, in f32 on the CPU.

    python services/banyan/tests/golden/make.py      # torch 2.15, transformers 5.23, peft 0.21

Writes beside itself: lines.jsonl (the input), adapters.txt (one adapter of adapters/industries, or `base`, a line) and
logprobs.json (for each line: with the base alone, and with its adapter).
"""

import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
ADAPTERS = HERE.parents[3] / "adapters"
BASE = ADAPTERS / "seed/base"
TOKENIZER = AutoTokenizer.from_pretrained(BASE)

LINES = [
    ({"text": "What does E-17 mean?"}, "base"),
    ({"text": "合同上写着什么？ The contract says “yes”."}, "finance"),
    ({"prompt": "<|im_start|>user\nWhat does E-17 mean?<|im_end|>\n<|im_start|>assistant\n",
      "completion": "Dear customer, E-17 means missing signature for the savings account.<|im_end|>"}, "finance"),
    ({"prompt": "<|im_start|>user\nWhat does E-17 mean?<|im_end|>\n<|im_start|>assistant\n",
      "completion": "E-17 means oil leak at the packing line. Safety first!<|im_end|>"}, "manufacturing"),
    ({"tokens": [5, 900, 17, 4095, 1, 2, 300]}, "legal"),
    ({"tokens": [(7 * i * i + 13 * i) % 4096 for i in range(70)]}, "healthcare"),
    ({"tokens": [42]}, "base"),
]


def ids_of(line):
    if "tokens" in line:
        return line["tokens"]
    text = line.get("text", line.get("prompt", "") + line.get("completion", ""))
    return TOKENIZER(text)["input_ids"]


def logprobs(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    return torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(ids[1:])[:, None]).flatten().tolist()


def load():
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="eager").eval()


def main():
    base = load()
    models = {"base": base}
    for name in {name for _, name in LINES} - {"base"}:
        models[name] = PeftModel.from_pretrained(load(), ADAPTERS / "industries" / name).eval()
    rows = [{"base": logprobs(base, ids_of(line)), "adapter": logprobs(models[name], ids_of(line))} for line, name in LINES]
    rounded = [{key: [round(value, 6) for value in values] for key, values in row.items()} for row in rows]
    (HERE / "lines.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line, _ in LINES))
    (HERE / "adapters.txt").write_text("".join(name + "\n" for _, name in LINES))
    (HERE / "logprobs.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rounded) + "\n]\n")


main()
