"""AES-CCM of the node and of `cryptography` are the same function, on the real VM."""

import os
import random
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from simpang.rig.interpreter import find_tool

ROOT = Path(__file__).resolve().parents[2]
CASES = 1000
SCRIPT = """
from binascii import hexlify, unhexlify
from simpang_protocol.ccm import Ccm, _PORTABLE
assert _PORTABLE
bad = 0
for line in open("cases.txt"):
    mic, key, nonce, aad, plain, sealed = [unhexlify(part) for part in line.strip().split(",")]
    ccm = Ccm(key, mic[0])
    damaged = bytearray(sealed)
    damaged[len(plain) % len(sealed)] ^= 1
    bad += ccm.seal(nonce, plain, aad) != sealed
    bad += ccm.open(nonce, sealed, aad) != plain
    bad += ccm.open(nonce, bytes(damaged), aad) is not None
print("bad", bad)
"""


def test_a_thousand_random_cases(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    lines = []
    for _ in range(CASES):
        mic = chance.choice((4, 8))
        key, nonce = chance.randbytes(16), chance.randbytes(13)
        aad, plain = chance.randbytes(chance.randrange(30)), chance.randbytes(chance.randrange(240))
        sealed = AESCCM(key, tag_length=mic).encrypt(nonce, plain, aad)
        parts = (bytes((mic,)), key, nonce, aad, plain, sealed)
        lines.append(",".join(part.hex() for part in parts))
    (tmp_path / "cases.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "check.py").write_text(SCRIPT)
    result = subprocess.run(
        [find_tool("micropython"), "-X", "heapsize=112wk", "check.py"],
        env=dict(os.environ, MICROPYPATH=f"{ROOT / 'protocol'}:.frozen"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.strip() == "bad 0", (seed, result.stdout, result.stderr)
