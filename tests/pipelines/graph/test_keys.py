"""Every field of every stage moves the key, or is declared to change nothing, with a reason."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from tunemill.pipelines.graph.keys import key_document
from tunemill.pipelines.graph.nodes import STAGES, Node
from tunemill.resources.canonical import hash_document
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.stage import PREFERENCES
from tunemill.stages.declaration import RuntimeMark, StageConfig

# Values that the smallest valid config of a stage needs.
REQUIRED: dict[str, Any] = {
    "path": "/rows.jsonl",
    "type": "chat_template",
    "base_model": "/model",
    "learning_rate": 0.001,
    "adapter": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_target_linear": True,
}
# What the smallest config of some stages needs instead, None to leave one out.
REQUIRED_BY: dict[str, dict[str, Any]] = {
    "SyntheticConfig": {"type": "_synthetic"},
    "PretrainingDataConfig": {"type": "pretrain", "max_steps": 10},
    "PreferencesConfig": {"type": "chatml.intel", "rl": "dpo"},
}
# Fields that only make sense beside others: what the others must be, None to leave one out.
PARTNERS: dict[str, dict[str, Any]] = {
    "adapter": {"lora_r": None, "lora_alpha": None, "lora_target_linear": None, "adapter": None},
    "field": {"type": "completion"},
    "conversation": {"type": "alpaca_chat"},
    "step_separator": {"type": "stepwise_supervised"},
    "max_completion_length": {"type": "stepwise_supervised"},
    "train_on_last_step_only": {"type": "stepwise_supervised"},
    "dataset_shard_num": {"dataset_shard_num": 2, "dataset_shard_idx": 0},
    "dataset_shard_idx": {"dataset_shard_num": 2, "dataset_shard_idx": 0},
    "sample_packing_bin_size": {"sample_packing": True},
    "sample_packing_group_size": {"sample_packing": True},
    "sample_packing_sequentially": {"sample_packing": True},
    "pretrain_multipack_attn": {"sample_packing": True},
    "dataset.shards_idx": {"shards": 70},
    "dataset.seed": {"shards": 2},
    "revision": {"path": "hf://datasets/owner/rows"},
    "name": {"path": "hf://datasets/owner/rows"},
    "data_files": {"path": "json", "data_files": ["/rows.jsonl"]},
    "preferences.reward_model": {"type": "bradley_terry.chat_template", "rl": None, "reward_model": True},
    "preferences.chat_template": {"type": "chat_template.default"},
    "preferences.chat_template_jinja": {
        "type": "chat_template.default",
        "chat_template": "jinja",
        "chat_template_jinja": "{{ messages }}",
    },
    "preferences.field_messages": {"type": "chat_template.default"},
    "preferences.field_tools": {"type": "chat_template.default"},
    "preferences.message_field_role": {"type": "chat_template.default"},
    "preferences.message_field_content": {"type": "chat_template.default"},
    "preferences.message_property_mappings": {"type": "chat_template.default"},
    "preferences.roles": {"type": "chat_template.default"},
    "preferences.drop_system_message": {"type": "chat_template.default"},
    "preferences.rl": {"type": "chatml.intel", "rl": "dpo"},
    "pretraining_data.field": {},
    "pretraining_data.sample_packing": {},
    "tokens": {"lora_modules_to_save": ["lm_head"]},
    "chat_template_jinja": {"chat_template": "jinja", "chat_template_jinja": "{{ messages }}"},
    "dataloader_prefetch_factor": {"dataloader_num_workers": 2},
    "gradient_checkpointing_kwargs": {"gradient_checkpointing": True},
    "optim_args": {"optimizer": "sgd"},
    "lora_target_linear": {"lora_target_modules": ["q_proj"]},
    "eval_strategy": {"eval_steps": 4},
    "save_strategy": {"save_steps": 4},
    "chunked_cross_entropy_num_chunks": {"chunked_cross_entropy": True},
}
# Values of fields whose type alone does not say what is valid.
CANDIDATES: dict[str, list[Any]] = {
    "split": ["train[:10]"],
    "ds_type": ["json", "csv"],
    "optim_args": [{"momentum": 0.5}],
    "adapter": ["lora"],
    "chat_template_jinja": ["{{ other }}"],
    "path": ["/other.jsonl"],
    "data_files": [["/other.jsonl"]],
    "type_code": [["/shaping.py"]],
    "base_model": ["/other"],
    "tokenizer_config": ["/other"],
    "revision": ["other"],
    "chat_template": ["chatml", "llama3"],
    "max_input_id": [500],
    "plugins": [["axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"]],
}
# Fields that refuse every value but one with a reason of its own.
REFUSING = {
    ("tokenized", "field_human"),
    ("tokenized", "field_model"),
    ("training_data", "skip_prepare_dataset"),
    ("training_data", "streaming"),
    ("pretraining_data", "shards"),
    ("pretraining_data", "shards_idx"),
    ("pretraining_data", "val_set_size"),
    ("pretraining_data", "dataset_exact_deduplication"),
    ("pretraining_data", "excess_length_strategy"),
    # One of these two decides which rows there are; `test_either_method_moves_the_key` has them.
    ("preferences", "reward_model"),
}

FIELDS = [(stage, field) for stage in STAGES for field in stage.config.model_fields]


def name(item: Any) -> str:
    return item if isinstance(item, str) else item.name


@pytest.mark.parametrize(("stage", "field"), FIELDS, ids=name)
def test_every_field_moves_the_key_or_is_declared_not_to(stage, field):
    base = smallest(stage.config, field, stage.name)
    if has_one_value(stage.config, field) or (stage.name, field) in REFUSING:
        assert next(variants(stage.config, base, field), None) is None
        return
    changed = next(variants(stage.config, base, field), None)
    assert changed is not None, f"no other valid value was found for {field}; add one to CANDIDATES"
    moved = key(stage, base) != key(stage, changed)
    if field in stage.config.marked(RuntimeMark):
        description = stage.config.model_fields[field].description or ""
        assert ": " in description, f"{field} is Runtime without a reason"
        assert not moved
    elif field in stage.config.sources():
        assert not moved, "a name is not contents"
        assert key(stage, base) != key(stage, base, sources={field: [{"kind": "file", "sha256": "x"}]})
    else:
        assert moved


def test_either_method_moves_the_key():
    pairs = PreferencesConfig(path="/rows.jsonl", type=None, rl="dpo")
    reward = PreferencesConfig(path="/rows.jsonl", type="bradley_terry.llama3", reward_model=True)
    assert key(PREFERENCES, pairs) != key(PREFERENCES, reward)


@pytest.mark.parametrize("stage", STAGES, ids=name)
def test_inputs_version_and_libraries_move_the_key(stage):
    base = smallest(stage.config)
    keys = {key(stage, base)}
    for input_name in stage.inputs:
        keys.add(key(stage, base, inputs={input_name: ["d"]}))
        keys.add(key(stage, base, inputs={input_name: ["d", "e"]}))
        keys.add(key(stage, base, inputs={input_name: ["e", "d"]}))
    assert len(keys) == 1 + 3 * len(stage.inputs)
    document = key_document(node(stage, base), {}, {})
    assert hash_document({**document, "version": stage.version + 1}) not in keys
    assert hash_document({**document, "libraries": {**document["libraries"], "x": "1.0"}}) not in keys


@pytest.mark.parametrize("stage", STAGES, ids=name)
def test_every_field_is_described(stage):
    for field, info in stage.config.model_fields.items():
        assert info.description, f"{stage.name}.{field}"


def node(stage, config) -> Node:
    return Node(stage.name, stage, config, {}, {})


def key(stage, config, inputs=None, sources=None) -> str:
    return hash_document(key_document(node(stage, config), inputs or {}, sources or {}))


def smallest(config: type[StageConfig], field: str = "", stage: str = "") -> StageConfig:
    partners = PARTNERS.get(f"{stage}.{field}", PARTNERS.get(field, {}))
    given = {**REQUIRED, **REQUIRED_BY.get(config.__name__, {}), **partners}
    names = [name for name in given if name in config.model_fields and given[name] is not None]
    return config.model_validate({name: given[name] for name in names})


def has_one_value(config: type[StageConfig], field: str) -> bool:
    """A field whose type allows one value only."""
    annotation = config.model_fields[field].annotation
    return annotation is type(None) or (get_origin(annotation) is Literal and len(get_args(annotation)) == 1)


def variants(config: type[StageConfig], base: StageConfig, field: str) -> Iterator[StageConfig]:
    """Valid configs that differ from the base in one field."""
    given = {name: getattr(base, name) for name in base.model_fields_set}
    before = getattr(base, field)
    for value in [*CANDIDATES.get(field, []), *values(config.model_fields[field].annotation)]:
        more = REQUIRED if field == "adapter" else {}
        try:
            changed = config.model_validate(
                {**given, **{k: v for k, v in more.items() if k in config.model_fields}, field: value}
            )
        except ValidationError:
            continue
        if getattr(changed, field) != before:
            yield changed


SIMPLE: dict[Any, list[Any]] = {
    bool: [True, False],
    int: [1, 7, 64],
    float: [0.5, 0.25, 3.0],
    str: ["a", "user", "linear"],
    type(None): [],
    Any: ["x", 1],
}


def values(annotation: Any) -> Iterator[Any]:
    """Values to try for a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for item in arguments:
            yield from values(item)
    elif origin is Annotated:
        yield from values(arguments[0])
    elif origin is Literal:
        yield from arguments
    elif origin in (list, tuple):
        yield from ([item] for item in values(arguments[0]))
    elif origin is dict:
        yield from ({next(values(arguments[0])): item} for item in values(arguments[1]))
    elif annotation in SIMPLE:
        yield from SIMPLE[annotation]
    else:
        assert issubclass(annotation, BaseModel)
        for field, info in annotation.model_fields.items():
            yield from ({field: item} for item in values(info.annotation))


@pytest.mark.parametrize("stage", STAGES, ids=name)
def test_a_key_at_its_default_is_as_good_as_unset(stage):
    base = smallest(stage.config)
    given = base.model_dump(exclude_unset=True)
    defaults = {name: value for name, value in stage.config.defaults().items() if value is not None}
    # A key that the type of the rows does not read is refused, with its default too.
    fitting = {name: value for name, value in defaults.items() if fits(stage.config, {**given, name: value})}
    assert len(fitting) >= len(defaults) / 2
    spelled = stage.config.model_validate({**fitting, **given})
    assert key(stage, spelled) == key(stage, base)


def fits(config: type[StageConfig], given: dict[str, Any]) -> bool:
    try:
        config.model_validate(given)
    except ValidationError:
        return False
    return True
