"""Mutation testing: what cargo-mutants would change, one thing at a time, and whether the library's tests notice.

    mutants run MINUTES    tries what has to be tried, by ledger.py, until all is done or the time is over
    mutants sample N       tries so many of derive, format and lease, as they were tried before: every one has to be caught
    mutants try TEXT...    tries those whose names contain one of the texts, and keeps nothing
    mutants own TEXT...    the same with the tests of the mutants' own modules only, which is quick
    mutants figures        prints what the ledger holds
    mutants judge          the same, and ends with status 1 when a goal is missed; so do `try` and `own`

cargo-mutants (27.1) makes the list and .cargo/mutants.toml says what is in it. together.py says how they are built. One that runs
into the time limit counts as caught, as it does there: a test that does not end is noticed.
"""

import json
import operator
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.dont_write_bytecode = True
from ledger import FIRST, Ledger, rank
from together import Build, Mutant
from tree import Tests, Tree

ROOT = Path(__file__).resolve().parents[3]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SCRATCH = TARGET / "evidence/mutants"
# Where tests/evidence/checks/R15.sh installs cargo-mutants.
os.environ["PATH"] = f"{TARGET}/tools/bin:{os.environ['PATH']}"
# So many in one build: it then takes a few minutes, and little is lost with it.
AT_ONCE = 700
WORKERS = 3
# The other tests that can tell, those first that catch most.
OTHERS = ["contract", "control_regressions", "local_kms", "threads", "residue"]


def main():
    SCRATCH.mkdir(parents=True, exist_ok=True)
    match sys.argv[1:]:
        case ["run", minutes]:
            run(time.monotonic() + 60 * float(minutes))
        case ["sample", count]:
            sample(int(count))
        case ["try" | "own" as how, *texts] if texts:
            sys.exit(not some([mutant for mutant in listed() if any(text in mutant.name for text in texts)], how == "own"))
        case ["figures"]:
            figures()
        case ["judge"]:
            sys.exit(not figures())
        case _:
            sys.exit(__doc__)


def listed():
    """cargo-mutants' list, in the order of the files."""
    made = subprocess.run(["cargo", "mutants", "--list", "--json"], cwd=ROOT, check=True, capture_output=True, text=True)
    seen, found, text = Counter(), [], {}
    for number, entry in enumerate(json.loads(made.stdout), start=1):
        where = lambda span: tuple((span[end]["line"], span[end]["column"]) for end in ("start", "end"))
        what = f"{entry['file']}: {entry['name'].split(': ', 1)[1]}"
        function = entry["function"]
        if not function:
            # cargo-mutants names no constant; its line does.
            file = text.setdefault(entry["file"], (ROOT / entry["file"]).read_text().splitlines())
            what += f" in {file[entry['span']['start']['line'] - 1].strip()}"
        seen[what] += 1
        name = what if seen[what] == 1 else f"{what}, no. {seen[what]}"
        found.append(Mutant(
            number, name, entry["file"], where(entry["span"]), entry["replacement"],
            function and where(function["span"]), function["return_type"] if function else "", entry["genre"],
        ))
    return found


def run(ends):
    ledger, mutants = Ledger(ROOT), listed()
    files = sorted({mutant.file for mutant in mutants}, key=rank)
    of = {file: [mutant for mutant in mutants if mutant.file == file] for file in files}
    for file in files:
        # Tried to the end by a run that was stopped.
        if not ledger.known(file):
            ledger.close(file, of[file], commit(), today())
    todo = [file for file in files if not ledger.known(file) or ledger.open(file, of[file])]
    first = [file for file in todo if file.startswith(tuple(FIRST))]
    while todo and time.monotonic() < ends:
        part = []
        while todo and (not part or sum(len(ledger.open(file, of[file])) for file in [*part, todo[0]]) <= AT_ONCE):
            if part and (part[-1] in first) != (todo[0] in first):
                break
            part.append(todo.pop(0))
        bench = Bench("mutants", [mutant for file in part for mutant in ledger.open(file, of[file])], OTHERS)
        bench.attempt(ends, ledger.note)
        for file in part:
            ledger.close(file, of[file], commit(), today())


def sample(count):
    """Of what changes an operator or a guard: all of it compiles, or nearly. The same ones while these files stay as they are; fewer where
    most have changed since they were tried."""
    ledger = Ledger(ROOT)
    drawn = [m for m in listed() if m.file.startswith(tuple(FIRST)) and ledger.known(m.file)]
    drawn = [m for m in drawn if m.name not in ledger.missed and m.genre != "FnValue" and m.function]
    some(random.Random("R15").sample(drawn, min(count, len(drawn))))


def some(mutants, own_only=False):
    """With the build of the other tests, as far as it goes."""
    bench = Bench("dev", mutants, [], own_only)
    outcomes = Counter()
    bench.attempt(float("inf"), lambda _, outcome: outcomes.update([outcome]))
    viable = outcomes.total() - outcomes["unviable"]
    return all([
        measured("mutants tried at this commit", viable, ">=", 1),
        measured("of them missed", outcomes["missed"], "=", 0),
    ])


def figures():
    return all([measured(*figure) for figure in Ledger(ROOT).figures(sorted({mutant.file for mutant in listed()}))])


class Bench:
    """The build that holds the mutants, and one for those that are built alone."""

    def __init__(self, profile, mutants, others, own_only=False):
        self.profile, self.others = profile, others
        begun = time.monotonic()
        self.build = Build(Tree(ROOT, SCRATCH / profile / "together", TARGET, profile), mutants)
        self.one = Tree(ROOT, SCRATCH / profile / "alone", TARGET, profile)
        while True:
            self.build.write()
            programs, errors = self.build.tree.build(others)
            if programs:
                break
            self.build.learn(errors)
        print(f"{clock()} {len(self.build.inside)} in one build, {len(self.build.alone)} alone, "
              f"{len(self.build.unviable)} do not compile ({time.monotonic() - begun:.0f} s)", flush=True)
        self.tests = Tests(self.build.tree, programs, sample=profile == "dev", own_only=own_only)

    def attempt(self, ends, note):
        """Tries all, and says of each what became of it."""
        for mutant in self.build.unviable:
            note(mutant, "unviable")
        self.each(self.build.inside, WORKERS, lambda m: self.tests.judge(m.number, m.file), ends, note)
        if self.build.alone:
            # Of the programs without a mutant, before there are others.
            for at in range(len(self.tests.programs)):
                self.tests.times(at, [])
        self.each(self.build.alone, 1, self.judge_alone, ends, note)

    def each(self, mutants, workers, judge, ends, note):
        def one(mutant):
            begun = time.monotonic()
            if begun < ends:
                outcome, said = judge(mutant)
                print(f"{clock()} {outcome:<8} {mutant.name} ({time.monotonic() - begun:.0f} s{', ' * bool(said)}{said})", flush=True)
                note(mutant, outcome)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, mutants))

    def judge_alone(self, mutant):
        self.one.restore()
        self.one.put(mutant.file, self.one.source(mutant.file).with_mutant(mutant))
        programs, _ = self.one.build([])
        if not programs:
            return "unviable", ""
        outcome, said = self.tests.of(programs).judge(0, mutant.file)
        if outcome == "missed" and self.others:
            outcome, said = self.tests.of(self.one.build(self.others)[0]).judge(0, mutant.file)
        return outcome, said


def measured(what, figure, relation, goal):
    """Prints a figure, and says whether it reaches its goal."""
    print(f"evidence R15 | {what} | {figure} | {relation} | {goal}", flush=True)
    return {">=": operator.ge, "=": operator.eq}[relation](float(figure), goal)


def commit():
    return subprocess.run(["git", "rev-parse", "--short=9", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def today():
    return time.strftime("%Y-%m-%d", time.gmtime())


def clock():
    return time.strftime("%H:%M:%S", time.gmtime())


main()
