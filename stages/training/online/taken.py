"""The steps of a training as its journal has them, and whether those that are taken again lead where they led."""

from tunemill.stages.report import Report
from tunemill.stages.training.online.journal import Journal, Taken


class TakenSteps:
    """Keeps each step that is taken. One that is there already was taken before a training was interrupted."""

    def __init__(self, journal: Journal, report: Report) -> None:
        self._journal, self._report = journal, report
        self._before: dict[int, Taken] = {}
        self._replayed, self._strayed = 0, 0

    def read(self) -> list[Taken]:
        """Called of each attempt to train: those that were taken before it."""
        self._before = self._journal.steps()
        return list(self._before.values())

    def keep(self, step: int, number: int, policy: str) -> None:
        """A step (from 1) was taken with what a round has, and has led to these weights."""
        before = self._before.get(step)
        if before is None:
            self._journal.keep_step(Taken(step, number, policy))
            return
        self._replayed += 1
        if before.policy != policy:
            self._strayed += 1
            if self._strayed == 1:
                self._report.log(
                    f"warning: step {step} has led to other weights than before this training was interrupted: this "
                    f"machine does not compute the same twice. It goes on with what was sampled"
                )

    @property
    def figures(self) -> dict[str, int]:
        """How many steps were taken again, and how many of these have led to other weights."""
        return {"replayed_steps": self._replayed, "strayed": self._strayed}
