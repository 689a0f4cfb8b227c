"""What the two programs that train the shipped weights (`encoder.py`, `tiny_sam.py`) share: options, optimization, saving."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

FIRST_HELD_OUT = 10**9
"""Number of the first held-out sample; training uses only samples with lower numbers."""


def build_parser(description: str | None, *, to: str, steps: int, batch: int, rate: float) -> argparse.ArgumentParser:
    """Build a parser with the options that both trainings have; the arguments are their defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path(to))
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    return parser


class Optimization:
    """AdamW with one cycle of the learning rate and clipped gradients; prints a line every few steps."""

    def __init__(self, model: nn.Module, *, rate: float, steps: int, warm_up: float, print_every: int) -> None:
        self.parameters, self.steps, self.print_every = list(model.parameters()), steps, print_every
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rate, total_steps=steps, pct_start=warm_up)
        self.step, self.start_time = 0, time.monotonic()

    def take_step(self, loss: Tensor, **metrics: float) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        if self.step % self.print_every == 0 or self.step == self.steps:
            values = " ".join(f"{name} {value:.4f}" for name, value in {"loss": loss.item(), **metrics}.items())
            seconds = time.monotonic() - self.start_time
            print(f"step {self.step}/{self.steps} {values} {seconds:.0f} s", flush=True)  # noqa: T201


def save_weights(model: nn.Module, path: Path, metrics: dict[str, Any], **metadata: str) -> None:
    """Print the metrics, and save the weights in half precision with the metrics in the file's header."""
    print(json.dumps(metrics))  # noqa: T201
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    tensors = {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}
    save_file(tensors, path, metadata={"licence": "Apache-2.0", **metadata, "facts": json.dumps(metrics)})
