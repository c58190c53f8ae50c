"""Who imports whom inside bench/: read from the source, because import-linter sees layers and no circle inside one."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench"

Arrows = dict[str, set[str]]
"""A module's (or room's) name -> the names of those that it imports."""


def imports(package: Path) -> Arrows:
    """The imports inside a package, module by module. An import inside a function counts, one for types does not."""
    files = {_name(path, package): path for path in package.rglob("*.py")}
    return {name: set(_imported(ast.parse(path.read_text("utf-8")), files)) - {name} for name, path in files.items()}


def circle(arrows: Arrows) -> list[str]:
    """The names along one circle, the first one again at its end; empty if there is no circle."""
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        # The sorter reads an arrow as "comes after", so its circle runs against the imports.
        return error.args[1][::-1]
    return []


def rooms(arrows: Arrows, *, nested: bool) -> Arrows:
    """The same between rooms: folders, and modules directly in the package.

    Args:
        arrows: Between modules.
        nested: Whether a folder inside a folder is a room, and not a part of the outer one.
    """
    folders = {name for name in arrows if any(other.startswith(f"{name}.") for other in arrows)}

    def room(name: str) -> str:
        folder = name if name in folders or name.count(".") < 2 else name.rpartition(".")[0]
        return folder if nested else ".".join(folder.split(".")[:2])

    found: Arrows = {room(name): set() for name in arrows}
    for name, others in arrows.items():
        found[room(name)] |= {room(other) for other in others} - {room(name)}
    return found


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    for node in _run(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            assert not node.level, f"line {node.lineno}: a relative import"
            # A name is a module of the package, or something in the package's own file.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (name if name in known else node.module for name in inner)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run: all but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _run(node)


def test_no_module_and_no_room_imports_itself_in_a_circle():
    arrows = imports(BENCH)
    between = rooms(arrows, nested=True)
    print(f"\n{len(arrows)} modules, {len(between)} rooms, {sum(map(len, between.values()))} arrows between rooms")
    for name, others in sorted(between.items()):
        print(f"  {name} -> {', '.join(sorted(others)) or '(nothing)'}")
    assert " imports ".join(circle(arrows)) == ""
    # A folder inside a folder uses what lies at the bottom of the outer one, whose top uses it: one room here.
    assert " imports ".join(circle(rooms(arrows, nested=False))) == ""


def write(folder: Path, texts: dict[str, str]) -> Path:
    package = folder / "house"
    for name, text in texts.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def test_a_circle_through_a_function_is_named(tmp_path):
    texts = {
        "__init__": "",
        "door": "from house.hall import lamp",
        "hall/__init__": "",
        "hall/lamp": "from house.hall import stairs",
        "hall/stairs": "def up():\n    import house.door\n",
    }
    found = circle(imports(write(tmp_path, texts)))
    assert found[0] == found[-1]
    assert set(found) == {"house.door", "house.hall.lamp", "house.hall.stairs"}
    assert "house.hall.lamp imports house.hall.stairs" in " imports ".join([*found, *found[1:]])


def test_an_import_for_types_makes_no_circle(tmp_path):
    texts = {
        "__init__": "",
        "door": "from house import hall",
        "hall": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house import door\n",
    }
    arrows = imports(write(tmp_path, texts))
    assert arrows == {"house": set(), "house.door": {"house.hall"}, "house.hall": set()}
    assert circle(arrows) == []


def test_a_folder_is_one_room_and_a_module_beside_it_another(tmp_path):
    texts = {
        "__init__": "",
        "door": "from house.hall.lamp import light",
        "hall/__init__": "",
        "hall/lamp": "from house.hall.attic import box",
        "hall/attic/__init__": "",
        "hall/attic/box": "",
    }
    found = rooms(imports(write(tmp_path, texts)), nested=False)
    assert found == {"house": set(), "house.door": {"house.hall"}, "house.hall": set()}
    inner = rooms(imports(write(tmp_path, texts)), nested=True)
    assert inner == found | {"house.hall": {"house.hall.attic"}, "house.hall.attic": set()}
