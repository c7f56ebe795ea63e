"""Plots of a network and of its training: their content and their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nnbackend as nn
from nnbackend import plots
from nnbackend.errors import ArgumentError

PNG = b"\x89PNG\r\n\x1a\n"
X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
Y = np.array([0, 1, 1, 0])


@pytest.fixture
def net() -> nn.Network:
    return nn.Network([2, nn.Dense(6, "tanh"), nn.Dense(2, "softmax")], device="numpy", seed=3)


@pytest.mark.parametrize("n_out", [1, 2, 5])
def test_a_boundary_is_written_as_an_image(n_out: int, tmp_path: Path) -> None:
    loss = "binary_cross_entropy" if n_out == 1 else "cross_entropy"
    net = nn.Network([3, 6, n_out], loss, device="numpy")
    x = np.random.default_rng(0).normal(size=(40, 3))
    y = np.arange(40) % max(n_out, 2)
    plots.decision_boundary(net, x, y, tmp_path / "b.png", features=(2, 0))
    assert (tmp_path / "b.png").read_bytes().startswith(PNG)
    with pytest.raises(ArgumentError, match=r"features=\(0, 3\)"):
        plots.decision_boundary(net, x, y, tmp_path / "c.png", features=(0, 3))


def test_a_regression_has_no_boundary(tmp_path: Path) -> None:
    net = nn.Network([2, 3, 1], device="numpy")
    with pytest.raises(ArgumentError, match="needs a classifier"):
        plots.decision_boundary(net, X, Y, tmp_path / "b.png")


def test_more_classes_than_colours_raise_with_a_cure(tmp_path: Path) -> None:
    net = nn.Network([2, 10], "cross_entropy", device="numpy")
    with pytest.raises(ArgumentError, match=r"Received: 10\. Draw a confusion matrix instead"):
        plots.decision_boundary(net, X, Y, tmp_path / "b.png")


def test_a_film_has_a_frame_before_training_and_one_after_each_epoch(
    net: nn.Network, tmp_path: Path
) -> None:
    film = plots.BoundaryFilm(X, Y)
    with pytest.raises(ArgumentError, match="needs frames"):
        film.save(tmp_path / "film.gif")
    nn.train(net, X, Y, epochs=4, optimizer=nn.SGD(2.0), callbacks=[film])
    film.save(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as picture:
        assert picture.n_frames == 5  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match=r"must be a \.gif"):
        film.save(tmp_path / "film.png")


@pytest.mark.parametrize("n_in", [2, 9, 784])
def test_weights_are_written_as_an_image(n_in: int, tmp_path: Path) -> None:
    net = nn.Network([n_in, 70, 3], "cross_entropy", device="numpy")
    plots.first_layer_weights(net, tmp_path / "w.svg")
    text = (tmp_path / "w.svg").read_text(encoding="utf-8")
    assert "64 longest of 70 units" in text
    with pytest.raises(ArgumentError, match=f"n_in={n_in} elements"):
        plots.first_layer_weights(net, tmp_path / "w.png", shape=(5, 5))


def test_weights_of_few_inputs_are_a_table_with_their_names(tmp_path: Path) -> None:
    net = nn.Network([4, 6, 3], "cross_entropy", device="numpy")
    names = ["sepal length", "sepal width", "petal length", "petal width"]
    plots.first_layer_weights(net, tmp_path / "w.svg", names=names)
    text = (tmp_path / "w.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in text for name in names)
    assert text.count("<image") == 2, "one for the table, one for the scale"


def test_a_diagram_shows_the_numbers_of_the_sample(net: nn.Network, tmp_path: Path) -> None:
    plots.network_diagram(net, X[1:2], [1], tmp_path / "d.svg")
    text = (tmp_path / "d.svg").read_text(encoding="utf-8")
    gradient = net.backprop(X[1:2], [1])
    assert f"C = {gradient.loss:.4g}" in text
    assert all(f"layer {level}" in text for level in (1, 2, 3))
    assert "layer 0" not in text
    assert f"δ {gradient.deltas[1][0, 1]:+.3f}" in text
    assert f"z {net.trace(X[1:2]).z[1][0, 1]:+.3f}" in text


def test_a_small_diagram_has_its_weights_on_the_lines(tmp_path: Path) -> None:
    net = nn.Network([2, nn.Dense(2, "tanh"), nn.Dense(2, "softmax")], device="numpy", seed=3)
    plots.network_diagram(net, X[1:2], [1], tmp_path / "d.svg")
    text = (tmp_path / "d.svg").read_text(encoding="utf-8")
    weights = np.concatenate([W.ravel() for W in net.get_parameters()[0]])
    assert all(f"<!-- {w:.2f} -->" in text for w in weights)


@pytest.mark.parametrize("hidden", [nn.Dense(30, "relu"), nn.Maxout(30, 3)])
def test_a_diagram_of_a_large_layer_omits_units(hidden: nn.Dense, tmp_path: Path) -> None:
    net = nn.Network([2, hidden, 1], device="numpy")
    plots.network_diagram(net, X[1:2], [1.0], tmp_path / "d.svg")
    text = (tmp_path / "d.svg").read_text(encoding="utf-8")
    assert "20 more" in text
    a = net.trace(X[1:2]).a[0][0]
    gradient = net.backprop(X[1:2], [1.0])
    size = np.abs(a * (gradient.deltas[1] @ net.weights[1].T)[0])
    assert all(f"<!-- {i + 1} -->" in text for i in np.argsort(-size)[:10] if size[i])
    assert not any(f"<!-- {i + 1} -->" in text for i in np.argsort(-size)[10:] if i > 2)


def test_a_maxout_unit_is_drawn_with_the_weights_of_its_winning_piece(tmp_path: Path) -> None:
    net = nn.Network([1, nn.Maxout(1, 2), nn.Dense(1, "identity")], device="numpy")
    net.set_parameters([[[0.25, 0.75]], [[0.5]]], [[0.0, 0.0], [0.0]])
    for x, winner, loser in ((1.0, 0.75, 0.25), (-1.0, 0.25, 0.75)):
        plots.network_diagram(net, np.float32([[x]]), [1.0], tmp_path / "d.svg")
        text = (tmp_path / "d.svg").read_text(encoding="utf-8")
        assert f"<!-- {winner} -->" in text
        assert f"<!-- {loser} -->" not in text


def test_the_recorder_counts_dead_units(tmp_path: Path) -> None:
    # With a bias far below 0 every unit of a ReLU layer is dead.
    net = nn.Network([2, nn.Dense(4, "relu", biases=-100.0), 2], "cross_entropy", device="numpy")
    recorder = plots.SignalRecorder(X, Y)
    with pytest.raises(ArgumentError, match="must have data"):
        plots.signal_histograms(recorder, tmp_path / "s.svg")
    nn.train(net, X, Y, epochs=3, callbacks=[recorder])
    assert recorder.epochs == [0, 1, 2, 3]
    assert [round(layer.dead, 2) for layer in recorder.layers[-1]] == [1.0, 0.0]
    plots.signal_histograms(recorder, tmp_path / "s.svg")
    assert "100% of units dead" in (tmp_path / "s.svg").read_text(encoding="utf-8")


def test_recorded_deltas_are_of_single_samples() -> None:
    net = nn.Network([2, nn.Dense(3, "tanh"), 2], "cross_entropy", device="numpy", seed=1)
    recorder = plots.SignalRecorder(X, Y)
    nn.train(net, X, Y, epochs=1, callbacks=[recorder])
    alone = [net.backprop(X[i : i + 1], Y[i : i + 1]).deltas[0] for i in range(4)]
    np.testing.assert_allclose(recorder.layers[-1][0].delta, np.concatenate(alone).ravel(), 1e-5)


def test_the_rate_finder_leaves_the_network_unchanged(net: nn.Network, tmp_path: Path) -> None:
    from nnbackend.training.rate_finder import find_learning_rate

    data = nn.data.load("iris")
    iris = nn.Network([4, 8, 3], "cross_entropy", device="numpy")
    before = iris.get_parameters()[0][0]
    trial = find_learning_rate(iris, data.x, data.y, optimizer="sgd", high=1e3)
    np.testing.assert_array_equal(before, iris.get_parameters()[0][0])
    assert 1e-3 < trial.suggestion < 1.0
    assert len(trial.rates) == len(trial.losses) < 150, "the largest rates did not diverge"
    again = find_learning_rate(iris, data.x, data.y, optimizer="sgd", high=1e3)
    np.testing.assert_array_equal(trial.losses, again.losses)
    plots.learning_rate_curve(trial, tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(PNG)
    with pytest.raises(ArgumentError, match="below high"):
        find_learning_rate(iris, data.x, data.y, low=1.0, high=0.1)
    with pytest.raises(ArgumentError, match="lbfgs"):
        find_learning_rate(iris, data.x, data.y, optimizer="lbfgs")
