"""A copy of the repository to build mutants in, and the compiler and the tests run there."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from together import VARIABLE, Source

LEFT_OUT = {".git", "target", "node_modules"}
# Of address space: a mutant may take all that it can get.
MEMORY = 12 << 30
SLOW_S = 0.5
# These search at random or exhaustively. A sample in the gate's build, where nothing is optimised, asks them last and does not wait
# to see how long they take.
HEAVY = tuple(f"lease::tests::{name}::" for name in ("explore", "explore_second", "explore_shares", "invariants", "outages", "schedule"))
HEAVY_S = 60.0
# Modules that are tested as a whole, from outside, more than by unit tests.
BY_PROGRAMS = ("account::", "keeper::", "cache::", "rotate::", "store::")


@dataclass
class Complaint:
    """An error of the compiler: its code, and where, as (file, byte)."""

    code: str
    message: str
    text: str
    places: list


class Tree:
    """`profile` is cargo's; `target` may hold dependencies that are built already."""

    def __init__(self, root, path, target, profile):
        self.path, self.target, self.profile = path, target, profile
        # As the repository is now, whatever is written there meanwhile.
        self.files = {}
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if name not in LEFT_OUT]
            for name in files:
                self.files[str((Path(folder) / name).relative_to(root))] = (Path(folder) / name).read_bytes()
        for old in list(path.rglob("*")):
            if old.is_file() and str(old.relative_to(path)) not in self.files:
                old.unlink()
        self.restore()

    def restore(self):
        """Files that are as they should be keep their times, so that only what differs is compiled again."""
        for name in self.files:
            self.put(name, None)

    def source(self, name):
        return Source(self.files[name].decode())

    def put(self, name, text):
        """A file's text, or with `None` what it is in the repository. What a copy of a function breaks for the lints is no matter."""
        data = self.files[name] if text is None else text.encode()
        if name == "Cargo.toml":
            data = re.sub(rb"(?m)^\[lints\.\w+\]\n(.+\n)*", b"", data)
        if name in ("Cargo.toml", "Cargo.lock"):
            # Another version, so that cargo takes it for another package than that of another tree in the same target directory.
            data = re.sub(rb'(?m)^(name = "strongroom"\nversion = "[^"+]+)[^"]*', rb"\1+" + self.path.name.encode(), data)
        there = self.path / name
        if not there.exists() or there.read_bytes() != data:
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(data)

    def build(self, tests):
        """The programs with the library's unit tests and with these others, or the errors where there are any."""
        command = ["cargo", "test", "--locked", "--profile", self.profile, "--features", "testing", "--no-run",
                   "--message-format", "json", "--lib", *(word for name in tests for word in ("--test", name))]
        environment = os.environ | {"CARGO_TARGET_DIR": str(self.target), "CARGO_INCREMENTAL": "1"}
        run = subprocess.run(command, cwd=self.path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        programs, errors = {}, []
        for line in run.stdout.splitlines():
            message = json.loads(line)
            if message["reason"] == "compiler-message" and message["message"]["level"].startswith("error"):
                errors.append(complaint(message["message"]))
            elif message["reason"] == "compiler-artifact" and message.get("executable") and message["profile"]["test"]:
                programs[message["target"]["name"]] = message["executable"]
        if run.returncode == 0 and len(programs) == 1 + len(tests):
            return [self.kept(programs[name]) for name in ["strongroom", *tests]], []
        # The last one only counts the others.
        errors = [error for error in errors if error.places] or errors
        if not errors:
            raise ValueError(run.stderr[-4000:])
        return [], errors

    def kept(self, program):
        """A copy: the next build has the same name."""
        copy = self.path.parent / f"{self.path.name}.programs" / Path(program).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)
        return shutil.copy(program, copy)


def complaint(message):
    places = []
    for span in message["spans"]:
        while span and span["is_primary"]:
            places.append((span["file_name"], span["byte_start"]))
            expansion = span.get("expansion")
            span = expansion and expansion["span"] | {"is_primary": True}
    return Complaint((message.get("code") or {}).get("code", ""), message["message"], message["rendered"], places)


class Tests:
    """The programs with the tests: that of the library's unit tests, and others. Without a mutant they have to pass."""

    def __init__(self, tree, programs, sample=False, own_only=False):
        self.tree, self.programs, self.own_only = tree, programs, own_only
        self.heavy = HEAVY if sample else ()
        self.seconds, self.lock = {}, threading.Lock()

    def of(self, programs):
        """The same with other programs, in which a mutant is built in."""
        other = copy(self)
        other.programs = programs
        return other

    def judge(self, number, file):
        """Whether a test fails: `caught`, `missed`, or `timeout`, and what shows it. The unit tests of the mutant's own module come
        first; then what is likelier to tell, the other unit tests or the other programs."""
        module = module_of(file)
        own = self.times(0, [module])
        outcome, said = self.both(number, own)
        stages = [] if self.own_only else [self.other_units, self.other_programs]
        for stage in reversed(stages) if module in BY_PROGRAMS else stages:
            if outcome == "passed":
                outcome, said = stage(number, own)
        return {"passed": "missed", "failed": "caught"}.get(outcome, outcome), said

    def other_units(self, number, own):
        if self.heavy:
            # Seldom needed: not worth a run of all without a mutant.
            skipped = sorted({name.split("::")[0] + "::" for name in own})
            return self.start(number, 0, [word for name in skipped for word in ("--skip", name)], 900, 1800)[:2]
        return self.both(number, {name: time for name, time in self.times(0, []).items() if name not in own})

    def other_programs(self, number, _):
        outcome, said = "passed", ""
        for at in range(1, len(self.programs)):
            if outcome == "passed":
                outcome, said = self.run(number, at, self.times(at, []))
        return outcome, said

    def both(self, number, tests):
        quick = {name: time for name, time in tests.items() if time < SLOW_S}
        slow = {name: time for name, time in tests.items() if time >= SLOW_S}
        outcome, said = self.run(number, 0, quick)
        return self.run(number, 0, slow) if outcome == "passed" else (outcome, said)

    def times(self, at, words):
        """How long each of the tests takes whose names begin so, when nothing is wrong."""
        with self.lock:
            known = self.seconds.setdefault(at, {})
            if () not in known and tuple(words) not in known:
                skipped = [word for name in self.heavy for word in ("--skip", name)]
                outcome, said, times = self.start(0, at, [*words, "--test-threads=1", *skipped], 900, 1800)
                if outcome != "passed":
                    raise ValueError(f"the tests fail without a mutant: {said}")
                known[tuple(words)] = times | {name: HEAVY_S for name in self.names(at) if name.startswith(self.heavy)}
            tests = known.get(tuple(words), known.get(()))
        return {name: time for name, time in tests.items() if name.startswith(tuple(words) or "")}

    def names(self, at):
        listed = subprocess.run([self.programs[at], "--list"], check=True, capture_output=True, text=True).stdout
        return re.findall(r"(?m)^(\S+): test$", listed)

    def run(self, number, at, tests):
        """These tests, each at most three times as long as it takes; by the clock much longer, since the machine may have other
        work. What fails has to fail twice: a test that failed for another reason, or by luck, does not count."""
        if not tests:
            return "passed", ""
        usual = sum(tests.values())
        outcome, said, _ = self.start(number, at, ["--exact", *tests], int(3 * usual) + 10, 8 * usual + 60)
        if outcome == "failed" and said in tests:
            again, *_ = self.start(number, at, ["--exact", said], int(3 * usual) + 10, 8 * usual + 60)
            if again == "passed":
                return self.run(number, at, {name: time for name, time in tests.items() if name != said})
        return outcome, said

    def start(self, number, at, arguments, cpu_s, clock_s):
        """Ends with the first test that fails: how, what shows it, and how long each test took that did not."""
        run = subprocess.Popen(
            [self.programs[at], *arguments], cwd=self.tree.path, env=self.environment(number), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace", start_new_session=True,
            preexec_fn=lambda: restrict(cpu_s),
        )
        RUNNING.add(run.pid)
        late = threading.Event()
        watch = threading.Timer(clock_s, lambda: (late.set(), end(run.pid)))
        watch.start()
        failed, times, begun = "", {}, time.monotonic()
        for line in run.stdout:
            if told := re.match(r"test (\S+).* \.\.\. (ok|FAILED)", line):
                times[told[1]] = time.monotonic() - begun
                begun = time.monotonic()
                if told[2] == "FAILED":
                    failed = told[1]
                    end(run.pid)
                    break
        run.stdout.close()
        status = run.wait()
        watch.cancel()
        RUNNING.discard(run.pid)
        if failed:
            return "failed", failed, {}
        if late.is_set() or status == -signal.SIGXCPU:
            return "timeout", "no end", {}
        return ("passed", "", times) if status == 0 else ("failed", f"ended with {status}", {})

    def environment(self, number):
        return os.environ | {VARIABLE: str(number), "CARGO_MANIFEST_DIR": str(self.tree.path), "RUST_BACKTRACE": "0"}


def module_of(file):
    return re.match(r"src/((?:provider/)?\w+)", file)[1].replace("/", "::") + "::"


def restrict(cpu_s):
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def end_all(*_):
    for group in RUNNING:
        end(group)
    os._exit(1)


RUNNING = set()
signal.signal(signal.SIGTERM, end_all)
signal.signal(signal.SIGINT, end_all)
