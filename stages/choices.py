"""Values of which there are only so many: what is said of one that is none of them."""

import difflib
from collections.abc import Sequence

# So many values are listed in a message; of more of them the closest.
LISTED = 12
CLOSEST = 3
CLOSE_ENOUGH = 0.6
SHORTEST_START = 4


class ChoiceError(ValueError):
    """`given` is none of the `accepted` values."""

    def __init__(self, given: str, accepted: Sequence[str]) -> None:
        super().__init__(rule(given, accepted))
        self.given = given
        self.accepted = tuple(accepted)


def rule(given: str, accepted: Sequence[str]) -> str:
    """`must be one of a, b`; of many values the closest, and where all of them are listed."""
    if len(accepted) == 1:
        return f"must be {accepted[0]}"
    if len(accepted) <= LISTED:
        return f"must be one of {', '.join(accepted)}"
    near = nearest(given, accepted, CLOSEST)
    closest = f"; close to it are {', '.join(near)}" if len(near) > 1 else ""
    return f"must be one of {len(accepted)} values, which `tunemill schema` lists{closest}"


def nearest(given: str, accepted: Sequence[str], count: int = 1) -> list[str]:
    """The accepted values that are close to what was given; case and dashes do not count.

    The same one comes first, then those of the same letters, those that go on where it ends, and the closest.
    """
    plain = {_plain(value): value for value in accepted}
    near = difflib.get_close_matches(_plain(given), list(plain), n=count, cutoff=CLOSE_ENOUGH)
    begun = [name for name in plain if len(given) >= SHORTEST_START and name.startswith(f"{_plain(given)}_")]
    same = [_plain(given)] if _plain(given) in plain else []
    of_same_letters = [name for name in plain if sorted(name) == sorted(_plain(given))]
    # Several are made of the same words, as sum_then_normalize and normalize_then_sum.
    turned = sorted(
        of_same_letters,
        key=lambda name: difflib.SequenceMatcher(None, name, _plain(given)).ratio(),
        reverse=True,
    )
    return [plain[name] for name in dict.fromkeys([*same, *turned, *begun, *near])][:count]


def _plain(text: str) -> str:
    return text.strip().lower().replace("-", "_").replace(" ", "_")
