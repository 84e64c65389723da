"""What the `judgements` stage reads."""

import importlib.util
from collections.abc import Iterator
from typing import ClassVar

from tunemill.stages.declaration import Fault
from tunemill.stages.evaluation.judge_keys import CLIENT, JudgeKeys


class JudgementsConfig(JudgeKeys):
    """Who judges stored answers, and how."""

    entry_lists: ClassVar[tuple[str, ...]] = ()

    def faults(self) -> Iterator[Fault]:
        """A client that is not there."""
        yield from super().faults()
        if importlib.util.find_spec(CLIENT) is None:
            yield Fault("url", f"needs {CLIENT}, which is not installed. pip install 'tunemill[{CLIENT}]'")
