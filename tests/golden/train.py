"""Makes the golden files of training with transformers and peft, and checks an adapter that Banyan exported.
`services/engine/tests/training/` reads the files.

    pip install torch transformers peft          # made with torch 2.15, transformers 5.23, peft 0.21
    python tests/golden/train.py                 # rewrites train/ beside this file, from the checkpoints in bases/
    python tests/golden/train.py --check DIR     # DIR as `cargo run -p engine --example export_adapter -- DIR` writes it

For each checkpoint and variant: an adapter with random A and B, the loss over two sequences with masked tokens, and the
gradient of that mean loss with respect to every factor. For one of them, a run of AdamW with warm-up, cosine, clipping and
two passes a step: the loss, norm and rate of each step and the factors after the last one. In f64 but for what the library
computes in f32 whatever the model is (norms, softmax, rotary angles).
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

HERE = Path(__file__).parent
LAYER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VARIANTS = {
    "plain": dict(r=4, lora_alpha=8, target_modules=LAYER),
    "rslora": dict(r=3, lora_alpha=5, use_rslora=True, target_modules=LAYER),
    "patterns": dict(r=2, lora_alpha=4, target_modules=LAYER, rank_pattern={"q_proj": 5, "layers.1.mlp.up_proj": 1},
                     alpha_pattern={"down_proj": 7, r"layers\.0\.self_attn\.q_proj": 3}),
    "subset": dict(r=2, lora_alpha=6, target_modules=["v_proj", "up_proj"], layers_to_transform=[1]),
    "ends": dict(r=3, lora_alpha=6, target_modules=["embed_tokens", "o_proj", "lm_head"]),
}
CASES = {
    "qwen3": list(VARIANTS), "llama": list(VARIANTS), "qwen2": ["plain"], "mistral": ["plain"], "qwen3-yarn": ["plain"],
    "llama-tied-llama3": ["rslora", "ends"],
}
CURVE = ("qwen3", "plain")
OPTIMISER = dict(learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.01, clip_norm=1.0,
                 schedule="cosine", warmup_steps=4, steps=24)


def main():
    out = HERE / "train"
    shutil.rmtree(out, ignore_errors=True)
    for seed, (base, variants) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(seed)
        vocab = load(base).config.vocab_size
        data = [sequence(vocab, length, masked, generator) for length, masked in [(21, 9), (34, 1)]]
        expected = {"sequences": data, "losses": {}}
        for variant in variants:
            folder = out / base / variant
            make_adapter(base, folder, VARIANTS[variant], generator)
            model = trainable(base, folder)
            loss = mean_loss(model, data)
            loss.backward()
            expected["losses"][variant] = loss.item()
            save_file({key(n): p.grad.float() for n, p in factors(model)}, folder / "gradients.safetensors")
            if (base, variant) == CURVE:
                curve(base, folder, vocab, generator)
        (out / base / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
    print(sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) // 1024, "KiB")


def sequence(vocab, length, masked, generator):
    """Random tokens, of which the first ones are context, and one later one is masked too. None is the padding token, whose
    row of an embedding torch never trains."""
    tokens = torch.randint(1, vocab, (length,), generator=generator).tolist()
    weights = [0.0] * masked + [1.0] * (length - masked)
    weights[-3] = 0.0
    return {"tokens": tokens, "weights": weights}


def make_adapter(base, folder, arguments, generator):
    model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **arguments))
    with torch.no_grad():
        for _, value in factors(model):
            value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    saved = json.loads(path.read_text())
    saved["base_model_name_or_path"] = None  # the folder of this machine
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")


def curve(base, folder, vocab, generator):
    """Four sequences a step, two in each pass; the same eight again and again."""
    data = [sequence(vocab, int(length), 3, generator) for length in [12, 9, 20, 15, 11, 18, 8, 14]]
    model = trainable(base, folder)
    values = [value for _, value in factors(model)]
    o = OPTIMISER
    optimiser = torch.optim.AdamW(values, lr=o["learning_rate"], betas=(o["beta1"], o["beta2"]), eps=o["epsilon"],
                                  weight_decay=o["weight_decay"])
    schedule = get_cosine_schedule_with_warmup(optimiser, o["warmup_steps"], o["steps"])
    steps = []
    for step in range(o["steps"]):
        batch = [data[(4 * step + i) % len(data)] for i in range(4)]
        total, loss = sum(weight(s) for s in batch), 0.0
        for part in (batch[:2], batch[2:]):
            share = mean_loss(model, part) * sum(weight(s) for s in part) / total
            share.backward()
            loss += share.item()
        norm = torch.nn.utils.clip_grad_norm_(values, o["clip_norm"]).item()
        steps.append({"loss": loss, "norm": norm, "rate": schedule.get_last_lr()[0]})
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    save_file({key(n): p.detach().float() for n, p in factors(model)}, folder / "trained.safetensors")
    record = {"sequences": data, "optimiser": o, "steps": steps}
    (folder / "curve.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")


def weight(sequence):
    return sum(sequence["weights"][1:])


def mean_loss(model, data):
    """Mean over the trained tokens of all sequences, as `labels` of -100 mask them."""
    loss = 0.0
    for s in data:
        logits = model(torch.tensor([s["tokens"]]), use_cache=False).logits[0, :-1].double()
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(s["tokens"][1:]), reduction="none")
        loss = loss + (nll * torch.tensor(s["weights"][1:], dtype=torch.float64)).sum()
    return loss / sum(weight(s) for s in data)


def load(base):
    return AutoModelForCausalLM.from_pretrained(HERE / "bases" / base, dtype=torch.float32, attn_implementation="eager")


def trainable(base, adapter):
    return PeftModel.from_pretrained(load(base), adapter, is_trainable=True).double()


def factors(model):
    return [(name, value) for name, value in model.named_parameters() if "lora_" in name]


def key(name):
    return name.replace(".default", "")


def check(folder):
    """Loads what Banyan exported: no key missing, none unexpected, and the log-probabilities that Banyan's engine gives."""
    record = json.loads((folder / "expected.json").read_text())
    adapter = folder / "adapter"
    model = get_peft_model(load(record["base"]), LoraConfig.from_pretrained(adapter))
    result = set_peft_model_state_dict(model, load_file(adapter / "adapter_model.safetensors"))
    missing = [name for name in result.missing_keys if "lora_" in name]
    print("missing:", missing, "unexpected:", result.unexpected_keys)
    assert not missing and not result.unexpected_keys
    worst = 0.0
    model.eval()
    for tokens, want in zip(record["sequences"], record["logprobs"]):
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0].double()
        got = torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        worst = max(worst, (got - torch.tensor(want, dtype=torch.float64)).abs().max().item())
    print(f"largest difference of a log-probability: {worst:.1e}")
    assert worst < 1e-4
    loaded = PeftModel.from_pretrained(load(record["base"]), adapter)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(factors(loaded), factors(model), strict=True))
    print(len(factors(loaded)), "factors, the same by from_pretrained")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    check(arguments.check) if arguments.check else main()
