"""The hardware of a training: device, number of devices, precision, worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy

from inspect_kd.errors import EnvironmentFault, UsageError

WAIT_TIMEOUT = timedelta(days=7)
"""For the processes that wait while the first one trains teachers, distils and finishes the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """What to train on. `auto` takes a GPU where there is one."""

    device: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    workers: int = 0

    def fabric(self) -> Fabric:
        """Set up Lightning Fabric on this hardware."""
        if self.device in {"cuda", "gpu"} and not torch.cuda.is_available():
            raise EnvironmentFault(
                f"--device {self.device}: torch finds no GPU; `inspect-kd doctor` shows what is missing"
            )
        try:
            precision: Any = self.precision  # Fabric refuses unknown ones
            accelerator = "gpu" if self.device == "cuda" else self.device
            strategy: Any = DDPStrategy(timeout=WAIT_TIMEOUT) if self.devices > 1 else "auto"
            return Fabric(accelerator=accelerator, devices=self.devices, precision=precision, strategy=strategy)
        except ValueError as error:
            raise UsageError(f"--device, --devices or --precision: not available on this machine ({error})") from error
