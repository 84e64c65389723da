"""Write the quickstart's chat rows: English dates and durations, each with its ISO 8601 form.

Standard library only and seeded: `python examples/quickstart/make_data.py` again gives the same bytes.
"""

import datetime
import itertools
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

DATA = Path(__file__).parent / "data"
SEED = 20240229
FIRST_DAY, LAST_DAY = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
WORDS_ROWS, NUMERIC_ROWS = 3500, 4500
HELDOUT_ROWS_PER_STYLE = 125
REPLAY_ROWS_PER_STYLE = 600
DURATION_ROWS, DURATION_HELDOUT_ROWS = 3000, 200
LOWERCASE_SHARE = 0.15

# fmt: off
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    "seventeen", "eighteen", "nineteen",
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
    "twenty": "twentieth",
    "thirty": "thirtieth",
}

WORD_FORMS = (
    "the {ordinal} of {month}, {year}",
    "the {ordinal} of {month} {year}",
    "{month} the {ordinal}, {year}",
    "{month} {ordinal}, {year}",
    "{ordinal} {month} {year}",
    "{weekday}, the {ordinal} of {month} {year}",
    "{weekday} {month} the {ordinal}, {year}",
    "the {ordinal} day of {month} in the year {year}",
)
# Dots and dashes put the day first, slashes put the month first, a leading year is year-month-day.
NUMERIC_FORMS = (
    "{day} {month} {y}",
    "{day}{suffix} {month} {y}",
    "{month} {day}, {y}",
    "{month} {day}{suffix}, {y}",
    "{day} {mon} {y}",
    "{mon} {day}, {y}",
    "{mon}. {day} {y}",
    "{day}-{mon}-{y}",
    "{weekday}, {day} {month} {y}",
    "{wday} {day} {mon} {y}",
    "{day}.{m}.{y}",
    "{day:02}.{m:02}.{y}",
    "{m}/{day}/{y}",
    "{m:02}/{day:02}/{y}",
    "{day:02}-{m:02}-{y}",
    "{y}/{m:02}/{day:02}",
)
# Unit: name, ISO designator, whether it follows the "T", largest count.
UNITS = (
    ("year", "Y", False, 40),
    ("month", "M", False, 23),
    ("week", "W", False, 12),
    ("day", "D", False, 60),
    ("hour", "H", True, 48),
    ("minute", "M", True, 59),
    ("second", "S", True, 59),
)

Pair = tuple[str, str]


def cardinal(number: int) -> str:
    """0..99 in words: 42 -> "forty-two"."""
    if number < 20:
        return ONES[number]
    tens, ones = divmod(number, 10)
    return f"{TENS[tens]}-{ONES[ones]}" if ones else TENS[tens]


def ordinal(number: int) -> str:
    """1..99 as an ordinal in words: 21 -> "twenty-first"."""
    head, dash, last = cardinal(number).rpartition("-")
    return head + dash + ORDINALS.get(last, last + "th")


def ordinal_suffix(number: int) -> str:
    """The two letters after a day of the month: 22 -> "nd"."""
    if number in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def year_in_words(year: int, rng: random.Random) -> str:
    """1900..2099 as it is spoken, one of the usual ways."""
    century, rest = divmod(year, 100)
    if year == 2000:
        return "two thousand"
    if century == 20 and (rest < 10 or rng.random() < 0.3):
        return "two thousand " + rng.choice(("and ", "")) + cardinal(rest)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def words_text(date: datetime.date, rng: random.Random) -> str:
    """A date whose day is written out in words."""
    text = rng.choice(WORD_FORMS).format(
        ordinal=ordinal(date.day),
        month=MONTHS[date.month - 1],
        weekday=WEEKDAYS[date.weekday()],
        year=date.year if rng.random() < 0.4 else year_in_words(date.year, rng),
    )
    return text.lower() if rng.random() < LOWERCASE_SHARE else text


def numeric_text(date: datetime.date, rng: random.Random) -> str:
    """A date whose day and year are written in digits."""
    month, weekday = MONTHS[date.month - 1], WEEKDAYS[date.weekday()]
    text = rng.choice(NUMERIC_FORMS).format(
        day=date.day,
        suffix=ordinal_suffix(date.day),
        m=date.month,
        month=month,
        mon=month[:3],
        weekday=weekday,
        wday=weekday[:3],
        y=date.year,
    )
    return text.lower() if rng.random() < LOWERCASE_SHARE else text


def date_pairs(
    dates: Iterable[datetime.date], text: Callable[[datetime.date, random.Random], str], rng: random.Random
) -> list[Pair]:
    """(text, ISO date) of each date."""
    return [(text(date, rng), date.isoformat()) for date in dates]


def iso_duration(counts: dict[int, int]) -> str:
    """Counts by index in UNITS -> ISO 8601 duration: {3: 17, 4: 2} -> "P17DT2H"."""
    parts = {False: "", True: ""}
    for unit, count in sorted(counts.items()):
        parts[UNITS[unit][2]] += f"{count}{UNITS[unit][1]}"
    return "P" + parts[False] + ("T" + parts[True] if parts[True] else "")


def counted(number: int, unit: str, rng: random.Random) -> str:
    """A number, in digits or in words, and its unit: (3, "day") -> "three days"."""
    if number == 1:
        return rng.choice(("1", "one", "an" if unit == "hour" else "a")) + f" {unit}"
    return f"{number if rng.random() < 0.5 else cardinal(number)} {unit}s"


def joined(parts: list[str], rng: random.Random) -> str:
    """The parts as an English enumeration."""
    if len(parts) == 1:
        return parts[0]
    style = rng.randrange(3)
    if style == 0:
        return ", ".join(parts)
    if style == 1:
        return " and ".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def duration_pair(rng: random.Random) -> Pair:
    """(text, ISO duration) of one to three units, the largest first."""
    chosen = sorted(rng.sample(range(len(UNITS)), rng.choice((1, 2, 2, 3))))
    counts = {unit: rng.randint(1, UNITS[unit][3]) for unit in chosen}
    return joined([counted(counts[unit], UNITS[unit][0], rng) for unit in chosen], rng), iso_duration(counts)


def duration_pairs(rng: random.Random) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs; no text and no answer is in both, and no text occurs twice."""
    heldout: dict[str, str] = {}
    while len(heldout) < DURATION_HELDOUT_ROWS:
        heldout.update([duration_pair(rng)])
    answers = set(heldout.values())
    train: dict[str, str] = {}
    while len(train) < DURATION_ROWS:
        text, answer = duration_pair(rng)
        if answer not in answers:
            train[text] = answer
    return list(train.items()), list(heldout.items())


def check_disjoint(train: Iterable[Pair], heldout: Iterable[Pair]) -> None:
    """Raise AssertionError where a held-out text or answer occurs in training."""
    train_texts, train_answers = (set(column) for column in zip(*train, strict=True))
    texts, answers = (set(column) for column in zip(*heldout, strict=True))
    assert not texts & train_texts, sorted(texts & train_texts)[:3]
    assert not answers & train_answers, sorted(answers & train_answers)[:3]


def write_rows(name: str, pairs: list[Pair]) -> None:
    """Write pairs as chat rows, one JSON object a line."""
    lines = []
    for user, assistant in pairs:
        messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        lines.append(json.dumps({"messages": messages}, separators=(",", ":")) + "\n")
    (DATA / name).write_text("".join(lines), encoding="ascii", newline="\n")
    print(f"{name}: {len(lines)} rows, {sum(map(len, lines))} bytes")


def main() -> None:
    """Make every file of the quickstart's data folder."""
    rng = random.Random(SEED)
    span = (LAST_DAY - FIRST_DAY).days + 1
    counts = (WORDS_ROWS, NUMERIC_ROWS, HELDOUT_ROWS_PER_STYLE, HELDOUT_ROWS_PER_STYLE)
    dates = (FIRST_DAY + datetime.timedelta(days=offset) for offset in rng.sample(range(span), sum(counts)))
    parts = [list(itertools.islice(dates, count)) for count in counts]
    words = date_pairs(parts[0], words_text, rng)
    numeric = date_pairs(parts[1], numeric_text, rng)
    heldout = date_pairs(parts[2], words_text, rng) + date_pairs(parts[3], numeric_text, rng)
    durations, durations_heldout = duration_pairs(rng)
    check_disjoint(words + numeric, heldout)
    check_disjoint(durations, durations_heldout)

    DATA.mkdir(exist_ok=True)
    write_rows("dates_words.jsonl", words)
    write_rows("dates_numeric.jsonl", numeric)
    write_rows("heldout.jsonl", heldout)
    write_rows("dates_replay.jsonl", words[:REPLAY_ROWS_PER_STYLE] + numeric[:REPLAY_ROWS_PER_STYLE])
    write_rows("durations.jsonl", durations)
    write_rows("durations_heldout.jsonl", durations_heldout)


if __name__ == "__main__":
    main()
