"""Whether a tokenizer's folder can be read without transformers, and what has to be known for it."""

import json

from tokenizers import Tokenizer as BackendTokenizer

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.conversations.loaded import SPECIAL_TOKENS, TEMPLATE
from tunemill.stages.data.tokenizer.named_class_body import load_named
from tunemill.stages.models.words_body import load_words


def write_facts(tokenizer: Tokenizer) -> None:
    """Write `tunemill_tokenizer.json`, unless transformers makes another tokenizer of tokenizer.json than it says.

    Nothing is tried on texts: both are written out whole, from the normalizer to the decoder, and must be the same.
    """
    given = load_named(tokenizer.path, None) or load_words(tokenizer.path)
    plain = BackendTokenizer.from_file(str(tokenizer.path / "tokenizer.json"))
    same = json.loads(given.backend_tokenizer.to_str()) == json.loads(plain.to_str())
    if not same or not isinstance(given.chat_template, str | None):
        return
    facts = {SPECIAL_TOKENS: dict(given.special_tokens_map), TEMPLATE: given.chat_template}
    text = json.dumps(facts, indent=2, ensure_ascii=False, sort_keys=True)
    tokenizer.facts.write_text(text + "\n", encoding="utf-8")
