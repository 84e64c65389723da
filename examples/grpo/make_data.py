"""Write the GRPO example's rows: dates with slashes, the day first, whose day can be no month.

Standard library only and seeded: `python examples/grpo/make_data.py` again gives the same bytes.
"""

import datetime
import json
import random
from collections.abc import Iterable
from pathlib import Path

DATA = Path(__file__).parent / "data"
SEED = 19990816
FIRST_DAY, LAST_DAY = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
PROMPTS, HELD_OUT = 400, 100
MOST_MONTHS = 12
FORMS = ("{day}/{month}/{year}", "{day:02}/{month:02}/{year}")

Row = dict[str, object]


def some_dates(rng: random.Random, count: int) -> list[datetime.date]:
    """So many dates, of which only one number can be the month."""
    span = (LAST_DAY - FIRST_DAY).days + 1
    dates = (FIRST_DAY + datetime.timedelta(days=offset) for offset in rng.sample(range(span), span))
    return [date for date in dates if date.day > MOST_MONTHS][:count]


def question(date: datetime.date, rng: random.Random) -> Row:
    """The date as a person may write it."""
    text = rng.choice(FORMS).format(day=date.day, month=date.month, year=date.year)
    return {"role": "user", "content": text}


def asked(date: datetime.date, rng: random.Random) -> Row:
    """A prompt, and beside it what its rewards compare with."""
    return {"prompt": [question(date, rng)], "answer": date.isoformat()}


def held_out(date: datetime.date, rng: random.Random) -> Row:
    """A question with its answer."""
    return {"messages": [question(date, rng), {"role": "assistant", "content": date.isoformat()}]}


def write_rows(name: str, rows: Iterable[Row]) -> None:
    """Write rows, one JSON object a line."""
    lines = [json.dumps(row, separators=(",", ":")) + "\n" for row in rows]
    (DATA / name).write_text("".join(lines), encoding="ascii", newline="\n")
    print(f"{name}: {len(lines)} rows, {sum(map(len, lines))} bytes")


def main() -> None:
    """Make both files of the example's data folder; a held-out date is in no other row."""
    rng = random.Random(SEED)
    dates = some_dates(rng, PROMPTS + HELD_OUT)
    DATA.mkdir(exist_ok=True)
    write_rows("prompts.jsonl", (asked(date, rng) for date in dates[:PROMPTS]))
    write_rows("held_out.jsonl", (held_out(date, rng) for date in dates[PROMPTS:]))


if __name__ == "__main__":
    main()
