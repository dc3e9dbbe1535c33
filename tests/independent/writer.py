#!/usr/bin/env python3
"""Seals blocks and objects as docs/FORMAT.md says, for the library to open.

    writer.py TASKS OUT

Each task names a LocalKms file, a record, and what to seal; OUT gets the same with `block` and `sealed` beside.
"""

import json
import os
import pathlib
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

import reader
from reader import BLOCK, DOUBLE, OBJECT_FRAME, OBJECT_MAGIC, be, expand, xor


def seal_frame(keys, kind, flags, object_, index, aad, plain):
    header, r = keys.header(kind, flags), os.urandom(24)
    commitment = keys.kcv[:16] if kind == BLOCK else b""
    aad = header + keys.account + object_ + be(index, 8) + aad
    sealed = AESGCM(keys.dek(keys.suite, kind, object_, index, r)).encrypt(r[12:24], plain, aad)
    if keys.suite == DOUBLE:
        info = keys.info(DOUBLE, kind, object_, index, r)
        masked = xor(sealed[-16:], expand(keys.outer_prk, b"SRT2" + info))
        cipher = ChaCha20Poly1305(expand(keys.outer_prk, b"SRD2" + info))
        covered = cipher.encrypt(r[12:24], sealed[:-16], aad + masked)
        sealed = covered[:-16] + masked + covered[-16:]
    return header + r + commitment + sealed


def seal_object(keys, object_, log2, parts, plain):
    size = 1 << log2
    header = OBJECT_MAGIC + bytes([1, keys.suite, log2, 0]) + be(keys.generation, 4) + keys.account + object_
    frames = max(1, -(-len(plain) // size))
    sealed = header + reader.object_mac(keys, header, parts)
    for i in range(frames):
        flags = 1 if i == frames - 1 else 0
        sealed += seal_frame(keys, OBJECT_FRAME, flags, object_, i, b"", plain[i * size : (i + 1) * size])
    return sealed


def main(tasks, out):
    written = []
    for task in json.loads(pathlib.Path(tasks).read_text(encoding="utf-8")):
        bytes_ = {name: bytes.fromhex(task[name]) for name in ("account", "record", "object", "aad", "plain")}
        kms = reader.LocalKms(task["file"].encode())
        custody = [task.get(name) for name in ("outer_kek", "second_kek")] + [task.get("custody", reader.ONE_KEK)]
        _, keys = reader.open_record(bytes_["record"], bytes_["account"], task["kek"], kms.unwrap, *custody)
        parts = [bytes.fromhex(part) for part in task["parts"]]
        block = seal_frame(keys, BLOCK, 0, bytes_["object"], task["index"], bytes_["aad"], bytes_["plain"])
        sealed = seal_object(keys, bytes_["object"], task["log2"], parts, bytes_["plain"])
        written.append(dict(task, block=block.hex(), sealed=sealed.hex()))
    pathlib.Path(out).write_text(json.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
