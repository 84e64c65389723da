"""Whether an engine samples of the weights that it was told of: what it says of a fixed probe, beside what we say.

An engine that kept its old weights, or never took an adapter, answers without any error, and a training then learns
from what another policy has sampled. The probe is asked after every time that weights were given to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tunemill.stages.errors import UserError
from tunemill.stages.models.vllm.apart import LogP, mean_apart

BASE, PREVIOUS = "base", "previous"
REASONS = {
    BASE: "answers as the model does without what was trained: it ignores the {what}",
    PREVIOUS: "still answers as it did before step {step}: the {what} that it was given then is not in use",
}


@dataclass(frozen=True)
class Gate:
    """What a probe has shown, as mean differences in nats.

    `apart`: of the engine and the trainer; `moved`: of the trainer now and each of what the engine may have instead.
    """

    step: int
    apart: float
    moved: Mapping[str, float]

    @property
    def is_proven(self) -> bool:
        """Whether the engine is nearer to the trainer than the weights that it may have instead are, by far."""
        return all(self.apart < moved / 2 for moved in self.moved.values())


def judge(
    step: int,
    served: LogP,
    own: LogP,
    others: Mapping[str, LogP],
    allowed: float,
    *,
    what: str,
    where: str,
) -> Gate:
    """What the probe shows; `others` are the log-probabilities of the base and of the weights given before.

    Raises UserError where the engine is twice as near to one of them as to the trainer, and where it is further from
    the trainer than `allowed`, which is what rounding makes.
    """
    found = mean_apart(served, own)
    for name, other in others.items():
        from_other = mean_apart(served, other)
        if from_other < found / 2 and mean_apart(own, other) > 0:
            reason = REASONS[name].format(what=what, step=step)
            raise UserError(
                f"{where} {reason}. On the probe it is {from_other:.2g} nats from those weights and {found:.2g} from "
                f"the ones that are trained. Nothing was learned from it after step {step}"
            )
    if not found <= allowed:
        raise UserError(
            f"{where} has another model, or another revision of it: on the probe its log-probabilities are {found:.2g} "
            f"nats from the trainer's in the mean, where rounding makes up to {allowed}. Nothing was learned from it "
            f"after step {step}"
        )
    return Gate(step, found, {name: mean_apart(own, other) for name, other in others.items()})
