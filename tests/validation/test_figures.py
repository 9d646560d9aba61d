"""The pictures of the course: every one can be drawn, says what it shows, and its numbers are those of a second way."""

import contextlib
import io
import itertools
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from PIL import Image
from scipy.integrate import quad

import reference.smoothing
from dvaepp.command import run
from dvaepp.errors import ConfigError
from reference import directed, tempering
from reference.gibbs import PersistentChains
from reference.smoothing import BinaryConcrete, MixtureSmoothing, OverlappingExponential
from validation import figures
from validation.figures import FIGURES, main

ROOT = Path(__file__).parents[2]


@dataclass
class Drawn:
    """What one run of the command left behind: its figures, its files, and what it printed."""

    figures: dict
    folder: Path
    lines: list
    settings_kept: bool


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    kept, printed, folder = {}, io.StringIO(), tmp_path_factory.mktemp("figures") / "new" / "folder"

    def keeping(name, draw):
        return lambda quick: kept.setdefault(name, draw(quick))

    before, pyplots = dict(matplotlib.rcParams), len(Gcf.figs)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        for name, draw in FIGURES.items():
            patch.setitem(FIGURES, name, keeping(name, draw))
        assert main(["--quick", "--out", str(folder)]) == 0
    settings_kept = dict(matplotlib.rcParams) == before and len(Gcf.figs) == pyplots
    return Drawn(kept, folder, printed.getvalue().splitlines(), settings_kept)


def finite_points(axes):
    """How many points a panel shows: those of its lines, and the corners of its histograms."""
    points = [np.asarray(line.get_xydata(), dtype=float) for line in axes.lines]
    points += [patch.get_path().vertices for patch in axes.patches]
    return sum(int(np.isfinite(xy).all(axis=1).sum()) for xy in points)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_message_labels_and_data(name, drawn):
    figure = drawn.figures[name]
    assert len(figure.get_suptitle()) > 20
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) >= 2
    for axes in panels:
        assert finite_points(axes) >= 4, axes.get_title()
        assert axes.get_title()
        shares_label = axes.get_shared_x_axes().get_siblings(axes) + [other for other in panels if other is not axes]
        assert axes.get_xlabel() or any(other.get_xlabel() for other in shares_label)
        for line in axes.lines:
            assert not np.isnan(np.asarray(line.get_ydata(), dtype=float)).any(), axes.get_title()


@pytest.mark.parametrize("name", FIGURES)
def test_every_caption_is_a_sentence_and_what_it_shows(name):
    first, *rest = FIGURES[name].__doc__.strip().split("\n\n")
    assert first.endswith((".", ":"))
    assert len(first.splitlines()) == 1
    assert rest


def test_all_are_written_and_nothing_else_and_matplotlib_stays_as_it_was(drawn):
    assert drawn.settings_kept
    written = sorted(drawn.folder.iterdir())
    assert [path.name for path in written] == sorted(f"{name}.png" for name in FIGURES)
    assert [Path(line.split()[0]).stem for line in drawn.lines] == list(FIGURES)
    for path in written:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert len(image.convert("RGB").getcolors(100_000)) > 20  # not an empty sheet


def test_the_same_picture_byte_for_byte_whatever_the_style_and_each_once(drawn, tmp_path, capsys):
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert main(["directed", "directed", "--quick", "--out", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    (again,) = tmp_path.iterdir()
    assert again.read_bytes() == (drawn.folder / "directed.png").read_bytes()


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "nu.png").write_bytes(b"old")

    def fails(quick):
        raise ArithmeticError("no convergence")

    monkeypatch.setitem(FIGURES, "nu", fails)
    with pytest.raises(ArithmeticError):
        main(["nu", "--out", str(tmp_path)])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("nu.png", b"old")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mixng"], "unknown figure 'mixng'; did you mean 'mixing'?"),
        (["nu", "bound"], "unknown figure 'bound'; did you mean 'bounds'?"),
        (["--ot", "x"], "unknown flag '--ot'; did you mean '--out'?"),
    ],
)
def test_bad_arguments_are_one_line_and_draw_nothing(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        main(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "taken").touch()
    with pytest.raises(SystemExit) as stopped:
        run(figures.PROG, lambda: main(["nu", "--quick", "--out", str(tmp_path / "taken")]))
    assert stopped.value.code == 2
    assert re.fullmatch(r"validation\.figures: error: File exists \(.*taken\)\n", capsys.readouterr().err)


def test_the_module_is_a_command_that_exits_with_two(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["figures", "nuu"])
    monkeypatch.delitem(sys.modules, figures.__name__)  # it is run afresh
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(figures.__name__, run_name="__main__", alter_sys=True)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "validation.figures: error: unknown figure 'nuu'; did you mean 'nu'?  (validation.figures --help)\n"
    )


def test_the_published_pictures_are_the_registered_ones():
    folder = ROOT / "docs" / "figures"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.png" for name in FIGURES)
    for path in folder.iterdir():
        assert path.stat().st_size < 200_000, path.name
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width > 1000


def test_no_kind_of_smoothing_is_missing(drawn):
    exported = set(reference.smoothing.__all__) - {"InverseCDF", "Smoothing", "MixtureSmoothing"}
    assert {kind.__name__ for kind in figures.kinds()} == exported
    titles = {
        name: " ".join(axes.get_title() for axes in drawn.figures[name].axes).lower() for name in ("smoothing", "nu")
    }
    labels = " ".join(
        text.get_text() for axes in drawn.figures["estimators"].axes for text in axes.get_legend().get_texts()
    )
    for kind in figures.kinds():
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
        assert words in titles["smoothing"]
        assert (words in titles["nu"]) == issubclass(kind, MixtureSmoothing)
        assert (words in labels.lower()) or kind is BinaryConcrete


# ---- what is drawn, computed a second way ---------------------------------------------------------------------------


def exponential_density(zeta, beta, q):
    return beta * ((1 - q) * np.exp(-beta * zeta) + q * np.exp(-beta * (1 - zeta))) / (1 - np.exp(-beta))


@pytest.mark.parametrize("beta", [2.0, 8.0, 30.0])
def test_bluntness_and_spread_of_exponentials_by_integrals_over_zeta(beta):
    """(dζ/dl)² f = (p q (F0 − F1))² / f over ζ: smooth, where the integral over the noise has a cliff."""
    smoothing = OverlappingExponential(beta)
    halves = [quad(lambda zeta: zeta * exponential_density(zeta, beta, 0.5), 0, 0.5)[0] * 2]
    assert figures.bluntness(smoothing) == pytest.approx(sum(halves), rel=1e-3)

    for logit_q in (0.0, -1.5):
        q = 1 / (1 + np.exp(-logit_q))

        def flow(zeta, q=q):
            return q * (1 - q) * np.expm1(-beta * zeta) * np.expm1(-beta * (1 - zeta)) / -np.expm1(-beta)

        mean = quad(flow, 0, 1)[0]
        square = quad(lambda z, f=flow, q=q: f(z) ** 2 / exponential_density(z, beta, q), 0, 1, limit=200)[0]
        assert figures.gradient_spread(smoothing, logit_q) == pytest.approx(np.sqrt(square - mean**2), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.1, 0.4, 1.0])
def test_bluntness_and_spread_of_concrete_by_integrals_over_its_logit(temperature):
    """With zeta = sigmoid(y), temperature y is logistic; at temperature 1 and logit 0, zeta is uniform."""

    def mean_of(function):
        def integrand(y):
            x = temperature * y
            return function(1 / (1 + np.exp(-y))) * temperature / (4 * np.cosh(x / 2) ** 2)

        return quad(integrand, -60 / temperature, 0)[0] + quad(integrand, 0, 60 / temperature)[0]

    smoothing = BinaryConcrete(temperature)
    assert figures.bluntness(smoothing) == pytest.approx(mean_of(lambda z: min(z, 1 - z)), rel=1e-3)
    slope = mean_of(lambda z: z * (1 - z) / temperature)
    square = mean_of(lambda z: (z * (1 - z) / temperature) ** 2)
    assert figures.gradient_spread(smoothing, 0.0) == pytest.approx(np.sqrt(square - slope**2), rel=1e-3)
    if temperature == 1:
        assert figures.bluntness(smoothing) == pytest.approx(0.25, rel=1e-4)


def test_the_matching_temperature_matches():
    exponential = OverlappingExponential(8.0)
    temperature = figures.matching_temperature(exponential)
    assert figures.bluntness(BinaryConcrete(temperature)) == pytest.approx(figures.bluntness(exponential), rel=1e-6)
    assert abs(figures.bluntness(BinaryConcrete(1.05 * temperature)) / figures.bluntness(exponential) - 1) > 0.02


@pytest.mark.parametrize("beta", [0.5, 8.0, 30.0])
@pytest.mark.parametrize("logits", figures.DIRECTED)
def test_directed_divergences_by_adaptive_quadrature(beta, logits):
    smoothing = OverlappingExponential(beta)
    q, p = (1 / (1 + np.exp(-value)) for value in logits)

    def integrand(zeta):
        density = exponential_density(zeta, beta, q)
        return density * np.log(density / exponential_density(zeta, beta, p))

    expected = quad(integrand, 0, 0.5, limit=200)[0] + quad(integrand, 0.5, 1, limit=200)[0]
    marginal = figures.mean_over_zeta(directed.marginal_kl, smoothing, logits, 120)
    gap = figures.mean_over_zeta(directed.gap, smoothing, logits, 120)
    joint = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    assert marginal == pytest.approx(expected, rel=1e-7)
    assert gap == pytest.approx(joint - expected, rel=1e-6, abs=1e-9)


def test_the_gap_falls_as_the_caption_says():
    for logits in figures.DIRECTED:
        gaps = [figures.mean_over_zeta(directed.gap, OverlappingExponential(b), logits, 240) for b in (40.0, 60.0)]
        assert np.log(gaps[0] / gaps[1]) == pytest.approx(10, rel=0.01)


def energy_by_loops(rbm, z1, z2):
    return -sum(a * z for a, z in zip([*rbm.a1, *rbm.a2], [*z1, *z2], strict=True)) - sum(
        rbm.W[i, j] * z1[i] * z2[j] for i in range(rbm.n1) for j in range(rbm.n2)
    )


def test_probability_of_the_mode_by_counting_all_states():
    rbm = figures.two_modes(3, coupling=1.3)
    weights = {z: np.exp(-energy_by_loops(rbm, z[:3], z[3:])) for z in itertools.product((0, 1), repeat=6)}
    expected = sum(w for z, w in weights.items() if sum(z[:3]) >= 2) / sum(weights.values())
    assert figures.on_probability(rbm) == pytest.approx(expected, rel=1e-12)


def test_the_machine_with_four_modes_has_four():
    """States of the first side that are likelier than any one flip away; the other side summed out."""
    rbm = figures.many_modes()
    states = np.array(list(itertools.product((0.0, 1.0), repeat=rbm.n1)))

    def log_weight(z1):
        return z1 @ rbm.a1 + np.log1p(np.exp(rbm.a2 + z1 @ rbm.W)).sum(axis=-1)

    own = log_weight(states)
    flips = np.abs(states[:, None] - np.eye(rbm.n1))
    modes = states[(own[:, None] > log_weight(flips)).all(axis=1)]
    assert len(modes) == 4
    assert {tuple(mode) for mode in modes} == {tuple(1 - mode) for mode in modes}
    distances = [np.abs(a - b).sum() for a, b in itertools.combinations(modes, 2)]
    assert min(distances) >= 4


def test_the_traces_end_where_the_samplers_do():
    rbm = figures.two_modes(5)
    trace = figures.tempering_trace(rbm, figures.RUNGS, 4, 7, seed=3)
    for n_rounds in (1, 4, 7):
        end = tempering.run(rbm, figures.RUNGS, 4, n_rounds, seed=3).z1
        np.testing.assert_array_equal(trace[:, n_rounds - 1], end.mean(axis=1))
    chains = PersistentChains.init(rbm, 4, seed=3).run(rbm, 7)
    np.testing.assert_array_equal(figures.gibbs_trace(rbm, 4, 7, seed=3)[:, -1], chains.z1.mean(axis=1))


def test_small_digits_are_means_of_squares():
    """One image by loops."""
    image = figures.load("digits").valid[3].reshape(28, 28)
    small = [
        [image[2 + 3 * i : 5 + 3 * i, 2 + 3 * j : 5 + 3 * j].astype(int).sum() > 900 for j in range(8)]
        for i in range(8)
    ]
    np.testing.assert_array_equal(figures.small_digits("valid")[3].reshape(8, 8), small)
