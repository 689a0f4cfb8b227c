"""Find and load pretrained weights without executing code from their files.

Weights are looked up in the folder $INSPECT_KD_WEIGHTS first, then on the hub. Only this module
calls `torch.load`, with `weights_only=True`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from inspect_kd import zoo
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.plain_file import MissingFile, open_plain_file

if TYPE_CHECKING:
    from torch import Tensor

HUB_TIMEOUT_S = 5
"""Time limit for the hub's first answer."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsCard:
    """Normalisation, licence and build arguments of a weights file."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    licence: str = "unknown"
    build: dict[str, Any] = field(default_factory=dict)
    """Arguments with which the model must be built for these weights."""


# By the file's stem. Weights that are not listed are assumed to be timm's with ImageNet normalisation.
CARDS = {
    "mobilenetv2_100.imagenet1001": WeightsCard(
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), licence="Apache-2.0", build={"pad_type": "same"}
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalWeights:
    """A weights file in the local folder, with its card."""

    path: Path
    card: WeightsCard


def local_folder() -> Path | None:
    """Return the folder $INSPECT_KD_WEIGHTS. Raise if the variable names a missing folder, instead of using the hub."""
    setting = os.environ.get("INSPECT_KD_WEIGHTS")
    if not setting:
        return None
    folder = zoo.expand_user(setting)
    if not folder.is_dir():
        raise EnvironmentFault(
            f"INSPECT_KD_WEIGHTS={setting}: no such folder; create it, or unset the variable to use the hub"
        )
    return folder


def find_local(name: str) -> LocalWeights | None:
    """Find the weights of a timm model in the local folder: `<name>.safetensors`, `<name>.<tag>.safetensors`, or .pt / .pth."""
    folder = local_folder()
    if folder is None:
        return None
    for suffix in (".safetensors", ".pth", ".pt"):
        for path in sorted(folder.glob(f"*{suffix}")):
            if path.stem == name or path.stem.startswith(f"{name}."):
                return LocalWeights(path=path, card=CARDS.get(path.stem, WeightsCard()))
    return None


def missing_weights(name: str, cause: str) -> EnvironmentFault:
    """Make the error for missing weights, with both remedies."""
    return EnvironmentFault(
        f"no weights for the encoder '{name}': {cause}. Either put {name}.safetensors into a folder and set "
        "INSPECT_KD_WEIGHTS to it, or let this machine reach the model hub once (huggingface.co). "
        "`--model embedded` needs neither: its encoder comes with the package."
    )


def hub_is_reachable() -> bool:
    """True if the hub answers within a short time; its own client would retry for most of a minute."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception:
        # The client's errors share no documented base class.
        return False
    return True


@contextlib.contextmanager
def downloaded_only() -> Iterator[None]:
    """Within the block, no request goes to the hub: its client finds only files that were downloaded before."""
    from huggingface_hub import constants

    setting = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = setting


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, never a pipe or device. If its name is not UTF-8, Python reads it, since the library cannot."""
    from safetensors.torch import load, load_file

    open_plain_file(path, "weights file").close()
    tensors: dict[str, Tensor] = load_file(path) if str(path).isprintable() else load(path.read_bytes())
    return tensors


def load_state(path: Path) -> dict[str, Tensor]:
    """Load a state dict in float32, without executing code from the file."""
    import torch
    from safetensors import SafetensorError

    try:
        state = (
            read_tensors(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (FileNotFoundError, MissingFile):
        raise BadInput(f"{path}: no such weights file") from None
    except BadInput:
        raise
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise BadInput(f"{path}: not a readable weights file ({short_message(error)})") from error
    except Exception as error:
        # The restricted unpickler raises pickle's own errors for anything but plain tensors.
        raise BadInput(f"{path}: refused, it holds more than tensors ({short_message(error)})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # training programs save the weights beside their own state
    if isinstance(state, dict) and state and all(str(key).startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"{path}: expected a flat dictionary of tensors")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file as hex digits."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def digest_tensors(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict's keys and values."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key} {tuple(state[key].shape)} {state[key].dtype}\n".encode())
        digest.update(state[key].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def short_message(error: Exception) -> str:
    """Join the first two lines of an error: torch puts the reason on the second."""
    return " ".join(" ".join((str(error).strip() or type(error).__name__).splitlines()[:2]).split())[:240]
