"""In which scripts the trained texts of rows are: Latin, Cyrillic, Han. Scripts, not languages: French is Latin too."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

from tokenizers import Tokenizer

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.quality import Figure
from tunemill.stages.report import Report, Scalar

# A row's script is that of most of its letters, where it has so many.
FEWEST_LETTERS = 10
UNCLEAR = "few letters"
SHOWN = 20
# Japanese is written in three scripts, and in one language.
SAME_AS = {"HIRAGANA": "japanese", "KATAKANA": "japanese", "CJK": "han"}


class Scripts:
    """Counts rows by the script of what is trained on in them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.rows: Counter[str] = Counter()

    def add(self, labels: Sequence[Sequence[int]]) -> None:
        """Count some rows by their labels."""
        trained = [[label for label in row if label != IGNORED] for row in labels]
        for text in self.tokenizer.decode_batch(trained, skip_special_tokens=True):
            self.rows[script_of_text(text)] += 1

    def say(self, report: Report) -> None:
        """The table of scripts."""
        total = self.rows.total()
        shown: list[Sequence[Scalar]] = [
            (script, count, round(count / total, 6)) for script, count in self.rows.most_common(SHOWN)
        ]
        report.table("Scripts of what is trained on", ["script", "rows", "share"], shown)

    def figure(self) -> Figure:
        """Rows in another script than most."""
        clear = Counter({script: count for script, count in self.rows.items() if script != UNCLEAR})
        most = clear.most_common(1)[0][1] if clear else 0
        return Figure(
            "rows in another script than most", clear.total() - most, clear.total(), "rows_of_other_scripts"
        )


def script_of_text(text: str) -> str:
    """The script of most letters of a text. Japanese, where there is any kana; Han alone is Chinese or Japanese."""
    letters = Counter(script_of(character) for character in text if character.isalpha())
    if letters.total() < FEWEST_LETTERS:
        return UNCLEAR
    if letters["japanese"]:
        letters["japanese"] += letters.pop("han", 0)
    return letters.most_common(1)[0][0]


@cache
def script_of(letter: str) -> str:
    """The script of a letter, which Unicode's name of it begins with."""
    word = unicodedata.name(letter, "OTHER").split(" ")[0].split("-")[0]
    return SAME_AS.get(word, word.lower())
