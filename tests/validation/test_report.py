"""The report as text: what it says, that it says it of the right rows, and that nothing in it escapes."""

import base64
import hashlib
import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import norm

from dvaepp.errors import RunError
from tests.validation import sample_result
from tests.validation.sample_result import HOSTILE, LONG
from validation import report
from validation.page import plots
from validation.report import Entry, Result
from validation.rows import ErrorMap, Finding, Row, Statistic, Status, Task, rows_of

EMPTY = Result([], [], {}, {}, "", 0.0, "python -m validation")


class Elements(HTMLParser):
    """All elements of a page with their attributes, its text, and what is inside style and script."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.words, self.raw, self._open = [], [], {"style": [], "script": []}, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        self._open.append("")

    def handle_data(self, data):
        if self._open and self._open[-1] in self.raw:
            self.raw[self._open[-1]].append(data)
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(result):
    return Elements(report.to_html(result))


@pytest.fixture(scope="module")
def sample():
    return sample_result.result()


@pytest.fixture(scope="module")
def page(sample):
    return read(sample)


def a_row(error=1.0, bound=4.0, **task):
    fields = {"check": "accuracy", "subject": "torch", "operation": "inverse_cdf"} | task
    return rows_of(Task(**fields), [Finding("zeta", error, bound)])[0]


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_verdict_counts_and_names_offenders_with_their_commands(sample, page):
    bad = [row for row in sample.rows if not row.status.good]
    assert sample.n_bad == len(bad) == 10
    assert f"10 of {len(sample.rows)} rows do not hold." in page.text
    verdict = page.text[: page.text.index("This run")]
    for row in bad[: report.N_OFFENDERS]:
        assert row.reproduce in verdict.replace("  ", " ")
    assert f"And {len(bad) - report.N_OFFENDERS} more" in verdict


def test_what_is_lacking_is_named_after_what_is_wrong():
    lacking = [Row(Task("agreement", "torch", name), Status.LACKS) for name in sample_result.OPERATIONS]
    text = read(replace(EMPTY, rows=[*lacking, a_row(9.0)])).text
    assert text.index("accuracy / torch / inverse_cdf / zeta") < text.index("agreement / torch / inverse_cdf")


def test_the_verdict_on_good_and_on_empty_runs():
    assert "The one row that is judged holds." in read(replace(EMPTY, rows=[a_row()])).text
    assert "1 of 2 rows does not hold." in read(replace(EMPTY, rows=[a_row(), a_row(9.0)])).text
    measured = Row(
        Task("statistics", "reference", "estimators"), Status.MEASURED, Finding("st", 1.0, 0.0, judged=False)
    )
    assert "All 2 rows that are judged hold. 1 more is measured" in (
        read(replace(EMPTY, rows=[a_row(), a_row(), measured])).text.replace("✓ ", "")
    )
    empty = read(EMPTY).text
    assert "Nothing was judged." in empty
    assert "hold" not in empty


def test_every_row_is_there_with_its_command(sample, page):
    rows = [attributes for attributes in page.named("tr") if attributes.get("id", "").startswith("row-")]
    assert [row["data-status"] for row in rows] == [row.status.value for row in sample.rows]
    text = page.text
    assert all(" ".join(row.reproduce.split()) in text for row in sample.rows)


def test_links_lead_somewhere(page):
    names = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = {attributes["href"].removeprefix("#") for attributes in page.named("a")}
    assert links <= names
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_escapes(page):
    assert HOSTILE in "".join(page.words)  # it is shown, as text
    assert len(page.named("script")) == len(page.named("style")) == 1
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert all(attributes["src"].startswith("data:") for attributes in page.named("img"))


def test_the_policy_allows_this_style_and_this_script_alone(page):
    policies = [a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    allowed = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    assert allowed["default-src"] == "'none'"
    for kind in ("style", "script"):
        digest = hashlib.sha256("".join(page.raw[kind]).encode()).digest()
        assert allowed[f"{kind}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_tables_have_heads_and_pictures_have_names(page):
    assert len(page.named("h1")) == 1
    assert all("scope" in attributes for attributes in page.named("th"))
    assert all(attributes.get("aria-label") for attributes in page.named("svg"))
    assert all(attributes.get("alt") for attributes in page.named("img"))


def test_the_same_result_makes_the_same_page(sample):
    assert report.to_html(sample) == report.to_html(sample_result.result())


def test_a_large_run_is_a_page_of_less_than_5_mb(sample):
    everywhere = replace(sample.maps[0], error=tuple((math.inf,) * 40 for _ in range(40)))
    large = replace(sample, rows=sample.rows * 3, maps=[*sample.maps, *[everywhere] * 12])
    assert len(large.rows) > 600
    assert len(report.to_html(large).encode("utf-8", "backslashreplace")) < 5e6


def test_write_replaces_a_page_and_says_when_it_cannot(sample, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    report.write(sample, path)
    text = path.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>")
    assert "no CUDA device\\ud800" in text  # half a surrogate pair, which UTF-8 does not have
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(RunError, match="cannot write"):
        report.write(sample, tmp_path / "nowhere" / "report.html")


def test_json_holds_it_all(sample):
    text = json.dumps(sample.to_json(), allow_nan=False)
    found = json.loads(text)
    assert (found["holds"], found["n_bad"], found["n_rows"]) == (False, 10, len(sample.rows))
    assert len(found["rows"]) == len(sample.rows)
    assert len(found["maps"]) == len(sample.maps)
    assert "inf" in {row["finding"]["error"] for row in found["rows"] if row["finding"]}


# ---- matrices --------------------------------------------------------------------------------------------------------


def test_the_summary_counts():
    cannot = Row(Task("agreement", "cupy_raw", "gibbs"), Status.CANNOT_RUN)
    rows = [a_row(), a_row(9.0), a_row(), a_row(check="agreement"), cannot]
    found = report.summary([Entry(i, row) for i, row in enumerate(rows)])
    assert found.columns == ("accuracy", "agreement")
    (torch, (first, second)), (cupy, (nothing, third)) = found.rows
    assert (torch, cupy) == (("torch",), ("cupy_raw",))
    assert (first.text, first.look, first.index) == ("1 of 3 not", "bad", 1)
    assert (second.text, second.look) == ("1 hold", "good")
    assert nothing is None
    assert (third.text, third.look) == ("cannot run here", "neutral")


def test_a_matrix_has_the_worst_share_and_its_row():
    def row(share, operation, dtype="float32"):
        return a_row(4 * share, operation=operation, dtype=dtype, check="agreement")

    rows = [row(0.2, "gibbs"), row(0.7, "gibbs"), row(0.05, "gibbs", "float64"), row(math.nan, "ais"), row(3.0, "ais")]
    rows.append(Row(Task("agreement", "torch", "ais", dtype="float64"), Status.HANGS, message="60 s"))
    rows.append(row(0.4, "ais", "float64"))  # holds, but does not make up for that
    found = report.matrix([Entry(i, row) for i, row in enumerate(rows)], "agreement")
    assert found.columns == ("gibbs", "ais")
    cells = {heads: [(cell.text, cell.look, cell.index) for cell in row] for heads, row in found.rows}
    assert cells == {
        ("torch", "float32"): [("0.7", "shade-3", 1), ("∞", "bad", 3)],
        ("torch", "float64"): [("0.05", "shade-0", 2), ("HANGS", "bad", 5)],
    }


# ---- numbers ---------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(error=NUMBERS, bound=NUMBERS)
def test_a_share_is_at_most_1_exactly_where_the_bound_holds(error, bound):
    share = plots.share(error, bound)
    assert share >= 0
    assert (share <= 1) == (Finding("zeta", error, bound).holds or (bound > 0 and error / bound == 1.0))


def test_numbers_for_the_eye_and_for_sorting():
    assert [report.number(x) for x in (None, math.nan, math.inf, -math.inf, -0.5, 3.1e5, 0.0)] == (
        ["", "NaN", "∞", "−∞", "−0.5", "3.1e+05", "0"]
    )
    assert [report.sortable(x) for x in (None, math.nan, math.inf, -math.inf, 0.25)] == (
        ["", "Infinity", "Infinity", "-Infinity", "0.25"]
    )


def test_a_deviation_has_a_sign_only_where_the_estimate_is_what_is_judged():
    def entry(error, estimate, standard_error=0.1, bound=6.0):
        statistic = Statistic(estimate, 1.0, standard_error, 0.9, "nats")
        return Entry(
            0, rows_of(Task("statistics", "torch", "ais"), [Finding("Z", error, bound, statistic=statistic)])[0]
        )

    below = entry(2.0, 0.8)
    assert below.z == pytest.approx(-2.0)
    assert below.deviation == pytest.approx(-2.0)
    assert below.caught == pytest.approx(9.0)
    table = entry(5.0, 0.8)  # judged by something else: no sign, and no size in these standard errors
    assert (table.z, table.deviation, table.caught) == (None, 5.0, None)
    certain = entry(math.inf, 0.8, standard_error=0.0)
    assert (certain.z, certain.deviation, certain.caught) == (-math.inf, -math.inf, None)
    assert entry(0.0, 1.0, standard_error=0.0).deviation == 0.0
    assert entry(math.nan, math.nan).deviation == math.inf


# ---- pictures --------------------------------------------------------------------------------------------------------


def pixels(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_a_heat_map_has_each_error_in_its_place():
    rho, logits = (0.1, 0.5, 0.9), (-2.0, -1.0, 1.0, 2.0)
    error = np.full((4, 3), 0.04)
    error[0, 0] = 4.0  # logit -2, rho 0.1: at the bound, left below
    error[3, 2] = 5.0  # logit 2, rho 0.9: above the bound, right above
    error[1, 0] = math.nan
    drawn = plots.heat_map(
        ErrorMap("torch", "power", "float32", 8.0, rho, logits, tuple(map(tuple, error)), 4.0), 120.0
    )
    image = pixels(drawn.image)
    assert image.size == (4, 3)
    colours = np.asarray(image.convert("RGB"))
    scale = np.asarray(pixels(plots.colour_scale()).convert("RGB"))[0]
    np.testing.assert_array_equal(colours[2, 0], scale[-1])
    np.testing.assert_array_equal(colours[0, 3], (0xD5, 0x5E, 0x00))
    np.testing.assert_array_equal(colours[2, 1], (0, 0, 0))
    np.testing.assert_array_equal(colours[0, 0], scale[0])
    # One cross each, in the middle of its cell, which is 30 wide and 40 high.
    assert (drawn.above.count("M"), drawn.not_finite.count("M")) == (1, 1)
    assert drawn.above.startswith("M96.0 11.0l18.0 18.0")
    assert not drawn.holds
    assert (drawn.worst, drawn.at) == (math.inf, "rho=0.1, logit_q=-1.0, beta=8.0")
    assert [(tick.at, tick.label) for tick in drawn.y_ticks] == [(100.0, "0.1"), (60.0, "0.5"), (20.0, "0.9")]
    assert [(tick.at, tick.label) for tick in drawn.x_ticks] == (
        [(15.0, "−2"), (45.0, "−1"), (60.0, "0"), (75.0, "1"), (105.0, "2")]
    )


def test_colours_rise_with_the_logarithm_of_the_share():
    shares = np.geomspace(plots.LOWEST_SHARE, 1, 5)
    line = ErrorMap("torch", "power", "float32", 8.0, (0.5,), tuple(range(5)), tuple((4 * s,) for s in shares), 4.0)
    levels = np.asarray(pixels(plots.heat_map(line, 100.0).image))[0]
    np.testing.assert_allclose(levels, np.linspace(0, levels[-1], 5), atol=0.51)
    assert plots.heat_map(line, 100.0).holds


@pytest.mark.parametrize(
    ("rho", "label"), [(1e-30, "1e-30"), (0.5, "0.5"), (1 - 1e-9, "1−1e-9"), (1.0, "1"), (0.0, "0"), (0.98, "0.98")]
)
def test_both_ends_of_rho_can_be_read(rho, label):
    one = plots.heat_map(ErrorMap("torch", "power", "float64", 2.0, (rho,), (0.0,), ((1.0,),), 4.0), 10.0)
    assert one.y_ticks[0].label == label


def test_an_axis_shows_all_bounds_and_puts_what_is_further_at_its_edge():
    axis = plots.axis([6.0, 8.0, math.inf], [9.0, 1e9], half=100.0)
    assert axis.limit == pytest.approx(9.9)
    assert [axis.position(x) for x in (0.0, -9.9, 50.0, -math.inf, math.nan)] == pytest.approx(
        [0, -100, 100, -100, 100]
    )
    assert axis.inside(9.0)
    assert not axis.inside(math.nan)


def test_normal_scores_lie_on_the_line_and_others_do_not():
    scores = norm.ppf((np.arange(50) + 0.5) / 50)
    shuffled = np.random.default_rng(0).permutation(scores)
    plot = plots.quantile_plot(shuffled.tolist(), 200.0)
    np.testing.assert_allclose([p.x for p in plot.points], [200 - p.y for p in plot.points])
    np.testing.assert_array_equal([shuffled[p.index] for p in plot.points], scores)
    far = plots.quantile_plot([*scores, math.nan, 40.0, -math.inf], 200.0)
    assert [p.index for p in far.points if p.outside] == [52, 51, 50]
    assert [p.y for p in far.points if p.outside] == [200.0, 0.0, 0.0]


def test_long_names_reach_the_page(page):
    assert LONG in page.text
