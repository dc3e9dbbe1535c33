#!/usr/bin/env python3
"""An independent reader of strongroom's formats, written from docs/FORMAT.md alone.

    reader.py DIRECTORY

reads every *.json in DIRECTORY (frozen vectors, or such as a test has just made), opens what is said to be valid,
compares it with what it is said to hold, and demands that everything else is refused. The last line is
`N passed, N failed`; the exit status is 0 only if something was read and nothing failed.

Section numbers below are those of docs/FORMAT.md. Deliberately missing: constant time, locked memory, speed, and the
kinds of errors. A reader in production needs them.
"""

import hashlib
import hmac
import json
import pathlib
import re
import sys
import unicodedata

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

MAX_BLOCK = 16 * 1024 * 1024
MAX_AAD = 4096
MAX_PLAIN_LEN = 1 << 60
MAX_RECORD = 1 << 20
MAX_PROVIDER = 64
MAX_URI = 1024
MAX_VERSION = 256
MAX_ALGORITHM = 64
MAX_WRAPPED = 4096
MAX_TIME = 253402300799
MAX_SEALS = 1 << 48
MAX_BYTES = 1 << 60
MAX_AGE_DAYS = 3650
MAX_FILE = 1 << 20
MAX_HEAD = 256
MAX_KEYS = 1000
MAX_VERSIONS = 1000
MAX_NAME = 128
MAX_CUSTOMERS = 64
MAX_MESSAGE = 512
MAX_CURSOR = 4096
MAX_OLDER = 256
MAX_SEALED = 256
MAX_OBJECTS = 1000000
MAX_SEGMENTS = 4096
MAX_SEGMENT_ENTRIES = 1000
MAX_SEGMENT_LEN = 1 << 20
MAX_PATH = 4096
MAX_TAG = 1024
MAX_STAND_IN = 604800
DAY = 86400

SINGLE = 1
DOUBLE = 2
INNER = 1
OUTER = 2
BLOCK = 1
OBJECT_FRAME = 2
ROLE_AEK = 1
ROLE_SECOND_AEK = 2
ROLE_PREFLIGHT = 255
ONE_KEK = 1
FAILOVER = 2
JOINT = 3


class Refused(Exception):
    """What the document does not say is accepted."""


def require(condition, what):
    if not condition:
        raise Refused(what)


# Section 1: conventions


def be(number, length):
    return number.to_bytes(length, "big")


def sha256(data):
    return hashlib.sha256(data).digest()


def hmac256(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def same(left, right, what):
    require(hmac.compare_digest(left, right), what)


class Bytes:
    """`take`, `text` and `string` of section 11."""

    def __init__(self, data):
        self.data = data

    def take(self, count):
        require(len(self.data) >= count, "cut short")
        head, self.data = self.data[:count], self.data[count:]
        return head

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def string(self, limit):
        length = self.number(2)
        require(1 <= length <= limit, "length of a byte string")
        return self.take(length)

    def text(self, limit):
        return clean_text(self.string(limit))

    def time(self):
        seconds = self.number(8)
        require(seconds <= MAX_TIME, "time")
        return seconds

    def flag(self):
        value = self.number(1)
        require(value <= 1, "flag")
        return value == 1

    def end(self):
        require(not self.data, "bytes after the end")


def clean_text(data):
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise Refused("UTF-8") from error
    require(not any(unicodedata.category(c) == "Cc" for c in text), "control character")
    return text


# Section 2: keys


def expand(prk, info):
    return hmac256(prk, info + b"\x01")


class Keys:
    """Of one secret, or of two in suite 2. Under joint custody the first one is two shares, joined."""

    def __init__(self, account, generation, secret, outer_secret=None):
        assert len(account) == 16 and len(secret) in (32, 64) and 1 <= generation < 1 << 32
        self.account = account
        self.generation = generation
        self.inner_len = len(secret)
        self.prk = self.extract(INNER, secret)
        self.kcvs = [expand(self.prk, b"SRK1")]
        self.kcv = self.kcvs[0]
        self.suite = SINGLE
        self.overhead = 0
        if outer_secret is not None:
            assert len(outer_secret) == 32
            self.outer_prk = self.extract(OUTER, outer_secret)
            self.kcvs.append(expand(self.outer_prk, b"SRK1"))
            self.kcv = sha256(b"strongroom/v1 both" + self.kcvs[0] + self.kcvs[1])
            self.suite = DOUBLE
            self.overhead = 16

    def extract(self, family, secret):
        salt = sha256(b"strongroom/v1" + self.account + be(self.generation, 4) + be(family, 1))
        return hmac256(salt, secret)

    def dek(self, suite, kind, object_, index, r):
        return expand(self.prk, b"SRD1" + self.info(suite, kind, object_, index, r))

    def info(self, suite, kind, object_, index, r):
        return be(suite, 1) + be(kind, 1) + object_ + be(index, 8) + r

    def mac(self, label, name, data):
        mac = hmac256(expand(self.prk, label), name + b"\x00" + data)
        if self.suite == DOUBLE:
            mac = hmac256(expand(self.outer_prk, label), name + b"\x00" + data + mac)
        return mac

    def header(self, kind, flags):
        return bytes([1, self.suite, kind, flags]) + be(self.generation, 4)


def aes_open(key, nonce, aad, sealed):
    require(len(sealed) >= 16, "cut short")
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag as error:
        raise Refused("tag") from error


def xor(tag, pad):
    return bytes(a ^ b for a, b in zip(tag, pad))


def open_layers(keys, kind, object_, index, r, aad, sealed):
    info = keys.info(keys.suite, kind, object_, index, r)
    if keys.suite == DOUBLE:
        require(len(sealed) >= 32, "cut short")
        masked = sealed[-32:-16]
        cipher = ChaCha20Poly1305(expand(keys.outer_prk, b"SRD2" + info))
        try:
            inner = cipher.decrypt(r[12:24], sealed[:-32] + sealed[-16:], aad + masked)
        except InvalidTag as error:
            raise Refused("outer tag") from error
        sealed = inner + xor(masked, expand(keys.outer_prk, b"SRT2" + info))
    return aes_open(expand(keys.prk, b"SRD1" + info), r[12:24], aad, sealed)


# Section 3: what a KMS wraps


def wrap_context(account, generation, role=ROLE_AEK, suite=SINGLE, share=0):
    return b"strongroom/v1 wrap" + account + be(generation, 4) + bytes([suite, role, share])


def wrap_names(account, generation, role=ROLE_AEK, suite=SINGLE, share=0):
    return {
        "strongroom-account": account.hex(),
        "strongroom-generation": str(generation),
        "strongroom-suite": str(suite),
        "strongroom-role": str(role),
        "strongroom-share": str(share),
    }


def wrap_input(account, generation, secret, role=ROLE_AEK, suite=SINGLE, share=0):
    return bytes([1, suite, role, share]) + be(generation, 4) + account + secret


def unwrapped_secret(plain, account, generation, role=ROLE_AEK, suite=SINGLE, share=0):
    require(len(plain) == 56, "length of what was unwrapped")
    same(plain[:24], wrap_input(account, generation, b"", role, suite, share), "wrapped for something else")
    return plain[24:]


# Section 4: block


def open_block(keys, object_, index, aad, frame):
    least = 64 + keys.overhead
    require(least <= len(frame) <= least + MAX_BLOCK and len(aad) <= MAX_AAD, "length of a block")
    header, r, commitment = frame[:8], frame[8:32], frame[32:48]
    require(header == keys.header(BLOCK, 0), "header")
    same(commitment, keys.kcv[:16], "another AEK")
    aad = header + keys.account + object_ + be(index, 8) + aad
    return open_layers(keys, BLOCK, object_, index, r, aad, frame[48:])


def attach(head, ciphertext):
    require(len(head) in (64, 80), "length of a detached head")
    return head[:48] + ciphertext + head[48:]


def open_object_frame(keys, object_, index, last, frame):
    least = 48 + keys.overhead
    require(least <= len(frame) <= least + MAX_BLOCK, "length of a frame")
    header, r = frame[:8], frame[8:32]
    require(header == keys.header(OBJECT_FRAME, 1 if last else 0), "header of a frame")
    aad = header + keys.account + object_ + be(index, 8)
    return open_layers(keys, OBJECT_FRAME, object_, index, r, aad, frame[32:])


# Section 5: sealed object

OBJECT_MAGIC = b"\x89SRO\r\n\x1a\n"


def context_digest(parts):
    return sha256(b"".join(be(len(part), 8) + part for part in parts))


def object_mac(keys, header, parts):
    return keys.mac(b"SRH1", b"object header", header + context_digest(parts))


def open_object(keys, parts, data):
    require(len(data) >= 80, "cut short")
    header, mac, body = data[:48], data[48:80], data[80:]
    b = header[10]
    require(header[:12] == OBJECT_MAGIC + bytes([1, keys.suite, b, 0]) and 12 <= b <= 24, "header of an object")
    require(header[12:32] == be(keys.generation, 4) + keys.account, "another account or generation")
    same(object_mac(keys, header, parts), mac, "MAC of an object's header")
    over = 48 + keys.overhead
    full = (1 << b) + over
    frames = max(1, -(-len(body) // full))
    last = len(body) - (frames - 1) * full
    require(last > over or (frames == 1 and last == over), "length of an object")
    require((frames - 1 << b) + last - over <= MAX_PLAIN_LEN, "plain length of an object")
    plain = [
        open_object_frame(keys, header[32:48], i, i == frames - 1, body[i * full : (i + 1) * full])
        for i in range(frames)
    ]
    return b"".join(plain)


# Section 5: manifest of a takeover


def utf8(data):
    try:
        return data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise Refused("UTF-8") from error


def parse_root(data):
    take = Bytes(data)
    require(take.number(1) == 1, "version")
    root = {"takeover": take.take(16), "changes": take.number(8), "state": take.number(1)}
    require(root["changes"] != 0, "changes")
    require(root["state"] in (1, 2, 3), "state")
    root["segments"] = take.number(4)
    require(root["segments"] <= MAX_SEGMENTS, "segments")
    root["objects"] = take.number(8)
    require(root["objects"] <= MAX_OBJECTS, "objects")
    root["bytes"] = take.number(8)
    take.end()
    return root


def parse_segment(data):
    require(len(data) <= MAX_SEGMENT_LEN, "length of a segment")
    take = Bytes(data)
    require(take.number(1) == 1, "version")
    changes = take.number(8)
    require(changes != 0, "changes")
    count = take.number(2)
    require(count <= MAX_SEGMENT_ENTRIES, "entries")
    entries = []
    before = b""
    for _ in range(count):
        path = take.string(MAX_PATH)
        require(path > before, "order of paths")
        before = path
        entry = {"path": utf8(path), "size": take.number(8), "modified": take.number(8)}
        entry["e_tag"] = utf8(take.string(MAX_TAG))
        entry["version"] = utf8(take.string(MAX_TAG)) if take.flag() else None
        entries.append(entry)
    take.end()
    return {"changes": changes, "entries": entries}


def parse_mark(data):
    take = Bytes(data)
    require(take.number(1) == 1, "version")
    mark = {"takeover": take.take(16), "root": take.number(8)}
    count = take.number(4)
    require(count <= MAX_SEGMENTS, "segments")
    mark["segments"] = [take.number(8) for _ in range(count)]
    take.end()
    return mark


# Section 6: account record

RECORD_MAGIC = b"\x89SRR\r\n\x1a\n"


def parse_record(data):
    require(32 <= len(data) <= MAX_RECORD, "length of a record")
    take = Bytes(data[:-32])
    record = {"content": data[:-32], "mac": data[-32:]}
    require(take.take(8) == RECORD_MAGIC, "magic")
    require(take.number(1) == 1, "version")
    record["account"] = take.take(16)
    record["sequence"] = take.number(8)
    require(record["sequence"] != 0, "sequence")
    record["created"] = take.time()
    record["state"] = take.number(1)
    require(record["state"] in (1, 2), "state")
    if record["state"] == 2:
        record["deleted"] = take.time()
        record["recoverable_until"] = take.time()
        require(record["recoverable_until"] >= record["deleted"], "recoverable before it was deleted")
    flags = take.number(1)
    require(flags <= 3, "policy flags")
    record["whole_outage"] = flags & 2 != 0
    record["version_policy"] = take.number(1)
    require(record["version_policy"] in (1, 2), "version policy")
    grace = take.number(4)
    require(flags & 1 or grace == 0, "a maximum of grace that is not given")
    record["max_grace"] = grace if flags & 1 else None
    record["limit_seals"] = take.number(8)
    require(1 <= record["limit_seals"] <= MAX_SEALS, "limit of seals")
    record["limit_bytes"] = take.number(8)
    require(1 <= record["limit_bytes"] <= MAX_BYTES, "limit of bytes")
    record["limit_age_days"] = take.number(4)
    require(1 <= record["limit_age_days"] <= MAX_AGE_DAYS, "limit of age")
    custody = take.number(1)
    require(custody in (ONE_KEK, FAILOVER, JOINT), "custody")
    record["provider"], record["kek"], record["wrap"], record["standby"] = parse_slot(take)
    if custody != ONE_KEK:
        record["custody"] = custody
        second = parse_slot(take)
        record["second_provider"], record["second_kek"], record["second_wrap"], record["second_standby"] = second
        require(record["second_kek"] != record["kek"], "two KEKs that are one")
    if custody == FAILOVER:
        # What the record that follows a refusal is made from: see `barred_record`.
        record["terms_at"] = len(record["content"]) - len(take.data)
        record["limit"] = take.number(4)
        require(1 <= record["limit"] <= MAX_STAND_IN, "limit of the second KEK")
        record["confirmed"] = take.time()
        record["barred"] = take.flag()
        record["bar"] = None if record["barred"] else take.take(32)
    newest = parse_generation(take)
    record["newest"] = newest["fields"]
    record["generation"] = newest["generation"]
    record["generation_created"] = newest["created"]
    record["active_from"] = newest["active_from"]
    record["kcv"] = newest["kcvs"][0]
    if newest["suite"] == DOUBLE:
        record["outer_kcv"] = newest["kcvs"][1]
        require(take.number(1) == ONE_KEK, "custody of a second AEK")
        _, record["outer_kek"], record["outer_wrap"], record["outer_standby"] = parse_slot(take)
    record["older"] = parse_older(take, newest)
    record["link"] = take.take(32) if record["older"] else None
    take.end()
    return record


def parse_generation(take):
    before = take.data
    found = {"generation": take.number(4), "suite": take.number(1), "created": take.time(), "active_from": take.time()}
    require(found["generation"] != 0, "generation")
    require(found["suite"] in (SINGLE, DOUBLE), "suite")
    require(found["active_from"] >= found["created"], "active before it was created")
    found["kcvs"] = [take.take(32) for _ in range(found["suite"])]
    found["fields"] = before[: len(before) - len(take.data)]
    return found


def parse_older(take, newest):
    count = take.number(2)
    require(count <= MAX_OLDER, "number of older generations")
    older, after = [], newest
    for _ in range(count):
        found = parse_generation(take)
        require(found["generation"] < after["generation"], "order of generations")
        require(found["suite"] == newest["suite"], "another suite in an older generation")
        found["sealed"] = take.string(MAX_SEALED)
        older.append(found)
        after = found
    return older


def open_older(keys, older):
    """The keys of an older generation, whose secrets are sealed under those of the newest."""
    r, sealed = older["sealed"][:24], older["sealed"][24:]
    generation = be(older["generation"], 4)
    aad = b"strongroom/v1 older" + keys.account + be(keys.generation, 4) + generation + bytes([keys.suite])
    layers = [(keys.prk, AESGCM)]
    if keys.suite == DOUBLE:
        layers.insert(0, (keys.outer_prk, ChaCha20Poly1305))
    for prk, aead in layers:
        try:
            sealed = aead(expand(prk, b"SRG1" + generation + r)).decrypt(r[12:24], sealed, aad)
        except (InvalidTag, ValueError) as error:
            raise Refused("an older AEK") from error
    # Under joint custody both shares, as in the newest one.
    inner, outer = sealed[: keys.inner_len], sealed[keys.inner_len :]
    require(len(sealed) == keys.inner_len + (32 if keys.suite == DOUBLE else 0), "length of an older AEK")
    found = Keys(keys.account, older["generation"], inner, outer or None)
    for ours, theirs in zip(found.kcvs, older["kcvs"]):
        same(ours, theirs, "another older AEK")
    return found


def barred_record(record):
    """The record that follows this one when the first KMS refuses. It takes no key to write it."""
    content, at = record["content"], record["terms_at"] + 12
    sequence = be(record["sequence"] + 1, 8)
    return content[:25] + sequence + content[33:at] + b"\x01" + content[at + 33 :] + record["bar"]


def parse_slot(take):
    provider = take.text(MAX_PROVIDER)
    kek = take.text(MAX_URI)
    scheme, colon, _ = kek.partition("://")
    require(colon and scheme == provider, "KEK of another provider")
    wrap = parse_wrap(take)
    standby = parse_wrap(take) if take.flag() else None
    if standby:
        require(standby["version"] != wrap["version"], "standby of the same version")
    return provider, kek, wrap, standby


def parse_wrap(take):
    return {
        "version": take.text(MAX_VERSION),
        "algorithm": take.text(MAX_ALGORITHM),
        "wrapped": take.string(MAX_WRAPPED),
    }


def verify_record(record, secret, outer_secret=None):
    shares = 2 if record.get("custody") == JOINT else 1
    require(len(secret) == 32 * shares, "another custody than is expected")
    require(("outer_kcv" in record) == (outer_secret is not None), "another suite than is expected")
    keys = Keys(record["account"], record["generation"], secret, outer_secret)
    same(keys.kcvs[0], record["kcv"], "another AEK")
    if outer_secret is not None:
        same(keys.kcvs[1], record["outer_kcv"], "another second AEK")
    same(keys.mac(b"SRR1", b"account record", record["content"]), record["mac"], "MAC of a record")
    keys.older = [open_older(keys, older) for older in record["older"]]
    if keys.older:
        content = record["account"] + record["newest"] + record["older"][0]["fields"]
        same(keys.older[0].mac(b"SRL1", b"generation link", content), record["link"], "link of generations")
    return keys


def open_record(data, account, kek, unwrap, outer_kek=None, second_kek=None, custody=ONE_KEK, first_is_silent=False):
    """`unwrap(kek, version, algorithm, wrapped, context)` is the KMS; one for all KEKs here."""
    record = parse_record(data)
    suite = DOUBLE if "outer_kcv" in record else SINGLE
    require(record.get("outer_kek") == outer_kek, "record under another second KEK")
    require(record["account"] == account, "record of another account")
    require(record["kek"] == kek, "record under another KEK")
    require(record.get("custody", ONE_KEK) == custody, "record of another custody")
    require(record.get("second_kek") == second_kek, "record under another KEK beside the first")

    def secret_of(kek, wrap, role, share=0):
        context = wrap_context(account, record["generation"], role, suite, share)
        plain = unwrap(kek, **wrap, context=context)
        return unwrapped_secret(plain, account, record["generation"], role, suite, share)

    if custody == JOINT:
        secret = secret_of(kek, record["wrap"], ROLE_AEK, 1) + secret_of(second_kek, record["second_wrap"], ROLE_AEK, 2)
    elif first_is_silent:
        require(custody == FAILOVER and not record["barred"], "nobody stands in")
        secret = secret_of(second_kek, record["second_wrap"], ROLE_AEK)
    else:
        secret = secret_of(kek, record["wrap"], ROLE_AEK)
    outer_secret = secret_of(outer_kek, record["outer_wrap"], ROLE_SECOND_AEK) if outer_kek else None
    return record, verify_record(record, secret, outer_secret)


# Section 6: state of a data scope

SCOPE_MAGIC = b"\x89SRS\r\n\x1a\n"


def open_scope(keys, data):
    require(len(data) >= 32, "cut short")
    content, mac = data[:-32], data[-32:]
    take = Bytes(content)
    require(take.take(8) == SCOPE_MAGIC, "magic")
    require(take.number(1) == 1, "version")
    state = {"scope": take.take(16).hex(), "sequence": take.number(8), "service": take.take(16).hex()}
    require(state["sequence"] != 0, "sequence")
    state["generation"] = take.number(4)
    require(state["generation"] != 0, "generation")
    state["confirmed_within"] = take.number(1)
    require(state["confirmed_within"] <= 60, "bound")
    linked, count = take.number(1), take.number(1)
    require(count <= MAX_CUSTOMERS and linked <= count, "customers")
    customers = [take.take(16).hex() for _ in range(count)]
    require(len({*customers, state["service"]}) == count + 1, "a customer twice, or the service-managed one")
    take.end()
    state["customers"] = customers
    state["linked"] = customers[linked - 1] if linked else None
    require(state["service"] == keys.account.hex(), "state under another account")
    require(state["generation"] == keys.generation, "state under another generation")
    same(keys.mac(b"SRS1", b"scope state", content), mac, "MAC of a state")
    return state


# Section 6: state of an operation

OPERATION_MAGIC = b"\x89SRW\r\n\x1a\n"


def open_operation(keys, data):
    require(len(data) >= 32, "cut short")
    content, mac = data[:-32], data[-32:]
    take = Bytes(content)
    require(take.take(8) == OPERATION_MAGIC, "magic")
    require(take.number(1) == 1, "version")
    state = {"target": take.take(16).hex(), "operation": take.take(16).hex(), "sequence": take.number(8)}
    require(state["sequence"] != 0, "sequence")
    state["account"] = take.take(16).hex()
    state["generation"] = take.number(4)
    require(state["generation"] != 0, "generation")
    state["kind"], state["status"] = take.number(1), take.number(1)
    require(1 <= state["kind"] <= 4, "kind")
    require(1 <= state["status"] <= 6, "status")
    require(state["status"] != 2 or state["kind"] <= 2, "a deletion that updates")
    require(state["status"] != 3 or state["kind"] >= 3, "an update that deletes")
    state["code"] = state["message"] = None
    if state["status"] == 5:
        state["code"] = take.number(1)
        require(1 <= state["code"] <= 13, "code")
        state["message"] = take.text(MAX_MESSAGE)
    state["cancelled"] = take.flag()
    state["run"] = take.number(4)
    require(state["run"] != 0, "run")
    state["started"], state["updated"] = take.time(), take.time()
    state["done"], state["failed"] = take.number(8), take.number(8)
    known, total = take.flag(), take.number(8)
    require(known or total == 0, "a total that is not known")
    state["total"] = total if known else None
    state["bytes"], state["worked"] = take.number(8), take.number(8)
    state["cursor"] = take.string(MAX_CURSOR).hex() if take.flag() else ""
    take.end()
    require(state["account"] == keys.account.hex(), "state under another account")
    require(state["generation"] == keys.generation, "state under another generation")
    same(keys.mac(b"SRW1", b"operation", content), mac, "MAC of a state")
    return state


# Section 6: tombstone; section 8: anchor

TOMBSTONE_MAGIC = b"\x89SRX\r\n\x1a\n"
ANCHOR_MAGIC = b"\x89SRN\r\n\x1a\n"


def parse_tombstone(data, account):
    take = Bytes(data)
    require(take.take(8) == TOMBSTONE_MAGIC, "magic")
    require(take.number(1) == 1, "version")
    require(take.take(16) == account, "tombstone of another account")
    found = {"sequence": take.number(8), "purged_at": take.time(), "reason": take.number(1)}
    require(found["sequence"] != 0, "sequence")
    require(found["reason"] in (1, 2), "reason")
    take.end()
    return found


def parse_anchor(data):
    take = Bytes(data)
    require(take.take(8) == ANCHOR_MAGIC, "magic")
    sequence = take.number(8)
    require(sequence != 0, "sequence")
    take.end()
    return {"sequence": sequence}


# Section 7: LocalKms file


class LocalKms:
    def __init__(self, data):
        require(len(data) <= MAX_FILE, "length of the file")
        lines = data.split(b"\n")
        require(len(lines) == 3 and lines[2] == b"", "two lines")
        require(len(lines[0]) <= MAX_HEAD, "length of the first line")
        head = members(strict_json(lines[0]), "format", "version", "sha256")
        require(head["format"] == "strongroom-local-kms", "format")
        require(is_number(head["version"]) and head["version"] == 1, "version")
        digest = lower_hex(head["sha256"], 32)
        same(digest, sha256(lines[1]), "digest")
        body = members(strict_json(lines[1]), "id", "keys")
        lower_hex(body["id"], 16)
        self.id = body["id"]
        self.keys = {}
        ids = set()
        require(isinstance(body["keys"], list) and len(body["keys"]) <= MAX_KEYS, "keys")
        for entry in body["keys"]:
            self.add(entry, ids)

    def add(self, entry, ids):
        names = ("name", "enabled", "purge_protection", "retention_seconds", "deleted_at", "versions")
        key = members(entry, *names)
        require(isinstance(key["name"], str), "name")
        try:
            name = key["name"].encode()
        except UnicodeEncodeError as error:
            raise Refused("name") from error
        require(1 <= len(name) <= MAX_NAME, "length of a name")
        clean_text(name)
        require(key["name"] not in self.keys, "the same name twice")
        require(isinstance(key["enabled"], bool) and isinstance(key["purge_protection"], bool), "bool")
        require(is_number(key["retention_seconds"]), "retention")
        require(7 * DAY <= key["retention_seconds"] <= 90 * DAY, "retention")
        require(key["deleted_at"] is None or is_time(key["deleted_at"]), "deleted_at")
        require(isinstance(key["versions"], list) and 1 <= len(key["versions"]) <= MAX_VERSIONS, "versions")
        versions = {}
        for entry in key["versions"]:
            version = members(entry, "id", "enabled", "created_at", "material")
            lower_hex(version["id"], 16)
            require(version["id"] not in ids, "the same version twice")
            ids.add(version["id"])
            require(isinstance(version["enabled"], bool), "bool")
            require(is_time(version["created_at"]), "created_at")
            material = lower_hex(version["material"], 32)
            versions[version["id"]] = (version["enabled"], material)
        usable = key["enabled"] and key["deleted_at"] is None
        self.keys[key["name"]] = (usable, versions)

    def unwrap(self, kek, version, algorithm, wrapped, context):
        prefix = f"local://{self.id}/"
        require(kek.startswith(prefix), "another file")
        require(algorithm == "AES-256-GCM", "algorithm")
        require(kek[len(prefix) :] in self.keys, "no such KEK")
        usable, versions = self.keys[kek[len(prefix) :]]
        require(usable, "KEK disabled or deleted")
        require(version in versions, "no such version")
        enabled, material = versions[version]
        require(enabled, "version disabled")
        require(len(wrapped) == 84, "length of a wrapped AEK")
        return aes_open(material, wrapped[:12], context, wrapped[12:])


def strict_json(line):
    def pairs(found):
        require(len({name for name, _ in found}) == len(found), "a member twice")
        return dict(found)

    def nothing_else(word):
        raise Refused(word)

    try:
        text = line.decode("utf-8", "strict")
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=nothing_else)
        require(json.dumps(value, ensure_ascii=False, separators=(",", ":")) == text, "another way to write it")
        return value
    except (ValueError, RecursionError) as error:
        raise Refused("JSON") from error


def members(value, *names):
    require(isinstance(value, dict) and tuple(value) == names, "members")
    return value


def lower_hex(value, length):
    require(isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{2 * length}}}", value), "digits")
    return bytes.fromhex(value)


def is_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


def is_time(value):
    return is_number(value) and 0 <= value < 1 << 64


# The vectors. What is in hexadecimal in a vector is bytes here. A vector without `error` is valid.


def keys_of(vector):
    outer = unhex(vector, "outer_secret") if "outer_secret" in vector else None
    return Keys(unhex(vector, "account"), vector["generation"], unhex(vector, "secret"), outer)


def unhex(vector, name):
    return bytes.fromhex(vector[name])


def expect(got, wanted, what):
    if isinstance(got, bytes):
        got = got.hex()
    if got != wanted:
        raise AssertionError(f"{what} is {got}, the vector says {wanted}")


def expect_plain(got, vector):
    if "plain" in vector:
        expect(got, vector["plain"], "plain")
    else:
        expect(len(got), vector["plain_len"], "plain_len")
        expect(sha256(got), vector["plain_sha256"], "plain_sha256")


def check_derivation(vector):
    keys = keys_of(vector)
    op = vector["op"]
    if op == "prk":
        expect(keys.prk, vector["prk"], "prk")
        expect(keys.kcv, vector["kcv"], "kcv")
    elif op == "dek":
        dek = keys.dek(vector["suite"], vector["kind"], unhex(vector, "object"), vector["index"], unhex(vector, "r"))
        expect(dek, vector["dek"], "dek")
    elif op == "object header":
        parts = [bytes.fromhex(part) for part in vector["parts"]]
        expect(object_mac(keys, unhex(vector, "header"), parts), vector["mac"], "mac")
    elif op == "account record":
        expect(keys.mac(b"SRR1", b"account record", unhex(vector, "content")), vector["mac"], "mac")
    else:
        raise AssertionError(f"unknown op {op}")


def check_wrap(vector):
    account, generation, suite = unhex(vector, "account"), vector["generation"], vector.get("suite", SINGLE)
    bound = {"role": vector["role"], "suite": suite, "share": vector.get("share", 0)}
    if vector["op"] == "context":
        expect(wrap_context(account, generation, **bound), vector["context"], "context")
        expect(wrap_names(account, generation, **bound), vector["names"], "names")
    elif vector["op"] == "input":
        secret = unwrapped_secret(unhex(vector, "input"), account, generation, **bound)
        expect(secret, vector.get("secret"), "secret")
        expect(wrap_input(account, generation, secret, **bound), vector["input"], "input")
    else:
        raise AssertionError(f"unknown op {vector['op']}")


def check_block(vector):
    sealed = unhex(vector, "sealed") if "sealed" in vector else attach(unhex(vector, "head"), unhex(vector, "ciphertext"))
    # A long AAD is given by its length and one byte.
    aad = bytes([vector["aad_byte"]]) * vector["aad_len"] if "aad_len" in vector else unhex(vector, "aad")
    plain = open_block(keys_of(vector), unhex(vector, "object"), vector["index"], aad, sealed)
    expect_plain(plain, vector)


def check_frame(vector):
    sealed = unhex(vector, "sealed")
    plain = open_object_frame(keys_of(vector), unhex(vector, "object"), vector["index"], vector["last"], sealed)
    expect_plain(plain, vector)


def check_object(vector):
    parts = [bytes.fromhex(part) for part in vector["parts"]]
    expect_plain(open_object(keys_of(vector), parts, unhex(vector, "sealed")), vector)


def check_record(vector):
    sealed = unhex(vector, "sealed")
    record = parse_record(sealed)
    outer = unhex(vector, "outer_secret") if "outer_secret" in vector else None
    verify_record(record, unhex(vector, "secret"), outer)
    fields = {name: value.hex() if isinstance(value, bytes) else value for name, value in record.items()}
    for name in ("wrap", "standby", "second_wrap", "second_standby", "outer_wrap", "outer_standby"):
        if fields.get(name):
            fields[name] = dict(fields[name], wrapped=fields[name]["wrapped"].hex())
    for name in ("content", "mac", "newest", "older", "link", "terms_at", "bar"):
        fields.pop(name, None)
    expect(fields, vector.get("fields"), "fields")


def check_generations(vector):
    record = parse_record(unhex(vector, "sealed"))
    outer = unhex(vector, "outer_secret") if "outer_secret" in vector else None
    keys = verify_record(record, unhex(vector, "secret"), outer)
    found = [(older.generation, [kcv.hex() for kcv in older.kcvs]) for older in keys.older]
    said = [keys_of(older) for older in vector.get("older", [])]
    expect(found, [(older.generation, [kcv.hex() for kcv in older.kcvs]) for older in said], "older generations")


def check_custody(vector):
    check_record(vector)
    check_generations(vector)
    record = parse_record(unhex(vector, "sealed"))
    require("custody" in record, "one KEK alone")
    next_ = barred_record(record) if record.get("bar") else None
    expect(next_, vector.get("barred"), "the record of a refusal")
    if next_:
        barred = parse_record(next_)
        outer = unhex(vector, "outer_secret") if "outer_secret" in vector else None
        verify_record(barred, unhex(vector, "secret"), outer)
        require(barred["barred"] and barred["sequence"] == record["sequence"] + 1, "no record of a refusal")


def check_scope(vector):
    expect(open_scope(keys_of(vector), unhex(vector, "sealed")), vector.get("fields"), "fields")


def check_operation(vector):
    expect(open_operation(keys_of(vector), unhex(vector, "sealed")), vector.get("fields"), "fields")


def check_tombstone(vector):
    for name, value in parse_tombstone(unhex(vector, "stored"), unhex(vector, "account")).items():
        expect(value, vector.get(name), name)


def check_anchor(vector):
    for name, value in parse_anchor(unhex(vector, "stored")).items():
        expect(value, vector.get(name), name)


def check_takeover(vector):
    """What a part holds, and the context that binds it to its place."""
    content = unhex(vector, "content")
    place = [vector.get(name, "").encode() for name in ("store", "prefix")] + [b"plaintext manifest"]
    if vector["of"] == "root":
        found, parts = parse_root(content), [*place, b"root"]
    elif vector["of"] == "segment":
        found = parse_segment(content)
        parts = [*place, unhex(vector, "takeover"), be(vector["number"], 4)] if "takeover" in vector else None
    else:
        found, parts = parse_mark(content), None
    for name, value in found.items():
        expect(value, vector.get(name), name)
    if parts:
        expect(context_digest(parts), vector.get("context"), "context")


def check_local_kms(vector):
    kms = LocalKms(vector["file"].encode("utf-8", "surrogateescape"))
    context = wrap_context(unhex(vector, "account"), vector["generation"])
    plain = kms.unwrap(vector["kek"], vector["version"], vector["algorithm"], unhex(vector, "wrapped"), context)
    secret = unwrapped_secret(plain, unhex(vector, "account"), vector["generation"])
    expect(secret, vector.get("secret"), "secret")


def check_chain(vector):
    """From the LocalKms file and the record to the plaintext: nothing secret is in the vector but the file."""
    kms = LocalKms(vector["file"].encode())
    custody = (vector.get("outer_kek"), vector.get("second_kek"), vector.get("custody", ONE_KEK), vector.get("first_is_silent", False))
    _, keys = open_record(unhex(vector, "record"), unhex(vector, "account"), vector["kek"], kms.unwrap, *custody)
    if vector["op"] == "block":
        aad = unhex(vector, "aad")
        expect_plain(open_block(keys, unhex(vector, "object"), vector["index"], aad, unhex(vector, "sealed")), vector)
    elif vector["op"] == "object":
        parts = [bytes.fromhex(part) for part in vector["parts"]]
        expect_plain(open_object(keys, parts, unhex(vector, "sealed")), vector)
    else:
        raise AssertionError(f"unknown op {vector['op']}")


CHECKS = {
    "derivation": check_derivation,
    "wrap": check_wrap,
    "block": check_block,
    "frame": check_frame,
    "object": check_object,
    "record": check_record,
    "double_block": check_block,
    "double_frame": check_frame,
    "double_object": check_object,
    "double_record": check_record,
    "generations": check_generations,
    "custody": check_custody,
    "scope": check_scope,
    "operation": check_operation,
    "tombstone": check_tombstone,
    "anchor": check_anchor,
    "takeover": check_takeover,
    "local_kms": check_local_kms,
    "chain": check_chain,
}


def check(format_, vector):
    """Returns what is wrong, or None."""
    try:
        CHECKS[format_](vector)
    except Refused as refusal:
        return None if "error" in vector else f"refused: {refusal}"
    except AssertionError as wrong:
        # A refused vector says nothing of what it would hold, so a mismatch means that it was opened.
        return str(wrong)
    return "opened, and has to be refused" if "error" in vector else None


def changed(vectors):
    """Of the first small valid vector: every bit flipped, every length cut to, and a byte more."""
    for vector in vectors:
        if "error" in vector or not 0 < len(vector.get("sealed", "")) <= 2 * 600:
            continue
        sealed = unhex(vector, "sealed")
        for bit in range(8 * len(sealed)):
            flipped = bytearray(sealed)
            flipped[bit // 8] ^= 1 << bit % 8
            yield dict(vector, name=f"{vector['name']}, bit {bit} flipped", error="any", sealed=flipped.hex())
        for length in range(len(sealed)):
            cut = sealed[:length]
            yield dict(vector, name=f"{vector['name']}, cut to {length}", error="any", sealed=cut.hex())
        yield dict(vector, name=f"{vector['name']}, a byte more", error="any", sealed=vector["sealed"] + "00")
        return


def main(directory):
    passed = failed = 0
    for path in sorted(pathlib.Path(directory).glob("*.json")):
        file = json.loads(path.read_text(encoding="utf-8"))
        for vector in [*file["vectors"], *changed(file["vectors"])]:
            wrong = check(file["format"], vector)
            if wrong is None:
                passed += 1
            else:
                failed += 1
                print(f"{path.name}: {vector['name']}: {wrong}")
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
