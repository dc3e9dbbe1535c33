"""Counts the instructions that sealing and opening one block of 4 KiB takes, and holds them to the kept ones.

    instructions.py             prints the counts as evidence, and fails when one grew by more than 5 %
    instructions.py portable    of one engine only
    instructions.py --write     writes the counts to tests/evidence/instructions.txt, as the new ones to keep

A program runs under callgrind twice, with N and with 2 N blocks: half of the difference is the work on the blocks. Times
differ by machine and by what else runs on it; these counts repeat to some instructions in ten thousand, so that a slow
change of a few per cent is seen, on a busy machine too.

They do depend on which instructions the ciphers and the hash choose by the processor. Valgrind shows every program a
processor of its own: one with AES-NI and AVX2, without AVX-512, VAES and SHA extensions. So every machine with AVX2 counts the
same code, and SHA-256 costs more here than on most machines. What valgrind shows is kept beside the counts; where it differs
nothing is compared, and the check fails. The build is a plain release build: what a user gets who sets nothing.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = HERE / "instructions.txt"
ENGINES = ["aws-lc", "portable"]
BLOCKS = 1000
GROWTH = 1.05
KEPT_HEAD = """\
# Instructions for one block of 4 KiB, counted by callgrind. Written by `python3 tests/evidence/instructions.py --write`:
# write it again after a change that is worth what it costs, and after a change of the compiler.
"""


def main():
    match sys.argv[1:]:
        case ["--write"]:
            write()
        case engines if set(engines) <= set(ENGINES):
            sys.exit(compare(engines or ENGINES))
        case _:
            sys.exit(__doc__)


def write():
    program = build()
    lines = [f"{key}: {value}\n" for key, value in (conditions(program) | counts(program, ENGINES)).items()]
    KEPT.write_text(KEPT_HEAD + "".join(lines))
    print(KEPT.read_text(), end="")


def compare(engines):
    """Prints the counts; returns what is wrong, or nothing."""
    kept = dict(line.split(": ", 1) for line in KEPT.read_text().splitlines() if not line.startswith("#"))
    program = build()
    now = conditions(program)
    changed = [f"{key} was {kept[key]}, is {now[key]}" for key in now if kept[key] != now[key]]
    for line in changed:
        print(line)
    if kept["processor"] != now["processor"]:
        return "the processor that valgrind shows is another one: these counts cannot be compared"
    grown = []
    for what, count in counts(program, engines).items():
        print(f"evidence I1 | {what} | {count} | <= | {int(int(kept[what]) * GROWTH)}", flush=True)
        growth = count / int(kept[what]) - 1
        if growth > GROWTH - 1:
            grown.append(f"{what}: grew by {growth:.1%}, from {kept[what]} to {count}")
        elif growth < 1 - GROWTH:
            print(f"{what}: shrank by {-growth:.1%}; keep that with --write")
    return "\n".join(grown) or None


def build():
    """The path of the program."""
    command = ["cargo", "build", "--locked", "--release", "--bin", "instructions", "--message-format=json"]
    built = run(command + ["--manifest-path", str(HERE / "Cargo.toml")])
    paths = [message.get("executable") for message in map(json.loads, built.stdout.splitlines())]
    return [path for path in paths if path][-1]


def conditions(program):
    """What the counts depend on, besides our code."""
    return {
        "processor": run(["valgrind", "--tool=none", "--quiet", program, "cpu"]).stdout.strip(),
        "compiler": run(["rustc", "--version"]).stdout.strip(),
        "valgrind": run(["valgrind", "--version"]).stdout.strip(),
    }


def counts(program, engines):
    """Instructions per block, by what was done."""
    found = {}
    for engine in engines:
        seal = per_block(program, engine, "seal")
        found[f"instructions to seal, {engine}"] = seal
        found[f"to open, {engine}"] = per_block(program, engine, "seal-open") - seal
    return found


def per_block(program, engine, work):
    once, twice = (collected(program, engine, work, blocks) for blocks in (BLOCKS, 2 * BLOCKS))
    return round((twice - once) / BLOCKS)


def collected(program, engine, work, blocks):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, engine, work, str(blocks)]
    return int(re.search(r"Collected : (\d+)", run(command).stderr)[1])


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stderr}")
    return done


main()
