"""Pages of docs/ that say how to add something: their blocks, and the files that these make."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"`(\w+/[\w./-]+\.\w+)`")


@dataclass(frozen=True)
class Block:
    """A block of code on a page; `file` is the file that the text before it named last."""

    language: str
    text: str
    file: str | None


def blocks_of(page):
    """The blocks of a page, in order."""
    text = (ROOT / "docs" / page).read_text()
    named = ((found, FILE.findall(BLOCK.sub("", text[: found.start()]))) for found in BLOCK.finditer(text))
    return [Block(found[1], found[2], files[-1] if files else None) for found, files in named]


def patched(text, diff):
    """A text after a diff: hunks between lines of `@@`, each of which fits one place."""
    for hunk in re.split(r"^@@\n", diff, flags=re.M):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert f"\n{text}".count(f"\n{old}") == 1, f"this must be there once:\n{old}"
        text = f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:]
    return text


def edited(blocks, root=ROOT):
    """The text of each file that the blocks write or change, after them."""
    texts = {}
    for block in blocks:
        file = root / block.file
        if block.language == "diff":
            texts[block.file] = patched(texts.get(block.file) or file.read_text(), block.text)
        elif block.language != "sh":
            assert not file.exists() and block.file not in texts, f"{block.file} is there already"
            texts[block.file] = block.text
    return texts
