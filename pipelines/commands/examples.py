"""Prepared rows for a person to look at: token by token, trained or masked, role by role."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tunemill.resources.store import Published

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Two shades each, in turn, so that a reader sees where one token ends.
TRAINED, MASKED = ("bold green", "bold bright_green"), ("red", "bright_red")
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class ShownPiece:
    """Tokens of one role, all trained on or none, as texts."""

    role: str
    trained: bool
    tokens: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {"role": self.role, "trained": self.trained, "tokens": list(self.tokens)}


@dataclass(frozen=True)
class ShownRow:
    """One row of a tokenized dataset."""

    dataset: str
    source_row: int
    pieces: tuple[ShownPiece, ...]

    def as_json(self) -> dict[str, Any]:
        pieces = [piece.as_json() for piece in self.pieces]
        return {"dataset": self.dataset, "source_row": self.source_row, "pieces": pieces}

    def text(self) -> Text:
        """A heading, then one line for each piece."""
        tokens = sum(len(piece.tokens) for piece in self.pieces)
        trained = sum(len(piece.tokens) for piece in self.pieces if piece.trained)
        lines = [Text(f"{self.dataset}, row {self.source_row}: {tokens} tokens, {trained} trained", "bold")]
        width = max((len(piece.role) for piece in self.pieces), default=0)
        for piece in self.pieces:
            line = Text(f"  {piece.role:<{width}} {'trained' if piece.trained else 'masked ':<7} │ ", "dim")
            shades = TRAINED if piece.trained else MASKED
            for number, token in enumerate(piece.tokens):
                line.append(token.replace("\n", "⏎"), shades[number % 2])
            lines.append(line)
        return Text("\n").join(lines)


def shown_rows(dataset: str, tokenized: Published, tokenizer: Published, count: int) -> Iterator[ShownRow]:
    """The first `count` rows of a tokenized dataset."""
    import pyarrow as pa
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(tokenizer.data / "tokenizer.json"))
    with pa.ipc.open_file(pa.memory_map(str(Path(tokenized.data) / "rows.arrow"))) as reader:
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index).slice(0, count)
            for row in batch.to_pylist():
                yield _shown(dataset, row, words)
            count -= batch.num_rows
            if count <= 0:
                return


def _shown(dataset: str, row: dict[str, Any], words: "Tokenizer") -> ShownRow:
    from tunemill.stages.data.conversations.pieces import pieces

    shown = [
        ShownPiece(piece.role, piece.trained, tuple(_texts(row["input_ids"], piece.start, piece.end, words)))
        for piece in pieces(row["labels"], row["roles"], row["role_ends"])
    ]
    return ShownRow(dataset, row["source_row"], tuple(shown))


def _texts(ids: Sequence[int], start: int, end: int, words: "Tokenizer") -> Iterator[str]:
    """The text of each token from `start` to `end`; tokens that are parts of one character come as one.

    Each is decoded behind the token before it, because decoders drop the space at the beginning of a text.
    """
    for stop in range(start + 1, end + 1):
        context = ids[max(0, start - 1) : start]
        before = words.decode(context, skip_special_tokens=False)
        whole = words.decode([*context, *ids[start:stop]], skip_special_tokens=False)
        if whole.endswith(UNFINISHED) and stop < end:
            continue
        yield whole.removeprefix(before)
        start = stop
