"""Arrows point one way: reference <- accelerated <- dvaepp <- validation <- tests, read from the import statements."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("reference", "accelerated", "dvaepp", "validation", "tests")
FORBIDDEN = {"accelerated": {"torch"}}
REFERENCE_MAY_USE = {"numpy", "scipy", "reference"} | set(sys.stdlib_module_names)


def imported(source):
    """Top-level names of all modules that a source imports, anywhere in it: functions and guarded blocks too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__"):
                names.add(str(node.args[0].value).split(".")[0])
    return names


def violations(package, source):
    """Modules that a file of the package imports against the arrows."""
    names = imported(source)
    later = set(ORDER[ORDER.index(package) + 1 :])
    wrong = names & (later | FORBIDDEN.get(package, set()))
    return wrong | (names - REFERENCE_MAY_USE if package == "reference" else set())


@pytest.mark.parametrize("package", ORDER[:-1])
def test_arrows(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(ROOT)): found for file in files if (found := violations(package, file.read_text()))}
    assert not wrong


@pytest.mark.parametrize(
    ("package", "source", "found"),
    [
        ("reference", "def f():\n    import torch\n", {"torch"}),
        ("reference", "from mpmath import mp\n", {"mpmath"}),
        ("accelerated", "try:\n    from torch.nn import Module\nexcept ImportError:\n    pass\n", {"torch"}),
        ("accelerated", "import importlib\nimportlib.import_module('dvaepp.smoothing')\n", {"dvaepp"}),
        ("dvaepp", "from validation import accuracy\n", {"validation"}),
        ("dvaepp", "from . import smoothing\nimport torch, reference.smoothing\n", set()),
    ],
)
def test_the_reader_finds_what_it_should(package, source, found):
    assert violations(package, source) == found
