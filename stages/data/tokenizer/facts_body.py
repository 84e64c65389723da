"""Whether a tokenizer's folder can be read without transformers, and what has to be known for it."""

import json
from pathlib import Path

from tokenizers import Tokenizer as BackendTokenizer

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.conversations.loaded import SPECIAL_TOKENS, TEMPLATE
from tunemill.stages.data.tokenizer.named_class_body import load_named
from tunemill.stages.models.words_body import load_words


def write_facts(tokenizer: Tokenizer) -> None:
    """Write `tunemill_tokenizer.json`, unless transformers makes another tokenizer of tokenizer.json than it says.

    Nothing is tried on texts: what it makes is written out whole, from the normalizer to the decoder, and must be that
    file, or else what `tokenizers` makes of it.
    """
    given = load_named(tokenizer.path, None) or load_words(tokenizer.path)
    same = _same(given.backend_tokenizer, tokenizer.path / "tokenizer.json")
    if not same or not isinstance(given.chat_template, str | None):
        return
    facts = {SPECIAL_TOKENS: dict(given.special_tokens_map), TEMPLATE: given.chat_template}
    text = json.dumps(facts, indent=2, ensure_ascii=False, sort_keys=True)
    tokenizer.facts.write_text(text + "\n", encoding="utf-8")


def _same(made: BackendTokenizer, file: Path) -> bool:
    """Whether a tokenizer is the one that a tokenizer.json describes. The same text needs not be read to tell."""
    if made.to_str(pretty=True) == file.read_text(encoding="utf-8"):
        return True
    return bool(json.loads(made.to_str()) == json.loads(BackendTokenizer.from_file(str(file)).to_str()))
