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
# A mutant may take all that it can get.
MEMORY, FILE = 12 << 30, 1 << 30


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
        self.root, self.path, self.target, self.profile = root, path, target, profile
        self.refresh()

    def refresh(self):
        """As the repository is, with times kept where nothing differs, so that only what differs is compiled again."""
        names = set()
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if name not in LEFT_OUT]
            names |= {str((Path(folder) / name).relative_to(self.root)) for name in files}
        if self.path.exists():
            for old in list(self.path.rglob("*")):
                if old.is_file() and str(old.relative_to(self.path)) not in names:
                    old.unlink()
        for name in names:
            self.put(name, None)

    def source(self, name):
        return Source((self.root / name).read_text())

    def put(self, name, text):
        """A file's text, or with `None` what it is in the repository. What a copy of a function breaks for the lints is no matter."""
        data = (self.root / name).read_bytes() if text is None else text.encode()
        if name == "Cargo.toml":
            data = re.sub(rb"(?m)^\[lints\.\w+\]\n(.+\n)*", b"", data)
        there = self.path / name
        if not there.exists() or there.read_bytes() != data:
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(data)

    def build(self):
        """The program with the library's tests, and the errors where there are any."""
        command = ["cargo", "test", "--locked", "--profile", self.profile, "--features", "testing", "--lib", "--no-run",
                   "--message-format", "json"]
        environment = os.environ | {"CARGO_TARGET_DIR": str(self.target), "CARGO_INCREMENTAL": "1"}
        run = subprocess.run(command, cwd=self.path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        program, errors = None, []
        for line in run.stdout.splitlines():
            message = json.loads(line)
            if message["reason"] == "compiler-message" and message["message"]["level"].startswith("error"):
                errors.append(complaint(message["message"]))
            elif message["reason"] == "compiler-artifact" and message.get("executable") and message["profile"]["test"]:
                program = message["executable"]
        if run.returncode == 0 and program and not errors:
            return program, []
        # The last one only counts the others.
        errors = [error for error in errors if error.places] or errors
        if not errors:
            raise ValueError(run.stderr[-4000:])
        return None, errors


def complaint(message):
    places = []
    for span in message["spans"]:
        while span and span["is_primary"]:
            places.append((span["file_name"], span["byte_start"]))
            expansion = span.get("expansion")
            span = expansion and expansion["span"] | {"is_primary": True}
    return Complaint((message.get("code") or {}).get("code", ""), message["message"], message["rendered"], places)


class Tests:
    """The program with the tests, and how long all of them take when nothing is wrong."""

    def __init__(self, tree, program):
        self.tree, self.program = tree, program
        begun, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        self.patience_s = self.cpu_s = 900
        outcome, said = self.run(0, [])
        if outcome != "passed":
            raise ValueError(f"the tests fail without a mutant: {said}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Much more than they need: the machine may have other work.
        self.patience_s = 8 * (time.monotonic() - begun) + 60
        self.cpu_s = int(4 * (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)) + 20

    def of(self, program):
        """The same with another program, in which the mutant is built in."""
        other = copy(self)
        other.program = program
        return other

    def judge(self, mutant, number=None):
        """Whether a test fails: `caught`, `missed`, or `timeout`. First those of the mutant's own module."""
        number = mutant.number if number is None else number
        module = re.match(r"src/([^/.]+)", mutant.file)[1] + "::"
        if module == "provider::":
            module = "provider::" + re.match(r"src/provider/([^/.]+)", mutant.file)[1] + "::"
        outcome, said = self.run(number, [module])
        if outcome == "passed":
            outcome, said = self.run(number, ["--skip", module])
        return {"passed": "missed", "failed": "caught"}.get(outcome, outcome), said

    def run(self, number, arguments):
        """Ends with the first test that fails."""
        run = subprocess.Popen(
            [self.program, *arguments], cwd=self.tree.path, env=self.environment(number), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace", preexec_fn=self.limit, start_new_session=True,
        )
        late = threading.Event()
        RUNNING.add(run.pid)
        watch = threading.Timer(self.patience_s, lambda: (late.set(), end(run.pid)))
        watch.start()
        failed = ""
        for line in run.stdout:
            if re.match(r"test .* \.\.\. FAILED", line):
                failed = line.split()[1]
                end(run.pid)
                break
        run.stdout.close()
        status = run.wait()
        watch.cancel()
        RUNNING.discard(run.pid)
        if failed:
            return "failed", failed
        if late.is_set() or status == -signal.SIGXCPU:
            return "timeout", "no end"
        return ("passed", "") if status == 0 else ("failed", f"ended with {status}")

    def environment(self, number):
        return os.environ | {VARIABLE: str(number), "CARGO_MANIFEST_DIR": str(self.tree.path), "RUST_BACKTRACE": "0"}

    def limit(self):
        resource.setrlimit(resource.RLIMIT_CPU, (self.cpu_s, self.cpu_s + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
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
