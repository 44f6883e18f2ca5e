"""Greedy answers and what counts as right. Trains nothing."""

import re
from collections import defaultdict

import torch

import generate

REFUSALS = ("I don't know", "我不知道")


@torch.no_grad()
def answers(model, tok, conversations: list[list[dict]], max_new: int = 72, size: int = 64) -> list[str]:
    """Greedy answers to the conversations without their last (assistant) turn, `size` at a time."""
    model.eval()
    out = [""] * len(conversations)
    prompts = [tok.apply_chat_template(c[:-1], tokenize=False, add_generation_prompt=True) for c in conversations]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    tok.padding_side = "left"
    for start in range(0, len(order), size):
        some = order[start : start + size]
        x = tok(
            [prompts[i] for i in some],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
            return_token_type_ids=False,
        )
        ids = dict(pad_token_id=tok.pad_token_id, eos_token_id=tok.eos_token_id)
        y = model.generate(**x, max_new_tokens=max_new, do_sample=False, use_cache=True, **ids)
        for i, text in zip(some, tok.batch_decode(y[:, x["input_ids"].shape[1] :], skip_special_tokens=True)):
            out[i] = text.strip()
    return out


def exact(item: dict, got: str) -> bool:
    """The whole answer, letter by letter."""
    return got == item["messages"][-1]["content"]


def has_key(item: dict, got: str) -> bool:
    """The key words are in the answer, not inside a longer word or number."""
    key = item["key"]
    if not key.isascii():
        return key in got
    return re.search(r"(?<![0-9A-Za-z])" + re.escape(key.lower()) + r"(?![0-9A-Za-z])", got.lower()) is not None


def correct(item: dict, got: str) -> bool:
    """A base skill done: formats and numbers exactly, refusals as refusals, free text with its key words."""
    skill, key = item["skill"], item["key"]
    if skill in ("reformat", "classify", "arithmetic"):
        return exact(item, got)
    if isinstance(key, list):
        return all(k in got for k in key) and 2 <= len(re.findall(r"[.。!！]", got)) <= 4
    if key in REFUSALS:
        return got.startswith(key)
    return has_key(item, got)


def skills(model, tok, per_skill: int, skip=lambda item: False) -> tuple[dict[str, float], list[tuple[dict, str]]]:
    """(percent right per base skill, [(item, answer)]) on the fixed evaluation items that `skip` does not reject."""
    items = [i for i in generate.eval_set(per_skill) if not skip(i)]
    got = answers(model, tok, [i["messages"] for i in items])
    right = defaultdict(list)
    for item, text in zip(items, got):
        ok = correct(item, text)
        right[item["skill"]].append(ok)
        if item["skill"] == "lookup":
            right["lookup, not in the text" if item["key"] in REFUSALS else "lookup, in the text"].append(ok)
    return {skill: percent(oks) for skill, oks in right.items()}, list(zip(items, got))


def percent(oks: list[bool]) -> float:
    return round(100 * sum(oks) / max(1, len(oks)), 1)
