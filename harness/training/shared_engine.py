"""An engine whose requests all ranks share: how the cached teacher responses are made by everybody.

Rank 0 decides what is asked for, and writes it down; the others serve it until it is done. A completion depends on its
own request alone, so the number of ranks changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness.rollout import Finished, Progress, RolloutEngine, RolloutRequest, Sampling
from harness.training import ranks
from harness.types import Rollout


@contextmanager
def shared(engine: RolloutEngine) -> Iterator[RolloutEngine]:
    """What is asked of rank 0's engine inside is shared over all ranks, each of which has an engine of the same model.

    The others come inside when rank 0 has left, with their own engine: what they ask for is not shared. If rank 0
    fails, they wait for whoever started them to end them.
    """
    own = SharedEngine(engine)
    if ranks.index() == 0:
        yield engine if ranks.count() == 1 else own
        ranks.from_main(None)
    else:
        own.serve()
        yield engine


class SharedEngine:
    """See RolloutEngine; every rank has one around its own engine."""

    def __init__(self, own: RolloutEngine) -> None:
        self.own, self.policy_version = own, own.policy_version

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """See RolloutEngine. On rank 0, while the others serve; of the progress, its own share is told."""
        assert finished is None  # rank 0 does not see what the others finish
        ranks.from_main((requests, sampling))
        return self._share(requests, sampling, progress)

    def serve(self) -> None:
        """On every other rank: completes its share of what rank 0 is asked for, until that is all."""
        while (asked := ranks.from_main(None)) is not None:
            self._share(*asked)

    def _share(
        self, requests: Sequence[RolloutRequest], sampling: Sampling, progress: Progress | None = None
    ) -> list[Rollout]:
        rows = range(ranks.index(), len(requests), ranks.count())
        made = self.own.generate([requests[row] for row in rows], sampling, progress) if rows else []
        return ranks.gather_rows(made, rows)
