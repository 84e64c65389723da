"""Write the KTO example's rows: dates in digits with one answer each, and whether a person was content with it.

Standard library only and seeded: `python examples/kto/make_data.py` again gives the same bytes.
"""

import datetime
import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path

DATA = Path(__file__).parent / "data"
SEED = 19480403
FIRST_DAY, LAST_DAY = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
LIKED, DISLIKED, HELD_OUT = 300, 300, 100
# Both numbers may be a month, so that only a habit says which one is.
MOST_MONTHS = 12

Row = dict[str, object]


def ambiguous_dates(rng: random.Random) -> list[datetime.date]:
    """All dates whose day could be a month and is not the same number, in a random order."""
    span = (LAST_DAY - FIRST_DAY).days + 1
    dates = (FIRST_DAY + datetime.timedelta(days=offset) for offset in rng.sample(range(span), span))
    return [date for date in dates if date.day <= MOST_MONTHS and date.day != date.month]


def written(date: datetime.date, rng: random.Random) -> str:
    """The date with the day first."""
    form = rng.choice(("{day}/{month}/{year}", "{day:02}/{month:02}/{year}"))
    return form.format(day=date.day, month=date.month, year=date.year)


def judged(text: str, date: datetime.date, label: bool) -> Row:
    """An answer that was liked reads the day first, and one that was not the month."""
    read = date if label else date.replace(month=date.day, day=date.month)
    return {"question": text, "completion": read.isoformat(), "label": label}


def write_rows(name: str, rows: Iterable[Row]) -> None:
    """Write rows, one JSON object a line."""
    lines = [json.dumps(row, separators=(",", ":")) + "\n" for row in rows]
    (DATA / name).write_text("".join(lines), encoding="ascii", newline="\n")
    print(f"{name}: {len(lines)} rows, {sum(map(len, lines))} bytes")


def main() -> None:
    """Make both files of the example's data folder; a held-out date is in no other row."""
    rng = random.Random(SEED)
    dates = iter(ambiguous_dates(rng))
    liked = [judged(written(date, rng), date, True) for date in itertools.islice(dates, LIKED)]
    disliked = [judged(written(date, rng), date, False) for date in itertools.islice(dates, DISLIKED)]
    held_out = [(written(date, rng), date) for date in itertools.islice(dates, HELD_OUT)]
    DATA.mkdir(exist_ok=True)
    write_rows("judged.jsonl", liked + disliked)
    write_rows("held_out.jsonl", [judged(*one, label) for one in held_out for label in (True, False)])


if __name__ == "__main__":
    main()
