"""A squeezed program does what its sources do, in fewer names, and every line stays where it is."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simpang.rig.interpreter import find_tool
from simpang.squeeze import Squeezed, SqueezeError, identifiers, squeeze
from simpang.squeeze.words import POOL, RESERVED

ROOT = Path(__file__).resolve().parents[2]

# A program of a package with every construct that firmware uses.
PROGRAM = {
    "app": "",
    "app.numbers": """\
        \"\"\"Numbers.\"\"\"
        FIRST, SECOND = 1, 2
        _LOW, _MIDDLE, _HIGH = range(3)
        TABLE = {FIRST: "one", SECOND: "two"}
        NEGATIVE = -FIRST << 4
        NOT_A_NUMBER = "text"
        counter = 0
        UNUSED = 77


        def level(value: int) -> "int | None":
            if value == _HIGH:
                return _LOW
            return None if value == _MIDDLE else value


        def unused_helper():
            return UNUSED


        def bump() -> None:
            global counter
            counter += 1
        """,
    "app.shapes": """\
        from collections import namedtuple

        from . import numbers as _numbers
        from .numbers import FIRST, TABLE, level

        TYPE_CHECKING = False
        if TYPE_CHECKING:
            from typing import Any

            Pair = tuple[int, Any]

        if TYPE_CHECKING:
            Base: Any = object
        else:
            Base = object

        Spot = namedtuple("Spot", ("across", "downwards"))


        class Shape(Base):
            KIND = "shape"
            SIDES = 0
            name: str

            def __init__(self, size: int, *, label: "str | None" = None) -> None:
                self._size = size
                self.label = label
                self._hidden: dict[str, int] = {}

            @property
            def size(self) -> int:
                return self._size

            def area(self) -> int:
                assert self._size >= 0
                return self._combine(self._size)

            def _combine(self, size: int) -> int:
                return size * self.SIDES + FIRST

            def never_called(self) -> int:
                return unknown_name  # noqa: F821


        class Square(Shape):
            SIDES = 4

            def _combine(self, size: int) -> int:
                _hidden_local = [size * side for side in range(self.SIDES)]
                return Shape._combine(self, size) + sum(_hidden_local)

            def spots(self) -> "list[Spot]":
                size = self.size
                return [Spot(across, downwards=size - across) for across in range(size)]


        class Odd(ValueError):
            def __init__(self, cause: str) -> None:
                super().__init__(f"{cause}: {TABLE[FIRST]} at {_numbers.NEGATIVE}")
                self.cause = cause


        def totals(shapes, more=lambda shape, plus=FIRST: shape.area() + plus):
            def _inner(shape):
                return more(shape) + outer

            outer = _numbers.SECOND
            return {shape.label: _inner(shape) for shape in shapes}


        def check(size):
            FIRST = 100  # a local of the name of a constant
            if level(size) is None:
                raise Odd("medium")
            return FIRST + size
        """,
    "app.plugins": """\
        class Späte:
            \"\"\"Found by its name alone.\"\"\"
            def run(self):
                return "größe", self._mine()
            def _mine(self):
                return "µ"


        def find(name):
            return getattr(getattr(__import__("app.plugins"), "plugins"), name)
        """,
    "app.main": """\
        import app
        import sys
        from app import numbers, shapes

        try:
            from nowhere import absent as _absent
        except ImportError:
            _absent = None


        def run(quiet=False, depth=2):
            from app.plugins import find
            from app.shapes import Square as Local

            square = Local(3, label="three")
            square.extra = depth
            numbers.bump()
            out = [square.area(), square.size, square.extra, shapes.totals([square]), shapes.check(2)]
            out += [spot.across + spot.downwards for spot in square.spots()]
            try:
                shapes.check(1)
            except shapes.Odd as odd:
                out.append((str(odd), odd.cause, type(odd).__name__))
            out.append(find("Späte")().run())
            out.append((numbers.counter, _absent, numbers.NOT_A_NUMBER, quiet, shapes.Square.KIND))
            return out


        def report(values: "list[object]",
                   indent: int = 2,
                   ) -> "None":
            for value in values: print(" " * indent + str(value))
        """,
}


def texts(program: dict[str, str]) -> dict[str, str]:
    """The sources without the indentation they have here."""
    return {name: re.sub(r"(?m)^ {8}", "", text) for name, text in program.items()}


def small(program: dict[str, str], **options) -> Squeezed:
    options.setdefault("kept", {"main", "run", "report", "quiet", "depth"})
    options.setdefault("entries", ["app.main", "app.plugins"])
    return squeeze(texts(program), packages=["app"], **options)


def output(folder: Path, sources: dict[str, str], *command: str) -> str:
    """What the program prints, run from its sources."""
    for name, text in sources.items():
        path = folder / ("app/__init__.py" if name == "app" else name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    code = "import sys; sys.path.insert(0, '.'); import app.main; app.main.report(app.main.run(quiet=True))"
    done = subprocess.run(
        [*command, "-c", code], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("interpreter", ["host", "node"])
def test_squeezed_program_does_the_same(tmp_path: Path, interpreter: str) -> None:
    command = [sys.executable] if interpreter == "host" else [find_tool("micropython")]
    before = output(tmp_path / "before", texts(PROGRAM), *command)
    assert "medium: one at -16" in before
    assert output(tmp_path / "after", small(PROGRAM).sources, *command) == before


def test_squeezed_program_with_all_its_public_names_does_the_same(tmp_path: Path) -> None:
    result = small(PROGRAM, entries=None, kept=())
    assert {"unused_helper", "FIRST", "never_called"} <= identifiers(result.sources.values())
    before = output(tmp_path / "before", texts(PROGRAM), sys.executable)
    assert output(tmp_path / "after", result.sources, sys.executable) == before


def test_every_statement_stays_in_its_line() -> None:
    before, after = texts(PROGRAM), small(PROGRAM).sources
    for name, text in after.items():
        lines, was = text.split("\n"), before[name].split("\n")
        assert len(lines) == len(was)
        for line, old in zip(lines, was, strict=True):
            # Not one word of any line comes from another one.
            assert set(re.findall(r'"[^"{}]*"', line)) <= set(re.findall(r'"[^"{}]*"', old)) | {
                f'"{word}"' for word in POOL
            } | set(re.findall(r'"\w\w"', line))


def test_what_nothing_names_is_gone() -> None:
    found = identifiers(small(PROGRAM).sources.values())
    for name in ("UNUSED", "unused_helper", "never_called", "SECOND", "_HIGH", "TYPE_CHECKING", "Any"):
        assert name not in found, name


def test_names_are_shared_and_those_of_the_world_outside_stay() -> None:
    result = small(PROGRAM)
    found = identifiers(result.sources.values())
    assert not [
        name
        for name in found
        if name.startswith("_")
        and not name.startswith("__")
        and len(name) > 1
        and name not in ("_hidden_local", "_inner")
    ]
    assert {"run", "report", "quiet", "depth", "Odd", "Späte", "find"} <= found | {"find"}
    assert len(set(result.names.values())) < len(result.names)
    assert not set(result.names) & RESERVED


def test_the_same_sources_give_the_same_result() -> None:
    shuffled = dict(reversed(list(PROGRAM.items())))
    assert small(shuffled).sources == small(PROGRAM).sources


def test_only_modules_that_are_needed_stay() -> None:
    program = {**PROGRAM, "app.other": "from . import deep\n", "app.deep": "X = []\n"}
    assert set(small(program).sources) == set(PROGRAM)
    program["app.main"] = (
        PROGRAM["app.main"].replace("import app\n", "import app.other\n") + "print(app.other)\n"
    )
    assert {"app.other"} <= set(small(program).sources)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", "line 1"),
        ("def f():\n    return eval('1')\n", "eval"),
        ("def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = 2\n", "nonlocal"),
        ("from collections import namedtuple\nT = namedtuple('T', 'a b')\ny = T(1, 2)\n", "namedtuple"),
    ],
)
def test_what_cannot_be_squeezed_is_refused(text: str, words: str) -> None:
    with pytest.raises(SqueezeError, match=words) as caught:
        squeeze({"wrong": text})
    assert "wrong" in str(caught.value)


def test_attribute_set_from_outside_shares_its_name_with_nothing_of_any_class() -> None:
    result = squeeze(
        {
            "m": """\
class A:
    def __init__(self):
        self.first = 1
class B:
    def __init__(self):
        self.second = 2
def mark(thing):
    thing.third = 3
    return thing.first if isinstance(thing, A) else thing.second
print(mark(A()), mark(B()))
"""
        },
        entries=["m"],
    )
    names = result.names
    assert names["third"] not in (names["first"], names["second"])
    assert names["first"] == names["second"]


def test_arguments_take_names_that_the_function_does_not_use() -> None:
    text = "def f(first, second):\n    return [append(first) for step in second], get\n"
    text += "get = append = 1\nprint(f)\n"
    after = squeeze({"m": text}, entries=["m"]).sources["m"]
    function = ast.parse(after).body[0]
    assert isinstance(function, ast.FunctionDef)
    arguments = {argument.arg for argument in function.args.args}
    assert len(arguments) == 2
    assert not arguments & {"append", "get", "step"}


def test_borrowed_names_take_no_memory_on_the_node(tmp_path: Path) -> None:
    """Each word of the pool is already known to the interpreter, so that none is stored again."""
    code = "import micropython\nmicropython.qstr_info()\n"
    use = "".join(f"x.{word} = 0\n" for word in POOL)
    program = tmp_path / "use.py"
    program.write_text(code + f"def f(x):\n    {use.replace(chr(10), chr(10) + '    ')}pass\n" + code)
    done = subprocess.run(
        [find_tool("micropython"), str(program)], capture_output=True, text=True, check=True
    )
    before, after = [int(found) for found in re.findall(r"n_qstr=(\d+)", done.stdout)][:2]
    assert after - before <= len(POOL) // 20


def test_reserved_words_are_those_of_the_stubs() -> None:
    if not (ROOT / "typings" / "machine.pyi").is_file():
        pytest.skip("typings/ is missing: the stubs come with `sh scripts/setup dev`")
    checked = subprocess.run([sys.executable, "scripts/reserved-words", "--check"], cwd=ROOT, check=False)
    assert checked.returncode == 0, "Next: python scripts/reserved-words"
