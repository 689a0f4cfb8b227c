"""The Studio as a hosted app: everything is in `inspect_kd/apps/studio/`, this file only starts it.

Environment variables: INSPECT_KD_ARTIFACTS (folder of .onnx files, default ./artifacts), INSPECT_KD_AUTH (NAME:PASSWORD),
INSPECT_KD_STORE (folder for marks and calibrations, default ./store), PORT (default 7860), and INSPECT_KD_ALLOW_HOST (public
names of this host, separated by spaces), whose default is the SPACE_HOST that a Hugging Face Space sets.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from inspect_kd.cli import main

artifacts = sorted(Path(os.environ.get("INSPECT_KD_ARTIFACTS", "artifacts")).glob("*.onnx"))
address = ["--host", "0.0.0.0", "--port", os.environ.get("PORT", "7860")]
# Without a password, --open is needed, and every machine that can reach this host over the network can use the Studio.
open_option = [] if os.environ.get("INSPECT_KD_AUTH") else ["--open"]
store = ["--store", os.environ.get("INSPECT_KD_STORE", "store")]
if name := os.environ.get("SPACE_HOST"):
    os.environ.setdefault("INSPECT_KD_ALLOW_HOST", name)
# A hosted Studio only inspects: training needs torch.
sys.argv = ["inspect-kd", "ui", *map(str, artifacts), *address, *open_option, *store, "--no-train"]
main()
