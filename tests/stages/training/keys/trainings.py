"""Real trainings of a tiny model, and what can be seen of them from outside: of one or of several settings of a key."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.pairs import reward_data, thanked
from support.preference_rows import write_pairs
from support.pruned import make_pruned
from support.rated import rated_data
from support.steps import counting, held_out_steps, step_data
from support.taught_rows import write_taught
from support.tiny_model import (
    Heard,
    evaluation_data,
    make_model,
    random_rows,
    training_data,
    workspace,
)
from support.trained_families import make_folder
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from tunemill.stages.artifacts import (
    Artifact,
    EvaluationData,
    Model,
    PreferenceData,
    ReferenceLogProbs,
    TeacherLogProbs,
    TrainingData,
)
from tunemill.stages.data.rows.log_p_columns import write_log_p
from tunemill.stages.data.rows.pairs_body import SIDES
from tunemill.stages.data.rows.rated_body import ANSWERS
from tunemill.stages.errors import SettingError
from tunemill.stages.registry import METHODS
from tunemill.stages.training.keys.training import TrainingKeys

Settings = dict[str, Any]

# Two steps that report, and write no checkpoint.
DEFAULTS: Settings = {"learning_rate": 1e-2, "logging_steps": 1, "max_steps": 2, "save_strategy": "no"}
SMALL: Settings = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
PAIRS = [
    ("why? ", "because", "no"),
    ("say: ", "hi", "hello there"),
    ("and ", "so on", "on"),
    ("a", "bcd", "e"),
]


class StoppedError(Exception):
    """A training on a machine that only pretends to have a GPU: here it would need one."""


# What a method is given beside the base model, by type.
MAKERS: dict[type[Artifact], Callable[[Path], Artifact]] = {
    TrainingData: lambda folder: training_data(folder, random_rows(6, longest=14)),
    EvaluationData: lambda folder: evaluation_data(folder, random_rows(3, seed=9)),
    PreferenceData: lambda folder: PreferenceData(write_pairs(folder, PAIRS).path),
    ReferenceLogProbs: lambda folder: some_log_p(folder),
    TeacherLogProbs: lambda folder: write_taught(folder, random_rows(6, longest=14)),
}
# What a method is given that reads other rows of the type.
OF_METHOD: dict[str, dict[type[Artifact], Callable[[Path], Artifact]]] = {
    "reward": {PreferenceData: lambda folder: reward_data(folder, thanked(4))},
    "process_reward": {
        TrainingData: lambda folder: step_data(folder, counting(6)),
        EvaluationData: lambda folder: held_out_steps(folder, counting(3, seed=9)),
    },
    "kto": {
        PreferenceData: lambda folder: rated_data(folder, [(p, c, len(c) > 2) for p, c, _ in PAIRS]),
        ReferenceLogProbs: lambda folder: some_log_p(folder, ANSWERS),
    },
}


def some_log_p(folder: Path, answers: Sequence[str] = SIDES) -> ReferenceLogProbs:
    """What some model might say of the pairs, or of the judged answers."""
    folder.mkdir(parents=True)
    log_p_n2 = -np.arange(1, 2 * len(PAIRS) + 1, dtype=np.float32).reshape(-1, 2)
    write_log_p(folder / "rows.arrow", answers, len(PAIRS), np.arange(len(PAIRS)), log_p_n2)
    return ReferenceLogProbs(folder)


@dataclass
class Pass:
    """One forward pass: the tensors that went in, and what its first layer was given, each time that it ran."""

    inputs: dict[str, Any]
    trains: bool
    hidden: list[Any] = field(default_factory=list)
    has_gradient: bool = False
    """Whether a gradient flows into the first layer's input."""
    autocast: Any = None


@dataclass
class Seen:
    """A training: what it was told, what it did, and why it was refused if it was."""

    config: TrainingKeys | None = None
    refusal: str | None = None
    loaded: Any = None
    """Type of the weights as they were read."""
    arguments: Settings = field(default_factory=dict)
    """What the Trainer's arguments were made of."""
    trainer: Any = None
    passes: list[Pass] = field(default_factory=list)
    loss_shapes: list[tuple[int, ...]] = field(default_factory=list)
    """Of the logits of each cross entropy while training."""
    mlp_tokens: list[int] = field(default_factory=list)
    """Tokens of each run of the first layer's MLP."""
    heard: Heard = field(default_factory=Heard)
    folder: Path = Path()

    @property
    def trained(self) -> list[Pass]:
        """The passes of training."""
        return [one for one in self.passes if one.trains]

    @property
    def evaluated(self) -> list[Pass]:
        """The passes over held-out rows."""
        return [one for one in self.passes if not one.trains]


class Trainings:
    """Trains with any settings, each time in a folder of its own, from bases and data that are made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._bases = {"llama": make_model(folder / "llama", **SMALL)}
        self._bases["qwen3_moe"] = make_folder("qwen3_moe", folder / "qwen3_moe")
        self._bases["averaging llama"] = self._bases["llama"]
        self._bases["eager llama"] = make_model(folder / "eager", **SMALL)
        config = self._bases["eager llama"] / "config.json"
        preferring = json.loads(config.read_text()) | {"attn_implementation": "eager"}
        config.write_text(json.dumps(preferring))
        self._bases["pruned llama"] = make_pruned(folder / "pruned", **SMALL)
        self._inputs = {method: self._made_for(method) for method in METHODS}

    def _made_for(self, method: str) -> dict[str, Artifact | list[Artifact]]:
        makers = MAKERS | OF_METHOD.get(method, {})
        return {
            name: [made] if given.many else made
            for name, given in METHODS[method].inputs.items()
            # A stored adapter is optional.
            if given.artifact in makers and (made := makers[given.artifact](self._folder / method / name))
        }

    def read(self, method: str, settings: Settings) -> Seen:
        """The settings as a config, without a training."""
        return Seen(config=METHODS[method].config(**{**DEFAULTS, **settings}))

    def run(self, method: str, settings: Settings, *, base: str = "llama", on_gpu: bool = False) -> Seen:
        """Train on a CPU, or up to the first thing that needs a GPU on a machine that pretends to have one."""
        self._count += 1
        seen = Seen(folder=self._folder / "runs" / str(self._count))
        out = workspace(seen.folder)
        module, body = METHODS[method].body.split(":")
        machine = gpu_pretended() if on_gpu else no_gpu()
        with watched(seen, on_gpu), machine, averaging(base.startswith("averaging")):
            try:
                seen.config = METHODS[method].config(**{**DEFAULTS, **settings})
                vars(import_module(module))[body](
                    seen.config,
                    base_model=Model(self._bases[base]),
                    **self._inputs[method],
                    out=out,
                    report=seen.heard.report,
                )
            except ValidationError as error:
                seen.refusal = error.errors()[0]["msg"]
            except SettingError as error:
                seen.refusal = str(error)
            except StoppedError:
                assert on_gpu
        return seen


@contextmanager
def watched(seen: Seen, on_gpu: bool) -> Iterator[None]:
    """While open, what libraries are called with is noted; what they do stays the same.

    On a GPU that is none the training stops when the Trainer's arguments are made.
    """
    load, make, train = PreTrainedModel.from_pretrained.__func__, TrainingArguments.__init__, Trainer.train
    cross_entropy = functional.cross_entropy

    def noting_load(kind: Any, *args: Any, **given: Any) -> Any:
        model = load(kind, *args, **given)
        # With what it has to tell of loading it is a pair.
        seen.loaded = (model[0] if isinstance(model, tuple) else model).dtype
        return model

    def noting_make(self: Any, **given: Any) -> None:
        seen.arguments = given
        if on_gpu:
            raise StoppedError
        make(self, **given)

    def noting_train(self: Any, *args: Any, **given: Any) -> Any:
        seen.trainer = self
        watch_passes(self.model, seen.passes)
        watch_mlp(self.model, seen.mlp_tokens)
        return train(self, *args, **given)

    def noting_loss(logits: Any, *args: Any, **given: Any) -> Any:
        if torch.is_grad_enabled():
            seen.loss_shapes.append(tuple(logits.shape))
        return cross_entropy(logits, *args, **given)

    # A compiler would take seconds; the model is wrapped all the same.
    torch.compiler.set_stance("force_eager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedModel, "from_pretrained", classmethod(noting_load))
        patch.setattr(TrainingArguments, "__init__", noting_make)
        patch.setattr(Trainer, "train", noting_train)
        patch.setattr(functional, "cross_entropy", noting_loss)
        try:
            yield
        finally:
            torch.compiler.set_stance("default")


def watch_passes(model: Any, passes: list[Pass]) -> None:
    """Note every forward pass of the model, and every run of its first layer."""
    plain = model.get_base_model() if hasattr(model, "peft_config") else model

    def on_pass(module: Any, _args: Any, given: Settings) -> None:
        tensors = {name: value.clone() for name, value in given.items() if torch.is_tensor(value)}
        passes.append(Pass(tensors, module.training))

    def on_layer(_layer: Any, args: Any, given: Settings) -> None:
        hidden = args[0] if args else given["hidden_states"]
        passes[-1].hidden.append(hidden.detach().clone())
        passes[-1].has_gradient |= hidden.requires_grad
        if torch.is_autocast_enabled("cpu"):
            passes[-1].autocast = torch.get_autocast_dtype("cpu")

    model.register_forward_pre_hook(on_pass, with_kwargs=True)
    plain.model.layers[0].register_forward_pre_hook(on_layer, with_kwargs=True)


def watch_mlp(model: Any, tokens: list[int]) -> None:
    """Note how many tokens the first layer's MLP computes at a time."""
    plain = model.get_base_model() if hasattr(model, "peft_config") else model

    def on_run(_module: Any, args: Any, _given: Settings) -> None:
        tokens.append(args[0].shape[-2])

    mlp = plain.model.layers[0].mlp
    if hasattr(mlp, "down_proj"):
        mlp.down_proj.register_forward_pre_hook(on_run, with_kwargs=True)


@contextmanager
def averaging(wanted: bool) -> Iterator[None]:
    """While open and `wanted`, Llama says that it averages the loss over each micro batch, as Gemma 3n does."""
    with pytest.MonkeyPatch.context() as patch:
        if wanted:
            patch.setattr(LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False)
        yield


@contextmanager
def no_gpu() -> Iterator[None]:
    """While open, this machine has no GPU, whichever it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@contextmanager
def gpu_pretended() -> Iterator[None]:
    """While open, a GPU with everything seems to be here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda **_given: True)
        patch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        yield
