"""The keys of vLLM as what samples completions, and of what corrects for its being another program than the trainer."""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from tunemill.resources.protocols import THIS_MACHINE
from tunemill.stages.declaration import ConflictError, Fault, Idle, Runtime, YamlMark
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.judge_keys import CLIENT
from tunemill.stages.models.vllm.installed import PACKAGE, fault_of, version_in
from tunemill.stages.models.vllm.python_key import PYTHON_OF_VLLM, VllmPython
from tunemill.stages.training.online.colocated_keys import COLOCATE, MODE, ColocatedKeys

Mode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what Axolotl's documents write; nothing listens there by us
PORT = 8000
# Keys of a server that is started, and of where one is that runs already.
OF_START = ("vllm_gpu_memory_utilization", "vllm_tensor_parallel_size", "vllm_max_model_len", "vllm_dtype")
OF_PLACE = ("vllm_server_host", "vllm_server_port")
# Of the YAML's `vllm` block, which is read by `vllm-serve` too.
OF_BLOCK = ("vllm_share_of_block", "vllm_gpus_of_block")
CORRECTION = "vllm_importance_sampling_correction"
# Keys of how what was sampled elsewhere is weighted.
OF_CORRECTION = tuple(f"vllm_importance_sampling_{name}" for name in ("mode", "clip_max", "clip_min", "cap"))


def _below_trl(name: str) -> YamlMark:
    return YamlMark(f"trl.{name}")


class VllmKeys(ColocatedKeys):
    """Whether vLLM samples, where it is, and how what it sampled is weighted."""

    use_vllm: Annotated[bool, _below_trl("use_vllm")] = Field(
        False,
        description="let vLLM sample completions: a server that is started for the training, or one that runs",
    )
    vllm_server_base_url: Annotated[Runtime[str | None], _below_trl("vllm_server_base_url")] = Field(
        None, description="a server that runs already; unset: one is started: where it is changes no result"
    )
    vllm_server_host: Annotated[Runtime[str | None], _below_trl("vllm_server_host")] = Field(
        None, description="the host of a server that runs already: where it is changes no result"
    )
    vllm_server_port: Annotated[Runtime[PositiveInt | None], _below_trl("vllm_server_port")] = Field(
        None, le=65535, description="its port: where it is changes no result"
    )
    vllm_server_timeout: Annotated[Runtime[PositiveFloat], _below_trl("vllm_server_timeout")] = Field(
        900.0, description="seconds to wait for a server: how long it takes changes no result"
    )
    vllm_max_model_len: Annotated[Runtime[PositiveInt | None], _below_trl("vllm_max_model_len")] = Field(
        None,
        description="room for prompt and completion; unset: as much as is needed: less than that is refused",
    )
    vllm_dtype: Annotated[
        Literal["auto", "float16", "bfloat16", "float32"] | None, _below_trl("vllm_dtype")
    ] = Field(None, description="type of the weights in a server that is started; unset: that of the model's")
    vllm_lora_sync: Annotated[Runtime[bool | None], _below_trl("vllm_lora_sync")] = Field(
        None,
        description="asks for nothing: where there is an adapter, the server is given it beside its base in any case",
    )
    vllm_sync_interval: Annotated[PositiveInt, _below_trl("vllm_sync_interval")] = Field(
        1, description="steps after which the server is given the weights again"
    )
    vllm_importance_sampling_correction: Annotated[
        bool, _below_trl("vllm_importance_sampling_correction")
    ] = Field(
        True,
        description="weight what vLLM or an older policy sampled by how likely it is for the one that learns",
    )
    vllm_importance_sampling_mode: Annotated[Mode, _below_trl("vllm_importance_sampling_mode")] = Field(
        "sequence_mask",
        description="by tokens or whole completions; what is out of bounds is cut to them, or masked",
    )
    vllm_importance_sampling_clip_max: Annotated[
        PositiveFloat | None, _below_trl("vllm_importance_sampling_clip_max")
    ] = Field(3.0, description="the upper bound of that weight; null: none")
    vllm_importance_sampling_clip_min: Annotated[
        PositiveFloat | None, _below_trl("vllm_importance_sampling_clip_min")
    ] = Field(None, description="the lower bound; unset: none")
    vllm_importance_sampling_cap: Annotated[
        PositiveFloat | None, _below_trl("vllm_importance_sampling_cap")
    ] = Field(None, description="TRL's older name of vllm_importance_sampling_clip_max")
    vllm_python: VllmPython = Field(None, description=PYTHON_OF_VLLM)

    @field_validator("vllm_server_base_url")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/\s]", value):
            raise ValueError("must be a URL such as http://127.0.0.1:8000")
        return None if value is None else value.rstrip("/").removesuffix("/v1")

    @property
    def vllm_url(self) -> str | None:
        """The server that runs already; None where one is started."""
        if self.is_colocated:
            return None
        if self.vllm_server_base_url is not None:
            return self.vllm_server_base_url
        if self.vllm_server_host is None and self.vllm_server_port is None:
            return None
        host = self.vllm_server_host or THIS_MACHINE
        host = THIS_MACHINE if host == EVERYWHERE else host
        return f"http://{host}:{self.vllm_server_port or PORT}"

    @property
    def starts_vllm(self) -> bool:
        """Whether a server is started for the training."""
        return self.use_vllm and self.vllm_url is None

    def room_for(self, longest: int) -> int:
        """Tokens that a server that is started has room for. Raises SettingError where `longest` are more."""
        room = self.vllm_max_model_len or longest
        if room < longest:
            raise SettingError(
                f"trl.vllm_max_model_len: {room} tokens, and a prompt with its completion may have {longest} (the "
                f"longest prompt and trl.max_completion_length). Raise it, or take it out: then it is as much as needed"
            )
        return room

    @property
    def is_off_policy(self) -> bool:
        """Whether what is learned from may be of another policy than the one that learns."""
        return self.use_vllm

    @property
    def sync_interval(self) -> int:
        """Steps after which vLLM is given the weights again."""
        return self.vllm_sync_interval

    @property
    def correction(self) -> Mode | None:
        """How what was sampled elsewhere is weighted; None where it is not."""
        corrects = self.is_off_policy and self.vllm_importance_sampling_correction
        return self.vllm_importance_sampling_mode if corrects else None

    @property
    def correction_bounds(self) -> tuple[float | None, float | None]:
        """The lower and the upper bound of that weight."""
        cap = self.vllm_importance_sampling_cap
        return (
            self.vllm_importance_sampling_clip_min,
            self.vllm_importance_sampling_clip_max if cap is None else cap,
        )

    @model_validator(mode="after")
    def _bounds_are_said_once(self) -> Self:
        names = ("vllm_importance_sampling_cap", "vllm_importance_sampling_clip_max")
        if all(self.is_set(name) for name in names):
            raise ConflictError(
                "trl.vllm_importance_sampling_cap is the older name of vllm_importance_sampling_clip_max. Keep one",
                *names,
            )
        low, high = self.correction_bounds
        if low is not None and high is not None and low > high:
            raise ConflictError(
                f"trl.vllm_importance_sampling_clip_min: {low} is above the upper bound, {high}",
                "vllm_importance_sampling_clip_min",
                names[1],
            )
        return self

    def used_tools(self) -> Mapping[str, str]:
        """The version of a vLLM that is started."""
        found = super().used_tools()
        if not self.starts_vllm:
            return found
        return {**found, PACKAGE: version_in(self.vllm_python) or "not installed"}

    def faults(self) -> Iterator[Fault]:
        """A vLLM that is not there, or too old, and the client that asks it."""
        yield from super().faults()
        if not self.use_vllm:
            return
        reason = fault_of(self.vllm_python) if self.vllm_url is None else None
        if reason is None and importlib.util.find_spec(CLIENT) is None:
            reason = f"vLLM is asked by {CLIENT}, which is not installed. pip install 'tunemill[{CLIENT}]'"
        if reason is not None:
            yield Fault("use_vllm", reason)

    def idle(self) -> Iterator[Idle]:
        """Everything of vLLM where it does not sample, and what the other settings leave nothing to."""
        yield from super().idle()
        of_correction = (CORRECTION, *OF_CORRECTION)
        every = sorted(VllmKeys.model_fields.keys() - {"use_vllm", "vllm_python", *of_correction, *OF_BLOCK})
        runs = self.use_vllm and self.vllm_url is not None
        is_named = self.use_vllm and not self.is_colocated and self.vllm_server_base_url is not None
        shares = self.use_vllm and self.is_colocated
        corrects = not self.is_off_policy or self.vllm_importance_sampling_correction
        for names, is_idle, reason in (
            (every, not self.use_vllm, "trl.use_vllm is off"),
            (of_correction, not self.is_off_policy, "trl.use_vllm is off"),
            (OF_START, runs, "a server that runs already was started with settings of its own"),
            (("vllm_server_timeout",), runs, "a server that runs already is not waited for"),
            (OF_PLACE, is_named, "trl.vllm_server_base_url says where the server is"),
            (("vllm_server_base_url", *OF_PLACE), shares, f"{MODE}: {COLOCATE} starts a server of its own"),
            (
                ("vllm_enable_sleep_mode",),
                self.use_vllm and not shares,
                f"it is of {MODE}: {COLOCATE} alone",
            ),
            (
                ("vllm_enable_sleep_mode",),
                shares and self.vllm_enable_sleep_mode,
                "the server keeps its share of the device while steps are taken, which `plan --memory` counts",
            ),
            (OF_CORRECTION, not corrects, "trl.vllm_importance_sampling_correction is off"),
            (
                ("vllm_lora_sync",),
                self.use_vllm,
                "an adapter is given to vLLM as one, and whole weights as such",
            ),
        ):
            for name in names:
                if is_idle and self.is_set(name):
                    yield Idle(name, reason)
