"""Write the example's own rows: dates as the quickstart has them, and in forms that nothing was trained on.

Standard library only and seeded: `python examples/evaluations/make_rows.py` again gives the same bytes.
"""

import datetime
import json
import random
from pathlib import Path

DATA = Path(__file__).parent / "data"
SEED, ROWS_PER_FORM = 20240301, 20
FIRST_DAY, LAST_DAY = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
# Form: whether training had it, and how it is written.
FORMS = {
    "day month year": "{d.day} {d:%B} {d.year}",
    "month day, year": "{d:%B} {d.day}, {d.year}",
    "dotted": "{d.day}.{d.month}.{d.year}",
    "date: ...": "date: {d.day} {d:%B} {d.year}",
    "year, month day": "{d.year}, {d:%B} {d.day}",
    "spaced dots": "{d.day} . {d.month} . {d.year}",
}
TRAINED = ("day month year", "month day, year", "dotted")


def rows() -> list[dict[str, object]]:
    """A conversation for each row, with its form and whether training had that."""
    chosen = random.Random(SEED)
    days = (LAST_DAY - FIRST_DAY).days
    found: list[dict[str, object]] = []
    for name, form in FORMS.items():
        for _ in range(ROWS_PER_FORM):
            day = FIRST_DAY + datetime.timedelta(chosen.randint(0, days))
            messages = [
                {"role": "user", "content": form.format(d=day)},
                {"role": "assistant", "content": day.isoformat()},
            ]
            found.append({"messages": messages, "form": name, "trained": name in TRAINED})
    return found


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    with (DATA / "forms.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows())
