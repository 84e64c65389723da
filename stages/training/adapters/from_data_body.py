"""Starts that look at training data: EVA, CorDA and LoRA-GA, as PEFT computes them.

What was found is part of each checkpoint, so that a resumed training goes on beside the same base.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.config import CordaConfig, EvaConfig, LoraGAConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.eva import get_eva_state_dict, initialize_lora_eva_weights
from peft.tuners.lora.loraga import preprocess_loraga
from peft.tuners.tuners_utils import cast_adapter_dtype
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report
from tunemill.stages.training.adapters.factors_body import NAME, adapted_layers, factors_of, weight_of
from tunemill.stages.training.adapters.starts_body import (
    check_linear,
    check_modules,
    first_factors,
    probe,
)
from tunemill.stages.training.ahead_body import means_ahead
from tunemill.stages.training.keys.factors import (
    FILE,
    CordaSettings,
    EvaSettings,
    FactorKeys,
    LoraGaSettings,
)
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.method import Batch, Method

BASE = ".base_layer"
FIRST = ".lora_A.weight"
# What of a batch a model reads; a method may have put more into it.
READ = ("input_ids", "attention_mask", "position_ids")
# EVA takes batch after batch until its vectors stay, and again from the first; data that never lets them is refused.
LONGEST_SEARCH = 1000


class FirstFactors(TrainerCallback):  # type: ignore[misc]
    """Has to hear of a checkpoint before it is sealed."""

    def __init__(self, found: dict[str, Any], start: str, root: Path) -> None:
        self._found, self._start, self._root = found, start, root

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Beside what the Trainer writes."""
        path = self._root / f"checkpoint-{state.global_step}" / FILE
        save_file(self._found, path, metadata={"start": self._start})


@dataclass(frozen=True)
class Examined:
    """What a start may look at: the first examples in training order, how they become batches, and the loss."""

    method: Method
    collator: Callable[[Sequence[Any]], Batch]
    count: int
    autocast: Any

    @property
    def device(self) -> Any:
        """Where training will run."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def numbers(self) -> range:
        """Places of the examples."""
        return range(min(self.count, len(self.method.examples)))

    def batch(self, places: Sequence[int]) -> Batch:
        """Some examples as a batch on the model's device."""
        made = self.collator([self.method.examples[place] for place in places])
        return {name: tensor.to(self.device) for name, tensor in made.items()}

    def around(self) -> Any:
        """The precision of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)


def start_from_data(
    config: TrainingKeys,
    model: Any,
    examined: Examined,
    checkpoint: str | None,
    root: Path,
    report: Report,
) -> FirstFactors:
    """Give a fresh adapter its first factors, those of the checkpoint where there is one, and take them out of the base
    where the start does so.

    Raises SettingError for modules or data that cannot be started from.
    """
    start = str(config.factor_start)
    if not getattr(model.get_base_model(), "is_quantized", False):
        # What is quantized is there already.
        model.to(examined.device)
    before = probe(model)
    if checkpoint is not None:
        found = _stored(Path(checkpoint) / FILE, start)
    else:
        torch.manual_seed(config.seed)
        try:
            found = FINDERS[start](config, model, examined)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, SettingError | torch.OutOfMemoryError):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SettingError(
                f"peft_init_lora_weights: {start}: PEFT cannot start from this model and data: {reason}"
            ) from error
        report.log(f"{start}: started from {len(examined.numbers())} sequences of training data")
    if start == "eva":
        _set_eva(config, model, found)
        ranks = sorted(layer.r[NAME] for _, layer in adapted_layers(model))
        report.log(f"eva: {len(ranks)} modules have an adapter, of ranks from {ranks[0]} to {ranks[-1]}")
    else:
        _take_out(model, found)
        model.first_factors = first_factors(model, before, start)
    return FirstFactors({name: tensor.cpu() for name, tensor in found.items()}, start, root)


def _stored(path: Path, start: str) -> dict[str, Any]:
    with safe_open(path, framework="pt") as reader:
        other = (reader.metadata() or {}).get("start")
        if other != start:
            raise SettingError(
                f"resume_from_checkpoint: {path.parent}: its adapter started with {other}, and "
                f"peft_init_lora_weights is {start}. Start as that run did."
            )
        return {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118


def _take_out(model: Any, found: dict[str, Any]) -> None:
    """Set the factors, and leave in the base what their product, with its scale, does not hold."""
    with torch.no_grad():
        for name, layer in adapted_layers(model):
            for factor, tensor in factors_of(layer, name).items():
                tensor.copy_(found[factor])
            weight = weight_of(layer)
            a, b = layer.lora_A[NAME].weight.float(), layer.lora_B[NAME].weight.float()
            delta = layer.scaling[NAME] * (b @ a)
            delta = delta.T if getattr(layer, "fan_in_fan_out", False) else delta
            weight.data = (weight.data.float() - delta).to(weight.dtype)


def _settings_of(model: Any, **more: Any) -> LoraConfig:
    """Settings in which PEFT finds, in the model within the adapter, the modules below it, with their ranks."""
    ranks = {_within(name): layer.r[NAME] for name, layer in adapted_layers(model)}
    return LoraConfig(target_modules=list(ranks), rank_pattern=ranks, **more)


def _within(name: str) -> str:
    return name.removeprefix("base_model.model.") + BASE


def _started_by(model: Any, start: Callable[[LoraLayer], None]) -> dict[str, Any]:
    """The factors that PEFT gives each layer; its change of the base is undone, and the factors keep their type."""
    found = {}
    for name, layer in adapted_layers(model):
        weight = weight_of(layer)
        held = weight.data.clone()
        types = {factor: tensor.dtype for factor, tensor in factors_of(layer, name).items()}
        start(layer)
        weight_of(layer).data = held
        for factor, tensor in factors_of(layer, name).items():
            tensor.data = tensor.data.to(types[factor])
            found[factor] = tensor.data.clone()
    return found


def _check_ranks(model: Any, start: str, most: Callable[[LoraLayer], float], times: float) -> None:
    for name, layer in adapted_layers(model):
        if times * layer.r[NAME] > most(layer):
            raise SettingError(
                f"peft_init_lora_weights: {start} needs {times:g} times the rank as singular vectors, and {name}, of "
                f"{layer.in_features} inputs and {layer.out_features} outputs, has no {times * layer.r[NAME]:g}. Lower "
                f"lora_r."
            )


def _narrowest(layer: LoraLayer) -> int:
    return int(min(layer.in_features, layer.out_features))


def find_corda(config: FactorKeys, model: Any, examined: Examined) -> dict[str, Any]:
    """CorDA (arXiv 2406.05223): singular vectors of each weight times the covariance of its inputs.

    PEFT wants sequences one by one, without padding.
    """
    check_linear(model, "corda")
    _check_ranks(model, "corda", _narrowest, 1)
    given = config.start_settings.corda_config or CordaSettings()
    settings = _settings_of(
        model, init_lora_weights="corda", corda_config=CordaConfig(corda_method=given.corda_method)
    )
    plain = model.get_base_model()

    def run() -> None:
        for place in examined.numbers():
            for row in _rows(examined, place):
                with examined.around():
                    plain(**row, use_cache=False)

    was_training = model.training
    preprocess_corda(plain, settings, run)
    model.train(was_training)
    return _started_by(model, lambda layer: layer.corda_init(NAME, "corda"))


def _rows(examined: Examined, place: int) -> Iterator[Batch]:
    """The rows of an example's batch, each without its padding."""
    batch = examined.batch([place])
    examples = examined.method.examples
    lengths = batch["attention_mask"].sum(-1).tolist() if "attention_mask" in batch else [
        int(examples.lengths[examples.order(0)[place]])
    ]  # fmt: skip
    for row, length in enumerate(lengths):
        yield {
            name: batch[name][row : row + 1, :length]
            for name in ("input_ids", "position_ids")
            if name in batch
        }


def find_lora_ga(config: FactorKeys, model: Any, examined: Examined) -> dict[str, Any]:
    """LoRA-GA (arXiv 2407.05000): singular vectors of the gradient of one step over all of the examples."""
    check_linear(model, "lora_ga")
    _check_ranks(model, "lora_ga", _narrowest, 2)
    given = config.start_settings.lora_ga_config or LoraGaSettings()
    settings = LoraGAConfig(**given.model_dump())
    with warnings.catch_warnings():
        # PEFT counts backward passes; that the inputs of the first modules have no gradient is no news.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        preprocess_loraga(
            model.get_base_model(),
            _settings_of(model, init_lora_weights="lora_ga", lora_ga_config=settings),
            partial(_one_step, model, examined),
        )
    return _started_by(model, lambda layer: layer.lora_ga_init(NAME, settings))


def _one_step(model: Any, examined: Examined) -> None:
    """Backward of the mean loss, example by example. PEFT divides by their number, so each is multiplied by it."""
    own = examined.method.own_loss
    places = examined.numbers()
    counts: dict[str, int] = {}
    for place in places:
        for name, count in _counts(own, examined.batch([place])).items():
            counts[name] = counts.get(name, 0) + count
    means = {}
    if own is not None:
        with examined.around():
            means = means_ahead(own, model, (examined.batch([place]) for place in places))
    for place in places:
        batch = {**examined.batch([place]), **means}
        with examined.around():
            if own is None:
                loss = model(**batch, use_cache=False).loss * _counts(own, batch)["tokens"] / counts["tokens"]
            else:
                loss = sum(total / counts[name] for name, total in own.loss(model, batch).totals.items())
        (loss * len(places)).backward()


def _counts(own: Any, batch: Batch) -> dict[str, int]:
    return {"tokens": int((batch["labels"] != IGNORED).sum())} if own is None else dict(own.counts(batch))


def find_eva(config: FactorKeys, model: Any, examined: Examined) -> dict[str, Any]:
    """EVA (arXiv 2410.07170): singular vectors of each module's inputs at the trained tokens; those of all modules that
    explain most share the ranks.
    """
    check_modules(model, "eva")
    given = config.start_settings.eva_config or EvaSettings()
    _check_ranks(model, "eva", lambda layer: layer.in_features, given.rho)
    most = max(round(layer.r[NAME] * given.rho) for _, layer in adapted_layers(model))
    batches = _batches_of(examined, most)
    settings = model.peft_config[NAME]
    settings.init_lora_weights, settings.eva_config = "eva", EvaConfig(**given.model_dump())
    done = 0

    def forward(adapted: Any, batch: Batch) -> None:
        nonlocal done
        done += 1
        if done > LONGEST_SEARCH + len(batches):
            raise SettingError(
                f"peft_init_lora_weights: eva: after {done} batches the singular vectors still change. Raise "
                f"pipeline.start_sequences, or lower peft.eva_config.tau or rho."
            )
        with examined.around():
            adapted(**{name: batch[name] for name in READ if name in batch}, use_cache=False)

    with torch.no_grad():
        found: dict[str, Any] = get_eva_state_dict(
            model,
            batches,
            forward_fn=forward,
            prepare_model_inputs_fn=_trained_tokens,
            prepare_layer_inputs_fn=_inputs_of_tokens,
            show_progress_bar=False,
        )
    return {f"{name}{FIRST}": tensor.float().contiguous().clone() for name, tensor in found.items()}


def _batches_of(examined: Examined, tokens: int) -> list[Batch]:
    """Batches of examples in their order, each of as few as have so many trained tokens, which one batch must."""
    batches: list[Batch] = []
    places: list[int] = []
    for place in examined.numbers():
        places.append(place)
        batch = examined.batch(places)
        if int((batch["labels"] != IGNORED).sum()) >= tokens:
            batches.append(batch)
            places = []
    if not batches:
        raise SettingError(
            f"peft_init_lora_weights: eva looks for {tokens} singular vectors (lora_r times peft.eva_config.rho), and "
            f"the first {len(examined.numbers())} sequences have fewer trained tokens. Raise pipeline.start_sequences, "
            f"or lower lora_r."
        )
    return batches


def _trained_tokens(batch: Batch, _settings: Any) -> Any:
    """[B * L] which tokens count."""
    return (batch["labels"] != IGNORED).flatten()


def _inputs_of_tokens(layer_input: Any, trained: Any, name: str) -> Any:
    """[tokens, in] the inputs of a module at the trained tokens."""
    given = layer_input[0] if isinstance(layer_input, tuple) else layer_input
    flat = given.reshape(-1, given.shape[-1])
    if len(flat) != len(trained):
        raise SettingError(
            f"peft_init_lora_weights: eva: {name} is not given every token once, as an expert is not. Leave it out of "
            f"lora_target_modules."
        )
    return flat[trained]


def _set_eva(config: TrainingKeys, model: Any, found: dict[str, Any]) -> None:
    """Give each module its vectors and rank; one whose rank is 0 loses its adapter."""
    settings = model.peft_config[NAME]
    given = config.start_settings.eva_config or EvaSettings()
    settings.init_lora_weights, settings.eva_config = "eva", EvaConfig(**given.model_dump())
    device = model.get_input_embeddings().weight.device
    initialize_lora_eva_weights(
        model, eva_state_dict={name.removesuffix(FIRST): tensor.to(device) for name, tensor in found.items()}
    )
    # Modules of another rank than before have new factors.
    cast_adapter_dtype(model, NAME, autocast_adapter_dtype=config.peft_autocast_adapter_dtype is not False)
    settings.init_lora_weights, settings.eva_config = True, None


FINDERS = {"corda": find_corda, "eva": find_eva, "lora_ga": find_lora_ga}
