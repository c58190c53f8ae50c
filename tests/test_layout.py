"""The house's own rules: the README's tree and length, the size of modules and functions, who imports whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE_LINES, FUNCTION_LINES = 300, 40

UNLISTED = {".ci", ".github"}
"""Folders at the top that are no part of the product."""


def tree() -> list[str]:
    """The paths of the README's tree, in its order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^## Tree\n+```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block, "README.md has no code block under the heading Tree"
    return [line.split()[0] for line in block[1].splitlines()]


def tracked() -> list[str]:
    """What git tracks, as paths from the root."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def modules() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "bench").rglob("*.py"))


def test_every_line_of_the_readmes_tree_says_what_a_path_is_for():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in tree():
        assert re.search(rf"^{re.escape(path)}  +\S", text, re.MULTILINE), path


def test_results_name_no_place_on_a_machine():
    records = [name for name in tracked() if name.startswith("results/") and name.endswith(".json")]
    assert len(records) > 20
    assert [name for name in records if re.search(r'": "(/|~|[A-Z]:)', (ROOT / name).read_text(encoding="utf-8"))] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_every_path_of_the_readmes_tree_is_there():
    assert [path for path in tree() if not (ROOT / path).exists()] == []
    assert [path for path in tree() if path.endswith("/") != (ROOT / path).is_dir()] == []
    assert len(tree()) == len(set(tree()))


def test_every_folder_that_git_tracks_at_the_top_is_in_the_readmes_tree():
    listed = {path.partition("/")[0] for path in tree()}
    assert {name.partition("/")[0] for name in tracked() if "/" in name} - listed - UNLISTED == set()


def test_every_room_is_in_the_readmes_tree():
    rooms = {f"{Path(name).parent}/" for name in tracked() if re.fullmatch(r"bench/\w+/\w+\.py", name)}
    assert len(rooms) > 5
    assert rooms - set(tree()) == set()


@pytest.mark.parametrize("module", modules())
def test_modules_and_functions_are_short(module):
    text = (ROOT / module).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    sizes = {function.name: function.end_lineno - function.lineno + 1 for function in functions}
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES} == {}


def kernels() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "bench").rglob("cpp/*"))


def cpp_functions(text: str) -> dict[str, int]:
    """First line of each C++ function -> its number of lines. A function begins and ends at the left margin."""
    first, found = None, {}
    for number, whole in enumerate(text.splitlines()):
        line = whole.partition("  //")[0]
        if first is None and re.match(r"(?!namespace|struct)\w", line):
            first = (number, line)
        if first is not None and line == "}":
            found[first[1]] = number - first[0] + 1
        if line == "}" or (first and first[0] == number and line.endswith((";", "}"))):
            first = None
    return found


def test_there_are_kernels():
    assert "bench/scoring/forward/cpp/library.cpp" in kernels()


@pytest.mark.parametrize("source", kernels())
def test_the_kernels_files_and_functions_are_short(source):
    text = (ROOT / source).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES
    assert {name: size for name, size in cpp_functions(text).items() if size > FUNCTION_LINES} == {}


def test_the_lines_of_a_cpp_function_are_counted():
    text = """
namespace a {

constexpr int SIDE = 2;  // of a square

// One.
inline int one(int x,
               int y) {
  if (x) {
  }
  return y;
}

inline int two() { return 2; }
int three() {
}

}  // namespace a
"""
    assert cpp_functions(text) == {"inline int one(int x,": 6, "int three() {": 2}


def test_the_measurement_of_speed_can_be_begun():
    # Nobody runs it in a test: a name that moved would be found an hour late.
    command = [sys.executable, "-m", "perf", "--help"]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_test_that_a_promise_names_is_there():
    named = re.findall(
        r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "reference" / "promises.md").read_text(encoding="utf-8")
    )
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []


def test_the_layers_hold():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", sorted({*modules()} - {"bench/faults.py"}))
def test_a_line_on_stderr_with_words_of_others_goes_through_warn(name):
    calls = [node for node in ast.walk(ast.parse((ROOT / name).read_text("utf-8"))) if isinstance(node, ast.Call)]
    printed = [
        ast.unparse(call)
        for call in calls
        if any(ast.unparse(word) == "file=sys.stderr" for word in call.keywords)
        and ast.unparse(call.func) == "print"
        and not all(isinstance(part, ast.Constant) for part in call.args)
    ]
    assert printed == []
