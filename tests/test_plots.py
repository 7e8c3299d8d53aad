"""Plots: each draws what it was given on the Axes it was given."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from featx import plots
from featx.evaluation import evaluate_predictions
from featx.model import Accuracy

CLASSES = ("cat", "dog", "$math$")


@pytest.fixture
def ax():
    with plots.styled():
        yield Figure().subplots()


@pytest.fixture
def evaluation():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    scores = rng.random((300, 3))
    scores[np.arange(300), y] += 0.5
    return evaluate_predictions(y, scores / scores.sum(axis=1, keepdims=True), CLASSES)


def test_confusion_holds_every_count_and_both_rates(ax, evaluation):
    assert plots.plot_confusion(evaluation.confusion, CLASSES, ax=ax) is ax

    texts = [text.get_text() for text in ax.texts]
    assert texts[:9] == [str(n) for n in evaluation.confusion.ravel()]
    assert f"{100 * evaluation.per_class[0].recall:.3g} %" in texts
    assert f"{100 * evaluation.per_class[1].false_positive_rate:.2g} %" in texts
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CLASSES)


def test_large_confusion_has_no_numbers(ax):
    names = [f"class-{i}" for i in range(60)]
    plots.plot_confusion(np.eye(60, dtype=int) * 5, names, ax=ax)

    assert list(ax.texts) == []


@pytest.mark.parametrize(
    ("history", "x"),
    [
        ({"accuracy": [0.5, 0.7], "val_accuracy": [0.4, 0.6]}, "epoch"),
        ({"step": [1, 2, 3], "accuracy": [0.2, 0.5, 0.7], "val_step": [3], "val_accuracy": [0.6]}, "iteration"),
    ],
)
def test_history_is_drawn_over_epochs_or_iterations(ax, history, x):
    plots.plot_history(history, "accuracy", ax=ax)
    train, validation = ax.get_lines()

    assert ax.get_xlabel() == x
    assert train.get_ydata().tolist() == history["accuracy"]
    assert validation.get_xdata().tolist() == history.get("val_step", [1, 2])


def test_reliability_has_a_point_a_bin(ax, evaluation):
    plots.plot_reliability(evaluation.reliability, ax=ax)

    points = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(points, [(b.confidence, b.accuracy) for b in evaluation.reliability])


def test_training_size_has_an_interval_a_point(ax):
    plots.plot_training_size([10, 100], [Accuracy(50, 20), Accuracy(50, 40)], ax=ax)

    assert [label.get_text() for label in ax.get_xticklabels()] == ["10", "100"]
    (segments,) = [c.get_segments() for c in ax.collections]
    np.testing.assert_allclose(segments[0][:, 1], Accuracy(50, 20).ci95)


def test_class_counts_are_stacked_by_split(ax):
    plots.plot_class_counts({"train": [5, 6, 7], "test": [1, 2, 3]}, CLASSES, ax=ax)

    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends == [5, 6, 7, 6, 8, 10]


def test_long_curves_are_drawn_without_markers(ax):
    few, many = [0.5] * 10, [0.5] * 1000
    for history, markers in [
        ({"loss": few, "val_loss": few}, ["o", "o"]),
        ({"loss": many, "val_loss": many}, ["", ""]),
        ({"step": range(1000), "loss": many, "val_step": range(1000), "val_loss": many}, ["", ""]),
    ]:
        ax.clear()
        plots.plot_history(history, ax=ax)
        assert [line.get_marker() for line in ax.get_lines()] == markers


def test_each_way_of_training_is_a_line_over_the_images_it_had(ax):
    lines = [
        {"name": "frozen", "images_per_class": [5, 50], "accuracy": [0.6, 0.8], "ci95": [[0.5, 0.7], [0.7, 0.9]]},
        {"name": "from scratch", "images_per_class": [50], "accuracy": [0.3], "ci95": [[0.2, 0.4]]},
    ]
    plots.plot_shots(lines, ax=ax)

    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["frozen", "from scratch"]
    assert ax.get_lines()[0].get_xydata().tolist() == [[5, 0.6], [50, 0.8]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["5", "50"]


def test_class_scores_and_leaderboard_name_their_rows(ax, evaluation):
    plots.plot_class_scores(evaluation.per_class, ax=ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CLASSES)

    rows = [
        {"name": "worse", "accuracy": 0.5, "ci95": (0.4, 0.6), "kind": "scratch"},
        {"name": "better", "accuracy": 0.8, "ci95": (0.7, 0.9), "kind": "frozen"},
    ]
    ax.clear()
    plots.plot_leaderboard(rows, ax=ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["better", "worse"]
    assert ax.get_legend_handles_labels()[1] == ["scratch", "frozen"]  # colours go by the order of the rows

    names = [f"efficientnet_lite0 frozen, logistic regression, {n} images a class" for n in (5, 20)]
    ax.clear()
    plots.plot_leaderboard([rows[0] | {"name": name} for name in names], ax=ax)
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert [name.startswith("efficientnet_lite0") for name in shown] == [True, True]
    assert [name[-17:] for name in shown] == [" 5 images a class", "20 images a class"]


def test_the_curve_of_one_epoch_has_that_epoch_at_its_axis(ax):
    plots.plot_history({"loss": [0.5], "val_loss": [0.6]}, ax=ax)

    low, high = ax.get_xlim()
    assert [place for place in ax.get_xticks() if low <= place <= high] == [1]


def test_images_keep_their_proportions_in_a_grid(ax):
    images = [Image.new("RGB", size) for size in [(40, 20), (20, 40), (8, 8), (30, 30), (9, 9)]]
    plots.plot_images(images, ["a\nb"] * 5, wrong=[True, False, False, False, False], columns=4, ax=ax)
    left, right, bottom, top = ax.images[0].get_extent()

    assert (right - left) / (bottom - top) == pytest.approx(2)
    assert len(ax.texts) == 5
    assert ax.texts[0].get_color() != ax.texts[1].get_color()


def test_grey_images_are_grey(ax):
    plots.plot_images([Image.new("L", (4, 4), 200)], ax=ax)

    assert ax.images[0].get_array()[0, 0].tolist() == [200, 200, 200, 255]


def test_map_draws_every_point_in_its_group(ax):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 50)
    plots.plot_map(rng.normal(size=(50, 2)), groups, CLASSES, ax=ax)

    assert [len(c.get_offsets()) for c in ax.collections] == np.bincount(groups).tolist()


def test_names_are_never_read_as_formulas(ax):
    plots.plot_class_counts({"": [1]}, ["$\\frac{1$"], ax=ax)

    ax.figure.canvas.draw()  # a formula without its brace would raise here
