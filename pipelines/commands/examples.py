"""Prepared rows for a person to look at: token by token, trained, scored or masked, role by role."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tunemill.resources.store import Published

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tunemill.stages.data.rows.shown import ShownRow as Row
    from tunemill.stages.data.rows.shown import ShownTokens

# Two shades each, in turn, so that a reader sees where one token ends.
SHADES = {
    "trained": ("bold green", "bold bright_green"),
    "scored": ("bold yellow", "bold bright_yellow"),
    "masked": ("red", "bright_red"),
}
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class ShownPiece:
    """Tokens of one role and mark (`trained`, `scored` or `masked`), as texts."""

    role: str
    mark: str
    tokens: tuple[str, ...]

    def as_json(self, text_only: bool) -> dict[str, Any]:
        said = {"text": "".join(self.tokens)} if text_only else {"tokens": list(self.tokens)}
        return {"role": self.role, "mark": self.mark, "trained": self.mark == "trained", **said}


@dataclass(frozen=True)
class ShownRow:
    """One row of a dataset. `text_only`: texts are not taken apart into tokens."""

    dataset: str
    source_row: int
    pieces: tuple[ShownPiece, ...]
    text_only: bool = False

    def as_json(self) -> dict[str, Any]:
        pieces = [piece.as_json(self.text_only) for piece in self.pieces]
        return {"dataset": self.dataset, "source_row": self.source_row, "pieces": pieces}

    def text(self) -> Text:
        """A heading, then one line for each piece."""
        counts = {
            mark: sum(len(piece.tokens) for piece in self.pieces if piece.mark == mark) for mark in SHADES
        }
        said = [f"{counts[mark]} {mark}" for mark in ("trained", "scored") if counts[mark]] or ["0 trained"]
        heading = f"{self.dataset}, row {self.source_row}: {sum(counts.values())} tokens, {', '.join(said)}"
        lines = [Text(heading, "bold")]
        width = max((len(piece.role) for piece in self.pieces), default=0)
        for piece in self.pieces:
            line = Text(f"  {piece.role:<{width}} {piece.mark:<7} │ ", "dim")
            shades = ("default", "default") if self.text_only else SHADES[piece.mark]
            for number, token in enumerate(piece.tokens):
                line.append(token.replace("\n", "⏎"), shades[number % 2])
            lines.append(line)
        return Text("\n").join(lines)


def shown_rows(
    dataset: str, prepared: Published, tokenizer: Published, shows: str, count: int, *, text_only: bool
) -> Iterator[ShownRow]:
    """The first `count` rows of prepared data. `shows` is the `module:function` that reads them for their stage."""
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(tokenizer.data / "tokenizer.json"))
    module, _, function = shows.partition(":")
    read: Callable[..., Iterator[Row]] = getattr(import_module(module), function)
    for row in read(prepared.data, words, count):
        pieces = (ShownPiece(piece.role, piece.mark, tuple(_texts(piece, words))) for piece in row.pieces)
        yield ShownRow(dataset, row.number, tuple(pieces), text_only)


def _texts(piece: "ShownTokens", words: "Tokenizer") -> Iterator[str]:
    """The text of each token; tokens that are parts of one character come as one.

    Each is decoded behind the token before it, because decoders drop the space at the beginning of a text.
    """
    ids = (*piece.before, *piece.ids)
    start = len(piece.before)
    for stop in range(start + 1, len(ids) + 1):
        context = list(ids[max(0, start - 1) : start])
        before = words.decode(context, skip_special_tokens=False)
        whole = words.decode([*context, *ids[start:stop]], skip_special_tokens=False)
        if whole.endswith(UNFINISHED) and stop < len(ids):
            continue
        yield whole.removeprefix(before)
        start = stop
