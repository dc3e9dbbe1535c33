"""Many mutants in one build.

cargo-mutants says what the mutants are: a span of a file and what stands there instead. Built one by one they take hours, nearly
all of it in the compiler. Here a function that has mutants becomes

    fn f(..) -> T { match crate::mutant() { 7 => { body of mutant 7 } 8 => { body of mutant 8 } _ => { body } } }

and which of them runs is said by the environment, so that one build serves all. A mutant whose copy does not compile is taken
out, as unviable, and the rest is built again. What cannot be chosen at run time is left to be built alone: a constant, a function
that constants need, and what does not compile here for a reason that may lie in the company of the others.
"""

import re
from dataclasses import dataclass, field

VARIABLE = "STRONGROOM_MUTANT"
CHOICE = f"""
pub(crate) fn mutant() -> u32 {{
    static CHOSEN: std::sync::LazyLock<u32> =
        std::sync::LazyLock::new(|| std::env::var("{VARIABLE}").map_or(0, |number| number.parse().expect("a number")));
    *CHOSEN
}}
"""
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|r#*"|"(?:\\.|[^"\\])*"|\'(?:\\.[^\']*|[^\'\\])\'|\w+|.', re.DOTALL)


@dataclass
class Mutant:
    """One of cargo-mutants' list. `name` has no line in it: file, what is done, and which of those that read alike."""

    number: int
    name: str
    file: str
    span: tuple
    replacement: str
    function: tuple | None
    returns: str
    genre: str


@dataclass
class Function:
    """Where a function's text begins, where what its braces hold begins and ends, whether it says `const`."""

    start: int
    body: int
    end: int
    constant: int | None
    name: str
    mutants: list = field(default_factory=list)


@dataclass
class Arm:
    """Where a mutant's copy stands in the file as it is built, in bytes."""

    mutant: Mutant
    function: str
    start: int
    end: int


class Source:
    """A file, and the offsets of its lines."""

    def __init__(self, text):
        self.text = text
        self.lines = [0]
        for line in text.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def offset(self, place):
        line, column = place
        return self.lines[line - 1] + column - 1

    def with_mutant(self, mutant):
        start, end = (self.offset(place) for place in mutant.span)
        return self.text[:start] + f" {mutant.replacement} " + self.text[end:]

    def functions(self, mutants):
        """The outermost functions that hold these mutants, in the order of the file."""
        spans = sorted({tuple(map(self.offset, m.function)) for m in mutants if m.function}, key=lambda s: (s[0], -s[1]))
        found = []
        for start, end in spans:
            if not found or start >= found[-1].end:
                found.append(self.function(start, end))
        for mutant in mutants:
            at = self.offset(mutant.span[0])
            for function in found:
                if mutant.function and function.body <= at < function.end:
                    function.mutants.append(mutant)
        return found

    def function(self, start, end):
        constant = name = None
        for token in TOKEN.finditer(self.text, start, end):
            if token[0] == "const" and not name:
                constant = token.start()
            elif token[0] == "fn" and not name:
                name = re.compile(r"\s*(\w+)").match(self.text, token.end())[1]
            elif token[0] == "{" and name:
                return Function(start, token.end(), end - 1, constant, name)
        raise ValueError(f"no body: {self.text[start:end][:200]}")

    def together(self, mutants, constants):
        """The file with all of these that a function can choose from, where they stand in it, and those that are left.
        Functions named in `constants` stay as they are."""
        parts, arms, at, length = [], [], 0, 0
        left = {mutant.number: mutant for mutant in mutants}

        def add(text):
            nonlocal length
            parts.append(text)
            length += len(text.encode())

        for function in self.functions(mutants):
            if function.constant is not None and function.name in constants or not function.mutants:
                continue
            if function.constant is not None:
                add(self.text[at:function.constant])
                at = function.constant + len("const")
            add(self.text[at:function.body])
            add(" match crate::mutant() {")
            for mutant in function.mutants:
                start, end = (self.offset(place) for place in mutant.span)
                add(f" {mutant.number} => {{")
                begin = length
                add(f"{self.text[function.body:start]} {mutant.replacement} {self.text[end:function.end]}\n}}")
                arms.append(Arm(mutant, function.name, begin, length))
                del left[mutant.number]
            add(f" _ => {{{self.text[function.body:function.end]}\n}} }} ")
            at = function.end
        add(self.text[at:])
        return "".join(parts), arms, list(left.values())


class Build:
    """Which mutants are in the build, which cannot be, and which have to be built alone."""

    def __init__(self, tree, mutants):
        self.tree = tree
        self.inside = list(mutants)
        self.files = sorted({mutant.file for mutant in mutants})
        self.unviable, self.alone, self.constants, self.arms = [], [], set(), {}

    def write(self):
        """Writes every file that had a mutant once: the last of them may have been taken out."""
        left = []
        for file in self.files:
            source = self.tree.source(file)
            text, self.arms[file], rest = source.together([m for m in self.inside if m.file == file], self.constants)
            left += rest
            self.tree.put(file, text)
        self.alone += left
        self.inside = [m for m in self.inside if m not in left]
        self.tree.put("src/lib.rs", self.tree.source("src/lib.rs").text + CHOICE)

    def learn(self, errors):
        """Takes out what the compiler's errors are about. Each error has its message and its places, of which one in a mutant's
        copy is enough."""
        before = len(self.inside), len(self.constants)
        for error in errors:
            if error.code == "E0015":
                self.constants |= {path.split("::")[-1] for path in re.findall(r"`([^`]+)`", error.message)}
                continue
            concerned = [arm for place in error.places for arm in self.arms.get(place[0], []) if arm.start <= place[1] < arm.end]
            for mutant in {arm.mutant.number: arm.mutant for arm in concerned}.values():
                if mutant in self.inside:
                    self.inside.remove(mutant)
                    # Copies that return closures have different types.
                    (self.alone if "impl" in mutant.returns else self.unviable).append(mutant)
        if before == (len(self.inside), len(self.constants)):
            raise ValueError("the build fails, and not for a mutant:\n" + "\n".join(error.text for error in errors))
