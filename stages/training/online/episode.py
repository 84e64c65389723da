"""A completion of several turns: what the model said, what it was told, and what is left of its environment."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Episode:
    """`prompt` is what was asked, with what the environment said of itself; `messages` are all behind it.

    `mask`: of each token of the completion whether the model said it. `calls` counts calls of tools, `failures` says of
    those that failed why. `state` is the environment when the completion had ended, as bytes, `reward` what it said of
    it then. `failure`: why there is no environment any more, so that nothing is learned from the completion. `fields`
    is what else rewards are given.
    """

    prompt: str | list[Message]
    messages: str | list[Message]
    mask: tuple[bool, ...]
    calls: int = 0
    failures: tuple[str, ...] = ()
    state: bytes | None = None
    reward: float | None = None
    failure: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """All but the mask, as it is kept."""
        state = None if self.state is None else base64.b64encode(self.state).decode()
        said = {**vars(self), "failures": list(self.failures), "state": state}
        return json.dumps({name: value for name, value in said.items() if name != "mask"}, ensure_ascii=False)


def episode_of(text: str | None, mask: Sequence[bool] | None) -> Episode | None:
    """What was kept; None of a completion of one turn."""
    if text is None:
        return None
    said = json.loads(text)
    state = None if said["state"] is None else base64.b64decode(said["state"])
    whole = {**said, "state": state, "failures": tuple(said["failures"])}
    return Episode(**whole, mask=tuple(mask or ()))
