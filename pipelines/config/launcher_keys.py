"""The keys that say in how many processes a training runs, and how much goes into one of its steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from tunemill.pipelines.config.machine import gpu_count
from tunemill.pipelines.config.robust_keys import RobustKeys
from tunemill.stages.declaration import ConflictError, Idle, Settings, YamlMark

# Those that the command line takes too.
LAUNCHERS = ("accelerate", "torchrun", "deepspeed", "python", "ray")
HOST_AND_PORT = r"^(\[[0-9A-Fa-f:]+\]|[^\s:\[\]]+):[0-9]{1,5}$"
# What only kind: ray reads, and Axolotl's words for it.
OF_RAY = ("address", "resources_per_worker", "run_name")
AXOLOTL_RAY = {
    "ray_num_workers": "processes",
    "ray_run_name": "run_name",
    "resources_per_worker": "resources_per_worker",
}
# Of divisors that are proposed: so many numbers are tried, and so many are shown.
MOST_TRIED, SHOWN = 1024, 8
COUNT: TypeAdapter[int] = TypeAdapter(PositiveInt)
BATCH_KEYS = ("micro_batch_size", "gradient_accumulation_steps")


class LauncherSettings(Settings):
    """`pipeline.launcher`."""

    kind: Literal["accelerate", "torchrun", "deepspeed", "python", "ray"] = Field(
        "torchrun",
        description="python: one process; ray: workers of a Ray cluster; the others mean the same: torch's own agent "
        "starts the processes, and what they share stands in the keys of training",
    )
    processes: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="how many processes of this machine; auto: one for each GPU that is visible. With nodes: of each. "
        "With ray: how many workers",
    )
    nodes: PositiveInt = Field(
        1, description="how many machines train together; the same command is given on each"
    )
    node_rank: NonNegativeInt = Field(
        0, description="which of them this one is, from 0; the first publishes the result"
    )
    rendezvous: Annotated[str | None, Field(pattern=HOST_AND_PORT)] = Field(
        None, description="with nodes: HOST:PORT of the first machine, which the others can reach"
    )
    address: str | None = Field(
        None,
        min_length=1,
        description="with ray: HOST:PORT of the cluster that this machine belongs to; local starts one here; unset "
        "takes that of this machine, or starts one",
    )
    resources_per_worker: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, description="with ray: what is set aside for each worker, such as {CPU: 4, GPU: 1}"
    )
    run_name: str | None = Field(
        None, min_length=1, description="with ray: the name of the training in Ray's dashboard"
    )
    hangs_after: NonNegativeFloat = Field(
        20,
        description="seconds for which a process may compute, read and write nothing while the others wait for it: "
        "then all end, and its place is said; 0: until ddp_timeout",
    )

    @field_validator("address")
    @classmethod
    def _no_client(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            raise ValueError(
                f"{value} is the address of a client, from which Ray Train starts nothing. Give HOST:PORT of the "
                f"cluster's head (6379) on a machine of the cluster; from outside send the whole run there: tunemill "
                f"run --on {value}"
            )
        return value

    @field_validator("rendezvous")
    @classmethod
    def _there_is_such_a_port(cls, value: str | None) -> str | None:
        if value is not None and not 0 < int(value.rpartition(":")[2]) < 1 << 16:
            raise ValueError(f"{value}: ports are numbered from 1 to 65535")
        return value

    @model_validator(mode="after")
    def _each_kind_has_its_own(self) -> Self:
        if self.kind == "ray" and self.processes == "auto":
            raise ValueError("processes: kind: ray needs the number of workers")
        if self.kind != "ray":
            for key in OF_RAY:
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: only kind: ray reads it, and this is {self.kind}")
        if self.nodes == 1:
            return self._alone()
        if self.kind in ("python", "ray"):
            raise ValueError(f"nodes: kind: {self.kind} takes none; write kind: torchrun")
        if self.rendezvous is None:
            raise ValueError(
                "nodes: several machines meet somewhere: give rendezvous: HOST:PORT of the first one"
            )
        if self.node_rank >= self.nodes:
            raise ValueError(
                f"node_rank: {self.node_rank}: {self.nodes} machines are numbered from 0 to {self.nodes - 1}"
            )
        return self

    def _alone(self) -> Self:
        for key in ("node_rank", "rendezvous"):
            if getattr(self, key):
                raise ValueError(f"{key}: asks for several machines: give nodes, how many there are")
        return self

    @property
    def is_unasked(self) -> bool:
        """Whether nobody has asked for several processes: there are several only where there are several GPUs."""
        return not self.model_fields_set & {"kind", "processes", "nodes"}

    @property
    def count(self) -> int:
        """How many processes train together."""
        if self.kind == "python":
            return 1
        return self.nodes * (max(1, gpu_count()) if self.processes == "auto" else self.processes)

    @property
    def joins(self) -> bool:
        """Whether this machine only helps another, which publishes the result."""
        return self.node_rank > 0


class RunKeys(RobustKeys):
    """How stages run: what becomes of those that crash, and how training is spread over devices.

    The place is no part of a result, what goes into a step is.
    """

    launcher: Annotated[LauncherSettings, YamlMark("pipeline.launcher")] = Field(
        LauncherSettings(), description="which processes train, and how many: a place, no part of any result"
    )
    global_batch_size: Annotated[PositiveInt | None, YamlMark("pipeline.global_batch_size")] = Field(
        None,
        description="sequences of an optimizer step over all devices; gradient_accumulation_steps follows from it, "
        "micro_batch_size and the devices that there are",
    )

    use_ray: bool = Field(False, description="pipeline.launcher: {kind: ray}, in Axolotl's words")
    ray_num_workers: PositiveInt | None = Field(
        None, description="with use_ray: pipeline.launcher.processes; 1 where neither is given"
    )
    ray_run_name: str | None = Field(None, description="with use_ray: pipeline.launcher.run_name")
    resources_per_worker: dict[str, int | float] | None = Field(
        None, description="with use_ray: pipeline.launcher.resources_per_worker"
    )

    @field_validator("launcher", mode="before")
    @classmethod
    def _null_is_unset(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_validator(mode="before")
    @classmethod
    def _in_axolotls_words(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("use_ray") is not True:
            return data
        own = data.get("launcher") or {}
        if not isinstance(own, dict):
            return data
        meant = {ours: data[key] for key, ours in AXOLOTL_RAY.items() if data.get(key) is not None}
        if own.get("kind", "ray") != "ray":
            raise ConflictError(
                f"use_ray: true asks for Ray, and pipeline.launcher.kind: {own['kind']} does not", "use_ray"
            )
        return {**data, "launcher": {"kind": "ray", "processes": 1, **meant, **own}}

    def idle(self) -> Iterator[Idle]:
        """What only Ray, or several processes, would read."""
        yield from super().idle()
        if self.launcher.kind == "python" and self.launcher.processes not in ("auto", 1):
            yield Idle("pipeline.launcher.processes", "kind: python trains in one process")
        if "hangs_after" in self.launcher.model_fields_set and (why := self._asks_nobody()):
            yield Idle("pipeline.launcher.hangs_after", why)
        if not self.use_ray:
            for key in AXOLOTL_RAY:
                if getattr(self, key) is not None:
                    yield Idle(key, "only use_ray: true reads it")

    def _asks_nobody(self) -> str:
        """Why no process is looked at whether it hangs; nothing where some are."""
        if self.launcher.kind == "ray":
            return "Ray's workers run on other machines, and end after ddp_timeout"
        return "one process trains, for which no other waits" if self.launcher.count == 1 else ""


@dataclass(frozen=True)
class GlobalBatch:
    """What goes into an optimizer step: `micro` sequences a pass, `accumulation` passes on each of `replicas`.

    A replica is a process, or so many of them (`together`) as split each sequence.
    """

    micro: int
    accumulation: int
    replicas: int
    together: int = 1

    @property
    def size(self) -> int:
        return self.micro * self.accumulation * self.replicas

    def __str__(self) -> str:
        of = f" of {self.together} processes" if self.together > 1 else ""
        return (
            f"global batch {self.size} = {self.micro} micro x {self.accumulation} accumulation x "
            f"{self.replicas} replicas{of}"
        )


class BatchError(ValueError):
    """A global batch that the processes cannot share; `key` is the path of the key at fault."""

    def __init__(self, message: str, *key: str) -> None:
        super().__init__(message)
        self.key = key


def number_in(value: Any) -> int | None:
    """A number of sequences or processes as stages read it, for which "2" and 2.0 are 2 too; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return COUNT.validate_python(value)
    except ValidationError:
        return None


def global_batch(keys: RunKeys, data: Mapping[str, Any]) -> GlobalBatch | None:
    """What goes into a step, by the keys of a document; None where they are no numbers, which is said elsewhere.

    Raises BatchError where the global batch that is asked for cannot be shared.
    """
    micro, accumulation = (1 if data.get(key) is None else number_in(data[key]) for key in BATCH_KEYS)
    # So many processes have a part of every sequence each, and the same rows.
    asked = number_in(data.get("context_parallel_size"))
    together = asked if asked is not None and not keys.launcher.count % asked else 1
    replicas = keys.launcher.count // together
    if micro is None or accumulation is None:
        return None
    size = keys.global_batch_size
    if size is None:
        return GlobalBatch(micro, accumulation, replicas, together)
    if size % (micro * replicas):
        raise BatchError(_advice(size, micro, replicas, together), "pipeline", "global_batch_size")
    return GlobalBatch(micro, size // (micro * replicas), replicas, together)


def _advice(size: int, micro: int, replicas: int, together: int) -> str:
    """What would divide it."""
    step = micro * replicas
    near = sorted({size // step * step, (size // step + 1) * step} - {0})
    turns = [f"pipeline.global_batch_size: {' or '.join(map(str, near))}"]
    if not size % replicas:
        turns.append(f"micro_batch_size: {_divisors(size // replicas)}")
    if not size % micro and together == 1:
        turns.append(f"processes: {_divisors(size // micro)}")
    sharers = f"{replicas} processes" if together == 1 else f"{replicas} replicas of {together} processes"
    return (
        f"{size} sequences cannot be shared by {sharers} with micro_batch_size: {micro}, which take {step} "
        f"at a time. It would go with {'; or '.join(turns)}"
    )


def _divisors(number: int) -> str:
    """The smallest divisors of a number, some of them."""
    small = [one for one in range(1, min(number, MOST_TRIED) + 1) if not number % one]
    return f"{', '.join(map(str, small[:SHOWN]))}{' and more' if len(small) > SHOWN or number > MOST_TRIED else ''}"
