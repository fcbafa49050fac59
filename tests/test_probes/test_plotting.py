"""What figures show is read off the figures: lines, texts, colours and where they lie."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from probes.errors import ProbesError
from probes.plotting import (
    plot_calibration,
    plot_domain_matrix,
    plot_leakage_cost,
    plot_learning_curves,
    plot_roc,
)
from probes.plotting.style import looks
from probes.results import Results
from tests.test_probes.planted import DOMAINS, curve, matrix, row, with_scores

LONG = (
    "a laboratory's encoder with a very long name, version 2.0.1",
    "$\\frac{$",
    "carcinoma_" * 9,
)


@pytest.fixture(autouse=True)
def _no_figures_left():
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def framed(rows):
    return pd.DataFrame(rows)


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def some_scores(models=("a", "b"), **how):
    labels = [0, 1] * 40
    said = np.where(labels, 0.75, 0.25)
    return with_scores(curve(models, **how), labels, said)


# ---- learning curves


def test_a_curve_shows_means_and_spread_over_repeats():
    axes = plot_learning_curves(framed(curve(["uni"])))
    line, _, (bars,) = axes.containers[0].lines
    np.testing.assert_allclose(line.get_ydata(orig=False), [0.6, 0.7, 0.8])
    np.testing.assert_allclose(line.get_xdata(orig=False), [13, 132, 1316])
    halves = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
    np.testing.assert_allclose(halves, 0.01)  # of -0.01, 0 and 0.01, with n - 1
    assert axes.get_xscale() == "log"


def test_a_curve_says_what_was_tested_how_often_and_in_which_unit():
    axes = plot_learning_curves(Results(tuple(curve(["uni"], repeats=5))))
    assert axes.get_title() == "midog\n411 annotations tested, 5 repeats"
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "13\n(0.01)",
        "132\n(0.1)",
        "1,316\n(1)",
    ]
    assert axes.get_ylabel() == "AUROC, mean ± s.d."
    assert axes.get_xlabel() == "training annotations (share of the pool)"


def test_models_are_named_in_the_order_in_which_their_lines_end():
    rows = curve(["worst", "good"]) + curve(["best"], step=0.15)
    rows = [each | {"value": each["value"] - 0.3 * (each["model"] == "worst")} for each in rows]
    assert legend_of(plot_learning_curves(framed(rows))) == ["best", "good", "worst"]


def test_one_repeat_has_no_spread_and_says_so():
    axes = plot_learning_curves(framed(curve(["uni"], repeats=1)))
    assert axes.get_title().endswith("1 repeat (no s.d.)")
    (bars,) = axes.containers[0].lines[2]
    assert all(np.ptp(segment[:, 1]) == 0 for segment in bars.get_segments())


def test_trainings_without_a_value_are_counted_and_a_model_without_any_is_named():
    rows = [
        each | {"value": np.nan} if each["model"] == "none" or each["size"] == 0.01 else each
        for each in curve(["none", "some"])
    ]
    axes = plot_learning_curves(framed(rows))
    assert axes.get_title().endswith("12 of 18 trainings without a value")
    assert legend_of(axes) == ["some", "none (no value)"]


def test_datasets_are_panels_with_one_scale_and_one_legend():
    rows = curve(["a", "b"]) + curve(["b", "a"], dataset="ccmct", step=0.15)
    left, right = plot_learning_curves(framed(rows))
    assert (left.get_title()[:5], right.get_title()[:5]) == ("midog", "ccmct")
    assert left.get_ylim() == right.get_ylim()
    assert left.get_legend() is None
    colours = {
        axes: [container.lines[0].get_color() for container in axes.containers]
        for axes in (left, right)
    }
    assert colours[left] == colours[right]  # of the same models, whatever their order


def test_models_fitted_in_two_ways_are_two_lines_that_say_how():
    rows = curve(["uni"]) + [each | {"recipe": "logistic C=1"} for each in curve(["uni"])]
    assert sorted(legend_of(plot_learning_curves(framed(rows)))) == [
        "uni (logistic C=1)",
        "uni (logistic objective=uni C=uni)",
    ]


def test_bars_of_one_size_do_not_hide_each_other_nor_reach_the_next_size():
    axes = plot_learning_curves(framed(curve([f"m{number}" for number in range(12)])))
    x = np.array([container.lines[0].get_xdata(orig=False) for container in axes.containers])
    assert (np.diff(x, axis=0) > 0).all()
    assert (x[-1, :-1] < 0.5 * x[0, 1:]).all()


def test_twelve_lines_can_be_told_apart_without_colour():
    styles = list(looks(f"m{number}" for number in range(12)).values())
    assert len({style["marker"] for style in styles}) == 12
    for one, other in combinations(styles, 2):
        assert (one["color"], one["linestyle"]) != (other["color"], other["linestyle"])


def test_what_is_not_there_is_refused_with_what_is():
    with pytest.raises(ProbesError, match=r"no rows of cross_domain/auroc.*learning_curve/auroc"):
        plot_domain_matrix(framed(curve(["uni"])))
    with pytest.raises(ProbesError, match="2 panels need 2 axes, and 1 were given"):
        plot_learning_curves(framed(curve(["a"]) + curve(["a"], dataset="b")), pyplot.subplots()[1])


# ---- matrices


def cells_of(axes):
    return {
        (round(text.get_position()[1]), round(text.get_position()[0])): text for text in axes.texts
    }


def test_a_matrix_has_the_mean_of_every_pair_in_its_cell():
    axes = plot_domain_matrix(framed(matrix(["uni"])))
    shown = {place: text.get_text() for place, text in cells_of(axes).items()}
    assert shown == {
        (down, across): "0.91" if down == across else "0.71"
        for down in range(3)
        for across in range(3)
    }
    assert [text.get_text().replace("\n", " ") for text in axes.get_yticklabels()] == sorted(
        DOMAINS
    )


def test_matrices_share_one_scale_and_one_bar_and_name_domains_once():
    axes = plot_domain_matrix(framed(matrix([f"model {number}" for number in range(4)])))
    assert len({panel.images[0].get_clim() for panel in axes}) == 1
    assert len(axes[0].figure.axes) == 4 + 1
    named = [bool(panel.get_yticklabels()[0].get_text()) for panel in axes]
    assert named == [True, False, True, False]  # two by two
    assert [panel.get_title() for panel in axes] == [f"model {number}" for number in range(4)]


def test_numbers_are_readable_on_every_colour():
    values = np.linspace(0.4, 1.0, 25)
    rows = matrix(["uni"], repeats=1, domains=tuple("ABCDE"))
    rows = [each | {"value": value} for each, value in zip(rows, values, strict=True)]
    axes = plot_domain_matrix(framed(rows))
    picture = axes.images[0]
    for place, text in cells_of(axes).items():
        cell = luminance(picture.to_rgba(picture.get_array()[place])[:3])
        ink = luminance(to_rgb(text.get_color()))
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) >= 4.5  # WCAG 2, level AA


def luminance(rgb):
    return sum(
        share * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
        for share, part in zip((0.2126, 0.7152, 0.0722), rgb, strict=True)
    )


@pytest.mark.parametrize(
    ("trained", "expected"), [(("A", "B"), 2), (("all but A", "all but B"), 2)]
)
def test_frames_mark_what_is_in_domain(trained, expected):
    rows = [
        row(model="uni", experiment="cross_domain", train_domain=one, test_domain=two, value=0.8)
        for one in trained
        for two in "AB"
    ]
    axes = plot_domain_matrix(framed(rows))
    frames = {tuple(patch.get_xy()) for patch in axes.patches if not patch.get_hatch()}
    on_diagonal = {(-0.45, -0.45), (0.55, 0.55)}
    assert len(frames) == expected
    assert (frames == on_diagonal) == (trained == ("A", "B"))


def test_a_pair_without_a_value_is_hatched_and_its_domain_stays():
    rows = [
        each | {"value": np.nan} if each["test_domain"] == DOMAINS[0] else each
        for each in matrix(["uni"])
    ]
    axes = plot_domain_matrix(framed(rows))
    assert len(axes.get_xticks()) == 3
    assert sum(bool(patch.get_hatch()) for patch in axes.patches) == 3
    assert len(axes.texts) == 6
    assert "hatched: no value" in axes.figure.get_supxlabel()


def test_a_matrix_says_what_was_tested_and_how_often():
    note = plot_domain_matrix(framed(matrix(["uni"]))).figure.get_supxlabel()
    assert "midog: mean of 2 repeats, 411 annotations tested per cell" in " ".join(note.split())


def test_values_beyond_the_scale_are_pointed_out():
    rows = [each | {"value": 0.3} for each in matrix(["uni"])]
    figure = plot_domain_matrix(framed(rows)).figure
    assert figure.axes[-1]._colorbar.extend == "min"


# ---- ROC and calibration


def test_a_roc_curve_is_that_of_the_scores():
    results = with_scores(curve(["uni"], repeats=1), [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])
    axes = plot_roc(results)
    line = axes.lines[1]
    found = dict(zip(line.get_xdata().round(3), line.get_ydata(), strict=True))
    assert legend_of(axes) == ["uni (0.75)"]  # three of four pairs are in order
    assert (found[0.0], found[0.25], found[0.495], found[0.75], found[1.0]) == pytest.approx(
        (0, 0.5, 0.5, 1, 1)
    )
    assert "1,316 annotations trained on, 411 tested, 1 repeat" in axes.get_title()
    assert axes.get_ylabel() == "share of mitotic figure found (sensitivity)"


def test_a_calibration_curve_has_the_share_that_is_so_over_what_was_said():
    said = np.repeat([0.15, 0.75, 0.95], [20, 40, 4])
    labels = np.concatenate([np.arange(20) < 5, np.arange(40) < 30, [1, 1, 1, 0]])
    axes = plot_calibration(with_scores(curve(["uni"], repeats=1), labels, said))
    line = axes.lines[1]
    np.testing.assert_allclose(line.get_xdata(), [0.15, 0.75])  # four annotations are too few
    np.testing.assert_allclose(line.get_ydata(), [0.25, 0.75])


def test_one_split_can_be_drawn_alone():
    results = some_scores()
    (digest,) = {
        each["split"] for each in results.rows if each["repeat"] == 1 and each["size"] == 1
    }
    assert "1 repeat" in plot_roc(results, split=digest).get_title()
    assert "3 repeats" in plot_roc(results).get_title()


def test_a_test_part_of_one_class_has_no_curve():
    axes = plot_roc(with_scores(curve(["uni"]), [1, 1, 1], [0.1, 0.2, 0.3]))
    assert axes.get_legend() is None


def test_curves_need_kept_scores_of_two_classes():
    with pytest.raises(ProbesError, match="fit them with keep_scores=True"):
        plot_roc(Results(tuple(curve(["uni"]))))
    results = some_scores(["uni"])
    three = results.scores.assign(**{"p granulocyte": 0.0})
    with pytest.raises(ProbesError, match="of two classes, and the scores are of granulocyte, "):
        plot_calibration(Results(results.rows, three))


# ---- leakage


def test_the_cost_of_leakage_is_a_mark_for_every_model_and_design():
    given = [each | {"experiment": "as given"} for each in curve(["a", "b"])]
    clean = [
        each | {"experiment": "grouped by slide", "value": each["value"] - 0.1, "n_test": 300}
        for each in given
    ]
    axes = plot_leakage_cost(framed(given + clean))
    marks = [container.lines[0].get_xdata(orig=False) for container in axes.containers]
    np.testing.assert_allclose(marks, [[0.8, 0.78], [0.7, 0.68]])
    assert legend_of(axes) == ["as given", "grouped by slide"]
    assert "300 to 411 tested" in axes.get_title()


# ---- all figures


def figures(models):
    """Every figure of some models, with a function that draws it."""
    return {
        "curves": (plot_learning_curves, framed(curve(models) + curve(models, dataset="b"))),
        "matrices": (plot_domain_matrix, framed(matrix(models, domains=LONG))),
        "roc": (plot_roc, some_scores(models)),
        "calibration": (plot_calibration, some_scores(models)),
        "leakage": (plot_leakage_cost, framed(curve(models))),
    }


@pytest.mark.parametrize("models", [LONG[:1], LONG], ids=["one model", "three models"])
@pytest.mark.parametrize("kind", figures("a"))
def test_long_names_and_formulas_are_drawn_within_the_figure(kind, models):
    plot, results = figures(models)[kind]
    figure = Figure()
    plot(results, figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        box = axes.get_tightbbox(renderer)  # of all that belongs to it, its legend too
        assert figure.bbox.x0 - 1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1
        assert figure.bbox.y0 - 1 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1


@pytest.mark.parametrize("kind", ["curves", "roc", "calibration", "leakage"])
def test_a_legend_hides_nothing(kind):
    plot, results = figures(["a", "b"])[kind]
    figure = Figure()
    plot(results, figure)
    FigureCanvasAgg(figure).draw()
    (axes,) = [axes for axes in figure.axes if axes.get_legend()]
    assert axes.get_legend().get_window_extent().x0 > axes.get_window_extent().x1


@pytest.mark.parametrize("kind", figures("a"))
def test_a_figure_that_is_given_is_drawn_on_and_none_is_left_open(kind):
    plot, results = figures(["a"])[kind]
    figure = Figure()
    axes = plot(results, figure)
    assert np.ravel(np.array(axes, dtype=object))[0].figure is figure
    assert pyplot.get_fignums() == []
