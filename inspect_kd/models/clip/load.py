"""Load a CLIP of open_clip by tag, file or folder, or build one around a timm network.

Unusual here: open_clip's pitfalls are errors: weights that silently stay random, QuickGELU mismatches that only warn, pickles.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inspect_kd import weights, zoo
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.models.base import WeightsSource

FOLDER, TIMM = "local-dir:", "timm:"
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
# Licence of the weights by the prefix of their open_clip tag; docs/licences.md gives the reasons.
LICENCE_OF_TAG = {
    "laion": "MIT (LAION)",
    "openai": "unclear (OpenAI CLIP)",
    "datacompdr": "research only (MobileCLIP)",
    "datacomp": "unclear (DataComp)",
    "dfn": "research only (DFN)",
    "metaclip": "CC-BY-NC-4.0 (MetaCLIP)",
    "webli": "Apache-2.0 (SigLIP)",
}
VOCABULARY = 49408
"""Vocabulary size of CLIP's own tokenizer, whose end token has the largest id."""
# Text tower of the stand-in for a CLIP: small, random and frozen. Prompts learned through it work as well as through pretrained weights.
STAND_IN_TEXT = {"context_length": 24, "vocab_size": VOCABULARY, "width": 256, "heads": 4, "layers": 2}
STAND_IN_WIDTH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedClip:
    model: Any
    source: WeightsSource
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_clip(model: str, pretrained: str | None, *, size: int, random: bool, licence: str | None) -> LoadedClip:
    """Load a frozen CLIP for images of one size."""
    if model.startswith(TIMM):
        return _build_around_timm(model.removeprefix(TIMM), size)
    if random:
        return _check_clip(
            _create(model, None, size), WeightsSource(name=model, licence="none", origin="random weights")
        )
    if model.startswith(FOLDER):
        path = _find_only_weights(Path(model.removeprefix(FOLDER)))
        return _check_clip(_create(model, path, size), _weights_source(model, path, licence or "unknown"))
    if not pretrained:
        raise UsageError(f"teacher.pretrained: {model} needs a tag or a file of weights, or `random: true` beside it")
    if Path(pretrained).suffix in SUFFIXES:
        path = zoo.expand_user(pretrained)
        # A file named <model>.<tag>.* holds the weights of that tag.
        tag = path.stem.removeprefix(f"{model}.")
        _refuse_other_activation(model, tag)
        return _check_clip(_create(model, path, size, tag), _weights_source(path.stem, path, licence or "unknown"))
    if licence:
        raise UsageError(
            "teacher.licence: the weights of a tag have their own licence; set this for a file or a folder only"
        )
    _refuse_other_activation(model, pretrained)
    path = _find_weights(model, pretrained)
    source = _weights_source(f"{model}.{pretrained}", path, _licence_of(pretrained))
    return _check_clip(_create(model, path, size, pretrained), source)


def _create(model: str, path: Path | None, size: int, tag: str | None = None) -> Any:
    """Build the model and load the weights ourselves: safely, and in float32, which open_clip needs to resize position embeddings."""
    import open_clip
    from open_clip.convert import convert_state_dict

    if model.startswith("hf-hub:"):
        # A recipe in another person's run must not make this machine download anything.
        raise UsageError(
            f"teacher.model: {model}: names of hub repositories are not downloaded; use a model and a tag, or {FOLDER}FOLDER"
        )
    tag_config = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    preprocess = {key: tag_config[key] for key in ("mean", "std") if key in tag_config}
    logging.disable(logging.WARNING)  # open_clip warns about random weights, but they are replaced below
    try:
        clip = open_clip.create_model(
            model, load_weights=False, pretrained_text=False, force_image_size=size, force_preprocess_cfg=preprocess
        )
    except Exception as error:
        # Unknown names and impossible sizes raise a dozen unrelated classes.
        raise UsageError(f"teacher.model: {model}: {weights.short_message(error)}") from error
    finally:
        logging.disable(logging.NOTSET)
    if path is None:
        return clip
    state = weights.load_state(path)
    try:
        state = convert_state_dict(clip, state)
        open_clip.model.resize_pos_embed(state, clip)
        open_clip.model.resize_text_pos_embed(state, clip)
        clip.load_state_dict(state)
    except Exception as error:
        raise BadInput(f"{path}: not the weights of {model} ({weights.short_message(error)})") from error
    return clip


def _check_clip(clip: Any, source: WeightsSource) -> LoadedClip:
    """Freeze a CLIP; refuse one whose text tower cannot learn prompts."""
    is_clip_text = getattr(clip, "attn_mask", None) is not None and getattr(clip, "vocab_size", 0) == VOCABULARY
    if not is_clip_text or clip.text_pool_type != "argmax":
        raise UsageError(
            f"teacher.model: {source.name} has no text tower of CLIP's own kind, so it cannot learn prompts"
        )
    preprocess = clip.visual.preprocess_cfg
    return LoadedClip(model=_freeze(clip), source=source, mean=tuple(preprocess["mean"]), std=tuple(preprocess["std"]))


def _build_around_timm(name: str, size: int) -> LoadedClip:
    """Build a stand-in for a CLIP: a pretrained timm network, and a frozen random text tower."""
    import open_clip
    import timm

    local = weights.find_local(name)
    if local is None:
        raise EnvironmentFault(
            f"no weights for '{name}': the stand-in teacher takes them from a local folder only. Put {name}.safetensors into one and "
            "set INSPECT_KD_WEIGHTS to it"
        )
    vision = {"timm_model_name": name, "timm_pool": "avg", "timm_proj": "linear", "image_size": size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(STAND_IN_WIDTH, vision, STAND_IN_TEXT)
    trunk = timm.create_model(name, num_classes=0, **local.card.build)
    missing, _ = trunk.load_state_dict(weights.load_state(local.path), strict=False)
    if missing:
        raise BadInput(
            f"{local.path}: not the weights of '{name}': {len(missing)} tensors are missing, first {missing[0]}"
        )
    model.visual.trunk = trunk
    source = _weights_source(name, local.path, local.card.licence)
    return LoadedClip(model=_freeze(model), source=source, mean=local.card.mean, std=local.card.std)


def _freeze(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False).eval()


def _refuse_other_activation(model: str, tag: str) -> None:
    """Refuse weights trained with another activation: open_clip only warns, and all features would be wrong."""
    import open_clip

    tag_config = open_clip.get_pretrained_cfg(model, tag)
    model_config = open_clip.get_model_config(model)
    if not tag_config or model_config is None:
        return
    if bool(tag_config.get("quick_gelu")) != bool(model_config.get("quick_gelu")):
        matching_model = model.removesuffix("-quickgelu") if model_config.get("quick_gelu") else f"{model}-quickgelu"
        raise UsageError(
            f"teacher.pretrained: the weights '{tag}' belong to {matching_model}, not to {model}, which has another activation"
        )


def _find_weights(model: str, pretrained: str) -> Path:
    """Find the tag's weights: in the local folder, or from the hub."""
    import open_clip

    local = weights.find_local(f"{model}.{pretrained}")
    if local is not None:
        return local.path
    tag_config = open_clip.get_pretrained_cfg(model, pretrained)
    if not tag_config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise UsageError(f"teacher.pretrained: {model} has no weights called '{pretrained}'; available: {tags}")
    if (downloaded := _find_downloaded(tag_config)) is not None:
        return downloaded
    if not weights.hub_is_reachable():
        raise EnvironmentFault(
            f"no weights for {model} '{pretrained}': the hub cannot be reached. Put {model}.{pretrained}.safetensors into a "
            "folder and set INSPECT_KD_WEIGHTS to it. `--model clip_ada_local` needs the encoder's weights only."
        )
    try:
        return Path(open_clip.download_pretrained(tag_config))
    except Exception as error:
        raise EnvironmentFault(f"the hub failed to deliver {model} '{pretrained}' ({type(error).__name__})") from error


def _find_downloaded(tag: Mapping[str, Any]) -> Path | None:
    """Find a tag's weights among the files that were downloaded from the hub before, in open_clip's order of preference."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, name = str(tag.get("hf_hub", "")).rpartition("/")
    name = name or "open_clip_pytorch_model.bin"
    safe = "open_clip_model.safetensors" if name == "open_clip_pytorch_model.bin" else f"{Path(name).stem}.safetensors"
    found = (try_to_load_from_cache(repository, file) for file in (safe, name) if repository)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def _find_only_weights(folder: Path) -> Path:
    if not (folder / "open_clip_config.json").is_file():
        raise BadInput(f"{folder}: open_clip_config.json is missing; a CLIP's folder holds it beside the weights")
    files = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES]
    if len(files) != 1:
        raise BadInput(f"{folder}: expected one file of weights, found {len(files)}")
    return files[0]


def _weights_source(name: str, path: Path, licence: str) -> WeightsSource:
    return WeightsSource(name=name, licence=licence, origin=f"file {path.name}", sha256=weights.sha256(path))


def _licence_of(tag: str) -> str:
    return next((licence for prefix, licence in LICENCE_OF_TAG.items() if tag.startswith(prefix)), "unknown")
