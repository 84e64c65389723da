"""The tokenizer of a folder, as every stage reads it."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase


def load_words(folder: Path, **settings: Any) -> PreTrainedTokenizerBase:
    """The tokenizer that `AutoTokenizer` makes of tokenizer.json and its like.

    Beside a tekken.json `AutoTokenizer` takes mistral-common's where that is installed. It has the same ids, and
    neither characters of tokens nor added tokens.
    """
    # Torch comes with it.
    from transformers import AutoTokenizer

    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, mistral_format=False, **settings
    )
    return loaded
