"""The types of artifacts that stages pass to each other. An artifact is a folder; a type names its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

# The one file of a tokenizer of mistral-common.
TEKKEN = "tekken.json"
# What transformers makes of a tokenizer's files, for stages that read them without it.
TOKENIZER_FACTS = "tunemill_tokenizer.json"


@dataclass(frozen=True)
class Artifact:
    """A published, read-only folder. `path` is its data folder.

    `exported` types are results that a person takes away: `output_dir` gets links to them.
    """

    path: Path
    exported: ClassVar[bool] = False


class RawDataset(Artifact):
    """Rows of one dataset.

    `rows.arrow` (IPC file): `row` (JSON text), `line` (the row's number in its file, from 1) and `file` (name of
    that file, empty where the source is a single one). The schema's metadata `unit` says what `line` counts:
    `line` or `row`. `rejected.jsonl`: rows set aside, where bad rows are skipped and there were any.
    """

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"


class Tokenizer(Artifact):
    """A tokenizer that `AutoTokenizer` loads, with its added tokens and the chosen chat template.

    With a `tekken.json` beside it mistral-common renders conversations, and what looks like a special token is text.

    `tunemill_tokenizer.json`, where `tokenizer.json` by itself is what `AutoTokenizer` makes of the folder: the
    `special_tokens_map` and the `chat_template` that it has there. Absent where a class of transformers makes something
    else of it, and in tokenizers of old.
    """

    @property
    def facts(self) -> Path:
        return self.path / TOKENIZER_FACTS

    @property
    def tekken(self) -> Path:
        return self.path / TEKKEN

    @property
    def is_mistral(self) -> bool:
        return self.tekken.is_file()


class TokenizedDataset(Artifact):
    """Token ids and labels of one dataset.

    `rows.arrow` (IPC file): `input_ids` and `labels` (lists of int32; labels are -100 where not trained),
    `source_row` (int64, the row's number in the dataset, from 1), and which tokens belong to which role: `roles`
    (list of strings), each up to the token before `role_ends` (list of int32). Rows without a trained token are
    among them. `rejected.jsonl`: rows set aside, where bad rows are skipped and there were any.
    """

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"


class Preferences(Artifact):
    """Prepared preference or reward rows of one dataset.

    `rows.arrow` (IPC file): `source_row` (int64, from 1), `tokens` (int32, what sequence_len limits), and either
    the texts `prompt`, `chosen`, `rejected`; or `prompt`, `completion`, `label` (bool); or the token ids
    `chosen_ids`, `rejected_ids` (lists of int32). With texts also `prompt_tokens` (int32), and for each answer
    `<answer>_ends` (list of int32): the character that each of its tokens ends before. Of any of these also
    `<answer>_quiet` (int32, how many tokens of it say nothing yet) and, of two, `same_tokens` (int32, how many both
    begin with). `rejected.jsonl` as in TokenizedDataset.
    """

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"


class PreferenceData(Artifact):
    """Preference or reward rows in training order: `rows.arrow`, and `held_out.arrow` where rows were set aside."""

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"

    @property
    def held_out(self) -> Path:
        return self.path / "held_out.arrow"


class Prompts(Artifact):
    """Prompts of one dataset, and what rewards are given beside their completions.

    `rows.arrow` (IPC file): the columns of `OF_DATASET` in stages/data/rows/prompt_rows.py. `rejected.jsonl` as in
    TokenizedDataset.
    """

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"


class PromptData(Artifact):
    """Prompts in the order that they are answered in: `rows.arrow`, with the columns of `OF_ALL` there.

    `held_out.arrow` has those that were set aside, if any were.
    """

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"

    @property
    def held_out(self) -> Path:
        return self.path / "held_out.arrow"


class ReferenceLogProbs(Artifact):
    """What a frozen model says of the answers of a PreferenceData, row by row.

    `rows.arrow` (IPC file): for each answer of a row, such as `chosen` and `rejected`, the sum of its tokens' log
    probabilities (float32, nats); null where the row is not trained on. `held_out.arrow` as in PreferenceData.
    """

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"

    @property
    def held_out(self) -> Path:
        return self.path / "held_out.arrow"


class TrainingData(Artifact):
    """What the trainer reads, in order.

    `rows.arrow`: `input_ids`, `labels`. `packs.arrow`: one row per sequence, `rows` (list of int32) are the
    indices of the rows in it; with packing off each sequence holds one row. `held_out.arrow`: the rows that
    `val_set_size` set aside, with the columns of EvaluationData; absent without it. `sources.arrow`, where a teacher's
    log-probabilities lie beside the datasets: of each row of `rows.arrow` its `dataset` (int32, from 1), its
    `source_row` there (int64, from 1) and at which token of that row it starts (`start`, int32).
    """

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"

    @property
    def packs(self) -> Path:
        return self.path / "packs.arrow"

    @property
    def sources(self) -> Path:
        return self.path / "sources.arrow"

    @property
    def held_out(self) -> Path:
        return self.path / "held_out.arrow"


class TeacherLogProbs(Artifact):
    """A teacher's likeliest tokens at each trained token of rows of tokens.

    `rows.arrow` (IPC file), a row for each of those rows: `row` (int64, its number from 1, in the training data or in
    its dataset), and flat over its trained tokens `positions` (list of int32: which tokens they are, none of them the
    first), `counts` (list of int32: how many of the teacher's tokens there are for each) and, flat over those too,
    `token_ids` (list of int32) and `log_p` (list of float32), the likeliest first: 8 bytes for each of the teacher's
    tokens, and 8 for each trained token. `log_p` is temperature times log probability, where rows name a temperature:
    a logit up to what is the same for all tokens.
    """

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"


class EvaluationData(Artifact):
    """Rows never trained on. `rows.arrow`: `input_ids`, `labels`, and `roles` and `role_ends` as in TokenizedDataset.

    `roles` is empty where it is not known whose the tokens are. `sources.arrow` as in TrainingData, of the rows that an
    evaluation has for itself.
    """

    @property
    def rows(self) -> Path:
        return self.path / "rows.arrow"

    @property
    def sources(self) -> Path:
        return self.path / "sources.arrow"


class LeakageReport(Artifact):
    """Which held-out rows are trained on.

    `metrics.json`: `held_out_rows`, `trained_rows`, `leaked_rows`, and `same_rows`: those of them that are whole rows.
    `leaks.jsonl` has an object for each: `evaluation_data` and `training_data`, the number of its row in these, from 0;
    `share`, of its own sequences of words; `same`, whether whole rows are the same; and the shared `text`.
    """

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def leaks(self) -> Path:
        return self.path / "leaks.jsonl"


class Model(Artifact):
    """A model folder that stock `transformers` loads: config, safetensors, tokenizer, chat template."""

    exported = True


class FetchedModel(Model):
    """A model as it is on the Hub, at one commit: of its files those that are needed."""

    exported = False


class BaseModel(Model):
    """The model that training starts from."""

    exported = False


class QuantizedBase(Model):
    """A base in 4 or 8 bits, as bitsandbytes stores it and `transformers` loads it: frozen beside an adapter."""

    exported = False


class Adapter(Artifact):
    """A PEFT adapter folder with its tokenizer. It belongs to the base model beside it in the graph."""

    exported = True


class FetchedAdapter(Adapter):
    """An adapter as it is on the Hub, at one commit, without a tokenizer."""

    exported = False


class QuantizedModel(Model):
    """A quantized model that stock `transformers` loads."""


class GgufModel(Artifact):
    """One `.gguf` file for llama.cpp. Of a whole model the files of its tokenizer and its settings lie beside it, as
    `transformers` wants them.
    """

    exported = True

    @property
    def file(self) -> Path:
        """The file itself."""
        return next(iter(sorted(self.path.glob("*.gguf"))))


class CompressedModel(Model):
    """A model quantized for vLLM by compressed-tensors; stock `transformers` loads it where that is installed."""


class PublishedModel(Artifact):
    """`files/`: those of a model, an adapter or an exported one as they are given away.

    Beside them in it `README.md` (the model card), `tunemill_bom.cdx.json` (CycloneDX), plots, the lineage as it is
    published, and `model.sig` where it is signed.
    """

    exported = True


class EvaluationReport(Artifact):
    """`metrics.json` (a flat object), `predictions.jsonl` (one object per held-out row) and `intervals.json`.

    A prediction has `row` (its number in the evaluation data), `id` (`stages/evaluation/row_ids.py`), `loss` over
    `loss_tokens` tokens, and where an answer was generated `prompt`, `reference` and `prediction` (text),
    `exact_match`, and `ended`: whether the answer ends, where the reference does.

    `intervals.json` has of each metric that is a mean over rows `low`, `high`, `confidence`, `method` and `rows`, and
    in `values` and `weights` the fields of the predictions that it is the mean of. Artifacts of old have neither `id`
    nor that file.

    `columns` are the metrics that a comparison shows.
    """

    exported = True
    columns: ClassVar[tuple[str, ...]] = ("eval_loss", "perplexity", "exact_match", "rows")

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.jsonl"

    @property
    def intervals(self) -> Path:
        return self.path / "intervals.json"


class HarnessReport(EvaluationReport):
    """The scores of tasks of lm-evaluation-harness, each metric under `<task>/<metric>`.

    A prediction has `row`, `task`, `doc_id` (the row's number in the task), `id`, `prompt`, `reference`, `prediction`
    where an answer was generated or chosen, its metrics, and of compared answers `log_p`, the log-probability of each.
    """

    columns = ()


class PreferenceReport(EvaluationReport):
    """The scores of held-out preferences.

    A prediction has `row`, `id`, its texts, for each answer `<answer>_log_p`, `<answer>_reference_log_p` (sums over its
    tokens) and `<answer>_tokens`, then `kl`, the mean over the `kl_tokens` tokens of its answers, and the metrics of
    the row by itself; of a pair also `preferred`, which answer is likelier: `chosen`, `rejected` or `neither`.
    """

    columns = ("accuracy", "margin", "reward_accuracy", "reward_margin", "kl", "perplexity", "rows")


class StepReport(EvaluationReport):
    """As every EvaluationReport; a prediction has the `row`, its `id`, its `loss` over `judged_steps` steps, the
    `prompt`, and of each judged step in `steps` its `text`, its `label`, the class in `prediction`, and the
    `probability` that it is not wrong. `first_wrong` and `predicted_first_wrong` are numbers of steps, from 0, or null;
    `step_accuracy`, and `first_wrong_found` or else `right_answers_passed`, say how right the row is.
    """

    columns: ClassVar[tuple[str, ...]] = ("eval_loss", "step_accuracy", "first_wrong_f1", "steps", "rows")


class RewardReport(EvaluationReport):
    """As every EvaluationReport; a prediction has the `row`, its `id`, the texts `chosen` and `rejected`, their scores
    `chosen_reward` and `rejected_reward`, and of the pair `loss`, `accuracy` and `margin`.
    """

    columns: ClassVar[tuple[str, ...]] = ("eval_loss", "accuracy", "margin", "mean_reward", "rows")


class StudentReport(EvaluationReport):
    """The same of a model that learned from a teacher.

    Where the teacher is there, both files say of all trained tokens, and of those of each row, how far the model's
    probabilities are from the teacher's: `teacher_kl` (nats for each token), and `teacher_agreement`: in which share of
    places both have the same likeliest token.
    """

    columns: ClassVar[tuple[str, ...]] = (*EvaluationReport.columns[:-1], "teacher_kl", "rows")


class ScoresReport(EvaluationReport):
    """Metrics of stored answers. As every EvaluationReport; a prediction has `row`, `id`, `group` where rows carry one,
    the texts `prompt`, `reference` and `prediction`, how many `tokens` were generated, the `finish_reason` (`stop` or
    `length`), and each metric under its own name. A comparison shows every metric.
    """

    columns: ClassVar[tuple[str, ...]] = ()


class Generations(Artifact):
    """Answers of one model to held-out rows.

    `generations.jsonl`: an `Answered` of stages/evaluation/answered.py a line.
    """

    @property
    def rows(self) -> Path:
        return self.path / "generations.jsonl"


class Judgements(Artifact):
    """What a judge says of answers: `judgements.jsonl`, a `Judged` of stages/evaluation/judged.py a line."""

    @property
    def rows(self) -> Path:
        return self.path / "judgements.jsonl"
