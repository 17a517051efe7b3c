"""SFT: fine-tuning on the data set's own text, no teacher."""

from dataclasses import dataclass

from baselines.seqkd import SeqKD
from harness.types import Writer


@dataclass(frozen=True)
class SFT(SeqKD):
    """SFT: negative log-likelihood on the data set's own responses.

    A row of ours: what the same number of steps gives without a teacher.

        L_t = −log π_S(x_t),   x from the data set

    SeqKD's loss on another text, its end token included. Needs prompts with a reference response. No knobs.
    """

    def needs_teacher_responses(self) -> bool:
        """No teacher text is used."""
        return False

    def writer(self, progress: float, uniform: float) -> Writer:
        """The data set writes every step."""
        return "reference"


METHOD = SFT
