"""From dialogues to tensors: tokenizer, chat template, loss mask, packing. Knows no model and no skill."""

import random
from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_tokenizer(texts: Iterable[str], vocab: int = 4096) -> PreTrainedTokenizerFast:
    """Byte-level BPE; every digit and every Chinese character stays a piece of its own, which makes copying easy."""
    tok = Tokenizer(models.BPE())
    single = pre_tokenizers.Split(Regex(r"\p{N}|\p{Han}"), "isolated")
    tok.pre_tokenizer = pre_tokenizers.Sequence([single, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tok.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def encode(tok, conversations: list[list[dict]]) -> list[tuple[list[int], list[int]]]:
    """[(ids, loss flags)]: the loss counts the assistant's content and its <|im_end|>, nothing else."""
    parts, owner = [], []
    for i, messages in enumerate(conversations):
        for m in messages:
            parts += [f"<|im_start|>{m['role']}\n", m["content"] + "<|im_end|>", "\n"]
            owner += [(i, 0), (i, int(m["role"] == "assistant")), (i, 0)]
    out = [([], []) for _ in conversations]
    for e, (i, flag) in zip(tok.backend_tokenizer.encode_batch(parts), owner):
        out[i][0].extend(e.ids)
        out[i][1].extend([flag] * len(e.ids))
    return out


def pack(docs: list[tuple[list[int], list[int]]], length: int, pad: int) -> list[torch.Tensor]:
    """Rows (4 x length): ids, loss flags, document number, position in its document; longer documents are dropped."""
    rows, open_rows = [], []
    for n, (ids, flags) in enumerate(docs, 1):
        if len(ids) > length:
            continue
        row = next((o for o in open_rows if len(o[0]) + len(ids) <= length), None)
        if row is None:
            row = ([], [], [], [])
            open_rows.append(row)
            if len(open_rows) > 8:
                rows.append(open_rows.pop(0))
        row[0].extend(ids)
        row[1].extend(flags)
        row[2].extend([n] * len(ids))
        row[3].extend(range(len(ids)))
    rows += open_rows
    for row in rows:
        short = length - len(row[0])
        for part, fill in zip(row, (pad, 0, 0, 0)):
            part.extend([fill] * short)
    return [torch.tensor(row) for row in rows]


def shuffled_rows(tok, conversations: list[list[dict]], length: int, r: random.Random) -> list[torch.Tensor]:
    """The conversations in random order, packed."""
    r.shuffle(conversations)
    rows = pack(encode(tok, conversations), length, tok.pad_token_id)
    r.shuffle(rows)
    return rows


def batch(rows: list[torch.Tensor], fixed: int | None = None) -> tuple[torch.Tensor, ...]:
    """(ids BxL, mask Bx1xLxL, positions BxL, selected places, targets) of B packed rows.

    A token sees the earlier ones of its own document. `fixed` pads or cuts the selection to one size, which a compiled
    step needs; a target of -100 is ignored.
    """
    ids, flags, doc, pos = torch.stack(rows).unbind(1)
    causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    mask = ((doc[:, :, None] == doc[:, None, :]) & causal)[:, None]
    selected = (flags[:, 1:].nonzero() * torch.tensor([ids.shape[1], 1])).sum(1)  # the place before a counted token
    target = ids.reshape(-1)[selected + 1]
    if fixed is not None:
        more = max(0, fixed - len(selected))
        selected = torch.cat([selected[:fixed], selected.new_zeros(more)])
        target = torch.cat([target[:fixed], target.new_full((more,), -100)])
    return ids, mask, pos, selected, target


def lm_loss(model, ids, mask, pos, selected, target) -> torch.Tensor:
    """Cross entropy at the selected places only: the vocabulary projection runs just where the loss counts."""
    hidden = model.model(input_ids=ids, attention_mask=mask, position_ids=pos).last_hidden_state
    logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[selected]).float()
    return torch.nn.functional.cross_entropy(logits, target)
