"""Makes loss_masks.jsonl with transformers: conversations, their tokens, and which of them an assistant wrote.

    python services/banyan/tests/golden/make_loss_masks.py      # transformers 5.24; no torch

The mask is that of `apply_chat_template(..., return_assistant_tokens_mask=True)`, for which a template marks the assistant's
words. The bundled one does not: it is marked here, and must write the same text.
"""

import json
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
ADAPTERS = HERE.parents[3] / "adapters"
TOKENIZER = AutoTokenizer.from_pretrained(ADAPTERS / "seed/base")
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}"
)


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def conversations():
    for industry in sorted(path for path in (ADAPTERS / "industries").iterdir() if path.is_dir()):
        lines = (industry / "data/eval.jsonl").read_text().splitlines()
        yield from (json.loads(line)["messages"] for line in lines[::100])
    yield chat(("system", "Be brief."), ("user", "Hi!"), ("assistant", "Hello."), ("user", "E-17?"), ("assistant", "A fee."))
    yield chat(("user", "合同上写着什么？"), ("assistant", "第十七条：逾期费。🙂🙃 naïve"))
    yield chat(("user", "  two  blanks "), ("assistant", " begins with a blank\nand has two lines \n\n"))
    yield chat(*[(role, f"{role} {n}") for n in range(4) for role in ("user", "assistant")])


def main():
    with open(HERE / "loss_masks.jsonl", "w") as file:
        for messages in conversations():
            text = TOKENIZER.apply_chat_template(messages, tokenize=False)
            assert text == TOKENIZER.apply_chat_template(messages, tokenize=False, chat_template=MARKED)
            encoded = TOKENIZER.apply_chat_template(
                messages, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
            )
            line = {"messages": messages, "ids": encoded["input_ids"], "mask": encoded["assistant_masks"]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
