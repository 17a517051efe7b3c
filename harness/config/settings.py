"""Typed configuration: what a method may not touch (Setting), how it is executed, and the scan that finds the methods.

Hydra composes YAML from conf/; `RunConfig.from_hydra` turns the result into these records and refuses unknown keys
and wrong types.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config.budgets import budget_of, check_budget_fields
from harness.config.decodings import DECODING_KEYS, ORDER_BY, check_decodings
from harness.config.distance import DistanceConfig
from harness.config.entries import as_entries
from harness.config.execution import Execution, refuse_renamed
from harness.config.identity import model_identity, prompts_identity, recipe_of
from harness.config.methods import find_method, method_source
from harness.config.values import check_entries, check_keys, check_numbers, folder_of, plain_name, whole_number
from harness.errors import UserError
from harness.files import ROOT
from harness.types import UNTRAINED, Method

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONF_DIR = ROOT / "conf"
KEYS = {"setting", "method", "engine", "evaluation", "launch"} | {
    *("seed", "results_dir", "fresh", "expect", "reference", "dry_run", "limit")
}  # of a run's configuration
Record = TypeVar("Record", bound="DataclassInstance")
# What every run does alike whatever its Setting's fields say. It stands in the record and in the hash, so that runs of
# another recipe are in no table together with these.
RECIPE = {
    "optimiser": "AdamW on float32 weights (masters of narrower ones), epsilon 1e-8",
    "no_weight_decay": "biases and norms",
    "warmup": "update k of W at k/W of the rate",
    "credit_logprobs": "of the trainer's scoring pass in bfloat16 and with another engine, else of the sampling pass",
}


@dataclass(frozen=True)
class Setting:
    """Everything that a comparison keeps equal. A method may touch nothing in here; its hash is the comparison's
    identity.
    """

    name: str  # of the folder and the tables; not part of the hash
    student: str  # folder or Hub id
    teacher: str
    prompts: str  # .jsonl file or Hub data set
    prompts_split: str  # of a Hub data set
    student_revision: str | None
    teacher_revision: str | None
    dtype: str  # of both models' weights: float32 | bfloat16 | float64
    max_prompt_tokens: int  # longer prompts are refused
    max_new_tokens: int  # student tokens per completion, a teacher prefix not counted
    # teacher tokens that a prefix must leave for the student to write; null in a YAML: follows the length
    min_continuation: int
    prompts_per_step: int
    samples_per_prompt: int
    temperature: float  # 1: otherwise a sample is not one of the student's distribution
    top_p: float  # 1
    top_k: int  # size of the direct term's support
    steps: int  # optimiser updates
    learning_rate: float
    lr_schedule: str  # constant | cosine (to 0)
    warmup_steps: int
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    max_grad_norm: float
    # variables of the student's chat template, such as {enable_thinking: false}; None: none (as in older records)
    chat_template_kwargs: dict[str, Any] | None = None
    # refuse: end tokens must be the same | map: those of both models are one event, with the log-probs of the union
    termination: str = "refuse"
    # a method's teacher texts: seed: each training seed has its own, so that an interval over seeds holds their chance
    # too; shared: one text a prompt for all seeds, as in older records
    teacher_responses: str = "shared"
    importance_cap: float | None = None  # ρ = min(π_trainer / π_engine, cap) on sampled tokens; None: ρ = 1
    # of LoRA adapters on every linear layer but the head (peft), merged at the end; 0: all weights are trained
    lora_rank: int = 0
    # in place of `steps` as the budget of a run's training (harness.config.budgets): operations, or tokens that the
    # student writes; None: not
    operations: float | None = None
    student_tokens: float | None = None
    notes: list[str] = field(default_factory=list)  # what a reader of the results must know; not part of the hash

    def __post_init__(self) -> None:
        plain_name("setting.name", self.name)
        if self.temperature != 1 or self.top_p != 1:
            raise UserError(
                f"setting.temperature={self.temperature} and setting.top_p={self.top_p}: training samples at 1 and 1, "
                "because otherwise a sample is not one of the student's own distribution and every estimate is "
                "biased; remove it."
            )
        allowed = {
            "lr_schedule": ("constant", "cosine"),
            "dtype": ("float32", "bfloat16", "float64"),
            "termination": ("refuse", "map"),
            "teacher_responses": ("seed", "shared"),
        }
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise UserError(f"setting.{key}={getattr(self, key)!r}: must be one of {', '.join(values)}.")
        check_budget_fields(vars(self))
        if self.min_continuation > self.max_new_tokens:
            raise UserError(
                f"setting.min_continuation={self.min_continuation} is more than setting.max_new_tokens="
                f"{self.max_new_tokens}, the length of a teacher's text: no prefix would be left of it; leave it out "
                "(it then follows the length) or give less."
            )

    @property
    def budget(self) -> tuple[str, float] | None:
        """Its field, and how much of it; None: the steps are the budget."""
        return budget_of(vars(self))

    def training_hash(self) -> str:
        """sha256 over the content: identities of models and prompts instead of paths, everything else by value."""
        content = self.by_value()
        for key in ("name", "notes", "student_revision", "teacher_revision", "prompts_split"):
            del content[key]  # words, and what the identities know
        content |= self.identities()
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def by_value(self) -> dict[str, Any]:
        """Every field, as a record has it, and the recipe. A later field only where used: older records compare with
        newer.
        """
        later = {f.name: f.default for f in dataclasses.fields(self) if f.default is not dataclasses.MISSING}
        used = {
            key: value for key, value in dataclasses.asdict(self).items() if key not in later or value != later[key]
        }
        return {**used, "recipe": RECIPE}

    def identities(self) -> dict[str, str]:
        """The content of student, teacher and prompts (harness.config.identity)."""
        return {
            "student": model_identity(self.student, self.student_revision),
            "teacher": self.teacher_identity(),
            "prompts": prompts_identity(self.prompts, self.prompts_split),
        }

    @staticmethod
    def of_record(content: Mapping[str, Any]) -> Setting:
        """The Setting that a record holds by value; a field that its version had not has its default here."""
        return strict(Setting, {key: value for key, value in content.items() if key != "recipe"}, "setting")

    def teacher_identity(self) -> str:
        """What the hash, and the cache of teacher responses, know of the teacher."""
        return model_identity(self.teacher, self.teacher_revision)


def shortest_continuation(max_new_tokens: int) -> int:
    """setting.min_continuation where it is null: a 32nd of the length, from 1 to 64 tokens (ours)."""
    return min(64, max(1, max_new_tokens // 32))


@dataclass(frozen=True)
class Launch:
    """How many processes train one run; changes nothing of the result beyond rounding, and is not part of any hash."""

    num_processes: int = 1
    # file of `accelerate config` (FSDP2); None: DDP by torchrun, one machine
    accelerate_config: str | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """What a finished run is scored on."""

    tasks: list[str]
    samples: dict[str, int]  # per problem, by task (`all`: every task); a task that is not named keeps its own number
    max_new_tokens: dict[str, int]  # per sample, by task; likewise
    sampling: dict[str, dict[str, Any]]  # by task (`all`: every one): {temperature, top_p, …} in place of its own
    cut_decimals: list[str]  # tasks whose published figures are cut off after two decimals, not rounded
    data_dir: str | None  # local folder with the benchmarks' data, instead of the Hub
    allow_unsandboxed_code: bool  # run what a model wrote even where no sandbox works; the row then says sandboxed 0
    dev_task: str | None  # scored during training, for the progress line and the learning curve
    dev_every: int  # steps
    grader: str = "strict"  # or official: whose verdicts count on the tasks that have both (tasks/official.py)
    distance: DistanceConfig | None = None  # None: not measured
    # by task (`all`: every task): names of DECODINGS, each a column of its own; none: the task's own decoding
    decodings: dict[str, list[str]] = field(default_factory=dict)
    order_by: str = ORDER_BY  # of several decodings the one that tables are ordered by

    def __post_init__(self) -> None:
        check_decodings(self.decodings, self.order_by)
        for task in self.tasks:
            both = set(DECODING_KEYS) & {*self.sampling.get("all", {}), *self.sampling.get(task, {})}
            if both and self.decodings_of(task):
                raise UserError(
                    f"evaluation.sampling sets {', '.join(sorted(both))} of {task}, and so does evaluation.decodings; "
                    f"give evaluation.decodings.{task}=[] to decode it by evaluation.sampling alone."
                )

    def decodings_of(self, task: str) -> list[str]:
        """The named decodings of a task; none: its own."""
        return self.decodings.get(task, self.decodings.get("all", []))

    limit: int | None = None  # the first problems of each of `tasks` only; such a score has a name of its own
    # by task: what its loader is told in place of the task file's own, such as {start: 2025-02-01}
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """One run."""

    setting: Setting
    method_name: str  # a file in baselines/, or "student" / "teacher" (evaluated only)
    method: Method | None  # None for the untrained rows
    engine: Execution
    evaluation: EvaluationConfig
    seed: int
    results_dir: Path
    fresh: bool  # True: start again even if there is a finished or unfinished run
    expect: list[dict[str, Any]]  # facts that the comparison asserts when it is done (harness.results.expectations)
    reference: str | None = None  # the published table of results/reference/ whose rows these are; not part of any hash
    dry_run: bool = False  # True: check and print what would be done (harness.planning.dry_run)
    launch: Launch = field(default_factory=Launch)

    @staticmethod
    def from_hydra(cfg: DictConfig) -> RunConfig:
        """Strict conversion; UserError names the key."""
        raw = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(raw, dict)
        unknown = set(raw) - KEYS - {"experiment"}
        if "validate" in unknown:
            raise UserError("this experiment trains nothing: it belongs to `python -m harness.evaluate`.")
        if unknown:
            raise UserError(f"unknown key {min(unknown, key=str)!r}; see `python -m harness.run --help`.")
        check_keys(raw, KEYS)
        for key in ("fresh", "dry_run"):
            if not isinstance(raw[key], bool):
                raise UserError(f"{key}={raw[key]!r}: expected true or false.")
        chosen = raw["method"]
        if not isinstance(chosen, Mapping) or not isinstance(name := chosen.get("name"), str):
            raise UserError(f"method={chosen!r:.80}: it is chosen by its name, as method=opd.")
        knobs = {key: value for key, value in chosen.items() if key != "name"}
        if not isinstance(raw["expect"], list | None):
            raise UserError(f"expect={raw['expect']!r:.80}: expected a list of facts.")
        checked = RunConfig(
            setting=strict(Setting, _with_continuation(raw["setting"]), "setting"),
            method_name=name,
            method=None,
            engine=strict(Execution, raw["engine"], "engine"),
            evaluation=strict(EvaluationConfig, as_entries(raw["evaluation"]), "evaluation"),
            seed=whole_number("seed", raw["seed"]),
            results_dir=folder_of("results_dir", raw["results_dir"]),
            fresh=raw["fresh"],
            expect=raw["expect"] or [],
            reference=raw["reference"],
            dry_run=raw["dry_run"],
            launch=strict(Launch, raw["launch"], "launch"),
        )
        if name in UNTRAINED:
            return checked
        # last, because it imports torch, and what is wrong elsewhere should be said at once
        return dataclasses.replace(checked, method=strict(find_method(name), knobs, "method"))

    def comparison_folder(self) -> Path:
        """results/<setting>-<hash8>"""
        return self.results_dir / f"{self.setting.name}-{self.setting.training_hash()[:8]}"

    def run_folder(self) -> Path:
        """results/<setting>-<hash8>/<method>[-<hash8 of changed knobs>]/seed<k>"""
        changed = self.changed_knobs()
        suffix = "-" + hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8] if changed else ""
        return self.comparison_folder() / f"{self.method_name}{suffix}" / f"seed{self.seed}"

    def knobs(self) -> dict[str, Any]:
        """All knobs of the method."""
        return {} if self.method is None else dataclasses.asdict(self.method)

    def sources(self) -> dict[str, Any]:
        """What the numbers are made from, by content: models, prompts, the student's recipe, the method's code."""
        inputs: dict[str, str | None] = {**self.setting.identities(), "recipe": recipe_of(self.setting.student)}
        found: dict[str, Any] = {"inputs": {key: value for key, value in inputs.items() if value is not None}}
        return found if self.method is None else {**found, "method_source": method_source(self.method_name)}

    def changed_knobs(self) -> dict[str, Any]:
        """The knobs that differ from the method's defaults."""
        if self.method is None:
            return {}
        defaults = dataclasses.asdict(type(self.method)())
        return {key: value for key, value in self.knobs().items() if value != defaults[key]}


def _with_continuation(raw: Any) -> Any:
    """The fields of a Setting with a number for min_continuation."""
    length = raw.get("max_new_tokens") if isinstance(raw, dict) else None
    if isinstance(length, int) and raw.get("min_continuation") is None:
        return {**raw, "min_continuation": shortest_continuation(length)}
    return raw


def strict(record: type[Record], values: Mapping[str, Any], where: str) -> Record:
    """Builds a frozen record from parsed YAML: every field given, no other key, the right types."""
    if not isinstance(values, Mapping):
        raise UserError(
            f"{where} is {values!r}: it must be a mapping of {', '.join(f.name for f in dataclasses.fields(record))}."
        )
    refuse_renamed(values, where)
    parts = {name: kind for name, kind in _nested_records(record).items() if values.get(name) is not None}
    nested = {name: strict(kind, values[name], f"{where}.{name}") for name, kind in parts.items()}
    plain = {key: value for key, value in values.items() if key not in parts}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(record), OmegaConf.create(plain))
        missing = sorted(OmegaConf.missing_keys(merged) - set(nested))
        if missing:
            raise UserError(
                f"{where}.{missing[0]} is not set; give {where}.{missing[0]}=… on the command line or in the YAML."
            )
        converted = OmegaConf.to_container(merged)
        assert isinstance(converted, dict)
        check_entries(record, converted, where)
        built = record(**{str(key): value for key, value in converted.items()} | nested)
        check_numbers(built, where)
        return built
    except OmegaConfBaseException as error:
        first_line = str(error).splitlines()[0]
        key = error.full_key or getattr(error, "key", None) or ""
        raise UserError(f"{where}.{key}: {first_line}") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _nested_records(record: type[DataclassInstance]) -> dict[str, type[DataclassInstance]]:
    """The fields that are records of their own, or may be; OmegaConf cannot merge into a frozen one."""
    kinds = {name: typing.get_args(hint) or (hint,) for name, hint in typing.get_type_hints(record).items()}
    return {
        name: kind
        for name, options in kinds.items()
        for kind in options
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
