"""Writes a random checkpoint and random adapters in the layouts of transformers and PEFT. Runs in the peers'
environment (it needs torch and safetensors).

    python checkpoint.py --shape qwen2.5-0.5b --adapters 16 --rank 16 --out DIR

DIR/base is the checkpoint (bf16), DIR/adapter-00 … the adapters (bf16). What is there already is kept.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from shapes import PROJECTIONS, SHAPES, linear_sizes

# Standard deviation of the weights: that of the published models' initialisation.
DEVIATION = 0.02
# llama.cpp refuses a byte-pair vocabulary without any merge.
MERGES = [("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("e", "r")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = SHAPES[args.shape]
    base = args.out / "base"
    if not (base / "model.safetensors").exists():
        write_base(base, config)
    for index in range(args.adapters):
        folder = args.out / f"adapter-{index:02}"
        if not (folder / "adapter_model.safetensors").exists():
            write_adapter(folder, config, args.rank, seed=index + 1)


def write_base(folder: Path, config: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_tokenizer(folder, config["vocab_size"])
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).mul_(DEVIATION).to(torch.bfloat16)

    hidden = config["hidden_size"]
    ones = torch.ones(hidden, dtype=torch.bfloat16)
    tensors = {"model.embed_tokens.weight": random(config["vocab_size"], hidden), "model.norm.weight": ones.clone()}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.input_layernorm.weight"] = ones.clone()
        tensors[f"{prefix}.post_attention_layernorm.weight"] = ones.clone()
        for name, (inputs, outputs) in linear_sizes(config).items():
            tensors[f"{prefix}.{PROJECTIONS[name]}.{name}.weight"] = random(outputs, inputs)
            if name in ("q_proj", "k_proj", "v_proj"):
                tensors[f"{prefix}.{PROJECTIONS[name]}.{name}.bias"] = random(outputs)
    save(tensors, folder / "model.safetensors")


def write_adapter(folder: Path, config: dict, rank: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    adapter_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": list(PROJECTIONS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config, indent=2))
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (inputs, outputs) in linear_sizes(config).items():
            prefix = f"base_model.model.model.layers.{layer}.{PROJECTIONS[name]}.{name}"
            for side, size in (("A", (rank, inputs)), ("B", (outputs, rank))):
                value = torch.randn(*size, generator=generator).mul_(DEVIATION)
                tensors[f"{prefix}.lora_{side}.weight"] = value.to(torch.bfloat16)
    save(tensors, folder / "adapter_model.safetensors")


def save(tensors: dict, path: Path) -> None:
    """Under another name first, so that a run that was cut off leaves no half file."""
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"format": "pt"})
    part.rename(path)


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """A byte-level tokenizer whose other entries are plain words: every id has a text, and none is half a character."""
    alphabet = byte_alphabet()
    vocab = {"<|endoftext|>": 0} | {character: index + 1 for index, character in enumerate(alphabet)}
    for left, right in MERGES:
        vocab[left + right] = len(vocab)
    for index in range(len(vocab), vocab_size):
        vocab[f"word{index}"] = index
    special = {"id": 0, "content": "<|endoftext|>", "special": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special | flags],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": [" ".join(pair) for pair in MERGES]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 32768,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins of the 256 bytes, in the order of the bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    stand_ins = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256)]


if __name__ == "__main__":
    main()
