"""Every random draw is a function of named coordinates: resume, re-sharding or another accumulation change nothing.

The stream's name is one coordinate, so that no two uses share a draw. A stream that decides what a method is given
(prompts, sampling, evaluation) never has the method among its coordinates; that is what makes two methods comparable on
one seed.

    prompts             (training seed, epoch)                  the order of the training prompts
    sampling            (training seed, step, slot, sample)     the tokens of one rollout; slot: the prompt's
    place in the step
    credit              (training seed, step, slot, sample)     the uniforms that a method may use
    prefix              (training seed, step, slot)             the prefix length of one prompt
    writer              (training seed, step)                   who writes the step's completions
    teacher_responses   (prompt id, training seed)              the cached teacher response; without the seed where all
    seeds share it
    evaluation          (training seed, task, document, repeat) one evaluated sample
    distance            (training seed, prompt id)              the student's sample that its distance is measured on
    distance_prompts    ()                                      which training prompts, where none is held out
    self_check          ()                                      the fixed sequence of the start-up check of an engine
    diagnosis           (seed, number)                          the tokens of one completion of harness.diagnose
    projection          ()                                      the signs by which it projects gradients
    tiny_…              (model, replicate, …)                   the making of the tiny models (harness.tiny)
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))  # 1 - 2^-24, the largest float32 below 1


def seed_of(stream: str, *coordinates: int | str) -> int:
    """A 63-bit integer that depends on the stream's name and on every coordinate, the same on every machine."""
    text = "\x1f".join([stream, *(f"{type(c).__name__}:{c}" for c in coordinates)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_of(stream: str, *coordinates: int | str) -> np.random.Generator:
    """A numpy generator (Philox, counter-based: cheap to make) at the named coordinates."""
    return np.random.Generator(np.random.Philox(seed_of(stream, *coordinates)))


def as_float32(uniforms: ArrayLike) -> NDArray[np.float32]:
    """Draws in [0, 1) in float32, and still in [0, 1): those from 1 - 2^-25 on would be rounded to 1."""
    return np.minimum(np.asarray(uniforms, dtype=np.float32), _BELOW_ONE)
