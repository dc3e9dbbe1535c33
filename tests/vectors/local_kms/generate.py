#!/usr/bin/env python3
"""Makes kms.json and wrapped.hex beside this file, from the document of the LocalKms format alone.

Needs the package `cryptography`. Everything is fixed: it reproduces the same bytes each time.
"""
import hashlib
import json
import pathlib

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

here = pathlib.Path(__file__).parent
kek = bytes(range(0x40, 0x60))
version = {"id": "f0" * 16, "enabled": True, "created_at": 1790000000, "material": kek.hex()}
key = {
    "name": "orders",
    "enabled": True,
    "purge_protection": True,
    "retention_seconds": 7776000,
    "deleted_at": None,
    "versions": [version],
}
body = json.dumps({"id": "0f" * 16, "keys": [key]}, separators=(",", ":")).encode()
head = {"format": "strongroom-local-kms", "version": 1, "sha256": hashlib.sha256(body).hexdigest()}
(here / "kms.json").write_bytes(json.dumps(head, separators=(",", ":")).encode() + b"\n" + body + b"\n")

account, generation, suite, role, share = b"\x01" * 16, (1).to_bytes(4, "big"), b"\x01", b"\x01", b"\x00"
context = b"strongroom/v1 wrap" + account + generation + suite + role + share
secret = b"\x07" * 56
nonce = bytes(range(12))
(here / "wrapped.hex").write_text((nonce + AESGCM(kek).encrypt(nonce, secret, context)).hex() + "\n")
