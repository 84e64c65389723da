"""Write small sums that are worked out one step at a time, each step judged right or wrong.

Standard library only and seeded: `python examples/process_reward/make_data.py` again gives the same bytes.
"""

import json
import random
from pathlib import Path

DATA = Path(__file__).parent / "data"
SEED = 20240229
TRAINING_ROWS, HELDOUT_ROWS = 3000, 200
LARGEST_START, LARGEST_ADDEND, LARGEST_SUM = 3, 4, 9
SHORTEST, LONGEST = 2, 4
WRONG_SHARE = 0.35


def solution(draw: random.Random) -> dict[str, object]:
    """A sum and how it was worked out. A wrong step says another number, and what follows goes on from that one.

    So each step is judged by itself: whether it adds correctly to what it was handed.
    """
    total = draw.randint(0, LARGEST_START)
    numbers, steps, labels = [total], [], []
    for _ in range(draw.randint(SHORTEST, LONGEST)):
        if total == LARGEST_SUM:
            break
        addend = draw.randint(1, min(LARGEST_ADDEND, LARGEST_SUM - total))
        right = draw.random() >= WRONG_SHARE
        others = [number for number in range(LARGEST_SUM + 1) if number != total + addend]
        said = total + addend if right else draw.choice(others)
        numbers.append(addend)
        steps.append(f"{total}+{addend}={said}")
        labels.append(right)
        total = said
    return {"prompt": "+".join(map(str, numbers)) + "\n", "completions": steps, "labels": labels}


def main() -> None:
    """Both files; no answer is in both."""
    draw = random.Random(SEED)
    lines: dict[str, None] = {}
    while len(lines) < TRAINING_ROWS + HELDOUT_ROWS:
        lines.setdefault(json.dumps(solution(draw)) + "\n")
    rows = list(lines)
    # Short answers come first, for there are few of them.
    draw.shuffle(rows)
    DATA.mkdir(exist_ok=True)
    for name, part in (("heldout", rows[:HELDOUT_ROWS]), ("sums", rows[HELDOUT_ROWS:])):
        (DATA / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")


if __name__ == "__main__":
    main()
