#!/usr/bin/env python3
"""The third implementation of sealing, beside the crate's two engines (goal R2): OpenSSL's HMAC, AES-256-GCM and
ChaCha20-Poly1305.

Written from docs/FORMAT.md, sections 2, 4 and 5; shares nothing with the crate. From its standard input, until that ends:

    length4 || account16 secret32 suite1 outer_secret32 generation4 kind1 last1 object16 index8 R24 aad_len4 plain_len4 aad plain frame

with `length` of all that follows it, in big-endian as everything. `frame` is what the crate made of the rest: it has to be
what is made here, and to open here. The last line of the output is `N cases, N differences`.
"""

import hashlib
import hmac
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

CASE = struct.Struct(">16s32sB32s4sBB16s8s24sII")
DOUBLE = 2
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
    (account, secret, suite, outer_secret, generation, kind, last, object_, index, r, aad_len, plain_len) = (
        CASE.unpack_from(case)
    )
    plain_at = CASE.size + aad_len
    frame_at = plain_at + plain_len
    aad, plain, frame = case[CASE.size : plain_at], case[plain_at:frame_at], case[frame_at:]

    prk, outer_prk, commitment = keys(account, secret, suite, outer_secret, generation)
    head = bytes((1, suite, kind, last)) + generation
    info = bytes((suite, kind)) + object_ + index + r
    bound = head + account + object_ + index + aad
    head += r
    if kind == BLOCK:
        head += commitment
    inner = AESGCM(expand(prk, b"SRD1" + info))
    sealed = inner.encrypt(r[12:], plain, bound)
    if suite == DOUBLE:
        outer = ChaCha20Poly1305(expand(outer_prk, b"SRD2" + info))
        masked = xor(sealed[-16:], expand(outer_prk, b"SRT2" + info))
        covered = outer.encrypt(r[12:], sealed[:-16], bound + masked)
        sealed = covered[:-16] + masked + covered[-16:]
    if head + sealed != frame:
        return "sealed to something else"
    sealed = frame[len(head) :]
    try:
        if suite == DOUBLE:
            masked = sealed[-32:-16]
            uncovered = outer.decrypt(r[12:], sealed[:-32] + sealed[-16:], bound + masked)
            sealed = uncovered + xor(masked, expand(outer_prk, b"SRT2" + info))
        return "" if inner.decrypt(r[12:], sealed, bound) == plain else "opened to something else"
    except InvalidTag:
        return "did not open"


def keys(account, secret, suite, outer_secret, generation, known={}):
    """Both PRKs, and the commitment. Remembered, as a run of cases is of one account."""
    name = account + secret + bytes((suite,)) + outer_secret + generation
    if name not in known:
        known.clear()
        prk = extract(account, generation, b"\x01", secret)
        outer_prk = extract(account, generation, b"\x02", outer_secret)
        kcv = expand(prk, b"SRK1")
        if suite == DOUBLE:
            kcv = hashlib.sha256(b"strongroom/v1 both" + kcv + expand(outer_prk, b"SRK1")).digest()
        known[name] = prk, outer_prk, kcv[:16]
    return known[name]


def extract(account, generation, family, secret):
    """HKDF-Extract."""
    salt = hashlib.sha256(b"strongroom/v1" + account + generation + family).digest()
    return hmac.digest(salt, secret, "sha256")


def xor(tag, pad):
    return bytes(a ^ b for a, b in zip(tag, pad))


def expand(prk, info):
    """The first 32 bytes of HKDF-Expand."""
    return hmac.digest(prk, info + b"\x01", "sha256")


main()
