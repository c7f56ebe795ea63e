"""The numbers of the five steps are those of the engine, and the hints fit what is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.explain import hints
from nnbackend.live_page.controls import Controls
from nnbackend.live_page.options import PageOptions
from nnbackend.live_page.showing import Show
from nnbackend.live_page.sources import toy
from nnbackend.testing.ghost import GhostBackend

New = Callable[..., Any]


def _one_row(page: Any, row: int) -> tuple[Any, Any]:
    """Return trace and gradient of a row, by the public functions."""
    net, data = page.controls.phase.net, page.controls.source.data
    x = data.x[row : row + 1].astype(net.dtype)
    y = page.controls.phase.data.y[row : row + 1]
    return net.trace(x), net.backprop(x, y)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "quadratic", "activation": "sigmoid,relu"},
        {"loss": "binary_cross_entropy", "activation": "elu,leaky_relu"},
        {"activation": "maxout:3,tanh"},
        {"dtype": "float64"},
    ],
)
def test_the_numbers_are_those_of_trace_and_backprop(
    new_page: New, options: dict[str, str]
) -> None:
    page = new_page(**options)
    page.do("epoch")
    page.do("row", row=17)
    trace, gradient = _one_row(page, 17)
    net = page.controls.phase.net
    top = len(net.weights) + 1
    for layer in range(2, top + 1):
        i = layer - 2
        n_pieces = net.trainable_layers[i].__dict__.get("n_pieces", 1)
        for unit in range(net.trainable_layers[i].n_out):
            facts = page.do("focus", layer=layer, unit=unit, input=1, piece=n_pieces - 1)
            found = facts["algorithm"]
            focus, seen = found["focus"], found["layers"][i]
            column = (n_pieces - 1) * net.trainable_layers[i].n_out + unit
            assert focus["z"] == trace.z[i][0, column]
            assert focus["a"] == seen["a"][unit] == trace.a[i][0, unit]
            assert focus["delta"] == gradient.deltas[i][0, column]
            assert focus["dw"] == gradient.weights[i][1, column]
            assert focus["w"] == net.weights[i][1, column]
            assert focus["b"] == net.biases[i][column]
            terms = focus["z_terms"]["terms"]
            total = sum(w * a for _, w, a in terms) + focus["z_terms"]["rest"] + focus["b"]
            assert total == pytest.approx(focus["z"], rel=1e-5, abs=1e-6)
            if n_pieces == 1:
                assert seen["z"][unit] == focus["z"]
                assert seen["delta"][unit] == focus["delta"]
            if layer < top:
                back = focus["delta_terms"]
                factor = sum(w * d for _, w, d in back["terms"]) + back["rest"]
                if n_pieces == 1:
                    assert focus["slope"] * factor == pytest.approx(
                        focus["delta"], rel=1e-4, abs=1e-7
                    )
            elif found["fused"]:
                assert focus["a"] - focus["y"] == pytest.approx(focus["delta"], rel=1e-5, abs=1e-7)
            else:
                assert focus["dcda"] * focus["slope"] == pytest.approx(
                    focus["delta"], rel=1e-4, abs=1e-7
                )
    assert found["loss"] == gradient.loss
    assert found["x"] == trace.x[0].tolist()


def test_the_five_steps_update_the_weights_once(new_page: New) -> None:
    page, other = new_page(optimizer="sgd"), new_page(optimizer="sgd")
    before = page.theta
    page.do("focus", layer=3, unit=2, input=4)
    for sub in (1, 2, 3, 4):
        facts = page.do("substep")
        assert facts["sub"] == sub
        assert facts["step"] == 0
        np.testing.assert_array_equal(page.theta, before)
    row = facts["algorithm"]["row"]
    delta = facts["algorithm"]["focus"]["delta"]
    facts = page.do("substep")
    assert (facts["sub"], facts["step"]) == (5, 1)
    other.do("step")
    np.testing.assert_array_equal(page.theta, other.theta)

    found = facts["algorithm"]
    assert found["row"] == row  # the explanation is still of the weights before the update
    assert found["focus"]["delta"] == delta
    update = found["update"]
    assert update["is_plain"]
    net = page.controls.phase.net
    assert update["new_w"] == net.weights[1][4, 2]
    assert update["b"] == 32
    expected = update["w"] - update["lr"] * update["dw"]
    assert update["new_w"] == pytest.approx(expected, rel=1e-5)
    expected = update["bias"] - update["lr"] * update["db"]
    assert update["new_bias"] == pytest.approx(expected, rel=1e-5, abs=1e-7)

    facts = page.do("focus", layer=2, unit=0, input=1)
    assert facts["algorithm"]["update"]["new_w"] == net.weights[0][1, 0]
    assert page.do("substep")["sub"] == 1
    assert page.do("back")["step"] == 0


def test_back_walks_through_the_five_steps(new_page: New) -> None:
    page = new_page()
    for _ in range(3):
        page.do("substep")
    assert page.do("back")["sub"] == 2
    assert page.do("back")["sub"] == 1
    for _ in range(4):
        facts = page.do("substep")
    assert (facts["sub"], facts["step"]) == (5, 1)
    assert page.do("back")["step"] == 0
    assert page.facts["sub"] == 0


def test_the_row_follows_the_training(new_page: New) -> None:
    page = new_page(batch_size="1", optimizer="sgd", validation="0")
    net = page.controls.phase.net
    row = page.facts["algorithm"]["row"]
    _, gradient = _one_row(page, row)
    before = net.weights[0].copy()
    page.do("step")
    np.testing.assert_allclose(
        net.weights[0], before - np.float32(0.1) * gradient.weights[0], rtol=1e-5, atol=1e-7
    )
    assert page.do("row", row=5)["algorithm"]["row"] == 5
    assert page.do("step")["algorithm"]["row"] == 5
    assert page.do("row", row=None)["algorithm"]["follows"]


def _hints(page: Any) -> set[str]:
    return {hint["code"] for hint in page.facts["hints"]}


def test_hints_name_what_is_wrong(new_page: New) -> None:
    page = new_page()
    assert not _hints(page)
    page.do("set", options={"initializer": "normal:40", "activation": "sigmoid,sigmoid"})
    assert "saturated" in _hints(page)
    page.do("set", options={"initializer": "zeros", "activation": "tanh,tanh"})
    assert "symmetric" in _hints(page)
    page.do("set", options={"initializer": "auto", "activation": "relu,step"})
    assert "step" in _hints(page)
    page.do("bias", layer=2, unit=0, value=-1000)
    assert "dead" in _hints(page)
    page.do(
        "set",
        options={
            "hidden": "6,6,6,6,6,6", "initializer": "normal:0.05", "dropout": "0",
            "activation": "sigmoid",
        },
    )  # fmt: skip
    assert "vanishing" in _hints(page)


def test_a_network_that_has_learnt_is_not_called_slow(new_page: New) -> None:
    page = new_page()
    page.do("data", set="blobs", rows=60, noise=0.02, seed=0)
    for _ in range(60):
        page.do("epoch")
    assert page.facts["figures"]["train_score"] == 1.0
    page.do("bias", layer=3, unit=0, value=0.0)
    assert not _hints(page) & {"saturated", "vanishing", "exploding", "plateau", "majority"}


def test_a_poor_network_that_learns_no_more_keeps_a_hint(new_page: New) -> None:
    """Five layers of sigmoids on the spirals stay at an accuracy of about 0.65."""
    page = new_page(toy("spirals"))
    options = {"hidden": "8,8,8,8,8", "activation": "sigmoid", "dropout": "0"}
    page.do("set", options={**options, "optimizer": "adam", "learning_rate": "0.01"})
    scores, without = {}, []
    for epoch in range(1, 121):
        facts = page.do("epoch")
        scores[epoch] = facts["figures"]["train_score"]
        if not facts["hints"]:
            without.append(epoch)
    assert 0.6 < scores[45] < 0.7
    assert 0.6 < scores[120] < 0.7
    assert [epoch for epoch in without if epoch > 45] == []
    assert without  # while it learned


@pytest.mark.parametrize("name", ["spirals", "circles", "wave"])
def test_a_network_that_learns_slowly_is_on_no_plateau(new_page: New, name: str) -> None:
    page = new_page(toy(name))
    for _ in range(60):
        assert "plateau" not in {hint["code"] for hint in page.do("epoch")["hints"]}


def test_a_plateau_is_one_of_a_poor_result() -> None:
    flat = [0.65] * 20
    assert hints.of_poor(flat, 0.65, 0.5) == hints.of_poor(flat, 0.3, 0.0) == [{"code": "plateau"}]
    assert hints.of_poor(flat, 0.8, 0.5) == hints.of_poor(flat, 0.6, 0.0) == []
    assert hints.of_poor(flat, 0.92, 0.9) == [{"code": "plateau"}]
    assert hints.of_poor(flat[:-1], 0.65, 0.5) == []
    assert hints.of_poor([0.65 * 0.998**i for i in range(20)], 0.65, 0.5) == []


def test_hints_read_the_curve() -> None:
    def codes(train: list[float], valid: list[float] | None = None) -> set[str]:
        found = hints.of_curves(range(len(train)), train, valid or [])
        return {hint["code"] for hint in found}

    falling = [1.0 / (1 + i) for i in range(60)]
    assert codes(falling, falling) == set()
    assert codes([0.5] * 10 + [0.5 + 0.1 * i for i in range(20)]) == {"rising"}
    assert codes([0.7 - 1e-6 * i for i in range(60)]) == {"plateau"}
    valid = [0.5 - 0.01 * i for i in range(30)] + [0.2 + 0.02 * i for i in range(30)]
    assert codes(falling, valid) == {"overfit"}


def test_the_picture_is_the_networks_answer(new_page: New) -> None:
    page = new_page()
    page.do("epoch")
    net, spans = page.controls.phase.net, page.outlet.setup["plane"]["spans"]
    xs, ys = (np.linspace(*span, 64) for span in spans)
    for column, line in ((0, 0), (63, 0), (10, 50)):
        point = np.array([[xs[column], ys[line]]], np.float32)
        expected = net.feedforward(point)[0]
        np.testing.assert_allclose(
            page.arrays["result"][:, 64 * line + column], expected, rtol=1e-5, atol=1e-6
        )
    unit = net.trace(np.array([[xs[10], ys[50]]], np.float32)).a[0][0, 3]
    assert page.arrays["units"][3, 32 * 25 + 5] == pytest.approx(unit, rel=1e-5)


def test_figures_are_those_of_evaluate(new_page: New) -> None:
    page = new_page(validation="0")
    page.do("epoch")
    data = toy("spirals", 120).data
    expected = page.controls.phase.net.evaluate(data.x, data.y)
    figures = page.facts["figures"]
    assert figures["train_loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert figures["train_score"] == pytest.approx(expected["accuracy"])


def test_backprop_of_a_network_with_one_output(new_page: New) -> None:
    net = nn.Network([1, nn.Dense(2, "tanh"), 1], loss="quadratic", device="numpy")
    x = np.linspace(-1, 1, 20)[:, None]
    from nnbackend.live_page.api import source_of

    page = new_page(source_of(net, x, np.sin(x)), fixed=net)
    found = page.do("focus", layer=3, unit=0, input=1)["algorithm"]
    row = found["row"]
    gradient = net.backprop(x[row : row + 1].astype("float32"), np.sin(x[row : row + 1]))
    assert found["focus"]["delta"] == gradient.deltas[-1][0, 0]
    assert not found["fused"]
    assert page.arrays["result"].shape == (1, 128)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"}, {"optimizer": "sgd:momentum=0.5"}, {"l2": "0.1"},
        {"dropout": "0.5,0"}, {"weight_decay": "0.1"},
    ],
)  # fmt: skip
def test_other_updates_are_not_called_plain(new_page: New, options: dict[str, str]) -> None:
    page = new_page(**({"optimizer": "sgd"} | options))
    for _ in range(5):
        facts = page.do("substep")
    assert not facts["algorithm"]["update"]["is_plain"]


@pytest.mark.parametrize("has_float64", [True, False])
def test_any_device_works(has_float64: bool) -> None:
    """A device whose arrays are not NumPy's, and that refuses hidden copies to the host."""
    backend = GhostBackend(has_float64=has_float64)
    net = nn.Network([2, nn.Dense(3, "tanh"), nn.Maxout(2), 2], loss="cross_entropy",
                     device=backend)  # fmt: skip
    controls = Controls(toy("spirals", 60), PageOptions(), fixed=net)
    controls.algorithm.substep({})
    for _ in range(4):
        controls.algorithm.substep({})
    facts, arrays = Show().frame(controls, is_paused=True)
    assert facts["sub"] == 5
    assert arrays["result"].shape == (2, 4096)
    controls.weight({"layer": 2, "unit": 0, "input": 0, "value": 1.0})
    controls.back({})
    controls.back({})
    assert controls.phase.step == 0


def test_activations_are_drawn_with_their_slopes(new_page: New) -> None:
    page = new_page(activation="sigmoid,maxout:2")
    phi = page.outlet.setup["layers"][1]["phi"]
    z, a, slope = (np.array(phi[name]) for name in ("z", "a", "slope"))
    np.testing.assert_allclose(a, 1 / (1 + np.exp(-z)), rtol=1e-12)
    np.testing.assert_allclose(slope, np.gradient(a, z), atol=2e-3)
    assert page.outlet.setup["layers"][2]["phi"] is None  # maxout
    assert page.outlet.setup["layers"][3]["phi"] is None  # softmax depends on all units
    page.do("set", options={"activation": "identity,step"})
    assert set(page.outlet.setup["layers"][1]["phi"]["slope"]) == {1.0}
    assert set(page.outlet.setup["layers"][2]["phi"]["slope"]) == {0.0}
