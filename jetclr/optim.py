"""The optimizer as a value: AdamW, linear warm-up, cosine decay, clipping by global norm."""

from dataclasses import dataclass
from typing import Literal

import jax
import optax


@dataclass(frozen=True)
class Optim:
    """AdamW (arXiv:1711.05101) with warm-up to `peak_lr` over `warmup_steps`, then cosine decay to 0 at the last step.

    `schedule="constant"` stays at the peak after the warm-up (the study's Adam at 5e-5). Gradients are clipped to
    global norm `clip_norm`. Weight decay acts on matrices only, not on biases and norms.
    """

    peak_lr: float = 1e-3
    warmup_steps: int = 50
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    b2: float = 0.999

    def __post_init__(self) -> None:
        if self.peak_lr <= 0:
            raise ValueError(f"Optim.peak_lr is {self.peak_lr}; it must be positive")
        if self.clip_norm <= 0:
            raise ValueError(f"Optim.clip_norm is {self.clip_norm}; it must be positive")
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise ValueError("Optim.warmup_steps and Optim.weight_decay may not be negative")
        if not 0 <= self.b2 < 1:
            raise ValueError(f"Optim.b2 is {self.b2}; it must lie in [0, 1)")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"Optim.schedule is {self.schedule!r}; choose 'cosine' or 'constant'")

    def learning_rate(self, steps: int) -> optax.Schedule:
        """Step -> learning rate for a run of `steps` steps."""
        warmup = min(self.warmup_steps, max(steps - 1, 0))
        after = (
            optax.cosine_decay_schedule(self.peak_lr, max(steps - warmup, 1))
            if self.schedule == "cosine"
            else optax.constant_schedule(self.peak_lr)
        )
        # Starts above zero: a first step that does nothing would be a wasted batch.
        return optax.join_schedules(
            [optax.linear_schedule(self.peak_lr / max(warmup, 1), self.peak_lr, max(warmup - 1, 1)), after], [warmup]
        )

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optax transformation for a run of `steps` steps."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(
                self.learning_rate(steps),
                b2=self.b2,
                weight_decay=self.weight_decay,
                mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
            ),
        )
