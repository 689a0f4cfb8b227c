"""Where to train."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy

from inspect_kd.errors import EnvironmentFault, UsageError

PATIENCE = timedelta(days=7)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Where to train. `auto` takes a GPU where there is one."""

    device: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    workers: int = 0

    def fabric(self) -> Fabric:
        if self.device in {"cuda", "gpu"} and not torch.cuda.is_available():
            raise EnvironmentFault(
                "asked to train on a GPU, but torch finds none; `inspect-kd doctor` shows what is missing"
            )
        try:
            precision: Any = self.precision  # Fabric itself refuses what it does not know
            accelerator = "gpu" if self.device == "cuda" else self.device
            # The first of several devices studies, distils and concludes alone, for hours; the others wait.
            strategy: Any = DDPStrategy(timeout=PATIENCE) if self.devices > 1 else "auto"
            return Fabric(accelerator=accelerator, devices=self.devices, precision=precision, strategy=strategy)
        except ValueError as error:
            raise UsageError(f"this hardware cannot be used as asked: {error}") from error
