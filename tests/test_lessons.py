"""The lessons run from top to bottom, their assertions hold, and what they show and name is what there is.

A lesson states what its figures and numbers show as ``assert``s, so running it proves its text. After a change of a
lesson, ``python tests/test_lessons.py`` runs all of them and writes what they show into the files.
"""

import importlib
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "docs" / "lessons").glob("*.ipynb"))
SECONDS = 120  # for one cell, on a machine that is busy with other things
LARGEST = 500_000  # bytes of one file
ABSOLUTE_PATH = re.compile(r"(?<![\w.])/\w+/\w+|\b[A-Za-z]:\\|file://")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path):
    return nbformat.read(path, as_version=4)


def execute(notebook, scratch):
    """Run the cells in a fresh kernel: this interpreter, in the repository's root, on one thread.

    The kernel is described in ``scratch``, so that no other Python that the user has registered is run instead.
    """
    description = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
        "env": {
            **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "IPYTHONDIR": str(scratch / "ipython")},
            **{"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
            # tqdm, where it is installed for the benchmarks, misses widgets that no lesson uses.
            **{"PYTHONWARNINGS": "ignore:IProgress not found"},
        },
    }
    kernels = scratch / "kernels"
    (kernels / "python3").mkdir(parents=True)
    (kernels / "python3" / "kernel.json").write_text(json.dumps(description))
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)])
    )
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=SECONDS,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(ROOT)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def cells(notebook, kind):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def names_in(text):
    """Dotted names of this project's packages, such as reference.boltzmann.energy."""
    return re.findall(r"\b(?:reference|dvaepp)(?:\.[A-Za-z_]\w*)+", text)


def resolves(name):
    """Whether a dotted name is a module, or an attribute of one, or of one of its classes."""
    parts = name.split(".")
    for n_modules in range(len(parts), 0, -1):
        module_name = ".".join(parts[:n_modules])
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not f"{module_name}.".startswith(f"{error.name}."):
                raise  # it exists, and cannot import something else
            continue
        for attribute in parts[n_modules:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


def outputs(notebook):
    """What each cell shows: "figure", or text with its numbers masked, for the last digits differ between machines."""
    return [[masked(text_of(output)) for output in cell.outputs] for cell in cells(notebook, "code")]


def text_of(output):
    data = output.get("data", {})
    return "figure" if "image/png" in data else output.get("text", data.get("text/plain", output.output_type))


def masked(text):
    """The text with runs of digits, and the spaces and signs that align them, replaced."""
    return re.sub(r"[\s\-+−#]+", " ", re.sub(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?|inf", "#", text))


def complaints(notebook):
    """What must not be in a file that is kept: errors, warnings, paths of a machine, cells out of order, metadata."""
    found = []
    code = cells(notebook, "code")
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("the cells were not run once each from top to bottom")
    if notebook.metadata != METADATA:
        found.append("the metadata are more, or less, than kernel and language")
    found += [f"{cell.id}: the cell has metadata" for cell in notebook.cells if cell.metadata]
    for cell in code:
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{cell.id}: an error or a warning was stored")
            texts = [str(text) for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
            if ABSOLUTE_PATH.search("\n".join([output.get("text", ""), *texts])):
                found.append(f"{cell.id}: an absolute path was stored")
    return found


def test_there_are_three():
    assert [path.name[:2] for path in LESSONS] == ["1-", "2-", "3-"]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_and_shows_what_is_stored(path, tmp_path):
    stored = outputs(read(path))
    assert outputs(execute(read(path), tmp_path)) == stored, "run: python tests/test_lessons.py"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_is_fit_to_be_kept(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert not complaints(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert path.stat().st_size < LARGEST
    figures = [text for shown in outputs(notebook) for text in shown if text == "figure"]
    assert len(figures) >= 3
    assert sum("assert " in cell.source for cell in cells(notebook, "code")) >= 6


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_names_what_exists_and_hides_its_hints(path):
    text = "\n".join(cell.source for cell in cells(read(path), "markdown"))
    names = names_in(text)
    assert len(set(names)) >= 5
    assert not [name for name in names if not resolves(name)]
    assert 3 <= text.count("<details>") == text.count("</details>") <= 5


# ---- the judges can say no ------------------------------------------------------------------------------------------


def one_cell(source, **output):
    cell = nbformat.v4.new_code_cell(source, execution_count=1)
    if output:
        cell.outputs = [nbformat.v4.new_output(**output)]
    return nbformat.v4.new_notebook(cells=[cell], metadata=METADATA)


def test_a_false_assertion_is_noticed(tmp_path):
    with pytest.raises(CellExecutionError, match="AssertionError"):
        execute(one_cell("assert 1 + 1 == 3"), tmp_path)


def test_the_kernel_is_this_interpreter_in_the_root(tmp_path):
    run = execute(one_cell("import sys, os, reference; print(sys.executable, os.getcwd())"), tmp_path)
    assert run.cells[0].outputs[0].text.split() == [sys.executable, str(ROOT)]


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("reference.boltzmann", True),
        ("reference.boltzmann.energy", True),
        ("reference.tiny_model.Parameters.init", True),
        ("reference.boltzmann.enregy", False),
        ("reference.boltzman", False),
        ("dvaepp.data.load.nothing", False),
    ],
)
def test_names_that_do_not_exist_are_noticed(name, exists):
    assert names_in(f"see `{name}`.") == [name]
    assert resolves(name) == exists


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ({"output_type": "stream", "name": "stdout", "text": "a ratio 1/2 nats/unit, reference/boltzmann.py"}, None),
        ({"output_type": "stream", "name": "stdout", "text": "saved to /home/somebody/x"}, "absolute path"),
        ({"output_type": "stream", "name": "stdout", "text": "C:\\Users\\x"}, "absolute path"),
        ({"output_type": "stream", "name": "stderr", "text": "careful"}, "warning"),
        ({"output_type": "error", "ename": "E", "evalue": "", "traceback": []}, "error"),
    ],
)
def test_outputs_that_must_not_be_kept_are_noticed(output, complaint):
    found = complaints(one_cell("pass", **output))
    assert len(found) == (complaint is not None)
    assert all(complaint in text for text in found)


def test_a_stale_output_is_noticed():
    old, new, other = (
        one_cell("pass", output_type="stream", name="stdout", text=text)
        for text in ("beta  4.0: 12.5 nats", "beta 16.0:  -2.25 nats", "beta 16.0: -2.25 bits")
    )
    assert outputs(old) == outputs(new) != outputs(other)


if __name__ == "__main__":
    import tempfile

    for lesson in LESSONS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(read(lesson), Path(folder)), lesson)
