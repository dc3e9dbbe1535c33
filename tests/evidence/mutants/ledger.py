"""What is known of each file's mutants, kept in the repository, and what is still to be tried.

    tests/evidence/runs/R15.txt          a row for each file: its code's hash, how many mutants were caught, ran into the time limit,
                                         were missed, did not compile; the commit and the day on which the last of them was tried
    tests/evidence/runs/R15-missed.txt   those that were missed, by name
    tests/evidence/runs/R15-begun.txt    of files that are not tried to the end: the code's hash, what became of a mutant, and its name
    tests/evidence/survivors.txt         `name | why`: those of them that change nothing that can be observed, with the reason

A file is tried anew when its code changes. Its tests at its end do not count: they grow, and what they caught they catch. A row is
written when all of a file's mutants were tried.
"""

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass

FIRST = ["src/derive", "src/format/", "src/lease"]
# By what an undetected error would cost.
ORDER = FIRST + [
    "src/block", "src/account/permit", "src/account/state", "src/account/guard", "src/account/", "src/secret", "src/engine",
    "src/random", "src/keeper/", "src/object/", "src/expect", "src/rotate", "src/record_store", "src/atomic_file", "src/cache/",
    "src/clock", "src/provider/wrap", "src/provider/local/",
]
OUTCOMES = ["caught", "timeout", "missed", "unviable"]
HEAD = "# file, hash of its code, mutants caught, out of time, missed, not viable; commit, date: tests/evidence/mutants\n"


@dataclass
class Row:
    file: str
    code: str
    counts: Counter
    commit: str
    date: str

    @classmethod
    def parse(cls, line):
        file, code, *counts, commit, date = line.split()
        return cls(file, code, Counter(dict(zip(OUTCOMES, map(int, counts), strict=True))), commit, date)

    def __str__(self):
        return " ".join([self.file, self.code, *(str(self.counts[outcome]) for outcome in OUTCOMES), self.commit, self.date])


class Ledger:
    def __init__(self, root):
        self.root = root
        runs = root / "tests/evidence/runs"
        self.table, self.list, self.begun = runs / "R15.txt", runs / "R15-missed.txt", runs / "R15-begun.txt"
        self.rows = {row.file: row for row in map(Row.parse, lines(self.table))}
        self.missed = set(lines(self.list))
        self.reasons = dict(re.fullmatch(r"(.+) \| (.{20,})", line).groups() for line in lines(root / "tests/evidence/survivors.txt"))
        self.outcomes, self.codes = {}, {}
        for line in lines(self.begun):
            code, outcome, name = line.split(" ", 2)
            file = name.split(": ")[0]
            if (root / file).exists() and code == self.code(file):
                self.outcomes[code, name] = outcome

    def code(self, file):
        """Of the file without the tests at its end."""
        if file not in self.codes:
            text = (self.root / file).read_text()
            text = re.split(r"(?m)^#\[cfg\(test\)\]\n(?:#\[.*\]\n)*mod \w+ \{", text)[0]
            self.codes[file] = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.codes[file]

    def known(self, file):
        row = self.rows.get(file)
        return row if row and row.code == self.code(file) else None

    def open(self, file, mutants):
        """Those of a file that have to be tried: all, or what was missed and nobody explained."""
        if self.known(file):
            return [m for m in mutants if m.name in self.missed and m.name not in self.reasons]
        return [m for m in mutants if (self.code(file), m.name) not in self.outcomes]

    def note(self, mutant, outcome):
        key = self.code(mutant.file), mutant.name
        self.outcomes[key] = outcome
        with self.begun.open("a") as out:
            out.write(f"{key[0]} {outcome} {key[1]}\n")

    def close(self, file, mutants, commit, date):
        """Writes the row of a file if its mutants were all tried."""
        code, row = self.code(file), self.known(file)
        if not row and self.open(file, mutants):
            return
        if row:
            for mutant in mutants:
                outcome = self.outcomes.get((code, mutant.name), "missed")
                if mutant.name in self.missed and outcome != "missed":
                    row.counts["missed"] -= 1
                    row.counts[outcome] += 1
                    self.missed.discard(mutant.name)
            row.commit, row.date = commit, date
        else:
            outcomes = {mutant.name: self.outcomes[code, mutant.name] for mutant in mutants}
            self.rows[file] = Row(file, code, Counter(outcomes.values()), commit, date)
            self.missed = {name for name in self.missed if not name.startswith(f"{file}: ")}
            self.missed |= {name for name, outcome in outcomes.items() if outcome == "missed"}
        for mutant in mutants:
            self.outcomes.pop((code, mutant.name), None)
        self.write()

    def write(self):
        self.begun.write_text("".join(f"{code} {outcome} {name}\n" for (code, name), outcome in self.outcomes.items()))
        self.table.write_text(HEAD + "".join(f"{self.rows[file]}\n" for file in sorted(self.rows)))
        self.list.write_text("".join(f"{name}\n" for name in sorted(self.missed)))

    def figures(self, files):
        """What the check prints: what, figure, relation, goal."""
        rows = [row for row in map(self.known, files) if row]
        first = [row for row in rows if row.file.startswith(tuple(FIRST))]
        left = {name for name in self.missed if name.split(": ")[0] in files}
        # Of a file that is not tried as it is nobody knows yet.
        settled = {row.file for row in rows} | {name.split(": ")[0] for name in self.reasons} - set(files)
        stale = {name for name in set(self.reasons) - left if name.split(": ")[0] in settled}
        unexplained = sorted(name for name in left - set(self.reasons) if name.startswith(tuple(FIRST)))
        yield "mutants tried", sum(row.counts.total() for row in rows), ">=", 1
        yield "caught, %", share(rows), ">=", 95
        yield "caught in derive, format, lease, %", share(first), ">=", 95
        tried = {row.file for row in first}
        explained = len({name for name in left & set(self.reasons) if name.split(": ")[0] in tried})
        yield "the same but for what is explained, %", share(first, explained), "=", 100
        yield "survivors in derive, format, lease without a reason", len(unexplained), "=", 0
        yield "survivors explained", len(left & set(self.reasons)), ">=", 0
        yield "reasons for what does not survive", len(stale), "=", 0
        # A full run leaves none; between two of them files change.
        relation = "=" if os.environ.get("STRONGROOM_EVIDENCE") == "full" else ">="
        yield "files not tried as they are", len(files) - len(rows), relation, 0


def share(rows, explained=0):
    """Caught or out of time, of those that compile and are not explained; rounded down."""
    counts = sum((row.counts for row in rows), Counter())
    viable = counts.total() - counts["unviable"] - explained
    return f"{(counts['caught'] + counts['timeout']) * 10000 // max(viable, 1) / 100:.2f}"


def rank(file):
    return next((at for at, prefix in enumerate(ORDER) if file.startswith(prefix)), len(ORDER)), file


def lines(path):
    text = path.read_text() if path.exists() else ""
    return [line for line in text.splitlines() if line and not line.startswith("#")]
