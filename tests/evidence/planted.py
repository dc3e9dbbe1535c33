"""Shows that the checks can fail: plants one fault at a time in a copy of the tree and wants its check red.

    planted.py [WORD...]    all faults, or those whose file's name contains one of the words

A fault is a file in tests/evidence/planted/:

    id = "R4"                                  the check that it belongs to, or the line of the contract
    what = "an open that compares no header"   said in the output
    file = "src/block.rs"                      where it is planted
    old = '...'                                stands there exactly once
    new = '...'
    check = ["cargo", "test", ...]             what has to fail: the check, or the part of it that is concerned
    red = "panicked at"                        what its output then has to contain: it failed for this reason
    waits = true                               only where its check mostly waits for a clock

A fault that does not compile shows nothing, and counts as a failure of this test. Checks that mostly wait run beside
the others, in a copy of the tree of their own.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target/evidence/planted"
PATIENCE_S = 900
# Seconds and name of each that was planted.
TOOK = []


def main():
    words = sys.argv[1:]
    faults = sorted((ROOT / "tests/evidence/planted").glob("*.toml"))
    faults = [path for path in faults if not words or any(word in path.stem for word in words)]
    faults = [tomllib.loads(path.read_text()) | {"name": path.stem} for path in faults]
    with ThreadPoolExecutor() as lanes:
        waiting = lanes.submit(plant_all, "waiting", [fault for fault in faults if fault.get("waits")])
        found = plant_all("planted", [fault for fault in faults if not fault.get("waits")]) + waiting.result()
    slowest = ", ".join(f"{row} {seconds:.0f} s" for seconds, row in sorted(TOOK, reverse=True)[:10])
    # The gate shows a line that begins so.
    print(f"measured: the longest of planted faults: {slowest}")
    passed = sum(found)
    failed = len(found) - passed
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; 0 ignored")
    sys.exit(failed > 0 or passed == 0)


def plant_all(lane, faults):
    """Of each fault, whether it was found."""
    tree = WORK / lane
    if faults:
        mirror(tree, lane)
    found = []
    for fault in faults:
        begun = time.monotonic()
        wrong = plant(tree, fault)
        took = time.monotonic() - begun
        TOOK.append((took, fault["name"]))
        line = f"{'FAIL' if wrong else 'ok':<4} {fault['id']:<4} {fault['what']} ({took:.0f} s)"
        print(f"{line}\n{wrong}" if wrong else line, flush=True)
        found.append(not wrong)
    return found


def mirror(tree, lane):
    """A copy of what git knows, of which only what differs is written again, and so compiled again."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True)
    names = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    for old in list(tree.rglob("*")):
        if old.is_file() and str(old.relative_to(tree)) not in names:
            old.unlink()
    for name in names:
        source, copy = ROOT / name, tree / name
        content = source.read_bytes()
        if source.name in ("Cargo.toml", "Cargo.lock"):
            # Another version, so that cargo never takes a build of the copy, faults and all, for one of the tree itself or of the other
            # copy: they share a target directory.
            content = re.sub(rb'(?m)^(name = "strongroom[a-z-]*"\nversion = "[^"+]+)', rb"\1+" + lane.encode(), content)
        if not copy.exists() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
            shutil.copymode(source, copy)


def plant(tree, fault):
    """Returns what is wrong, or nothing when the fault was found."""
    path = tree / fault["file"]
    before = path.read_text()
    if before.count(fault["old"]) != 1:
        return f"     {fault['file']} holds this {before.count(fault['old'])} times: {fault['old']!r}"
    path.write_text(before.replace(fault["old"], fault["new"]))
    try:
        return watch(tree, fault)
    finally:
        path.write_text(before)


def watch(tree, fault):
    environment = os.environ | {
        # What the other tests have compiled serves here too: only the crates of the copy are compiled again.
        "CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target")),
        "CARGO_INCREMENTAL": "1",
        "STRONGROOM_EVIDENCE": "quick",
        "STRONGROOM_SERVERS": os.environ.get("STRONGROOM_SERVERS", str(ROOT / "target/servers")),
        "STRONGROOM_PYTHON": os.environ.get("STRONGROOM_PYTHON", str(ROOT / "target/venv/bin/python")),
    }
    try:
        run = subprocess.run(
            fault["check"], cwd=tree, env=environment, timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )
    except subprocess.TimeoutExpired:
        return f"     no end after {PATIENCE_S} s"
    end = "\n".join(run.stdout.splitlines()[-30:])
    if run.returncode == 0:
        return f"     the check did not notice:\n{end}"
    if "could not compile" in run.stdout:
        return f"     the fault does not compile:\n{end}"
    if not re.search(fault["red"], run.stdout):
        return f"     red, but not for this reason ({fault['red']!r}):\n{end}"
    return ""


main()
