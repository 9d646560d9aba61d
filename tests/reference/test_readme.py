"""The course's README names every file and every public function of the reference, and nothing that is not there."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import reference

FOLDER = Path(reference.__file__).parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")
MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(reference.__path__, "reference.")
    if not info.ispkg
]

#: What is no formula: checks of arguments and arithmetic, whose source is themselves.
TOOLS = {
    "reference.vocabulary",
    "reference.smoothing.compensated",
    "reference.smoothing.inversion",
    "reference.smoothing.real_line",
    "reference.smoothing.series",
}


def public(module):
    """Functions and classes that a module defines, by name."""
    return {
        name: thing
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
    }


def section(title):
    """The text under a heading of the README, up to the next one of its level."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def indexed():
    """Dotted names in the index."""
    return re.findall(r"`([a-z_0-9]+(?:\.\w+)+)`", section("From the paper to the code"))


def test_the_reading_order_names_every_file_once():
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py") if path.name != "__init__.py"}
    named = re.findall(r"`([\w/]+\.py)`", section("Reading order"))
    assert sorted(named) == sorted(files)


def test_the_index_names_what_there_is():
    for name in indexed():
        module, *rest = name.split(".")
        thing = importlib.import_module(f"reference.{module}")
        for part in rest:
            thing = getattr(thing, part)
        assert inspect.isfunction(thing) or inspect.isclass(thing), name


def test_the_index_misses_nothing():
    names = indexed()
    assert len(names) == len(set(names)), "named twice"
    missing = []
    for module in MODULES:
        if module.__name__ in TOOLS:
            continue
        for name in public(module):
            place = module.__name__.removeprefix("reference.")
            # A kind of smoothing is indexed where it is exported.
            short = f"smoothing.{name}" if place.startswith("smoothing.") else f"{place}.{name}"
            if short not in names and f"{place}.{name}" not in names:
                missing.append(f"{place}.{name}")
    assert not missing


def test_files_and_pictures_that_are_shown_exist():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        if not link.startswith("https://"):
            assert (FOLDER / link).exists(), link


def functions():
    for module in MODULES:
        if module.__name__ in TOOLS:
            continue
        for name, thing in public(module).items():
            place = f"{module.__name__.removeprefix('reference.')}.{name}"
            if inspect.isfunction(thing):
                yield pytest.param(thing, id=place)
            else:
                yield pytest.param(thing, id=place)
                for method in vars(thing):
                    if not method.startswith("_") and inspect.isfunction(getattr(thing, method)):
                        yield pytest.param(getattr(thing, method), id=f"{place}.{method}")


@pytest.mark.parametrize("thing", list(functions()))
def test_every_formula_states_shapes_domain_units_and_errors(thing):
    headings = set(re.findall(r"\b(Source|Shapes|Domain|Units|Raises)\b(?=[, ])", thing.__doc__ or ""))
    wanted = {"Shapes", "Domain", "Units", "Raises"} if inspect.isfunction(thing) else set()
    assert wanted <= headings
