"""What the `base_model` stage reads from the YAML."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from tunemill.stages.declaration import (
    ConflictError,
    Fault,
    Idle,
    ModelSource,
    Runtime,
    Settings,
    YamlMark,
)
from tunemill.stages.models.base_model.folder import (
    fault_of_class,
    fault_of_description,
    fault_of_gptq_key,
    fault_of_settings,
    quantized_by,
)
from tunemill.stages.models.base_model.layers import fault_of_tensors
from tunemill.stages.models.base_model.layouts.formats import FAULTS
from tunemill.stages.models.base_model.rope import given_rope
from tunemill.stages.models.base_model.storing import faults_of_storing
from tunemill.stages.models.base_model.trained_type import AUTO, OTHERWISE, TrainedTypeKeys
from tunemill.stages.models.exports import GGUF
from tunemill.stages.models.gguf_families import fault_of_export
from tunemill.stages.models.linearized import KEY as LINEARIZED
from tunemill.stages.models.linearized import fault_of_type
from tunemill.stages.models.model_folder import fault_of_folder, fault_of_generation, settings_of
from tunemill.stages.models.own_code import code_files, digest_of
from tunemill.stages.models.prompts import LLAMA_ADAPTER, fault_of_prompts
from tunemill.stages.models.quantization import QatSettings, QuantizationSettings

# Arguments of from_pretrained, and what decides them here.
OWN_ARGUMENTS = {
    "attn_implementation": "attn_implementation",
    "cache_dir": "the store",
    "config": "overrides_of_model_config",
    "device_map": "the machine",
    "dtype": "bf16, fp16 or float32",
    "experts_implementation": "experts_implementation",
    "load_in_4bit": "load_in_4bit",
    "load_in_8bit": "load_in_8bit",
    "local_files_only": "base_model",
    "low_cpu_mem_usage": "the loop",
    "max_memory": "the machine",
    "quantization_config": "load_in_4bit and bnb_config_kwargs",
    "revision": "revision_of_model",
    "token": "the environment",
    "torch_dtype": "bf16, fp16 or float32",
    "trust_remote_code": "trust_remote_code",
    "use_safetensors": "base_model, of which safetensors are read",
}
STORED_LATER = "a model whose sizes do not fit is refused before it is trained: no result depends on it"


class UnpackingSettings(Settings):
    """`model_quantization_config_kwargs`."""

    dequantize: bool = Field(
        False, description="read the weights as numbers in 16 bits, the only way to train them"
    )


class BaseModelConfig(TrainedTypeKeys):
    """Where the weights come from, and how they are fitted to the tokenizer."""

    base_model: ModelSource[str | None] = Field(
        None,
        description="local folder with config.json and safetensors; unset when another node gives it",
    )
    base_model_config: ModelSource[str | None] = Field(
        None,
        description="local folder whose config.json is read in place of that of base_model, which keeps its tokenizer; "
        "unset when another node gives it",
    )
    model_type: str | None = Field(
        None, description="class of the model; the one that config.json names, or AutoModelForCausalLM"
    )
    type_of_model: str | None = Field(None, description="another name of model_type")
    reinit_weights: bool = Field(
        False, description="draw new weights from config.json instead of reading any"
    )
    seed: int = Field(
        42, ge=0, description="draws new weights and new embedding rows; without those it is idle"
    )
    overrides_of_model_config: dict[str, Any] | None = Field(
        None, description="keys of config.json to set before the weights are read"
    )
    overrides_of_model_kwargs: dict[str, Any] | None = Field(
        None,
        description="further keys of config.json, as arguments of from_pretrained; those with a key of their own "
        "are refused",
    )
    cls_model_config: str | None = Field(
        None, description="class of the config; the one that config.json says, or that of its text model"
    )
    resize_token_embeddings_to_32x: bool = Field(
        False, description="grow the embeddings to a multiple of 32 rows that holds the tokenizer"
    )
    shrink_embeddings: bool = Field(
        False, description="cut embeddings that are longer than the tokenizer down to it"
    )
    mean_resizing_embeddings: bool = Field(
        True, description="draw new embedding rows around the mean of the old ones, not around zero"
    )
    fix_untrained_tokens: bool | NonNegativeInt | list[NonNegativeInt] | None = Field(
        None,
        description="ids of tokens whose embeddings get the mean of the others; true: those that nobody trained",
    )
    model_quantization_config: Literal["Mxfp4Config", "FineGrainedFP8Config"] | None = Field(
        None, description="class that reads the quantized weights of the model's folder"
    )
    model_quantization_config_kwargs: UnpackingSettings = Field(
        UnpackingSettings(), description="arguments of model_quantization_config; dequantize: true is needed"
    )
    gptq: bool = Field(
        False, description="the model's weights are quantized by GPTQ: they are read as numbers in 16 bits"
    )
    llama4_linearized_experts: bool = Field(
        False,
        description="a Llama 4 may store its experts as linear modules, as Axolotl does: it is read as transformers "
        "stores it",
    )
    trust_remote_code: bool = Field(
        False,
        description="run the Python code that the model brings along; without it only classes of transformers are used",
    )

    @field_validator("overrides_of_model_config")
    @classmethod
    def _one_rotation(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        given_rope(value or {})
        return value

    @field_validator("fix_untrained_tokens", mode="before")
    @classmethod
    def _none_is_nothing(cls, value: Any) -> Any:
        return None if value is False or value == [] else value

    @property
    def filled_tokens(self) -> list[int] | None:
        """The tokens whose rows are filled; None: those that are found to be untrained."""
        given = self.fix_untrained_tokens
        return None if given is None or given is True else [int(given)] if isinstance(given, int) else given

    adapter: Runtime[str | None] = Field(
        None, description="without one a quantized model is refused: no result depends on it"
    )

    exports: Annotated[Runtime[list[dict[str, Any]]], YamlMark("pipeline.export")] = Field(
        [], description="a model that cannot be stored so is refused: no result depends on it"
    )
    quantization: Runtime[QuantizationSettings | None] = Field(None, description=STORED_LATER)
    qat: Runtime[QatSettings | None] = Field(None, description=STORED_LATER)

    @field_validator("overrides_of_model_kwargs")
    @classmethod
    def _arguments_without_a_key(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        given_rope(value or {})
        for name in value or {}:
            if name in OWN_ARGUMENTS:
                raise ValueError(f"{name} is set by {OWN_ARGUMENTS[name]}. Write that, and take {name} out")
        return value

    @property
    def changes_config(self) -> bool:
        """Whether the model gets another config.json than its folder has."""
        return bool(self.overrides) or self.base_model_config is not None

    @property
    def overrides(self) -> dict[str, Any]:
        """All overrides of config.json."""
        return {**(self.overrides_of_model_config or {}), **(self.overrides_of_model_kwargs or {})}

    @model_validator(mode="after")
    def _one_override(self) -> "BaseModelConfig":
        both = sorted(set(self.overrides_of_model_config or {}) & set(self.overrides_of_model_kwargs or {}))
        if both:
            raise ConflictError(
                f"overrides_of_model_config and overrides_of_model_kwargs both set {', '.join(both)}. Keep one",
                "overrides_of_model_config",
                "overrides_of_model_kwargs",
            )
        return self

    @property
    def quantizations(self) -> list[QuantizationSettings]:
        """How the model is quantized afterwards."""
        return [one for one in (self.quantization, self.qat) if one is not None]

    def needs_gpu(self) -> Iterator[Idle]:
        """Formats that are stored of a model as a GPU trains it."""
        yield from super().needs_gpu()
        if self.adapter is None and self.trained_type is None:
            for key, asked in self.bfloat16_alone(self.quantizations, self.exports):
                yield Idle(key, f"{asked} {AUTO}")

    @property
    def model_class(self) -> str | None:
        """The model's class by either of its keys."""
        return self.model_type or self.type_of_model

    def runs_code(self) -> Iterator[Idle]:
        """Code of the model, with what is in it where that is known."""
        if not self.trust_remote_code:
            return
        files = (
            code_files(Path(self.base_model)) if self.base_model and Path(self.base_model).is_dir() else []
        )
        if files:
            names = ", ".join(path.name for path in files)
            yield Idle(
                "trust_remote_code", f"code of the model will run: {names} (contents {digest_of(files)})"
            )
        elif self.base_model is None:
            where = "at the commit that is fetched, or in the artifact"
            yield Idle("trust_remote_code", f"whatever code the model brings will run, as it is {where}")

    def faults(self) -> Iterator[Fault]:
        """A folder that is not that of a model, or of one that cannot be trained."""
        yield from super().faults()
        if reason := self._fault_of_description():
            yield Fault("base_model_config", reason)
        if self.adapter is None and self.trained_type not in ("BF16", None):
            for key, asked in self.bfloat16_alone(self.quantizations, self.exports):
                yield Fault(key, f"{asked} {OTHERWISE}")
        if self.base_model is None or not Path(self.base_model).exists():
            return
        folder = Path(self.base_model)
        if reason := self.fault_of(folder):
            yield Fault("base_model", reason)
            return
        if reason := fault_of_gptq_key(folder, settings_of(folder) or {}, self.gptq):
            yield Fault("gptq" if self.gptq else "base_model", reason)
            return
        stored = settings_of(folder)
        kind = (stored or {}).get("model_type")
        if stored is not None and self.llama4_linearized_experts and (reason := fault_of_type(kind)):
            yield Fault(LINEARIZED, reason)
        if self.base_model_config is not None:
            # How weights are stored says the config.json beside them all the same.
            reads_as = self.model_quantization_config
            if not self.reinit_weights and (reason := fault_of_settings(folder, stored, reads_as)):
                yield Fault("base_model", reason)
            return
        yield from self._faults_of_own_settings(folder, stored)

    def fault_of(self, folder: Path) -> str | None:
        """What a folder lacks that the model is read from."""
        instead = ", or set reinit_weights: true to draw new ones from config.json"
        return fault_of_folder(
            folder, reads_weights=not self.reinit_weights, instead=instead
        ) or fault_of_generation(folder)

    def _fault_of_description(self) -> str | None:
        """What stands in the way in the folder of base_model_config, where it is there."""
        if self.base_model_config is None or not Path(self.base_model_config).exists():
            return None
        folder = Path(self.base_model_config)
        if not (folder / "config.json").is_file():
            return f"{folder}: no config.json in it"
        return fault_of_description(folder, settings_of(folder))

    def _faults_of_own_settings(self, folder: Path, stored: dict[str, Any] | None) -> Iterator[Fault]:
        """What stands in the way in the config.json of the model, where no other is read in its place."""
        is_exported = any(export.get("format") == GGUF for export in self.exports)
        if stored is not None and is_exported and (reason := fault_of_export({**stored, **self.overrides})):
            yield Fault("exports", reason)
        if (
            stored is not None
            and self.adapter == LLAMA_ADAPTER
            and (reason := fault_of_prompts({**stored, **self.overrides}))
        ):
            yield Fault("adapter", reason)
        if (reason := fault_of_settings(folder, stored, self.model_quantization_config)) or (
            stored is not None and (reason := self._fault_of_quantized(folder, stored))
        ):
            yield Fault("base_model", reason)
        elif stored is not None and (reason := fault_of_class(stored, self.model_class)):
            yield Fault("model_type" if self.model_type else "type_of_model", reason)
        elif (
            stored is not None
            and not self.reinit_weights
            and (reason := fault_of_tensors(folder, {**stored, **self.overrides}))
        ):
            yield Fault("base_model", reason)
        elif (
            stored is not None
            and not self.reinit_weights
            and quantized_by(stored) is None
            and "text_config" not in stored  # its folder holds towers that are not trained as well
        ):
            keeps_type = self.adapter is not None and "dtype" not in self.overrides
            yield from faults_of_storing(folder, self.quantizations, self.exports, keeps_type=keeps_type)

    def _fault_of_quantized(self, folder: Path, stored: Mapping[str, Any]) -> str | None:
        read_as_numbers = self.model_quantization_config is not None or self.llama4_linearized_experts
        if quantized_by(stored) in (None, *FAULTS) or read_as_numbers:
            return None
        if self.adapter is None:
            return (
                f"{folder}: its weights are quantized, and without adapter every weight is trained. Set adapter: "
                f"qlora with load_in_4bit: true, or start from the model in full precision"
            )
        changing = [
            key
            for key in ("reinit_weights", "overrides_of_model_config", "fix_untrained_tokens")
            if self.is_set(key)
        ]
        if changing:
            return f"{folder}: its weights are quantized, so {changing[0]} cannot change them. Take it out"
        return None

    @model_validator(mode="after")
    def _weights_are_unpacked(self) -> "BaseModelConfig":
        if (
            self.model_quantization_config is not None
            and not self.model_quantization_config_kwargs.dequantize
        ):
            raise ConflictError(
                f"model_quantization_config: {self.model_quantization_config}: weights are trained, and adapters "
                "beside them, as numbers in 16 bits. Set model_quantization_config_kwargs: {dequantize: true}",
                "model_quantization_config",
                "model_quantization_config_kwargs",
            )
        return self

    @model_validator(mode="after")
    def _one_class(self) -> "BaseModelConfig":
        if self.model_type and self.type_of_model and self.model_type != self.type_of_model:
            raise ConflictError(
                "model_type and type_of_model are two names of one key. Keep one",
                "model_type",
                "type_of_model",
            )
        return self
