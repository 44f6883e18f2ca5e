"""Makes the golden files of this folder with transformers and peft: tiny seeded checkpoints, adapters of every kind that
Banyan serves, and the log-probabilities that the reference gives. `services/engine/tests/golden_parity.rs` reads them.

    pip install torch transformers peft       # made with torch 2.15, transformers 5.23, peft 0.21
    python tests/golden/make.py               # rewrites bases/ beside this file

Everything is f32 with eager attention. Values are random but large enough that every part of the model shows in the
output: norms are not 1, biases are not 0, B is not 0. Other versions of torch give other random numbers and so other files,
whose log-probabilities must agree with Banyan's just as well.
"""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

OUT = Path(__file__).parent / "bases"
LENGTHS = [2, 7, 17, 33, 48]  # ascending: a dynamic RoPE of the reference remembers the longest it has seen

SMALL = dict(
    vocab_size=144,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.2,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)


def rope(kind, theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


LLAMA3 = rope(
    "llama3", 500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
YARN = rope("yarn", 1000.0, factor=4.0, original_max_position_embeddings=16)
YARN_FULL = rope(
    "yarn", 5000.0, factor=3.0, original_max_position_embeddings=32,
    beta_fast=8.0, beta_slow=0.5, mscale=0.8, mscale_all_dim=0.4, truncate=False,
)
YARN_FACTOR = rope("yarn", factor=2.0, original_max_position_embeddings=32, attention_factor=1.3)

# name: (config, how it is written, adapters)
BASES = {
    "llama": (
        LlamaConfig(**SMALL, head_dim=16, attention_bias=True, mlp_bias=True, rope_parameters=rope("default")),
        dict(form=5), "all",
    ),
    "llama-tied-llama3": (
        LlamaConfig(**SMALL, tie_word_embeddings=True, rope_parameters=LLAMA3),
        dict(form=4, shard="24KB", dtype=torch.bfloat16), "some",
    ),
    "llama-linear": (
        LlamaConfig(**{**SMALL, "num_key_value_heads": 4}, rope_parameters=rope("linear", factor=4.0)),
        dict(form=4), "few",
    ),
    "mistral": (
        MistralConfig(**{**SMALL, "num_key_value_heads": 1}, head_dim=10, sliding_window=8,
                      rope_parameters=rope("default", 1000000.0)),
        dict(form=4), "all",
    ),
    "mistral-yarn": (
        MistralConfig(**SMALL, sliding_window=None, rope_parameters=YARN), dict(form=5, dtype=torch.float16), "few",
    ),
    "qwen2": (
        Qwen2Config(**{**SMALL, "num_hidden_layers": 3}, tie_word_embeddings=True, use_sliding_window=True,
                    sliding_window=6, max_window_layers=1, rope_parameters=rope("linear", factor=2.0)),
        dict(form=5), "all",
    ),
    "qwen2-dynamic": (
        Qwen2Config(**{**SMALL, "max_position_embeddings": 24}, rope_parameters=rope("dynamic", factor=2.0)),
        dict(form=4, shard="24KB"), "few",
    ),
    "qwen2-yarn": (
        Qwen2Config(**SMALL, rope_parameters=YARN_FACTOR), dict(form=4), "few",
    ),
    "qwen3": (
        Qwen3Config(**SMALL, head_dim=24, tie_word_embeddings=True, rope_parameters=rope("default", 1000000.0)),
        dict(form=5, dtype=torch.bfloat16), "all",
    ),
    "qwen3-yarn": (
        Qwen3Config(**{**SMALL, "num_hidden_layers": 3}, head_dim=16, attention_bias=True, use_sliding_window=True,
                    sliding_window=5, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                    rope_parameters=YARN_FULL),
        dict(form=5, shard="24KB"), "some",
    ),
}

LAYER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapters(config):
    """Name: LoraConfig arguments."""
    biased = getattr(config, "attention_bias", False) or config.model_type == "qwen2"
    kinds = {
        "plain": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
        "dora": dict(r=3, lora_alpha=6, use_dora=True, target_modules=LAYER),
        "lm-head": dict(r=4, lora_alpha=4, target_modules=["q_proj", "lm_head"]),
        "rslora": dict(r=3, lora_alpha=5, use_rslora=True, target_modules=LAYER),
        "embedding": dict(r=3, lora_alpha=6, target_modules=["embed_tokens", "o_proj"]),
        "save-lm-head": dict(r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        "save-embedding": dict(r=2, lora_alpha=4, target_modules=["v_proj"], modules_to_save=["embed_tokens"]),
        "patterns": dict(r=2, lora_alpha=4, target_modules=LAYER, rank_pattern={"q_proj": 5, "layers.1.mlp.up_proj": 1},
                         alpha_pattern={"down_proj": 7, r"layers\.0\.self_attn\.q_proj": 3}),
        "patterns-rslora": dict(r=2, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "k_proj"],
                                rank_pattern={"^model.layers.0.self_attn.k_proj": 6}),
        "lora-bias": dict(r=2, lora_alpha=6, lora_bias=True, target_modules=["q_proj", "down_proj"]),
        "layers": dict(r=2, lora_alpha=8, target_modules=["q_proj", "gate_proj"], layers_to_transform=[1]),
        "layer-0": dict(r=2, lora_alpha=8, target_modules=["up_proj"], layers_to_transform=0, layers_pattern="layers"),
        "save-both": dict(r=2, lora_alpha=4, target_modules=["up_proj"], modules_to_save=["lm_head", "embed_tokens"]),
        "dora-embedding": dict(r=2, lora_alpha=3, use_dora=True, target_modules=["embed_tokens", "k_proj"]),
        "dora-lm-head": dict(r=2, lora_alpha=3, use_dora=True, target_modules=["lm_head"]),
        "regex": dict(r=2, lora_alpha=8, target_modules=r".*\.(0|2)\.(self_attn\.(k|o)_proj|mlp\.down_proj)"),
        "all-linear": dict(r=1, lora_alpha=2, target_modules="all-linear"),
        "exclude": dict(r=2, lora_alpha=8, target_modules=LAYER, exclude_modules=["o_proj", "layers.1.mlp.up_proj"]),
        "half": dict(r=4, lora_alpha=8, target_modules=["q_proj", "gate_proj"]),
        "negative": dict(r=2, lora_alpha=-4, target_modules=["o_proj"]),
    }
    if biased:
        kinds["bias-all"] = dict(r=2, lora_alpha=4, bias="all", target_modules=["q_proj"])
        kinds["bias-lora-only"] = dict(r=2, lora_alpha=4, bias="lora_only", target_modules=["q_proj", "v_proj"])
        kinds["bias-dora"] = dict(r=2, lora_alpha=4, bias="all", use_dora=True, target_modules=["k_proj", "v_proj"])
    return kinds


FEW = ["plain", "dora"]
SOME = FEW + ["lm-head", "rslora", "embedding", "save-lm-head", "save-embedding"]


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for seed, (name, (config, form, which)) in enumerate(BASES.items()):
        torch.manual_seed(seed)
        make(OUT / name, config, which=which, **form)
        print(name, sum(f.stat().st_size for f in (OUT / name).rglob("*") if f.is_file()) // 1024, "KiB")


def make(folder, config, which, form, shard=None, dtype=torch.float32):
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name:
                value.normal_(1.0, 0.3)
            elif name.endswith("bias"):
                value.normal_(0.0, 0.3)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_config(folder / "config.json", form, dtype)
    write_tokenizer(folder)

    generator = torch.Generator().manual_seed(99)
    sequences = [torch.randint(0, config.vocab_size, (n,), generator=generator).tolist() for n in LENGTHS]
    expected = {"sequences": sequences, "logprobs": {"base": score(load(folder), sequences)}}
    kinds = adapters(config)
    wanted = {"all": list(kinds), "some": SOME, "few": FEW}[which]
    for name in wanted:
        target = folder / "adapters" / name
        make_adapter(folder, target, LoraConfig(task_type="CAUSAL_LM", **kinds[name]), half=name == "half")
        expected["logprobs"][name] = score(PeftModel.from_pretrained(load(folder), target).eval(), sequences)
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


def make_adapter(folder, target, config, half):
    model = get_peft_model(load(folder), config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.requires_grad:
                continue
            if "magnitude" in name:
                value.mul_(1 + 0.3 * torch.randn_like(value))
            elif "lora_" in name:
                value.normal_(0.0, 0.2)
            else:  # biases and whole modules
                value.add_(0.1 * torch.randn_like(value))
        if half:
            for name, value in model.named_parameters():
                if value.requires_grad:
                    value.data = value.data.half()
    # The copies of untouched embeddings that "auto" would add are kept in one case, as most published adapters have none.
    keep = config.target_modules == {"embed_tokens", "o_proj"}
    model.save_pretrained(target, save_embedding_layers="auto" if keep else False)
    (target / "README.md").unlink(missing_ok=True)
    path = target / "adapter_config.json"
    saved = json.loads(path.read_text())
    saved["base_model_name_or_path"] = None  # the folder of this machine
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def score(model, sequences):
    """Natural log-probability of each token after the first."""
    out = []
    with torch.no_grad():
        for tokens in sequences:
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0].double()
            logprobs = torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
            out.append([round(value, 7) for value in logprobs.tolist()])
    return out


def write_config(path, form, dtype):
    """As transformers 5 writes it, or as 4 did."""
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    if form == 4:
        rope_parameters = config.pop("rope_parameters")
        config["rope_theta"] = rope_parameters.pop("rope_theta")
        kind = rope_parameters.pop("rope_type")
        key = "type" if kind == "linear" else "rope_type"
        config["rope_scaling"] = None if kind == "default" else {key: kind, **rope_parameters}
        config["torch_dtype"] = config.pop("dtype", str(dtype).removeprefix("torch."))
        config["transformers_version"] = "4.51.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_tokenizer(folder):
    """The smallest that a base may have; the golden sequences are token ids."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "root": 4, "trunk": 5, "leaf": 6}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    main()
