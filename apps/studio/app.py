"""The Studio as a hosted app: everything is in `inspect_kd/apps/studio/`, this file only opens the door.

Set by the host: INSPECT_KD_ARTIFACTS (folder of .onnx files, default ./artifacts), INSPECT_KD_AUTH (NAME:PASSWORD),
INSPECT_KD_STORE, PORT, INSPECT_KD_ALLOW_HOST (public names, with blanks between them; a Space says its own as SPACE_HOST).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from inspect_kd.cli import main

artifacts = sorted(Path(os.environ.get("INSPECT_KD_ARTIFACTS", "artifacts")).glob("*.onnx"))
door = ["--host", "0.0.0.0", "--port", os.environ.get("PORT", "7860")]
# A container's network is its host's business: without a password it says so on purpose.
allowed = [] if os.environ.get("INSPECT_KD_AUTH") else ["--open"]
store = ["--store", os.environ.get("INSPECT_KD_STORE", "store")]
if name := os.environ.get("SPACE_HOST"):
    os.environ.setdefault("INSPECT_KD_ALLOW_HOST", name)
# Whoever comes to a hosted Studio inspects parts; training takes torch, and a machine of one's own.
sys.argv = ["inspect-kd", "ui", *map(str, artifacts), *door, *allowed, *store, "--no-train"]
main()
