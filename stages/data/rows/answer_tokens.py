"""A prompt with its answer as tokens: how learning from preferences reads texts, and how its models are scored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding

from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Tokens
from tunemill.stages.errors import SettingError


class AnswerTokens:
    """Texts as token ids, and labels that are masked over the prompt.

    A BOS token goes before a prompt and an EOS token behind an answer where they are not there already, as TRL does
    it; what is then longer than `longest` tokens loses its end. Raises SettingError for a tokenizer without EOS.
    """

    def __init__(self, tokenizer: Any, longest: int) -> None:
        if tokenizer.eos_token_id is None:
            raise SettingError(
                "the tokenizer has no EOS token to end answers with; set special_tokens: eos_token"
            )
        self._bare = Reference(tokenizer.backend_tokenizer).bare
        self._bos, self._eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._longest = longest

    def rows(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[Tokens, Tokens]]:
        """Ids and labels of each prompt with its answer: [tokens] int32 each."""
        whole = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        encoded = self._bare.encode_batch(whole, add_special_tokens=False)
        return [self._row(len(prompt), made) for prompt, made in zip(prompts, encoded, strict=True)]

    def _row(self, prompt: int, encoding: Encoding) -> tuple[Tokens, Tokens]:
        """A token that reaches from the prompt, of so many characters, into the answer belongs to the answer."""
        whole = encoding.ids
        start = sum(end <= prompt for _, end in encoding.offsets)
        before = [self._bos] if self._bos is not None and whole[:1] != [self._bos] else []
        after = [] if whole[start:] and whole[-1] == self._eos else [self._eos]
        ids = np.asarray([*before, *whole, *after][: self._longest], dtype=np.int32)
        labels = ids.copy()
        labels[: len(before) + start] = IGNORED
        return ids, labels


def has_answer(row: tuple[Tokens, Tokens]) -> bool:
    """Whether something of the answer is left."""
    return bool((row[1] != IGNORED).any())
