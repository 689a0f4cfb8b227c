"""Signatures and keys."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from tests.fuzzing.mutate import mutate_bytes, mutate_tree, to_hostile_json
from tests.fuzzing.targets.target import Target


class Signatures(Target):
    """Signatures and public keys; a changed artifact must never be accepted."""

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        from inspect_kd import signing

        self.artifact, private = sandbox / "a.onnx", sandbox / "k.pem"
        self.content = b"an artifact" * 10
        self.artifact.write_bytes(self.content)
        self.public = sandbox / "k.pub"
        if not private.exists():
            signing.make_keys(private, None)
        self.key = self.public.read_bytes()
        self.seed = json.loads(signing.sign(self.artifact, private).read_bytes())

    def make(self, rng: Random) -> bytes:
        kind = rng.randrange(4)
        if kind == 0:
            return b"artifact\n" + mutate_bytes(rng, self.content, rounds=1)
        if kind == 1:
            return b"key\n" + mutate_bytes(rng, self.key, rounds=3)
        return b"signature\n" + to_hostile_json(rng, mutate_tree(rng, dict(self.seed)))

    def feed(self, data: bytes) -> None:
        from inspect_kd.signing import load_signers, signature_path, verify

        kind, _, content = data.partition(b"\n")
        files = {b"artifact": self.content, b"key": self.key, b"signature": json.dumps(self.seed).encode()}
        files[kind] = content
        self.artifact.write_bytes(files[b"artifact"])
        self.public.write_bytes(files[b"key"])
        signature_path(self.artifact).write_bytes(files[b"signature"])
        _, statement = verify(self.artifact, load_signers(self.public))
        assert files[b"artifact"] == self.content, "a changed artifact was accepted"
        assert statement.created == self.seed["statement"]["created"], "a changed statement was accepted"
