"""What the answers to a date are worth."""

import re

ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)")


def right(completions, answer, **_others):
    """1 for the date that was asked for, which stands beside the prompt as `answer`."""
    return [float(one[0]["content"] == wanted) for one, wanted in zip(completions, answer, strict=True)]


def numbers(completions, answer, **_others):
    """For year, month and day a third each. What looks unlike a date gets nothing, so that length buys nothing."""
    return [_places(one[0]["content"], wanted) / 3 for one, wanted in zip(completions, answer, strict=True)]


def _places(text, wanted):
    found = ISO.fullmatch(text)
    return sum(map(str.__eq__, found.groups(), ISO.fullmatch(wanted).groups())) if found else 0
