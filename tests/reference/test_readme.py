"""The course's README names every file and public function of the reference, and what it says of them is there.

Docstrings are part of this: every formula cites its source, and the index agrees with what they cite.
"""

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


NAME = r"`([a-z_0-9]+(?:\.\w+)+)`"
LABEL = r"eq\. \(\d\)|(?:appendix|section|fig\.|table) [A-Z\d](?:\.\d)?"


def indexed():
    """Dotted names in the index."""
    return re.findall(NAME, section("From the paper to the code"))


def find(name):
    """The function or class behind a dotted name of the index."""
    module, *rest = name.split(".")
    thing = importlib.import_module(f"reference.{module}")
    for part in rest:
        thing = getattr(thing, part)
    return thing


def source(thing):
    """What a docstring cites: its Source, to the end of the indented lines below; empty where it has none."""
    found = re.search(r"^Source +(.*(?:\n +.*)*)", inspect.getdoc(thing) or "", flags=re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def labelled():
    """Names in the index, each with what the first cell of its row says of its place in the paper."""
    for row in section("From the paper to the code").splitlines():
        for label in re.findall(LABEL, row.split("|")[1] if "|" in row else ""):
            for name in re.findall(NAME, row):
                yield pytest.param(name, label, id=f"{name}: {label}")


def test_the_reading_order_names_every_file_once():
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py") if path.name != "__init__.py"}
    named = re.findall(r"`([\w/]+\.py)`", section("Reading order"))
    assert sorted(named) == sorted(files)


def test_the_index_names_what_there_is():
    for name in indexed():
        thing = find(name)
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
                for name, method in vars(thing).items():
                    method = getattr(method, "__func__", method)  # what a classmethod wraps
                    if not name.startswith("_") and inspect.isfunction(method):
                        yield pytest.param(method, id=f"{place}.{name}")


def holds_results(thing):
    """Whether a class is a tuple, or has no methods but those that every dataclass has: no formula of its own."""
    return inspect.isclass(thing) and (
        issubclass(thing, tuple)
        or not any(inspect.isfunction(value) and not name.startswith("__") for name, value in vars(thing).items())
    )


@pytest.mark.parametrize("thing", list(functions()))
def test_every_formula_states_source_shapes_domain_units_and_errors(thing):
    headings = set(re.findall(r"\b(Shapes|Domain|Units|Raises)\b(?=[, ])", thing.__doc__ or ""))
    wanted = {"Shapes", "Domain", "Units", "Raises"} if inspect.isfunction(thing) else set()
    assert wanted <= headings
    assert source(thing) or holds_results(thing)


@pytest.mark.parametrize(("name", "label"), list(labelled()))
def test_what_the_index_finds_in_the_paper_cites_that_place(name, label):
    """Swap the functions of eq. (4) and eq. (5) in the index, and this fails. "section 7" is cited by "section 7.1"."""
    thing = find(name)
    if not holds_results(thing):
        assert "DVAE++" in source(thing)
        assert re.search(re.escape(label) + r"(?!\d)", source(thing)), source(thing)


def test_the_table_of_estimators_has_the_rows_that_the_command_prints():
    from validation.sampling.estimators import table

    chapter = README.split("### 8. ")[1].split("### 9. ")[0]
    shown = re.findall(r"^\| ([^|]+?) \| ([^|]*?) \| \d", chapter, flags=re.MULTILINE)
    assert shown == [(row.estimator, row.parameter) for row in table(1000)]
