"""The program of one rank: makes teacher responses together with the others, and says what it wrote itself.

Arguments: the folder of the cache, and how many responses rank 0's engine writes before it dies (0: it lives).
"""

import json
import os
import sys
from pathlib import Path

from torch import distributed as dist

from harness.rollout import Sampling
from harness.training import guidance, ranks
from harness.training.guidance import Draw, load_or_make_responses
from harness.training.prompts import Prompt
from harness.training.shared_engine import shared
from tests.scripted import ScriptedEngine

SAMPLING = Sampling(20, stop_ids=(1,))
PROMPTS = [Prompt(str(i), (5, i + 2)) for i in range(11)]


def written(request):
    """A text that depends on the prompt and its seed."""
    return (10 + int(request.prompt_id), 20 + request.seed % 1000)


def main() -> None:
    folder, dies_after = Path(sys.argv[1]), int(sys.argv[2])
    guidance.REQUESTS_PER_PIECE = 2
    dist.init_process_group("gloo")
    engine = ScriptedEngine(lambda request: fail() if over() else written(request))

    def over() -> bool:
        return ranks.index() == 0 and 0 < dies_after < len(engine.requests)

    def fail() -> None:
        os._exit(1)

    with shared(engine) as everybody:
        made = load_or_make_responses(folder, Draw("teacher"), everybody, PROMPTS, SAMPLING, range(11))
    told = {"own": [request.prompt_id for request in engine.requests], "read": made.completion_ids}
    (folder / f"rank{ranks.index()}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
