"""Runs llama.cpp's own converter on a checkpoint whose tokenizer it cannot know. Runs in the peers' environment.

    python gguf_base.py LLAMA_CPP_SOURCE BASE --outfile FILE --outtype q8_0|bf16

The converter names the pre-tokenizer by a hash of what a tokenizer makes of a fixed text, and stops at hashes that are
not in its list. Ours is byte-level as GPT-2's, so that is the name it gets; the tensors are converted as always.
"""

import runpy
import sys
from pathlib import Path


def main() -> None:
    source = Path(sys.argv.pop(1)).resolve()
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    TextModel._set_vocab_sentencepiece = no_sentencepiece
    sys.argv[0] = str(source / "convert_hf_to_gguf.py")
    runpy.run_path(sys.argv[0], run_name="__main__")


def no_sentencepiece(self, *_args, **_named) -> None:
    """What the converter itself finds when a checkpoint has no tokenizer.model; then it takes tokenizer.json."""
    raise FileNotFoundError("tokenizer.model")


if __name__ == "__main__":
    main()
