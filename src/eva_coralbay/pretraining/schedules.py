"""Values that change with the step."""

import dataclasses
import math

from eva_coralbay.errors import EvaCoralbayError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A value that goes from `start` to `peak` on a line and on to `end` on half a cosine.

    The form of DINO's schedules [0]: the learning rate rises and falls; the teacher temperature
    rises to a `peak` that is its `end`; weight decay and teacher momentum have no warm-up.

    - [0] https://arxiv.org/abs/2104.14294, `cosine_scheduler` in `utils.py` of the reference
    """

    start: float
    """The value that the warm-up leaves: its first step is already one part of the way."""

    peak: float
    """The value at the last step of the warm-up."""

    end: float
    """The value at the last step."""

    warmup: float = 0.0
    """The part of all steps that leads from `start` to `peak`."""

    def __post_init__(self) -> None:
        """Checks the warm-up.

        Raises:
            EvaCoralbayError: If it is not a part of the steps.
        """
        if not 0.0 <= self.warmup <= 1.0:
            raise EvaCoralbayError(
                f"`warmup` is a part of all steps, from 0 to 1; got {self.warmup}."
            )

    def at(self, step: int, *, steps: int) -> float:
        """Returns the value at a step.

        Args:
            step: The step, from 0; `steps` - 1 and all later ones are the last.
            steps: The number of all steps.
        """
        warmup_steps = round(self.warmup * steps)
        if step < warmup_steps:
            return self.start + (self.peak - self.start) * (step + 1) / warmup_steps
        remaining = steps - 1 - warmup_steps
        progress = min((step - warmup_steps) / remaining, 1.0) if remaining > 0 else 1.0
        return self.end + (self.peak - self.end) * (1.0 + math.cos(math.pi * progress)) / 2.0

    def scaled(self, factor: float) -> "Schedule":
        """Returns the schedule with `start` and `peak` multiplied; `end` stays."""
        return dataclasses.replace(self, start=self.start * factor, peak=self.peak * factor)
