"""Training prompts of a Setting from a data set: one of a kind, short enough, without benchmark problems. `python -m
harness.prepare`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from harness.console.progress import terminal_bar
from harness.errors import UserError
from harness.evaluation.loading import TASKS_DIR, TaskOptions, load_tasks
from harness.files import write_rows
from harness.models.loading import load_tokenizer
from harness.models.template import render
from harness.planning.overlap import Gram, OverlapIndex
from harness.planning.prompt_options import Options
from harness.seeds import generator_of
from harness.training.conversations import first_question
from harness.training.rows import kind_of, read_rows

PROBLEM_FIELDS = ("problem", "question", "prompt")  # of a task's documents, the first that it has
OWN_PROBLEMS = ("arithmetic", "arithmetic_dev")  # made here, of which no data set knows


@dataclass
class Report:
    """What became of the rows, in the order of the steps."""

    rows: int = 0  # read
    other_domain: int = 0
    repeated: int = 0  # the same question again
    too_long: int = 0
    overlapping: int = 0  # prompts; left out where overlap=remove
    not_drawn: int = 0
    prompts: int = 0  # written
    by_domain: Counter[str] = field(default_factory=Counter)  # written
    # by benchmark: problems, too_short, prompts, problems_found
    overlap: dict[str, dict[str, int]] = field(default_factory=dict)


def source_rows(options: Options) -> tuple[Iterable[tuple[str, Mapping[str, Any]]], int]:
    """The rows with their places, streamed from the Hub, and how many there are (0: not known)."""
    import datasets

    source = options.source
    if kind_of(source) != "hub":
        return read_rows(source, options.split, "source"), 0
    try:
        rows = datasets.load_dataset(
            source, options.subset, split=options.split, revision=options.revision, streaming=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"source={source!r} cannot be read: {' '.join(str(error).split())[:200]}") from error
    split = (rows.info.splits or {}).get(options.split)
    return ((f"row {n}", row) for n, row in enumerate(rows, 1)), getattr(split, "num_examples", None) or 0


def distinct_prompts(
    rows: Iterable[tuple[str, Mapping[str, Any]]], options: Options, report: Report
) -> Iterator[dict[str, str]]:
    """Questions of the domains, each once; spaces and capitals do not make two."""
    seen: set[bytes] = set()
    for place, row in rows:
        report.rows += 1
        if "domain" not in row and ("conversations" in row or len(options.domains) > 1):
            raise UserError(f"{place}: the column 'domain' is missing; the columns are those of OpenThoughts3.")
        domain = row.get("domain", options.domains[0])
        if domain not in options.domains:
            report.other_domain += 1
            continue
        text = first_question(row, place).strip()
        key = hashlib.sha256(" ".join(text.lower().split()).encode()).digest()
        if key in seen or not text:
            report.repeated += 1
            continue
        seen.add(key)
        text = f"{text}\n{options.instruction}" if options.instruction else text
        yield {"id": key.hex()[:16], "prompt": text, "domain": domain, "source": str(row.get("source") or "")}


def token_count(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the prompt as it will be rendered."""
    rendered = render(tokenizer, [{"role": "user", "content": text}], {})
    return len(tokenizer(rendered, add_special_tokens=False)["input_ids"])


def index_benchmarks(options: Options, tokenizer: PreTrainedTokenizerBase) -> OverlapIndex:
    """The problems of the benchmarks; a UserError says how to go on without one whose data cannot be had."""
    index = OverlapIndex(options.ngram)
    for name in options.benchmarks if options.benchmarks is not None else benchmark_names():
        try:
            task = load_tasks([name], tokenizer, TaskOptions(data_dir=options.data_dir))[name].task
        except UserError as error:
            raise UserError(f"{error} Or leave it out: benchmarks=… names those that are looked for.") from error
        index.add(name, [next(d[key] for key in PROBLEM_FIELDS if key in d) for d in task.eval_docs])
    return index


def benchmark_names() -> list[str]:
    """One task of every folder of tasks/, but the problems that are made here."""
    names = sorted(path.parent.name for path in TASKS_DIR.glob("*/*.yaml"))
    return [name for name in dict.fromkeys(names) if name not in OWN_PROBLEMS]


def prepare(options: Options) -> Report:
    """Reads, filters, compares and writes."""
    tokenizer = load_tokenizer(options.tokenizer, options.tokenizer_revision)
    if tokenizer.chat_template is None:
        raise UserError(f"tokenizer={options.tokenizer!r} has no chat template, which prompts are rendered by.")
    index, report = index_benchmarks(options, tokenizer), Report()
    hits: dict[str, set[Gram]] = {}  # by prompt id
    kept: list[dict[str, str]] = []
    rows, total = source_rows(options)
    with terminal_bar("reading prompts", total, "rows") as bar:
        for prompt in distinct_prompts(_counted(rows, bar), options, report):
            if token_count(prompt["prompt"], tokenizer) > options.max_tokens:
                report.too_long += 1
                continue
            if grams := index.find(prompt["prompt"]):
                hits[prompt["id"]] = grams
            kept.append(prompt)
    found = index.overlaps(hits)
    report.overlapping = len(found)
    if options.overlap == "remove":
        kept = [prompt for prompt in kept if prompt["id"] not in found]
    if options.limit is not None and len(kept) > options.limit:
        chosen = sorted(generator_of("prepare", options.seed).permutation(len(kept))[: options.limit].tolist())
        report.not_drawn = len(kept) - options.limit
        kept = [kept[i] for i in chosen]
    if not kept:
        raise UserError(f"no prompt is left of {report.rows} rows ({', '.join(options.domains)}); nothing was written.")
    report.prompts, report.by_domain = len(kept), Counter(prompt["domain"] for prompt in kept)
    report.overlap = overlap_table(index, found)
    write_rows(options.output, kept)
    return report


def overlap_table(index: OverlapIndex, found: Mapping[str, set[tuple[str, str]]]) -> dict[str, dict[str, int]]:
    """By benchmark: its problems, the prompts that overlap one, and how many problems these are."""
    table = {}
    for name in dict.fromkeys([*index.problems, *index.too_short]):
        problems = [{problem for benchmark, problem in pairs if benchmark == name} for pairs in found.values()]
        table[name] = {
            "problems": index.problems[name],
            "too_short": index.too_short[name],
            "prompts": sum(map(bool, problems)),
            "problems_found": len(set().union(*problems)),
        }
    return table


def _counted(rows: Iterable[tuple[str, Mapping[str, Any]]], bar: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for row in rows:
        bar.advance()
        yield row


def describe(report: Report, options: Options, fingerprint: str) -> str:
    """The report in words."""
    domains = ", ".join(f"{name} {count:,}" for name, count in sorted(report.by_domain.items()))
    fate = "left out" if options.overlap == "remove" else "kept"
    lines = [
        f"{report.rows:,} rows: {report.other_domain:,} of other domains, {report.repeated:,} repeated, "
        f"{report.too_long:,} longer than {options.max_tokens:,} tokens, {report.overlapping:,} overlapping with a "
        f"benchmark ({fate}), {report.not_drawn:,} not drawn.",
        f"{report.prompts:,} prompts written to {options.output} ({domains}), fingerprint {fingerprint}",
        f"Overlap ({options.ngram} consecutive words):",
    ]
    for name, counts in report.overlap.items():
        short = f"; {counts['too_short']:,} are too short to tell" if counts["too_short"] else ""
        lines.append(
            f"  {name}: {counts['prompts']:,} prompts hold {counts['problems_found']:,} of {counts['problems']:,} "
            f"problems{short}"
        )
    return "\n".join(lines)
