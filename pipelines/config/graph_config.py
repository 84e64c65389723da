"""The keys that decide which nodes a pipeline has."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunemill.pipelines.config.asset_names import whole_asset
from tunemill.pipelines.config.evaluations import EvaluationEntry
from tunemill.pipelines.config.gate_keys import GateKeys
from tunemill.pipelines.config.harness_keys import HarnessGraphKeys
from tunemill.pipelines.config.launcher_keys import RunKeys
from tunemill.pipelines.config.method_keys import MethodGraphKeys
from tunemill.pipelines.config.openlineage_keys import OpenLineageKeys
from tunemill.pipelines.config.operation_keys import OperationKeys
from tunemill.pipelines.config.owner_keys import OwnerKeys
from tunemill.pipelines.config.publish_keys import PublishKeys
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.config.sweep_keys import SweepKeys
from tunemill.pipelines.config.team_keys import TeamKeys
from tunemill.resources.local import local_path
from tunemill.resources.protocols import HUB_MODELS
from tunemill.resources.shared_folder import LOCAL, fault_of_place, is_repository
from tunemill.stages.data.rows.report_key import DESCRIPTION, DataReport
from tunemill.stages.declaration import ConflictError, HubMark, Idle, YamlMark
from tunemill.stages.models.exports import Export, conflict_of_exports
from tunemill.stages.models.heads import AUTO_CLASSES, Kind
from tunemill.stages.models.prompts import LLAMA_ADAPTER
from tunemill.stages.models.quantization import is_stored
from tunemill.stages.models.teacher import TEACHER
from tunemill.stages.named import EVALUATIONS, method
from tunemill.stages.training.keys.plugins import DISTILLATION_PLUGINS

# The lists of which each item is a dataset entry.
ENTRY_LISTS = ("datasets", "test_datasets", "pretraining_dataset")
# Why there is no merged model.
NOT_FOLDED = (
    "the prompts of adapter: llama-adapter change no weight, so that nothing of them can be folded in"
)
# `type:` of entries whose rows are made up, not read.
SYNTHETIC_TYPE = "_synthetic"
# The methods that can ask a reference model beside each step.
ASKING_BESIDE = ("dpo", "ipo")
# The keys that choose the method of training.
METHOD_KEYS = ("rl", "reward_model", "process_reward_model", "kd_trainer", "plugins")
Evaluated = Literal["base", "trained", "merged", "quantized", "exported"]
# The key that asks for a model with such a head.
HEAD_KEYS: dict[Kind, str] = {"sequence": "reward_model", "token": "process_reward_model"}


class GraphConfig(
    MethodGraphKeys, HarnessGraphKeys, PublishKeys, GateKeys, OperationKeys, SweepKeys, RunKeys, OwnerKeys,
    OpenLineageKeys, TeamKeys,
):  # fmt: skip
    """The keys that decide which nodes there are."""

    base_model: Annotated[str, HubMark()] = Field(
        min_length=1,
        description="a model's folder, owner/name of one on the Hub, or asset://<pipeline>/<node>: a model that "
        "another pipeline made",
    )
    tokenizer_config: Annotated[str | None, HubMark()] = Field(
        None,
        description="folder of another tokenizer, or owner/name of one on the Hub; unset takes the model's own",
    )
    base_model_config: Annotated[str | None, HubMark()] = Field(
        None,
        description="folder, or owner/name of a model on the Hub, whose config.json is read in place of base_model's",
    )
    revision_of_model: str | None = Field(
        None,
        min_length=1,
        description="branch, tag or commit of a base_model on the Hub; unset takes main. Its commit enters the keys",
    )
    datasets: list[dict[str, Any]] = Field(
        [], min_length=1, description="the datasets to train on, each a node of its own"
    )
    pretraining_dataset: list[dict[str, Any]] = Field(
        [],
        min_length=1,
        max_length=1,
        description="instead of `datasets`: texts to train on, read only as far as `max_steps` needs",
    )
    dataset_exact_deduplication: bool = Field(
        False, description="with `test_datasets`: rows that are trained on are not evaluated on"
    )
    max_steps: int | None = Field(None, description="with `pretraining_dataset`: how far it is read")
    reward_model: bool = Field(False, description="train a reward model: the datasets hold pairs of answers")
    process_reward_model: bool = Field(
        False, description="train a model that judges each step: the datasets hold answers in judged steps"
    )
    model_type: str | None = Field(
        None,
        description="one of a model with a head that scores fits reward_model or process_reward_model alone",
    )
    kd_trainer: bool | None = Field(
        None,
        description="learn from a teacher's log-probabilities: of pipeline.teacher, or of logprobs_field of datasets; "
        "unset: if the plugin axolotl.integrations.kd.KDPlugin is named",
    )
    plugins: list[str] = Field([], description="whether that of distillation is named")
    teacher: Annotated[str | None, HubMark(), YamlMark(TEACHER)] = Field(
        None,
        min_length=1,
        description="distillation: the model that is learned from: a folder, owner/name of one on the Hub, or "
        "asset://<pipeline>/<node>",
    )
    adapter: str | None = Field(
        None, description="the kind of adapter to train; without it every weight is trained"
    )
    lora_model_dir: Annotated[str | None, HubMark()] = Field(
        None,
        description="an adapter that is trained further: its folder, owner/name of one on the Hub, or "
        "asset://<pipeline>/<node>",
    )
    load_in_4bit: bool = Field(False, description="train the adapter on a base in 4 bits, a node of its own")
    load_in_8bit: bool = Field(False, description="train the adapter on a base in 8 bits, a node of its own")
    quantization: dict[str, Any] | None = Field(
        None, description="ask for a quantized model, and of which kind"
    )
    qat: dict[str, Any] | None = Field(
        None, description="train for a quantized model, which is made as this says"
    )
    output_dir: str | None = Field(
        None, description="where links to the results are put: a place, no part of any result"
    )
    dataset_prepared_path: str | None = Field(
        None, description="where a link to the prepared rows is put: a place, no part of any result"
    )
    push_dataset_to_hub: str | None = Field(
        None,
        description="where prepared rows are pushed to, and pulled from where they are there: owner/name of a private "
        "dataset on the Hub, or the URL or path of a folder: a place, no part of any result",
    )
    hf_use_auth_token: bool | None = Field(
        None,
        description="true demands a Hub token, false sends none, unset sends one if there is one: "
        "who asks for a commit does not change it",
    )
    name: Annotated[str | None, YamlMark("pipeline.name")] = Field(
        None, pattern=r"^[A-Za-z0-9_]{1,100}$", description="the pipeline's name; without it the file's stem"
    )
    evaluate: Annotated[list[Evaluated] | None, YamlMark("pipeline.evaluate")] = Field(
        None, description="which models to evaluate; without it all that there are"
    )
    data_report: DataReport = Field("cheap", description=DESCRIPTION)
    export: Annotated[list[Export], YamlMark("pipeline.export")] = Field(
        [], description="files of other engines to make of the finished model, each a node of its own"
    )
    evaluations: Annotated[list[EvaluationEntry], YamlMark("pipeline.evaluations")] = Field(
        [],
        description="further evaluations, each of its own rows, models and metrics: see docs/evaluating.md",
    )

    @field_validator("base_model")
    @classmethod
    def _names_a_model(cls, value: str) -> str:
        return whole_asset(value, "merged")

    @field_validator("teacher")
    @classmethod
    def _names_a_teacher(cls, value: str | None) -> str | None:
        return None if value is None else whole_asset(value, "merged")

    @field_validator("lora_model_dir")
    @classmethod
    def _names_an_adapter(cls, value: str | None) -> str | None:
        return None if value is None else whole_asset(value, "trained")

    @field_validator("output_dir", "dataset_prepared_path")
    @classmethod
    def _links_are_local(cls, value: str | None) -> str | None:
        if value is not None:
            local_path(value, "the folder of links to results")
        return value

    @field_validator("push_dataset_to_hub", mode="before")
    @classmethod
    def _false_pushes_nothing(cls, value: object) -> object:
        return None if value is False else value

    @field_validator("push_dataset_to_hub")
    @classmethod
    def _rows_can_be_pushed(cls, value: str | None) -> str | None:
        if value is not None and (reason := fault_of_place(value)) is not None:
            raise ValueError(reason)
        if value is not None and value.startswith(LOCAL):
            local_path(value, "the folder to push prepared rows to")
        return value

    @model_validator(mode="after")
    def _pushing_sends_a_token(self) -> "GraphConfig":
        place = self.push_dataset_to_hub
        if place is not None and is_repository(place) and self.hf_use_auth_token is False:
            raise ConflictError(
                "nothing can be pushed to the Hub without a token, and hf_use_auth_token: false sends none",
                "push_dataset_to_hub",
                "hf_use_auth_token",
            )
        return self

    @model_validator(mode="after")
    def _evaluated_models_exist(self) -> "GraphConfig":
        asked = self.evaluate or []
        if len(set(asked)) < len(asked):
            raise ConflictError("names a model twice", "evaluate")
        if asked and not self.held_out and not self.lm_eval_tasks:
            raise ConflictError(
                "there is nothing to evaluate on; give `test_datasets` or `val_set_size`",
                "evaluate",
                "test_datasets",
                "val_set_size",
            )
        if asked and not self.evaluates and not self.lm_eval_tasks:
            raise ConflictError(
                f"nothing scores models of {self.asked_method} yet, only those of {', '.join(EVALUATIONS)}; remove it",
                "evaluate",
            )
        if "base" in asked and self.draws_head:
            raise ConflictError(
                f"the base scores nothing before {self.asked_method} is trained, which draws a head for it. Take base "
                f"out",
                "evaluate",
            )
        if "merged" in asked and self.adapter is None:
            raise ConflictError(
                "there is no merged model to evaluate without `adapter`", "evaluate", "adapter"
            )
        if "merged" in asked and not self.merges:
            raise ConflictError(
                f"there is no merged model: {NOT_FOLDED}. Name `trained`, which is the adapter beside its base",
                "evaluate",
                "adapter",
            )
        if "quantized" in asked and not self.quantizes:
            raise ConflictError(
                "there is no quantized model to evaluate without `quantization` or `qat`",
                "evaluate",
                "quantization",
            )
        if "exported" in asked and not any(export.of == "model" for export in self.export):
            raise ConflictError(
                "there is no exported model to evaluate: pipeline.export asks for none", "evaluate", "export"
            )
        if self.quantization is not None and self.adapter is not None and not self.merges:
            raise ConflictError(
                f"quantization is of a model without an adapter, and {NOT_FOLDED}. Remove it",
                "quantization",
                "adapter",
            )
        if self.test_datasets and self.val_set_size:
            raise ConflictError(
                "give either `test_datasets` or `val_set_size`, not both", "val_set_size", "test_datasets"
            )
        return self

    @model_validator(mode="after")
    def _leaks_are_looked_for(self) -> "GraphConfig":
        if self.leakage == "fail" and self.learns_online and self.held_out:
            raise ConflictError(
                f"pipeline.leakage: fail: of {self.asked_method} nothing looks for held-out rows among prompts, so "
                f"nothing would fail. Take it out",
                "leakage",
                "rl",
            )
        return self

    @model_validator(mode="after")
    def _tasks_are_of_language_models(self) -> "GraphConfig":
        if self.lm_eval_tasks and self.draws_head and self.lm_eval_model is None and self.evaluate != []:
            raise ConflictError(
                f"lm_eval_tasks: {self.asked_method} trains a model that scores, and tasks are for those that write. "
                f"Take it out, or name another model with lm_eval_model",
                "lm_eval_tasks",
                *METHOD_KEYS,
            )
        return self

    @model_validator(mode="after")
    def _exports_can_be_made(self) -> "GraphConfig":
        head = "reward_model" if self.reward_model else "process_reward_model" if self.draws_head else None
        conflict = conflict_of_exports(
            self.export,
            adapter=self.adapter,
            merges=self.merges,
            head=head,
            rows_of_tokens=not self.learns_preferences and not self.learns_online,
        )
        if conflict is not None:
            raise ConflictError(conflict, "export")
        return self

    @model_validator(mode="after")
    def _reference_is_asked_for(self) -> "GraphConfig":
        key = "sync_ref_model" if self.sync_ref_model else "precompute_ref_log_probs"
        if self.learns_online and not self.is_set("precompute_ref_log_probs"):
            return self
        if self.is_set(key) and "reference_logprobs" not in method(self.method).inputs:
            raise ConflictError(
                f"{key}: {self.asked_method} compares with no reference model. Remove it", key, *METHOD_KEYS
            )
        if not self.stores_reference and self.rl not in ASKING_BESIDE:
            raise ConflictError(
                f"{key}: of {self.asked_method} nothing is asked of a reference model beside each step. Remove it",
                key,
                *METHOD_KEYS,
            )
        return self

    @model_validator(mode="after")
    def _data_fit_the_goal(self) -> "GraphConfig":
        chosen = [key for key in ("rl", "reward_model", "process_reward_model") if getattr(self, key)]
        if self.distills:
            chosen.append("kd_trainer" if self.kd_trainer else "plugins")
        if len(chosen) > 1:
            raise ConflictError(f"{' and '.join(chosen)}: train one kind of model", *chosen)
        head = AUTO_CLASSES.get(self.model_type or "")
        if head is not None and not getattr(self, HEAD_KEYS[head]):
            raise ConflictError(
                f"{self.model_type} has a head that scores, as {HEAD_KEYS[head]}: true trains one. Set that, or take "
                f"model_type out",
                "model_type",
                HEAD_KEYS[head],
            )
        if self.pretraining_dataset:
            wanted = ("rl", "reward_model", "process_reward_model")
            others = [
                key for key in ("datasets", "test_datasets", "val_set_size", *wanted) if getattr(self, key)
            ]
            if others:
                raise ConflictError(
                    f"pretraining_dataset goes without {', '.join(others)}", "pretraining_dataset", *others
                )
            if self.max_steps is None:
                raise ConflictError(
                    "pretraining_dataset needs max_steps: it is read only as far as those steps go",
                    "pretraining_dataset",
                    "max_steps",
                )
        elif not self.datasets:
            raise ConflictError(
                "there is nothing to train on: give `datasets` or `pretraining_dataset`",
                "datasets",
                "pretraining_dataset",
            )
        return self

    @model_validator(mode="after")
    def _there_is_one_teacher(self) -> "GraphConfig":
        key = "kd_trainer" if self.kd_trainer else "plugins"
        if not self.distills:
            if self.teacher is not None:
                raise ConflictError(
                    f"{TEACHER} is learned from in distillation, and here nothing is distilled. Set kd_trainer: true, "
                    f"or take it out",
                    "teacher",
                    "kd_trainer",
                )
            return self
        with_field = [
            bool(entry.get("logprobs_field")) and entry.get("type") != SYNTHETIC_TYPE
            for entry in self.datasets
        ]
        if self.teacher is None and not (with_field and all(with_field)):
            lacking = "an entry of datasets has no" if any(with_field) else "no entry of datasets has a"
            raise ConflictError(
                f"distillation needs a teacher, and {lacking} logprobs_field. Write pipeline: {{teacher: MODEL}}, or "
                f"name the field of a teacher's log-probabilities in every entry of datasets",
                key,
                "teacher",
            )
        if self.teacher is not None and any(with_field):
            raise ConflictError(
                f"{TEACHER} and logprobs_field in datasets are two teachers of the same rows. Keep one",
                "teacher",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """A revision of what has none, and a type to train for that no model is stored in."""
        yield from super().idle()
        if self.data_report == "full" and (
            self.learns_preferences or self.learns_online or self.pretraining_dataset
        ):
            yield Idle(
                "data_report",
                "there are no such figures of prompts, pairs and judged answers, nor of texts that are read as far as "
                "needed",
            )
        if self.learns_online and self.leakage and (self.evaluations or self.test_datasets):
            yield Idle("leakage", "nothing looks for held-out rows among prompts")
        if self.lm_eval_tasks and self.evaluate == []:
            yield Idle("lm_eval_tasks", "pipeline.evaluate is empty: no model is evaluated")
        if self.is_set("leakage") and not self.held_out and not any(one.data for one in self.evaluations):
            yield Idle("leakage", "there are no held-out rows: neither test_datasets nor val_set_size")
        if self.precompute_ref_log_probs and self.rl not in ASKING_BESIDE:
            yield Idle(
                "precompute_ref_log_probs", "what the reference says is computed once anyway, as a node"
            )
        if self.kd_trainer is False and DISTILLATION_PLUGINS & set(self.plugins):
            yield Idle("plugins", "kd_trainer: false, so nothing is distilled")
        if self.qat is not None and not self.quantizes:
            yield Idle(
                "qat",
                f"the training rounds to {self.qat['weight_dtype']} and its model stays in full precision: "
                f"torchao stores this type only where activation_dtype is it too, so there is no node `quantized`",
            )
        if self.revision_of_model is not None and not self.base_model.startswith(HUB_MODELS):
            yield Idle(
                "revision_of_model", "base_model is no model of the Hub, and only those have revisions"
            )
        if self.adapter is None and (self.lora_model_dir or "").startswith((HUB_MODELS, ASSET_SCHEME)):
            yield Idle(
                "lora_model_dir", "a setting of an adapter, and adapter is unset: every parameter is trained"
            )

    @property
    def merges(self) -> bool:
        """Whether an adapter is folded into its base."""
        return self.adapter not in (None, LLAMA_ADAPTER)

    @property
    def adapter_from(self) -> str | None:
        """The model of the Hub or the asset that gives an adapter which is trained further; None where none does."""
        name = self.lora_model_dir or ""
        is_given = self.adapter is not None and name.startswith((HUB_MODELS, ASSET_SCHEME))
        return name if is_given else None

    @property
    def tokenizer_source(self) -> str:
        """What the tokenizer is read from."""
        return self.base_model if self.tokenizer_config is None else self.tokenizer_config

    @property
    def quantizes_base(self) -> bool:
        """Whether the base is quantized before an adapter is trained on it."""
        return self.adapter is not None and (self.load_in_4bit or self.load_in_8bit)

    @property
    def stores_reference(self) -> bool:
        """Whether what the model is compared with is computed before the training, not beside each step."""
        return self.precompute_ref_log_probs is not False and not self.sync_ref_model

    @property
    def quantizes(self) -> bool:
        """Whether the model is quantized after training."""
        qat = self.qat or {}
        stored = is_stored(qat.get("weight_dtype"), qat.get("activation_dtype"))
        return self.quantization is not None or (self.qat is not None and stored)

    @property
    def asked_method(self) -> str:
        """The setting that chooses the method of training, as text."""
        if self.rl is not None:
            return f"rl: {self.rl}"
        wanted = (key for key in ("reward_model", "process_reward_model") if getattr(self, key))
        if self.distills:
            return "kd_trainer: true"
        return next((f"{key}: true" for key in wanted), "sft")

    @property
    def method(self) -> str:
        """The name of the method of training."""
        if self.rl is not None:
            return self.rl
        if self.distills:
            return "distillation"
        return "reward" if self.reward_model else "process_reward" if self.process_reward_model else "sft"

    @property
    def draws_head(self) -> bool:
        """Whether training puts a new head that scores in the place of the output head."""
        return self.reward_model or self.process_reward_model

    @property
    def distills(self) -> bool:
        """Whether a teacher is learned from."""
        named = bool(DISTILLATION_PLUGINS & set(self.plugins))
        return named if self.kd_trainer is None else self.kd_trainer

    @property
    def stored_teacher(self) -> bool:
        """Whether what a teacher says lies beside the rows of the datasets."""
        return self.distills and self.teacher is None

    @property
    def learns_preferences(self) -> bool:
        """Whether the rows are pairs, or judged answers."""
        return (self.rl is not None and not self.learns_online) or self.reward_model

    @property
    def holds_texts_out(self) -> bool:
        """Whether held-out rows are rows of tokens: neither pairs, nor prompts."""
        return self.held_out and not self.learns_preferences and not self.learns_online

    @property
    def evaluates(self) -> bool:
        """Whether models are evaluated: that takes held-out rows, and something that scores models of this method."""
        return self.held_out and self.method in EVALUATIONS and self.evaluate != []
