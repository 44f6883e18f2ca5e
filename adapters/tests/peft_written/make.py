"""Writes what PEFT itself writes: tiny bases, one adapter of each kind on them, and PEFT's own facts about each.

The Rust test `peft_written` resolves every adapter and compares rank, scale and the norm of the change with what the
loaded PEFT model says. `patterns.json` holds PEFT's verdict on our table of names and patterns.

    python make.py          # needs torch, transformers and peft; overwrites bases/, adapters/ and the JSON files

It does not compute logits: the served arithmetic is compared elsewhere.
"""

import json
import os
import shutil
import sys
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":  # PEFT writes sets as lists: fix their order
    os.environ.update(PYTHONHASHSEED="0", HF_HUB_OFFLINE="1")
    os.execv(sys.executable, [sys.executable, *sys.argv])

import peft
import torch
import transformers
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists
from peft.utils.other import get_pattern_key
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

HERE = Path(__file__).resolve().parent
BASES, ADAPTERS = HERE / "bases", HERE / "adapters"
SIZES = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128)
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]


def write_base(name, config, cls, dtype):
    torch.manual_seed(7)
    folder = BASES / name
    model = cls(config).to(dtype)
    with torch.no_grad():
        for key, value in model.named_parameters():
            value.normal_(1.0 if "norm" in key else 0.0, 0.2)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    words = {f"t{i}": i for i in range(SIZES["vocab_size"])}
    Tokenizer(models.WordLevel(words, unk_token="t0")).save(str(folder / "tokenizer.json"))


def load(base, dtype=None):
    dtype = dtype or (torch.float32 if base == "tiny-llama" else torch.bfloat16)
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype)


def perturb(model):
    """As if trained: every adapter tensor, private module and trained bias moves."""
    generator = torch.Generator().manual_seed(11)

    def noise(value):
        return torch.randn(value.shape, generator=generator).to(value.dtype) * 0.1

    with torch.no_grad():
        for key, value in model.named_parameters():
            if "magnitude" in key:
                value.mul_(1 + noise(value))
            elif "lora_" in key:
                value.copy_(noise(value))
            elif value.requires_grad:
                value.add_(noise(value))


def facts(base, folder, dtype):
    """What PEFT's own loader makes of the folder."""
    model = PeftModel.from_pretrained(load(base, dtype), folder)
    modules = {}
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer):
            modules[name] = {
                "rank": module.r["default"],
                "alpha": module.lora_alpha["default"],
                "scale": module.scaling["default"],
                "delta_norm": module.get_delta_weight("default").double().norm().item(),
                "dora": bool(module.use_dora["default"]),
                "lora_bias": bool(module.lora_bias["default"]),
            }
    # what the input and the output side of the vocabulary are once the adapter is on
    plain = load(base, dtype)
    ids = torch.arange(SIZES["vocab_size"])
    eye = torch.eye(SIZES["hidden_size"], dtype=plain.dtype)
    with torch.no_grad():
        wrapped = model.base_model.model
        changed_in = not torch.equal(wrapped.model.embed_tokens(ids).float(), plain.model.embed_tokens(ids).float())
        changed_out = not torch.equal(wrapped.lm_head(eye).float(), plain.lm_head(eye).float())
    return {"modules": modules, "input_changed": changed_in, "output_changed": changed_out}


def write_adapter(name, base="tiny-llama", dtype=None, config=None, resize=None, convert=False, **fields):
    torch.manual_seed(3)
    model = load(base, dtype)
    if resize:
        model.resize_token_embeddings(resize, mean_resizing=False)
    config = config or LoraConfig(task_type="CAUSAL_LM", **{"r": 2, "lora_alpha": 3, "target_modules": QKVO} | fields)
    config.base_model_name_or_path = base
    model = get_peft_model(model, config, autocast_adapter_dtype=dtype is None)
    folder = ADAPTERS / name
    if convert:
        initial = HERE / "initial"
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(initial)
        perturb(model)
        model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(initial))
        shutil.rmtree(initial)
    else:
        perturb(model)
        model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def accepted():
    llama, qwen = {"base": "tiny-llama"}, {"base": "tiny-qwen3"}
    kinds = {
        "plain": llama,
        "plain-qwen3": qwen,
        "default-targets": llama | dict(target_modules=None),
        "rslora": llama | dict(use_rslora=True, r=3),
        "rslora-patterns": llama | dict(use_rslora=True, rank_pattern={"q_proj": 4}, alpha_pattern={"o_proj": 7}),
        "dora": llama | dict(use_dora=True),
        "dora-qwen3": qwen | dict(use_dora=True, target_modules=["q_proj", "down_proj"]),
        "dora-embedding": llama | dict(use_dora=True, target_modules=["embed_tokens", "q_proj"]),
        "lora-bias": llama | dict(lora_bias=True),
        "bias-all": llama | dict(bias="all", target_modules=["q_proj"]),
        "bias-lora-only": llama | dict(bias="lora_only", target_modules=["q_proj", "down_proj"]),
        "bias-all-without-biases": qwen | dict(bias="all"),
        "patterns": qwen | dict(target_modules="all-linear",
                                rank_pattern={"^model.layers.1.self_attn.q_proj": 4, "layers.0.mlp.(up|gate)_proj": 1},
                                alpha_pattern={"layers.1.mlp.down_proj": 8, "k_proj": 16}),
        "regex": llama | dict(target_modules=r".*\.layers\.[0-9]+\.(self_attn\.(q|v)_proj|mlp\.up_proj)"),
        "regex-lookaround": llama | dict(target_modules=r"^(?!.*layers\.0).*(?<=mlp\.)(gate|up)_proj"),
        "all-linear": qwen | dict(target_modules="all-linear"),
        "exclude": llama | dict(exclude_modules=["layers.0.self_attn.q_proj", "o_proj"]),
        "exclude-regex": llama | dict(exclude_modules=r".*layers\.1\..*"),
        "layers": llama | dict(layers_to_transform=[1], layers_pattern="layers"),
        "layer-zero": llama | dict(layers_to_transform=0),
        "embeddings": llama | dict(target_modules=["embed_tokens", "q_proj"]),
        "embeddings-tied": qwen | dict(target_modules=["embed_tokens", "q_proj"]),
        "lm-head": llama | dict(target_modules=["lm_head", "v_proj"]),
        "lm-head-tied": qwen | dict(target_modules=["lm_head", "v_proj"]),
        "save-lm-head": llama | dict(modules_to_save=["lm_head"]),
        "save-lm-head-tied": qwen | dict(modules_to_save=["lm_head"]),
        "save-embeddings-tied": qwen | dict(modules_to_save=["embed_tokens"]),
        "save-both": llama | dict(modules_to_save=["lm_head", "embed_tokens"]),
        "save-both-tied": qwen | dict(modules_to_save=["lm_head", "embed_tokens"]),
        "bf16": llama | dict(dtype=torch.bfloat16),
        "f16": qwen | dict(dtype=torch.float16),
        "pissa-converted": llama | dict(init_lora_weights="pissa", convert=True),
        "olora-converted": llama | dict(init_lora_weights="olora", convert=True, rank_pattern={"q_proj": 4}),
        "eva-like": llama | dict(init_lora_weights="orthogonal"),
    }
    written = {}
    for name, fields in kinds.items():
        folder = write_adapter(name, **fields)
        written[name] = {"base": fields["base"]} | facts(fields["base"], folder, fields.get("dtype"))
    return written


def refused():
    kinds = {
        "pissa": (dict(init_lora_weights="pissa"), "E_BASE_MUTATING"),
        "olora": (dict(init_lora_weights="olora"), "E_BASE_MUTATING"),
        "resized": (dict(resize=72), "E_VOCAB_CHANGED"),
        "resized-tied": (dict(base="tiny-qwen3", resize=72), "E_VOCAB_CHANGED"),
        "trainable-tokens": (dict(trainable_token_indices=[1, 5]), "E_UNSUPPORTED"),
        "alora": (dict(alora_invocation_tokens=[4, 2]), "E_UNSUPPORTED"),
        "tied-together": (dict(base="tiny-qwen3", modules_to_save=["embed_tokens"], ensure_weight_tying=True), "E_UNSUPPORTED"),
        "saved-norm": (dict(modules_to_save=["model.norm"]), "E_FULL_MODULE"),
        "ia3": (dict(config=IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"],
                                      feedforward_modules=["down_proj"])), "E_PEFT_TYPE"),
    }
    written = {}
    for name, (fields, code) in kinds.items():
        write_adapter(name, **fields)
        written[name] = {"base": fields.get("base", "tiny-llama"), "code": code}
    return written


# (module, target_modules, exclude_modules, layers_to_transform, layers_pattern)
NAMES = [
    ("model.layers.0.self_attn.q_proj", ["q_proj"], None, None, None),
    ("model.layers.0.self_attn.q_proj", ["proj"], None, None, None),
    ("model.layers.0.self_attn.q_proj", ["self_attn.q_proj"], None, None, None),
    ("model.layers.0.self_attn.q_proj", ["model.layers.0.self_attn.q_proj"], None, None, None),
    ("model.layers.0.self_attn.q_proj", ["model.layers.0.self_attn.q_proj"], None, [1], None),
    ("model.layers.0.self_attn.q_proj", ["attn.q_proj"], None, None, None),
    ("q_proj", ["q_proj"], None, None, None),
    ("lm_head", ["lm_head"], None, [0], None),
    ("model.lm_head", ["lm_head"], None, [0], None),
    ("model.layers.0.q_proj", ["q_proj"], None, 0, None),
    ("model.layers.0.q_proj", ["q_proj"], None, [0], None),
    ("model.layers.0.q_proj", ["q_proj"], None, 1, None),
    ("model.layers.0.q_proj", ["q_proj"], None, [], None),
    ("model.layers.10.q_proj", ["q_proj"], None, [1], None),
    ("model.layers.10.q_proj", ["q_proj"], None, [10], "layers"),
    ("model.layers.10.q_proj", ["q_proj"], None, [10], ["layers"]),
    ("model.layers.10.q_proj", ["q_proj"], None, [10], ["blocks", "layers"]),
    ("model.layers.10.q_proj", ["q_proj"], None, [10], ["blocks"]),
    ("model.layers.10.q_proj", ["q_proj"], None, [10], ""),
    ("model.layers.10.q_proj", ["q_proj"], None, [10], []),
    ("model.layers.001.q_proj", ["q_proj"], None, [1], None),
    ("foo.bar.001.baz", ["baz"], None, [1], ["bar"]),
    ("foo.bar.1.baz", ["baz"], None, [1], ["ar"]),
    ("foo.bar.1.baz", ["baz"], None, [1], ["foo.bar"]),
    ("bar.1.baz", ["baz"], None, [1], ["bar"]),
    ("bar.1.baz", ["baz"], None, [1], None),
    ("1.baz", ["baz"], None, [1], None),
    ("foo.1.baz", ["baz"], None, [1], None),
    ("x.foo.1.baz", ["baz"], None, [1], None),
    ("foo.bar.1.whatever.2.baz", ["baz"], None, [1], None),
    ("foo.bar.1.whatever.2.baz", ["baz"], None, [2], None),
    ("foo.bar.1.whatever.2.baz", ["baz"], None, [2], ["whatever"]),
    ("foo.bar.1.whatever.2.baz", ["baz"], None, [1], ["whatever"]),
    ("foo.bar.1.whatever.2.baz", ["baz"], None, [2], ["bar", "whatever"]),
    ("model.layers.3.mlp.experts.5.up_proj", ["up_proj"], None, [5], None),
    ("model.layers.3.mlp.experts.5.up_proj", ["up_proj"], None, [3], None),
    ("blocks.1.weight", ["weight"], None, [1], ["blocks"]),
    ("blocks.1.bias", ["weight"], None, [1], ["blocks"]),
    ("mlp.blocks.1.weight", ["weight"], None, [1], ["blocks"]),
    ("mlp.blocks.1.weight", ["mlp.blocks.1.weight"], None, [2], ["blocks"]),
    ("model.h.4.attn", ["attn"], None, [4], "h|layers"),
    ("model.layers.4.attn", ["attn"], None, [4], "h|layers"),
    ("model.layers.4.attn", ["attn"], None, [4], "(h|layers)"),
    ("model.layers.4.attn", ["attn"], None, [4], "l.yers"),
    ("model.layers.0.q_proj", r".*q_proj", None, None, None),
    ("model.layers.0.q_proj", r"q_proj", None, None, None),
    ("model.layers.0.q_proj", r"model\.layers\.\d\.q_proj", None, None, None),
    ("model.layers.0.q_proj", r"model\.layers\.\d", None, None, None),
    ("model.layers.0.q_proj", r".*(k|q)_proj$", None, None, None),
    ("model.layers.0.q_proj", r"model|model.layers.0.q_proj", None, None, None),
    ("model.layers.0.q_proj", r"(?i).*Q_PROJ", None, None, None),
    ("model.layers.0.q_proj", r"(?!.*layers\.0).*q_proj", None, None, None),
    ("model.layers.7.q_proj", r"(?!.*layers\.0).*q_proj", None, None, None),
    ("model.layers.7.up7", r".*layers\.(\d)\.up\1", None, None, None),
    ("model.layers.7.up8", r".*layers\.(\d)\.up\1", None, None, None),
    ("model.layers.7.up7", r".*layers\.(?P<n>\d)\.up(?P=n)", None, None, None),
    ("model.layers.0.q_proj", r"", None, None, None),
    ("model.layers.0.q_proj", ["q_proj"], ["q_proj"], None, None),
    ("model.layers.0.q_proj", ["q_proj"], ["proj"], None, None),
    ("model.layers.0.q_proj", ["q_proj"], ["layers.0.q_proj"], None, None),
    ("model.layers.1.q_proj", ["q_proj"], ["layers.0.q_proj"], None, None),
    ("model.layers.0.q_proj", ["q_proj"], r".*layers\.0.*", None, None),
    ("model.layers.0.q_proj", ["q_proj"], r"layers\.0.*", None, None),
    ("model.layers.0.q_proj", r".*", ["q_proj"], None, None),
    ("model.layers.0.q_proj", [], None, None, None),
]
SAVED = [("lm_head", ["lm_head"]), ("model.lm_head", ["lm_head"]), ("model.lm_head.inner", ["lm_head"]),
         ("model.my_lm_head", ["lm_head"]), ("model.embed_tokens", ["tokens"]), ("model.norm", ["n.rm"])]
# (module, keys in order)
KEYS = [
    ("model.layers.0.self_attn.q_proj", ["q_proj"]),
    ("model.layers.0.self_attn.q_proj", ["proj"]),
    ("model.layers.0.self_attn.q_proj", ["q_proj", "layers.0.self_attn.q_proj"]),
    ("model.layers.0.self_attn.q_proj", ["layers.0.self_attn.q_proj", "q_proj"]),
    ("model.layers.0.self_attn.q_proj", ["layers.0.self_attn"]),
    ("model.layers.0.self_attn.q_proj", ["layers.0.self_attn.."]),
    ("model.layers.0.self_attn.q_proj", ["layers.0.self_attn.q.proj"]),
    ("model.layers.0.self_attn.q_proj", ["^q_proj"]),
    ("model.layers.0.self_attn.q_proj", ["^model.layers.0.self_attn.q_proj"]),
    ("model.layers.0.self_attn.q_proj", ["^layers.0.self_attn.q_proj"]),
    ("model.layers.0.self_attn.q_proj", [".*q_proj"]),
    ("model.layers.0.self_attn.q_proj", [r"layers\.\d+\.self_attn\.(q|k)_proj"]),
    ("model.layers.0.self_attn.q_proj", ["q_proj$"]),
    ("model.layers.0.self_attn.q_proj", ["k_proj|q_proj"]),
    ("model.layers.0.self_attn.q_proj", ["(?<!mlp.)q_proj"]),
    ("model.layers.0.self_attn.q_proj", [r"(self)_attn.q_\2"]),
    ("model.layers.0.self_attn.self", [r"(self)_attn.\3"]),
    ("q_proj", ["q_proj"]),
    ("q_proj", [".q_proj"]),
    ("aq_proj", [".q_proj"]),
    ("model.aq_proj", [".q_proj"]),
    ("lm_head", ["model.lm_head"]),
]


def patterns():
    names = []
    for module, target, exclude, layers, pattern in NAMES:
        config = type("Config", (), dict(target_modules=set(target) if isinstance(target, list) else target,
                                         exclude_modules=exclude, layers_to_transform=layers, layers_pattern=pattern,
                                         target_parameters=None, modules_to_save=None))
        verdict = check_target_module_exists(config, module)
        said = "excluded" if isinstance(verdict, _ExcludedModule) else "targeted" if verdict else "unmatched"
        names.append(dict(module=module, target=target, exclude=exclude, layers=layers, layers_pattern=pattern, peft=said))
    saved = []
    for module, modules_to_save in SAVED:
        config = type("Config", (), dict(target_modules=".*", modules_to_save=modules_to_save, target_parameters=None))
        verdict = check_target_module_exists(config, module)
        saved.append(dict(module=module, saved=modules_to_save, excluded=isinstance(verdict, _ExcludedModule)))
    keys = []
    for module, pattern_keys in KEYS:
        try:
            found = get_pattern_key(pattern_keys, module)
        except Exception:
            found = "error"
        keys.append(dict(module=module, keys=pattern_keys, peft=found if found in [*pattern_keys, "error"] else None))
    return {"names": names, "saved": saved, "keys": keys}


def main():
    (HERE / "patterns.json").write_text(json.dumps(patterns(), indent=1) + "\n")
    for folder in (BASES, ADAPTERS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    os.chdir(BASES)  # so that the name of a base is also its path
    llama = LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
    qwen3 = Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True)
    write_base("tiny-llama", llama, LlamaForCausalLM, torch.float32)
    write_base("tiny-qwen3", qwen3, Qwen3ForCausalLM, torch.bfloat16)
    versions = {"peft": peft.__version__, "transformers": transformers.__version__}
    expected = {"versions": versions, "accepted": accepted(), "refused": refused()}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
