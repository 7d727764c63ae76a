"""The rooms of each package: what may import what, read from the code. Imports inside functions and for types only
count like all others."""

import ast
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOMS = {
    "scaling": [
        "errors",
        "numbers",
        "quantization",
        "config",
        "model",
        "data",
        "console",
        "records",
        "ptq",
        "training",
        "study",
        "pretrained",
        "train",
        "sweep",
        "export",
        "__main__",
    ],
    "analysis": [
        "errors",
        "numbers",
        "files",
        "streams",
        "palettes",
        "notebook",
        "laws",
        "filters",
        "reading",
        "table",
        "fitting",
        "diagnostics",
        "planning",
        "figures",
        "report",
        "validation",
        "cli",
        "__main__",
    ],
}
"""Package -> its folders and the modules beside them, from the bottom up: each may import itself and what stands before
it."""
PACKAGES = ("scaling", "analysis", "bench")
MOST_MODULES = 13  # a folder, without its __init__.py
MOST_LINES = 400


@cache
def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file; a folder's `__init__.py` goes by the folder's name."""
    found = {}
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imported(code: str, known: dict[str, Path]) -> set[str]:
    """Dotted names of the modules that the code imports, of `known` ones also where they are taken out of a folder."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports name their module in full"
            wholes = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {whole if whole in known else node.module for whole in wholes.values()}
    return names


def imports_of(path: Path, known: dict[str, Path]) -> set[str]:
    return imported(path.read_text(encoding="utf-8"), known)


@cache
def graph(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    known = modules(package)
    return {name: (imports_of(path, known) & set(known)) - {name} for name, path in known.items()}


def room(module: str) -> str:
    return module.split(".")[1]


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Walks that end where they began, each from the module that is met first."""
    found, done = [], set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for other in sorted(edges[name]):
                walk(other, [*path, name])
            done.add(name)

    for name in edges:
        walk(name, [])
    return found


def test_circles_are_found():
    edges = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set()}
    assert circles(edges) == [["b", "c", "b"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_kind_of_import_is_seen():
    code = """
from typing import TYPE_CHECKING
import p.a
from p import b, name
if TYPE_CHECKING:
    from p.c import d
def f():
    from p.e import g
"""
    known = dict.fromkeys(("p", "p.a", "p.b", "p.c", "p.e", "p.e.g"), Path())
    assert imported(code, known) == {"typing", "p.a", "p.b", "p", "p.c", "p.e.g"}


@pytest.mark.parametrize("package", ROOMS)
def test_every_module_has_a_room(package):
    assert {room(name) for name in modules(package) if name != package} == set(ROOMS[package])


@pytest.mark.parametrize("package", ROOMS)
def test_no_import_goes_up(package):
    floor = {name: i for i, name in enumerate(ROOMS[package])}
    upward = [
        f"{name} imports {other}"
        for name, others in graph(package).items()
        for other in others
        if name != package and (other == package or floor[room(other)] > floor[room(name)])
    ]
    assert not upward


@pytest.mark.parametrize("package", ROOMS)
def test_no_modules_import_each_other_in_a_circle(package):
    assert not circles(graph(package))


@pytest.mark.parametrize("package", ROOMS)
def test_folders_and_modules_stay_small(package):
    paths = list(modules(package).values())
    assert not [path for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES]
    folders = [path.parent for path in paths if path.name != "__init__.py"]
    assert not {folder for folder in folders if folders.count(folder) > MOST_MODULES}


def test_the_table_of_runs_is_all_that_passes_between_the_packages():
    """Training knows nothing of laws, nor laws of training, so that a table from elsewhere can be fitted; benchmarks
    know both, and nothing knows them."""
    allowed = {"scaling": {"scaling"}, "analysis": {"analysis"}, "bench": set(PACKAGES)}
    for package in PACKAGES:
        for path in modules(package).values():
            names = {name.split(".")[0] for name in imports_of(path, {})}
            assert names & set(PACKAGES) <= allowed[package], path
