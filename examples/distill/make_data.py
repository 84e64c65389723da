"""Writes data/rows.jsonl: some of the rows that the quickstart's teacher was trained on. Seeded, standard library only.

The student sees 1,000 of the 8,000; nothing of the held-out rows is among them, as the quickstart's own script asserts.
"""

import random
from pathlib import Path

HERE = Path(__file__).resolve().parent
TAUGHT = [HERE.parent / "quickstart" / "data" / f"{name}.jsonl" for name in ("dates_words", "dates_numeric")]
ROWS = 1000

lines = [line for file in TAUGHT for line in file.read_text(encoding="utf-8").splitlines()]
chosen = random.Random(13).sample(lines, ROWS)
(HERE / "data").mkdir(exist_ok=True)
(HERE / "data" / "rows.jsonl").write_text("".join(f"{line}\n" for line in chosen), encoding="utf-8")
