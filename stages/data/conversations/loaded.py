"""The tokenizer as stages of data read it: by `tokenizers` alone where that gives the same as `transformers`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.engines.reference import Reference

SPECIAL_TOKENS = "special_tokens_map"
TEMPLATE = "chat_template"


@dataclass(frozen=True)
class LoadedTokenizer:
    """What stages of data ask of a tokenizer, by the names that `transformers` has for it.

    `special_tokens_map`: the text of each special token by its role, such as `eos_token`. `path`: the tokenizer's
    folder. `given`: the tokenizer of transformers, where it was needed to load this one.
    """

    backend_tokenizer: BackendTokenizer
    special_tokens_map: Mapping[str, str]
    chat_template: str | None
    path: Path
    given: Any = None

    @property
    def bos_token_id(self) -> int | None:
        return self._id_of("bos_token")

    @property
    def eos_token(self) -> str | None:
        return self.special_tokens_map.get("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._id_of("eos_token")

    @property
    def vocab_size(self) -> int:
        """How many tokens there are without added ones."""
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=False))

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=True))

    def get_added_vocab(self) -> dict[str, int]:
        """The id of each added token."""
        added = self.backend_tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in sorted(added.items(), key=lambda item: item[0])}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones too, and no space of it taken away."""
        return str(self.backend_tokenizer.decode(ids, skip_special_tokens=False))

    def with_transformers(self) -> Any:
        """The tokenizer of transformers, for a user's own code."""
        if self.given is not None:
            return self.given
        from tunemill.stages.models.words_body import load_words

        return load_words(self.path)

    def _id_of(self, role: str) -> int | None:
        text = self.special_tokens_map.get(role)
        return None if text is None else self.backend_tokenizer.token_to_id(text)


def of_transformers(given: Any, path: Path) -> LoadedTokenizer:
    """What transformers has made of the files in a folder."""
    return LoadedTokenizer(
        given.backend_tokenizer, given.special_tokens_map, given.chat_template, path, given
    )


def load_tokenizer(tokenizer: Tokenizer) -> LoadedTokenizer:
    """The tokenizer of an artifact. Transformers, which takes seconds to import, only where it makes a difference."""
    if tokenizer.facts.is_file():
        facts = json.loads(tokenizer.facts.read_text(encoding="utf-8"))
        backend = BackendTokenizer.from_file(str(tokenizer.path / "tokenizer.json"))
        return LoadedTokenizer(backend, facts[SPECIAL_TOKENS], facts[TEMPLATE], tokenizer.path)
    from tunemill.stages.models.words_body import load_words

    return of_transformers(load_words(tokenizer.path), tokenizer.path)


def load_to_encode(tokenizer: Tokenizer, *, plain: bool = False) -> tuple[LoadedTokenizer, Reference]:
    """The tokenizer of an artifact, and what makes tokens with it.

    They are one and the same, so the first by itself puts nothing around a text; transformers', which a user's own
    code may be given, is left as it is.
    """
    loaded = load_tokenizer(tokenizer)
    own = loaded.given is None
    return loaded, Reference(loaded.backend_tokenizer, plain=plain, taken=own)
