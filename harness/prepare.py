"""`python -m harness.prepare source=… tokenizer=… output=…`: training prompts of a Setting, made from OpenThoughts3,
GSM8K, MATH or rows like theirs.

    source=open-thoughts/OpenThoughts3-1.2M revision=<commit>   or a local file (docs/bring_your_own.md) like it:
                           domain, source, and conversations ([{"from": "human", "value": …}, …], of which the first is
                           taken), or, of one domain, just question or problem; subset=… is the set's configuration, as
                           main of openai/gsm8k
    instruction=…          put after every question, in a line of its own
    domains=math           of math, code, science; several with commas
    tokenizer=…            the student's, folder or Hub id: prompts are rendered by its chat template to be measured
    max_tokens=2048        longer prompts are left out: setting.max_prompt_tokens
    limit=…                this many prompts, drawn with seed=0; all without it
    benchmarks=…           whose problems are looked for in the prompts (default: every benchmark of tasks/); data_dir=…
                           as in an evaluation
    overlap=remove         or keep: prompts that share 13 consecutive words (ngram=13) with a problem are reported
                           either way
    output=….jsonl         the file for setting.prompts: id, prompt, domain, source

A question that occurs several times is kept once: the data set has each with sixteen answers. Printed, and written
beside the output as <output>.report.json: what every step left out, the overlap with each benchmark, and the
fingerprint. Exit code: 0, or 2 for bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.config.identity import prompts_identity
from harness.console.commands import exit_code_of, or_help
from harness.files import write_json
from harness.planning.prompt_options import Options, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(or_help(__doc__, lambda given: _run(parse(given)), arguments))


def _run(options: Options) -> int:
    from harness.planning.prompts import describe, prepare

    report = prepare(options)
    fingerprint = prompts_identity(str(options.output), "train")
    content = {"source": options.source, "revision": options.revision, "fingerprint": fingerprint, **vars(report)}
    write_json(options.output.with_name(f"{options.output.name}.report.json"), content)
    print(describe(report, options, fingerprint))
    return 0


if __name__ == "__main__":
    sys.exit(main())
