"""The keys of texts that the model writes while it is trained, for a person to read."""

from collections.abc import Iterator

from pydantic import Field, NonNegativeFloat, PositiveInt

from tunemill.stages.declaration import Idle, Runtime, StageConfig


class SampleKeys(StageConfig):
    """Samples at each evaluation, drawn with a random state of their own."""

    generate_samples: Runtime[bool] = Field(
        False,
        description="let the model go on with held-out rows at each evaluation: shown, changes no weight",
    )
    num_generation_samples: Runtime[PositiveInt] = Field(
        3, description="rows that it goes on with, the first: shown, changes no weight"
    )
    generation_max_new_tokens: Runtime[PositiveInt] = Field(
        50, description="most tokens that it writes: shown, changes no weight"
    )
    generation_temperature: Runtime[NonNegativeFloat] = Field(
        0.7, description="temperature, 0: always the likeliest token: shown, changes no weight"
    )
    generation_top_p: Runtime[float | None] = Field(
        None, gt=0, le=1, description="share of the likeliest tokens to draw from: shown, changes no weight"
    )
    generation_top_k: Runtime[PositiveInt | None] = Field(
        None, description="likeliest tokens to draw from: shown, changes no weight"
    )
    generation_prompt_ratio: Runtime[float] = Field(
        0.5, gt=0, le=1, description="share of a row that is given: shown, changes no weight"
    )
    generation_do_sample: Runtime[bool] = Field(
        True, description="draw, or always take the likeliest token: shown, changes no weight"
    )

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn."""
        return self.generation_do_sample and self.generation_temperature > 0

    def idle(self) -> Iterator[Idle]:
        """How to write what is not written."""
        yield from super().idle()
        if not self.generate_samples:
            for key in SampleKeys.model_fields:
                if self.is_set(key):
                    yield Idle(key, "generate_samples is off")
        elif "evaluation_data" in self.unused_inputs():
            yield Idle(
                "generate_samples", "nothing is evaluated while training; give eval_steps or evals_per_epoch"
            )
