"""Named coordinates: stable across machines, no two streams alike."""

import numpy as np
import torch

from harness.seeds import as_float32, generator_of, seed_of
from harness.training.prompts import prompt_order
from harness.training.trainer import token_batch
from harness.types import Rollout


def test_values_are_frozen() -> None:
    """A change here would change every published number."""
    assert seed_of("sampling", 0, 1, 2, 3) == 6403492008880755218
    assert generator_of("credit", 0).random() == 0.8900496748187617


def test_every_coordinate_matters() -> None:
    seeds = {
        seed_of("sampling", 0, 1, 2),
        seed_of("credit", 0, 1, 2),
        seed_of("sampling", 1, 1, 2),
        seed_of("sampling", 0, 2, 2),
        seed_of("sampling", 0, 1, 3),
        seed_of("sampling", 0, 1, "2"),
        seed_of("sampling", 0, 12),
    }
    assert len(seeds) == 7


def test_streams_are_uncorrelated() -> None:
    a, b = (generator_of(stream, 0, 0, 0, 0).random(100_000) for stream in ("sampling", "credit"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(100_000)


def test_prompt_order_is_a_permutation_per_pass() -> None:
    order = prompt_order(10, seed=0, needed=25)
    assert len(order) == 25
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10] != order[10:20]
    assert order == prompt_order(10, seed=0, needed=25)
    assert order[:10] != prompt_order(10, seed=1, needed=10)


def test_a_draw_that_float32_would_round_to_one_stays_below_it() -> None:
    """float32 below 1 is spaced by 2^-24, so that 1 - 2^-25 (a tie, to even) and all above are rounded to 1; the next
    draw below is rounded to 1 - 2^-24. No other draw is changed.
    """
    below_one = np.float32(1 - 2**-24)
    tie = 1 - 2**-25
    assert np.float32(tie) == 1.0 and np.float32(1 - 2**-53) == 1.0
    found = as_float32([tie, 1 - 2**-53, np.nextafter(tie, 0), 0.0])
    assert found.dtype == np.float32
    assert found.tolist() == [below_one, below_one, below_one, 0.0]
    draws = generator_of("credit", 0, 0).random(10_000)
    assert (as_float32(draws) == draws.astype(np.float32)).all()


def test_a_step_gives_no_method_a_draw_of_one() -> None:
    class AlmostOne:
        def random(self, size: int) -> np.ndarray:
            return np.full(size, 1 - 2**-53)

    rollout = Rollout(
        (1,), (2, 3), 0, (-1.0, -1.0), policy_version=0, stop_reason="stop", prompt_id="a", sample_index=0
    )
    batch = token_batch([rollout], [AlmostOne()])  # type: ignore[list-item]
    assert batch.uniforms.dtype == torch.float32 and (batch.uniforms < 1).all()
