"""What several files of tests are built from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TINY_CLIP: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 64, "layers": 4, "head_width": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def clip_folder(folder: Path, *, weights: bool = True) -> str:
    """A tiny CLIP as open_clip saves one; the name of the model in it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {}}))
    if weights:
        torch.manual_seed(0)
        state = open_clip.CLIP(**TINY_CLIP).state_dict()
        save_file({key: value.contiguous() for key, value in state.items()}, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
