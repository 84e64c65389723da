"""What samples completions of a policy: the protocol that every engine keeps to."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are drawn: at a temperature, of the `top_k` likeliest, of those the fewest that have `top_p` of the
    probability, of those the ones that have `min_p` of what the likeliest has. None: of all.

    `repetition_penalty` divides the logits above 0 of tokens that are there already, and multiplies those below.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def as_dict(self) -> dict[str, float | None]:
        """As it is kept beside what was sampled."""
        return asdict(self)


@dataclass(frozen=True)
class Completion:
    """What was sampled behind a prompt.

    `ids`: its tokens, the one that ends it among them. `log_p`: of each, its log-probability (nats) under the logits
    divided by the temperature, before anything is left out by `top_p` and its like. `seed`: what its draws were
    seeded with. `policy`: the digest of the weights that it was sampled of.
    """

    ids: tuple[int, ...]
    log_p: tuple[float, ...]
    finish_reason: FinishReason
    seed: int
    policy: str

    def cut(self, tokens: int) -> "Completion":
        """It as far as so many tokens."""
        if len(self.ids) <= tokens:
            return self
        return Completion(self.ids[:tokens], self.log_p[:tokens], "length", self.seed, self.policy)


class Engine(Protocol):
    """Samples of the policy that it was last told of."""

    def sync(self, policy: str, step: int) -> None:
        """From now on sample of the weights as they are, whose digest is `policy`, after so many steps."""

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: SamplingSettings
    ) -> list[Completion]:
        """A completion of each prompt. What is drawn depends on the prompt and its seed, not on its neighbours."""

    def close(self) -> None:
        """End what was started."""
