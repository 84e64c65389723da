"""Tokens to text while they come: pieces that are whole characters and no beginning of a text that ends the answer."""

from collections.abc import Callable, Collection, Sequence
from threading import Event
from typing import Any

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

# What stands for bytes that are no whole character yet.
UNFINISHED = "\ufffd"


class Pieces(BaseStreamer):  # type: ignore[misc]
    """Hears the tokens of one answer from `generate`, and gives the text to `on_text` as soon as it is sure.

    `ended`: an end token or a text of `stop` has come, or `cancelled` was set.
    """

    def __init__(
        self,
        words: Any,
        ends: Collection[int],
        stop: Sequence[str],
        on_text: Callable[[str], None],
        cancelled: Event,
    ) -> None:
        self.words, self.ends, self.stop, self.on_text, self.cancelled = words, ends, stop, on_text, cancelled
        self.tokens: list[int] = []
        self.said = ""
        self.ended = False
        self._prompt_is_to_come = True

    def put(self, value: Tensor) -> None:
        """The prompt first, then each token."""
        if self._prompt_is_to_come:
            self._prompt_is_to_come = False
            return
        for token in value.flatten().tolist():
            if not self.ended:
                self.tokens.append(token)
                self.ended = token in self.ends
        self._tell()

    def end(self) -> None:
        """All that is left is sure now."""
        self._tell(last=True)

    def over(self, ids: Tensor, *_: Any, **__: Any) -> Tensor:
        """A criterion for `generate`: whether to stop."""
        return torch.tensor([self.ended or self.cancelled.is_set()], device=ids.device)

    def _tell(self, last: bool = False) -> None:
        kept = [token for token in self.tokens if token not in self.ends]
        text = self.words.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        places = [place for one in self.stop if (place := text.find(one)) >= 0]
        if places:
            text, self.ended, last = text[: min(places)], True, True
        sure = len(text)
        if not last and not self.ended:
            sure -= held_back(text, self.stop)
        if sure > len(self.said):
            piece, self.said = text[len(self.said) : sure], text[:sure]
            self.on_text(piece)


def held_back(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of a text may still become others, or the beginning of a text that ends it."""
    unfinished = len(text) - len(text.rstrip(UNFINISHED))
    begun = max(
        (
            length
            for one in stop
            for length in range(1, min(len(one), len(text) + 1))
            if text.endswith(one[:length])
        ),
        default=0,
    )
    return max(unfinished, begun)
