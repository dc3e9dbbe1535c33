#!/usr/bin/env python3
"""The third implementation of sealing, beside the crate's two engines (goal R2): OpenSSL's HMAC and AES-256-GCM.

Written from docs/FORMAT.md, sections 2, 4 and 5; shares nothing with the crate. From its standard input, until that ends:

    length4 || account16 secret32 generation4 kind1 last1 object16 index8 R24 aad_len4 plain_len4 aad plain frame

with `length` of all that follows it, in big-endian as everything. `frame` is what the crate made of the rest: it has to be
what is made here, and to open here. The last line of the output is `N cases, N differences`.
"""

import hashlib
import hmac
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CASE = struct.Struct(">16s32s4sBB16s8s24sII")
SUITE = 1
BLOCK = 1
# Differences that are described; the rest is only counted.
SHOWN = 5


def main():
    cases = differences = 0
    take = sys.stdin.buffer.read
    while length := take(4):
        case = take(int.from_bytes(length, "big"))
        wrong = check(case)
        cases += 1
        if wrong:
            differences += 1
            if differences <= SHOWN:
                print(f"case {cases}: {wrong}: {case[: CASE.size].hex()}")
    print(f"{cases} cases, {differences} differences")


def check(case):
    """Returns what is different, or nothing."""
    account, secret, generation, kind, last, object_, index, r, aad_len, plain_len = CASE.unpack_from(case)
    plain_at = CASE.size + aad_len
    frame_at = plain_at + plain_len
    aad, plain, frame = case[CASE.size : plain_at], case[plain_at:frame_at], case[frame_at:]

    prk, kcv = keys(account, secret, generation)
    head = bytes((1, SUITE, kind, last)) + generation
    dek = expand(prk, b"SRD1" + bytes((SUITE, kind)) + object_ + index + r)
    bound = head + account + object_ + index + aad
    head += r
    if kind == BLOCK:
        head += kcv[:16]
    aead = AESGCM(dek)
    if head + aead.encrypt(r[12:], plain, bound) != frame:
        return "sealed to something else"
    try:
        return "" if aead.decrypt(r[12:], frame[len(head) :], bound) == plain else "opened to something else"
    except InvalidTag:
        return "did not open"


def keys(account, secret, generation, known={}):
    """PRK and KCV. Remembered, as a run of cases is of one account."""
    name = account + secret + generation
    if name not in known:
        known.clear()
        salt = hashlib.sha256(b"strongroom/v1" + account + generation + b"\x01").digest()
        prk = hmac.digest(salt, secret, "sha256")
        known[name] = prk, expand(prk, b"SRK1")
    return known[name]


def expand(prk, info):
    """The first 32 bytes of HKDF-Expand."""
    return hmac.digest(prk, info + b"\x01", "sha256")


main()
