"""Write dates with slashes, each with a better and a worse answer: what dpo, orpo, simpo and reward learn from.

Standard library only and seeded: `python examples/preferences/make_pairs.py` again gives the same bytes.
"""

import datetime
import json
import random
from pathlib import Path

DATA = Path(__file__).parent / "data"
SEED = 20240229
FIRST_DAY, LAST_DAY = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
TRAINING_ROWS, HELDOUT_ROWS = 600, 200
# Every day is one that can be no month, so that a date can be read in one way only.
MONTHS_OF_A_YEAR = 12
QUESTIONS = (
    "{day}/{month}/{year}",
    "{month}/{day}/{year}",
    "{day:02}/{month:02}/{year}",
    "{month:02}/{day:02}/{year}",
)
SWAPPED = "{year}-{day:02}-{month:02}"
OTHER_FORMS = (SWAPPED, "{year}/{month:02}/{day:02}", "{day:02}-{month:02}-{year}", "{day}.{month}.{year}")


def written(form: str, date: datetime.date) -> str:
    """A date in a form."""
    return form.format(day=date.day, month=date.month, year=date.year)


def pair(question: str, chosen: str, rejected: str) -> dict[str, object]:
    """A row for `type: chat_template.default`."""
    return {
        "messages": [{"role": "user", "content": question}],
        "chosen": {"role": "assistant", "content": chosen},
        "rejected": {"role": "assistant", "content": rejected},
    }


def order(date: datetime.date, draw: random.Random) -> dict[str, object]:
    """The date in ISO form, and the same with day and month the wrong way round, which looks as right."""
    return pair(written(draw.choice(QUESTIONS), date), date.isoformat(), written(SWAPPED, date))


def form(date: datetime.date, draw: random.Random) -> dict[str, object]:
    """The date in ISO form and in another one, as `type: bradley_terry.chat_template` has it."""
    question = written(draw.choice(QUESTIONS), date)
    return {
        "input": question,
        "chosen": date.isoformat(),
        "rejected": written(draw.choice(OTHER_FORMS), date),
    }


def main() -> None:
    """Training and held-out rows of both kinds; no date is in both."""
    draw = random.Random(SEED)
    every = (FIRST_DAY + datetime.timedelta(days=day) for day in range((LAST_DAY - FIRST_DAY).days + 1))
    late = [date for date in every if date.day > MONTHS_OF_A_YEAR]
    dates = draw.sample(late, HELDOUT_ROWS + TRAINING_ROWS)
    DATA.mkdir(exist_ok=True)
    for kind, row in (("order", order), ("form", form)):
        for part, chosen in (("heldout", dates[:HELDOUT_ROWS]), ("pairs", dates[HELDOUT_ROWS:])):
            lines = [json.dumps(row(date, draw), separators=(",", ":")) + "\n" for date in chosen]
            (DATA / f"{kind}_{part}.jsonl").write_text("".join(lines), encoding="ascii", newline="\n")


if __name__ == "__main__":
    main()
