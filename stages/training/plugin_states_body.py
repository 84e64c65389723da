"""What callbacks of one's own remember, in the checkpoints: so a training that was interrupted goes on with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from tunemill.stages.errors import UserError
from tunemill.stages.report import Report

FILE = "plugin_callbacks.json"
PLAIN = (bool, int, float, str, type(None), list, dict, tuple)


class CallbackStates(TrainerCallback):  # type: ignore[misc]
    """Keeps the `state()` of the callbacks that have one, and tells of others that remember something.

    transformers would put callbacks behind all others as it restores them, and loses all but one of a class.
    """

    def __init__(
        self, root: Path, callbacks: Sequence[TrainerCallback], due: frozenset[int], report: Report
    ) -> None:
        self._root = root
        self._due = due
        self._report = report
        self._kept = [one for one in callbacks if isinstance(one, ExportableState)]
        self._others = [one for one in callbacks if not isinstance(one, ExportableState)]
        self._before: list[str] = []

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """What the callbacks without a state hold."""
        self._before = [remembered(one) for one in self._others]

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Before a checkpoint: transformers writes the states as well, and would fail at one that it cannot write."""
        if state.global_step in self._due:
            self._states()

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Called when the Trainer has written its files."""
        changed = [
            type(one).__name__
            for one, before in zip(self._others, self._before, strict=True)
            if remembered(one) != before
        ]
        if changed:
            self._report.log(
                f"{', '.join(changed)}: what this callback remembers changes and is in no checkpoint, so a training "
                f"that goes on from one may differ. Inherit from transformers.trainer_callback.ExportableState too"
            )
            self._before = [remembered(one) for one in self._others]
        (self._root / f"checkpoint-{state.global_step}" / FILE).write_text(self._states(), encoding="utf-8")

    def _states(self) -> str:
        """What the callbacks give, as text. Raises UserError where that would come back as another."""
        try:
            states = [one.state() for one in self._kept]
            # transformers writes all of it.
            json.dumps(states)
            attributes = [one["attributes"] for one in states]
            if not comes_back(attributes):
                raise TypeError("JSON would give a tuple back as a list, and a key that is no text as a text")
            return json.dumps(attributes)
        except (TypeError, ValueError, KeyError) as error:
            names = ", ".join(type(one).__name__ for one in self._kept)
            raise UserError(
                f'plugins: {names}: state() must give {{"args": {{...}}, "attributes": {{...}}}} of numbers, texts, '
                f"lists and mappings ({type(error).__name__}: {error})"
            ) from None

    def resume(self, start: Path | None) -> None:
        """Go on with what a checkpoint holds."""
        if start is None or not (start / FILE).is_file():
            return
        stored = json.loads((start / FILE).read_text(encoding="utf-8"))
        for one, attributes in zip(self._kept, stored, strict=False):
            for name, value in attributes.items():
                setattr(one, name, value)


def keep_states(
    trainer: Any, own: Sequence[TrainerCallback], root: Path, due: frozenset[int], report: Report
) -> list[CallbackStates]:
    """Keep what callbacks of one's `own` remember, if any are there, before the last seals a checkpoint."""
    found = [CallbackStates(root, own, due, report)] if own else []
    trainer.callback_handler.callbacks[-1:-1] = found
    return found


def remembered(callback: TrainerCallback) -> str:
    """The plain attributes of a callback, to see whether they change."""
    return repr(sorted((name, value) for name, value in vars(callback).items() if isinstance(value, PLAIN)))


def comes_back(value: object) -> bool:
    """Whether JSON gives the same back: not of tuples, nor of mappings whose keys are numbers."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and comes_back(one) for key, one in value.items())
    return all(map(comes_back, value)) if isinstance(value, list) else not isinstance(value, tuple)
