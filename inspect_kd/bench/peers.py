"""anomalib's models in a comparison: their own networks, losses and optimisers on our images, splits and encoder weights.

A peer trains for its own number of epochs or for a time limit, whichever ends first. anomalib's early stopping is not used,
because it reads test labels. Peers without available weights are still timed, with random ones.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from inspect_kd import weights
from inspect_kd.bench.cost import count_gflop, export_file
from inspect_kd.bench.entries import SIZE, Entry
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.datasets.view import View
from inspect_kd.errors import EnvironmentFault
from inspect_kd.evaluate import measure, measures_to_json, predict_samples
from inspect_kd.export.graph import TorchModel
from inspect_kd.models.base import ModelOutput
from inspect_kd.models.encoders import drop_unused_stages, weights_available
from inspect_kd.types import Progress, Split

LAYERS = {
    "mobilenetv2_100": ["blocks.1", "blocks.2", "blocks.4"],
    "resnet18": ["layer1", "layer2", "layer3"],
}
"""Features at strides 4, 8 and 16, as timm names them."""
WITHOUT_FINEST = {"Patchcore", "Supersimplenet"}
"""Models that use strides 8 and 16 only, by default."""
EPOCHS = {"Stfpm": 100, "Fastflow": 500, "Supersimplenet": 300, "ReverseDistillation": 200, "EfficientAd": 100}
"""Number of epochs in anomalib's examples or in the papers."""
BATCH = 8
MAX_BANK_PATCHES = 3_000
"""Largest number of patches that PatchCore keeps; choosing each takes a pass over all patches, a quarter of a second on a CPU."""


class PeerGraph(nn.Module):
    """A peer that takes uint8 images and includes its normalisation, like our artifacts."""

    def __init__(self, peer: nn.Module) -> None:
        super().__init__()
        self.peer = peer

    def weights_side(self, size: int) -> None:
        """Return None: peers have no zones."""

    def forward(self, images_NHW3: Tensor) -> tuple[Tensor, Tensor]:
        prediction: Any = self.peer(images_NHW3.permute(0, 3, 1, 2).float() / 255)
        heatmap = prediction.anomaly_map
        heatmap_N1HW = heatmap if heatmap.dim() == 4 else heatmap.unsqueeze(1)
        score = prediction.pred_score if prediction.pred_score is not None else heatmap.flatten(1).amax(dim=1)
        if heatmap_N1HW.shape[-1] != SIZE:
            heatmap_N1HW = nn.functional.interpolate(heatmap_N1HW, size=(SIZE, SIZE), mode="bilinear")
        output = ModelOutput(score_B=score.flatten(), heatmap_B1HW=heatmap_N1HW)
        return output.heatmap_B1HW, output.score_B


def run_entry(entry: Entry, data: DataSet, folder: Path, minutes: float, progress: Progress) -> dict[str, Any]:
    torch.manual_seed(0)
    train = data.select(Split.TRAIN)
    try:
        module = build(entry, coreset=min(0.1, MAX_BANK_PATCHES / (len(train) * (SIZE // 8) ** 2)))
        if entry.model == "EfficientAd":
            # By default EfficientAD downloads its ImageNet subset into the working directory.
            module.imagenet_dir = folder.parents[1] / "imagenette"
        began = time.monotonic()
        note = fit(module, entry, data, minutes)
        result: dict[str, Any] = {"note": note, "train_seconds": round(time.monotonic() - began, 1)}
        graph = PeerGraph(module.cpu().eval())
        predictions = predict_samples(
            TorchModel(graph, SIZE),  # type: ignore[arg-type]
            data.select(Split.TEST),
            Presentations.plain(View(size=SIZE)),
        )
        result["metrics"] = measures_to_json(measure(predictions))
    except Exception as error:
        # Any error is the result of this peer; its cost is still measured.
        result = {"failure": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        try:
            _measure_cost(PeerGraph(build(entry, random=True).eval()), folder, result)
            result["failure"] += "; timed with random weights"
        except Exception as second_error:
            result["failure"] += f"; not timed either ({type(second_error).__name__})"
        return result
    try:
        _measure_cost(graph, folder, result)
    except Exception as error:
        result["note"] += f" not exported: {type(error).__name__}"
    return result


def _measure_cost(graph: PeerGraph, folder: Path, result: dict[str, Any]) -> None:
    result["gflop"] = count_gflop(graph, SIZE)
    graph.requires_grad_(False)
    try:
        export_file(graph, folder / "model.onnx", SIZE)
    except Exception:
        # Some peers can be exported for one size of batch only.
        export_file(graph, folder / "model.onnx", SIZE, dynamic=False)


def build(entry: Entry, *, random: bool = False, coreset: float = 0.1) -> Any:
    """Build one of anomalib's modules for our images: 256x256, normalised as its weights require."""
    from anomalib import models
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    local = weights.find_local(entry.encoder) if entry.encoder else None
    card = local.card if local else weights.WeightsCard()
    size = (252, 252) if entry.model == "Dinomaly" else (SIZE, SIZE)
    options = dict(entry.options)
    if entry.encoder is not None:
        options["backbone"] = entry.encoder
        layers = LAYERS[entry.encoder]
        if entry.model == "Fastflow":
            # FastFlow accepts three backbones by name and takes their features by index: pass ours under one of these names.
            options["backbone"] = "resnet18"
        else:
            options["layers"] = layers[1:] if entry.model in WITHOUT_FINEST else layers
    if entry.model == "Patchcore":
        options["coreset_sampling_ratio"] = coreset
    steps: list[Any] = [Resize(size, antialias=True)]
    if entry.model != "EfficientAd":  # normalises inside and refuses a second normalisation
        steps.append(Normalize(card.mean, card.std))
    with _patched_timm(entry.encoder, random):
        module = getattr(models, entry.model)(
            pre_processor=PreProcessor(transform=Compose(steps)),
            post_processor=False,
            evaluator=False,
            visualizer=False,
            **options,
        )
    if random and entry.model == "Padim":
        # These replace the statistics that a training would collect at each of 64x64 positions.
        features = module.model.n_features
        module.model.gaussian.mean = torch.zeros(features, 64 * 64)
        module.model.gaussian.inv_covariance = torch.eye(features).repeat(64 * 64, 1, 1)
    return module


@contextlib.contextmanager
def _patched_timm(encoder: str | None, random: bool) -> Iterator[None]:
    """Make anomalib load the pretrained weights of our encoders, or random ones."""
    import timm

    with patch("timm.create_model", partial(_create, timm.create_model, encoder, random)):
        yield


def _create(
    create: Callable[..., nn.Module], encoder: str | None, random: bool, requested: str, **options: Any
) -> nn.Module:
    """Replace timm's `create`: build `encoder`, or what anomalib requested, with local, downloaded or random weights."""
    name = encoder or requested
    local = weights.find_local(name)
    if options.get("pretrained") and not random:
        if local is None and not weights_available(name):
            raise EnvironmentFault(f"no weights for '{name}': neither in INSPECT_KD_WEIGHTS nor from the hub")
        if local is not None:
            model = create(name, **(options | local.card.build | {"pretrained": False}))
            missing, _ = model.load_state_dict(weights.load_state(local.path), strict=False)
            assert not missing, missing[:1]
        else:
            model = create(name, **options)
    else:
        build = local.card.build if local else {}
        model = create(name, **(options | build | {"pretrained": False}))
    if options.get("features_only"):
        drop_unused_stages(model)  # as in our encoders: stages that are not read cost nothing
    return model


def fit(module: Any, entry: Entry, data: DataSet, minutes: float) -> str:
    """Train with the settings of the peer's module.

    Returns a remark, which may be empty: that the training was stopped early, or the size of PatchCore's memory.
    """
    from lightning.pytorch import Trainer, seed_everything

    seed_everything(0, workers=True, verbose=False)
    arguments: dict[str, Any] = module.trainer_arguments
    epochs = arguments.pop("max_epochs", None) or EPOCHS.get(entry.model, 100)
    trainer = Trainer(
        **({"devices": 1} | arguments),
        max_epochs=epochs,
        max_time=None if epochs == 1 else timedelta(minutes=minutes),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=_data_module(entry, data))
    if entry.model == "Patchcore":
        share = module.coreset_sampling_ratio
        return f"bank of {len(module.model.memory_bank):,} patches, {share:.1%} of all"
    epochs_done = trainer.current_epoch
    return "" if epochs_done >= epochs else f"stopped after {epochs_done} of {epochs} epochs, {minutes:g} min"


def _data_module(entry: Entry, data: DataSet) -> Any:
    """Return our images as a Lightning data module; only EfficientAD gets validation images, by which it scales its maps."""
    from lightning.pytorch import LightningDataModule

    batch = 1 if entry.model == "EfficientAd" else BATCH

    def loader(split: Split) -> Any:
        store = ImageStore(data.select(split), Presentations.plain(View(size=SIZE)), budget_mb=4096)
        indices: Any = range(len(store))
        return DataLoader(
            indices, batch_size=batch, shuffle=split is Split.TRAIN, collate_fn=partial(_stack_batch, store)
        )

    module: Any = LightningDataModule()
    module.train_batch_size = batch  # EfficientAD checks that it is 1
    module.train_dataloader = partial(loader, Split.TRAIN)
    if entry.model == "EfficientAd":
        module.val_dataloader = partial(loader, Split.VALIDATION)
    return module


def _stack_batch(store: ImageStore, indices: list[int]) -> Any:
    from anomalib.data import ImageBatch

    images_N3HW = torch.from_numpy(np.stack([store[i] for i in indices])).permute(0, 3, 1, 2).float() / 255
    count = len(indices)
    return ImageBatch(
        image=images_N3HW,
        gt_label=torch.zeros(count, dtype=torch.bool),
        gt_mask=torch.zeros(count, SIZE, SIZE, dtype=torch.bool),
    )
