"""Judges what the checks measured, and writes the table.

    table.py line FILE    prints the row of one check; ends with status 1 when it is red
    table.py page FOLDER  prints docs/EVIDENCE.md from all kept results

A row is ok when its check ended well, every measure that its head names was made, and every figure stands in the
named relation to its goal. Otherwise it is short. Short is red, unless nothing but figures miss their goals, and only such whose goals
the check's head says cannot be reached yet (`open measures:`), and why (`open:`). What is known of a goal that is missed and stays red is
told by `why:`.
"""

import operator
import re
import sys
from pathlib import Path

CHECKS = Path(__file__).parent / "checks"
RELATIONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt, "=": operator.eq}


class Row:
    def __init__(self, path):
        self.id = path.stem
        self.head = head(self.id)
        self.kept, self.figures, self.faults = {}, [], []
        for line in path.read_text().splitlines():
            if line.startswith("evidence "):
                self.take(line)
            else:
                key, _, value = line.partition(": ")
                self.kept[key] = value
        self.failed = self.kept.get("status") != "0"
        if self.failed:
            self.faults.append("the check failed")
        made = {what for what, *_ in self.figures}
        self.faults += [f"{what}: not measured" for what in self.head["measures"] if what not in made]
        self.faults += [f"{what}: not announced" for what in sorted(made - set(self.head["measures"]))]

    def take(self, line):
        fields = [field.strip() for field in line.removeprefix("evidence ").split("|")]
        if len(fields) != 5 or fields[0] != self.id or fields[3] not in RELATIONS:
            self.faults.append(f"cannot be read: {line}")
            return
        _, what, figure, relation, goal = fields
        try:
            good = RELATIONS[relation](float(figure), float(goal))
        except ValueError:
            self.faults.append(f"no number: {line}")
            return
        self.figures.append((what, figure, relation, goal, good))

    @property
    def ok(self):
        return not self.faults and bool(self.figures) and all(good for *_, good in self.figures)

    @property
    def red(self):
        missed = {what for what, *_, good in self.figures if not good}
        return not self.ok and (bool(self.faults) or not missed or not missed <= set(self.head["open measures"]))

    @property
    def verdict(self):
        return "ok" if self.ok else "short"

    def measured(self):
        parts = [f"{what} {thousands(figure)}" + ("" if good else f" (goal {relation} {thousands(goal)})")
                 for what, figure, relation, goal, good in self.figures]
        return "; ".join(parts + self.faults) or "nothing"

    def line(self):
        why = f"  [{self.head['open']}]" if not self.ok and self.head["open"] else ""
        return (f"{self.id:<4} {self.verdict:<5} {self.head['title']}: goal {self.head['goal']}; "
                f"measured {self.measured()}; {self.kept['counts']} counts, {self.kept['seconds']} s{why}")


def head(name):
    """What the head of a check's script says about it."""
    text = (CHECKS / f"{name}.sh").read_text()
    found = dict(re.findall(r"^# (title|goal|measures|open|open measures|why): (.*)$", text, re.MULTILINE))
    return {
        "title": found["title"],
        "goal": found["goal"],
        "measures": listed(found["measures"]),
        "open": found.get("open", ""),
        "open measures": listed(found.get("open measures", "")),
        "why": found.get("open", "") or found.get("why", ""),
    }


def listed(text):
    return [measure.strip() for measure in text.split(";") if measure.strip()]


def thousands(text):
    return f"{int(text):,}" if re.fullmatch(r"-?\d{5,}", text) else text


def page(folder):
    names = sorted((path.stem for path in CHECKS.glob("*.sh")), key=lambda name: (name[0] != "R", name[0], int(name[1:])))
    rows = [Row(folder / f"{name}.txt") if (folder / f"{name}.txt").exists() else None for name in names]
    print("# Evidence\n")
    print("What was measured, by `tests/evidence.sh`, which wrote this page. Each row names the commit and the day of its run;")
    print("`tests/evidence.sh ID` makes it again. A row is *ok* when every figure reaches its goal; a goal that is missed stays.\n")
    print("| id | what | goal | measured | |")
    print("|---|---|---|---|---|")
    for name, row in zip(names, rows):
        about = head(name)
        measured = row.measured() if row else "not measured yet"
        if row and not row.ok and about["why"]:
            measured += f". Why: {about['why']}"
        if (folder / f"{name}.svg").exists():
            measured += f" ([plot](evidence/{name}.svg))"
        print(f"| {name} | {about['title']} | {about['goal']} | {measured} | {row.verdict if row else 'short'} |")
    print("\n## Where and when\n")
    print("| id | commit | date | machine | time |")
    print("|---|---|---|---|---|")
    made = [row for row in rows if row]
    for row in made:
        print(f"| {row.id} | {row.kept['commit']} | {row.kept['date']} | {row.kept['machine']} | {int(row.kept['seconds']):,} s |")
    minutes = sum(int(row.kept["seconds"]) for row in made) // 60
    print(f"\nTogether {minutes} minutes. What R6 and R15 add up over several runs, as their scripts say, took longer.")
    beside = [Row(path) for path in sorted((folder / "beside").glob("*.txt"), key=lambda path: names.index(path.stem))]
    if beside:
        print("\n## Beside, on another machine\n")
        print("The same checks with their full counts, by `tests/evidence.sh --beside ID`: a ratio of speeds depends on the processor, and how")
        print("punctual a key service is on what runs beside it.\n")
        print("| id | measured | | commit | date | machine |")
        print("|---|---|---|---|---|---|")
        for row in beside:
            print(f"| {row.id} | {row.measured()} | {row.verdict} | {row.kept['commit']} | {row.kept['date']} | {row.kept['machine']} |")


def main():
    match sys.argv[1:]:
        case ["line", path]:
            row = Row(Path(path))
            print(row.line())
            sys.exit(row.red)
        case ["page", folder]:
            page(Path(folder))
        case _:
            sys.exit(__doc__)


main()
