"""A metric of one's own: how many days an answer is off."""

from datetime import date


def days_off(prediction: str, reference: str) -> int | None:
    """Days between both dates; None, no part of the mean, where the answer is no date."""
    try:
        return abs((date.fromisoformat(prediction) - date.fromisoformat(reference)).days)
    except ValueError:
        return None
