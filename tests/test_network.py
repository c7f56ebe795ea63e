"""The network: results worked by hand, its interface, copies on other devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fitting import fit_model
from scipy import sparse
from sklearn import metrics

import nnbackend as nn
from nnbackend.errors import ArgumentError, DataError, ShapeError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))


def network(layers: Any, loss: Any = None, **options: Any) -> nn.Network:
    return nn.Network(layers, loss, device="numpy", **options)


# ---- worked by hand ---------------------------------------------------------------------------


def test_an_update_of_a_2_2_1_network_worked_by_hand() -> None:
    """One step of gradient descent, eta = 0.1, ReLU and identity, x = (1, 2), y = 1.

    Forward   z1 = (0.1*1 + 0.3*2 + 0, -0.2*1 - 0.4*2 + 0.1) = (0.7, -0.9),  a1 = (0.7, 0)
              z2 = 0.5*0.7 - 1*0 + 0.2 = 0.55,  C = 1/2 (0.55 - 1)^2 = 0.10125
    Backward  delta2 = 0.55 - 1 = -0.45
              dW2 = a1 delta2 = (-0.315, 0),  db2 = -0.45
              delta1 = (0.5, -1) * -0.45 * (1, 0) = (-0.225, 0)
              dW1 = x^T delta1 = ((-0.225, 0), (-0.45, 0)),  db1 = (-0.225, 0)
    Update    W1 = ((0.1225, -0.2), (0.345, -0.4)),  b1 = (0.0225, 0.1)
              W2 = (0.5315, -1),  b2 = 0.245
    """
    net = network([2, 2, 1], "quadratic", dtype="float64")
    net.set_parameters(
        [[[0.1, -0.2], [0.3, -0.4]], [[0.5], [-1.0]]], [np.array([0.0, 0.1]), np.array([0.2])]
    )
    trace = net.trace([[1.0, 2.0]])
    np.testing.assert_allclose(trace.z[0], [[0.7, -0.9]], rtol=1e-14)
    np.testing.assert_allclose(trace.a[0], [[0.7, 0.0]], rtol=1e-14)
    np.testing.assert_allclose(trace.a[1], [[0.55]], rtol=1e-14)
    g = net.backprop([[1.0, 2.0]], [1.0])
    assert g.loss == pytest.approx(0.10125, rel=1e-14)
    np.testing.assert_allclose(g.deltas[1], [[-0.45]], rtol=1e-14)
    np.testing.assert_allclose(g.deltas[0], [[-0.225, 0.0]], rtol=1e-14)
    np.testing.assert_allclose(g.weights[1], [[-0.315], [0.0]], rtol=1e-14)
    np.testing.assert_allclose(g.weights[0], [[-0.225, 0.0], [-0.45, 0.0]], rtol=1e-14)
    np.testing.assert_allclose(g.biases[1], [-0.45], rtol=1e-14)
    np.testing.assert_allclose(g.biases[0], [-0.225, 0.0], rtol=1e-14)

    nn.train(net, [[1.0, 2.0]], [1.0], optimizer=nn.SGD(0.1), epochs=1)
    np.testing.assert_allclose(net.weights[0], [[0.1225, -0.2], [0.345, -0.4]], rtol=1e-14)
    np.testing.assert_allclose(net.weights[1], [[0.5315], [-1.0]], rtol=1e-14)
    np.testing.assert_allclose(net.biases[0], [0.0225, 0.1], rtol=1e-14)
    np.testing.assert_allclose(net.biases[1], [0.245], rtol=1e-14)


def test_a_published_update_of_a_2_2_2_network() -> None:
    """M. Mazur, "A step by step backpropagation example" (2015): every number to its last digit."""
    net = network([2, nn.Dense(2, "sigmoid"), nn.Dense(2, "sigmoid")], "quadratic", dtype="float64")
    net.set_parameters(
        [[[0.15, 0.25], [0.20, 0.30]], [[0.40, 0.50], [0.45, 0.55]]], [[0.35, 0.35], [0.60, 0.60]]
    )
    x, y = [[0.05, 0.10]], [[0.01, 0.99]]
    np.testing.assert_allclose(net.feedforward(x), [[0.75136507, 0.772928465]], atol=5e-9)
    g = net.backprop(x, y)
    assert g.loss == pytest.approx(0.298371109, abs=5e-10)
    assert g.weights[1][0, 0] == pytest.approx(0.082167041, abs=5e-10)
    nn.train(net, x, y, optimizer=nn.SGD(0.5), epochs=1)
    np.testing.assert_allclose(
        net.weights[1], [[0.35891648, 0.51130127], [0.408666186, 0.561370121]], atol=5e-9
    )
    np.testing.assert_allclose(
        net.weights[0], [[0.149780716, 0.24975114], [0.19956143, 0.29950229]], atol=5e-9
    )


def test_maxout_worked_by_hand() -> None:
    # Pieces of two units: z = (1, 5 | 3, 2) for x = 1; the winners are 3 and 5.
    net = network([1, nn.Maxout(2, 2)], dtype="float64")
    net.set_parameters([[[1.0, 5.0, 3.0, 2.0]]], [[0.0] * 4])
    np.testing.assert_array_equal(net.feedforward([[1.0]]), [[3.0, 5.0]])
    g = net.backprop([[1.0]], [[0.0, 0.0]])  # delta = a - y = (3, 5)
    np.testing.assert_array_equal(g.weights[0], [[0.0, 5.0, 3.0, 0.0]])
    np.testing.assert_array_equal(g.deltas[0], [[0.0, 5.0, 3.0, 0.0]])


def test_ties_of_maxout_go_to_the_first_piece() -> None:
    net = network([1, nn.Maxout(1, 3)], dtype="float64")
    net.set_parameters([[[2.0, 2.0, 2.0]]], [[0.0] * 3])
    np.testing.assert_array_equal(net.backprop([[1.0]], [0.0]).weights[0], [[2.0, 0.0, 0.0]])


# ---- construction -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "output", "taken"),
    [
        (None, "identity", "quadratic"),
        ("quadratic", "identity", "quadratic"),
        ("absolute", "identity", "absolute"),
        ("cross_entropy", "softmax", "cross_entropy"),
        ("binary_cross_entropy", "sigmoid", "binary_cross_entropy"),
        ("poisson", "exponential", "poisson"),
    ],
)
def test_the_output_layer_matches_the_loss(loss: str | None, output: str, taken: str) -> None:
    net = network([3, 4, 2], loss, activation="tanh")
    assert [layer.activation.name for layer in net.layers] == ["tanh", output]
    assert net.loss.name == taken


def test_the_default_loss_of_a_softmax() -> None:
    assert network([3, nn.Dense(2, "softmax")]).loss.name == "cross_entropy"


def test_weights_and_biases_are_views_of_the_flat_vector() -> None:
    net = network([3, 4, nn.Dropout(0.5), nn.Maxout(2, 2), 1])
    assert [W.shape for W in net.weights] == [(3, 4), (4, 4), (2, 1)]
    assert [b.shape for b in net.biases] == [(4,), (4,), (1,)]
    assert net.n_parameters == 12 + 16 + 2 + 9 == net.theta.size
    net.theta[:] = np.arange(net.n_parameters)
    np.testing.assert_array_equal(net.weights[0].ravel(), np.arange(12))
    np.testing.assert_array_equal(net.weights[2].ravel(), [28, 29])
    np.testing.assert_array_equal(net.biases[0], [30, 31, 32, 33])
    net.biases[2][0] = -5
    assert net.theta[-1] == -5


def test_a_gradient_has_the_layout_of_the_parameters() -> None:
    net = network([4, 3, 2], dtype="float64")
    g = net.backprop(X, RNG.normal(size=(60, 2)))
    np.testing.assert_array_equal(
        g.vector, np.concatenate([v.ravel() for v in (*g.weights, *g.biases)])
    )
    assert [d.shape for d in g.deltas] == [(60, 3), (60, 2)]
    np.testing.assert_allclose(g.biases[0], g.deltas[0].sum(axis=0), rtol=1e-12)
    assert all(np.shares_memory(g.vector, part) for part in (*g.weights, *g.biases))


def test_trace_and_feedforward_agree_and_z_is_not_a() -> None:
    net = network(
        [4, nn.Dense(5, "relu"), nn.Dropout(0.3), nn.Maxout(3, 2), nn.Dense(2, "softmax")]
    )
    x = X.astype(np.float32)
    trace = net.trace(x)
    np.testing.assert_array_equal(trace.a[-1], net.feedforward(x))
    assert [z.shape for z in trace.z] == [(60, 5), (60, 6), (60, 2)]
    assert [a.shape for a in trace.a] == [(60, 5), (60, 3), (60, 2)]
    assert (trace.z[0] < 0).any()
    assert not np.shares_memory(trace.z[0], trace.a[0])


def test_dropout_is_off_outside_training() -> None:
    plain, dropped = network([4, 8, 2], seed=3), network([4, 8, nn.Dropout(0.9), 2], seed=3)
    np.testing.assert_array_equal(plain.outputs(X), dropped.outputs(X))
    y = np.zeros((60, 2))
    np.testing.assert_array_equal(plain.backprop(X, y).vector, dropped.backprop(X, y).vector)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype: str) -> None:
    net = network([4, nn.Dense(3, "selu"), nn.Maxout(2, 2), nn.Dense(2, "softmax")], dtype=dtype)
    g = net.backprop(X, RNG.integers(2, size=60), np.ones(60))
    arrays = [net.theta, net.feedforward(X), net.outputs(X), *net.trace(X).z, *net.trace(X).a,
              g.vector, *g.deltas, *g.weights, *net.get_parameters()[0]]  # fmt: skip
    assert {str(array.dtype) for array in arrays} == {dtype}


def test_a_seed_determines_the_network() -> None:
    def theta(seed: int) -> np.ndarray:
        return network([4, 30, 2], seed=seed).theta

    np.testing.assert_array_equal(theta(5), theta(5))
    assert not np.array_equal(theta(5), theta(6))
    net = network([4, 30, 2], seed=5)
    net.initialize(6)
    np.testing.assert_array_equal(net.theta, theta(6))


def test_large_seeds_are_accepted() -> None:
    seeds = (2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
    assert len({network([2, 3, 1], seed=seed).theta.tobytes() for seed in seeds}) == 4


def test_get_parameters_returns_copies_and_set_parameters_restores_them() -> None:
    net, other = network([4, 3, 2], seed=1), network([4, 3, 2], seed=2)
    weights, biases = net.get_parameters()
    other.set_parameters(weights, biases)
    np.testing.assert_array_equal(other.theta, net.theta)
    weights[0][:] = 99.0
    assert net.theta.max() < 99.0
    assert other.theta.max() < 99.0


def test_parameters_of_other_shapes_are_refused_and_change_nothing() -> None:
    net = network([4, 3, 2])
    before = net.theta.copy()
    weights, biases = net.get_parameters()
    with pytest.raises(ShapeError, match=r"biases must have the shapes .*Received: \[\(3,\), \(3,"):
        net.set_parameters([w + 1 for w in weights], [biases[0], np.zeros(3)])
    with pytest.raises(ShapeError, match="weights must have the shapes"):
        net.set_parameters(weights[:1], biases)
    np.testing.assert_array_equal(net.theta, before)


def test_a_copy_on_another_device_is_the_same_network() -> None:
    net = network([4, 3, nn.Dropout(0.2), 2], "cross_entropy", seed=4)
    words = np.where(X[:, 0] > 0, "yes", "no")
    model, _ = fit_model(net, X, words, epochs=2, scale="standard")
    other = model.to("numpy")
    assert other.network is not net
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    np.testing.assert_array_equal(net.to("numpy").predict(X), net.predict(X))
    other.network.theta[:] = 0.0
    assert net.theta.any()


def test_summary_and_repr() -> None:
    net = network([784, nn.Dense(100, "leaky_relu"), nn.Dropout(0.5), nn.Maxout(64, 2), 10],
                  "cross_entropy")  # fmt: skip
    text = net.summary()
    # 784*100 + 100 = 78,500;  100*128 + 128 = 12,928;  64*10 + 10 = 650;  together 92,078.
    for words in ("dense 100 leaky_relu(0.1)", "dropout 0.5", "maxout 64 of 2 pieces", "78,500",
                  "12,928", "650", "92,078", "cross_entropy", "float32 on numpy:0"):  # fmt: skip
        assert words in text
    assert repr(net).startswith("<Network 784 -> dense 100 leaky_relu(0.1), dropout 0.5, maxout 64")


# ---- on data ----------------------------------------------------------------------------------


def test_predict_of_a_classifier() -> None:
    net = network([4, 3], "cross_entropy", seed=1)
    p = nn.Model(net).predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(p, net.outputs(X))
    np.testing.assert_array_equal(net.predict(X), p.argmax(axis=1))
    named = nn.Model(net, classes=["red", "green", "blue"])
    np.testing.assert_array_equal(
        named.predict(X), np.array(["red", "green", "blue"])[p.argmax(axis=1)]
    )


def test_predict_of_a_binary_classifier() -> None:
    net = network([4, 1], "binary_cross_entropy", seed=1)
    yes = net.predict(X)
    assert yes.shape == (60,)
    np.testing.assert_array_equal(yes, (net.outputs(X)[:, 0] > 0.5).astype(int))
    named = nn.Model(net, classes=("no", "yes"))
    np.testing.assert_array_equal(named.predict(X), np.where(yes == 1, "yes", "no"))
    np.testing.assert_allclose(named.predict_proba(X)[:, 1], net.outputs(X)[:, 0])
    np.testing.assert_allclose(named.predict_proba(X).sum(axis=1), 1.0)
    several = nn.Model(network([4, 3], "binary_cross_entropy", seed=1))
    np.testing.assert_array_equal(several.predict(X), several.predict_proba(X) > 0.5)
    np.testing.assert_array_equal(several.network.predict(X), several.predict(X))


def test_predict_of_a_regression() -> None:
    one, two = network([4, 1]), network([4, 2])
    np.testing.assert_array_equal(one.predict(X), one.outputs(X)[:, 0])
    np.testing.assert_array_equal(two.predict(X), two.outputs(X))
    with pytest.raises(ArgumentError, match=r"predict_proba needs a softmax or sigmoid.*identity"):
        nn.Model(one).predict_proba(X)


@pytest.mark.parametrize("weight", [None, RNG.random(60)], ids=["alike", "weighted"])
def test_evaluate_against_scikit_learn(weight: np.ndarray | None) -> None:
    labels, yes = RNG.integers(3, size=60), RNG.integers(2, size=(60, 3))
    values = RNG.normal(size=60)
    net = network([4, 3], "cross_entropy", seed=2)
    assert net.evaluate(X, labels, weight)["accuracy"] == pytest.approx(
        metrics.accuracy_score(labels, net.predict(X), sample_weight=weight), rel=1e-6
    )
    net = network([4, 3], "binary_cross_entropy", seed=2)
    assert net.evaluate(X, yes, weight)["accuracy"] == pytest.approx(
        metrics.accuracy_score(yes, net.predict(X), sample_weight=weight), rel=1e-6
    )
    net = network([4, 1], dtype="float64", seed=2)
    assert net.evaluate(X, values, weight)["r2"] == pytest.approx(
        metrics.r2_score(values, net.predict(X), sample_weight=weight), rel=1e-9
    )
    two = RNG.normal(size=(60, 2)) * [1.0, 5.0]
    net = network([4, 2], dtype="float64", seed=2)
    assert net.evaluate(X, two, weight)["r2"] == pytest.approx(
        metrics.r2_score(
            two, net.predict(X), sample_weight=weight, multioutput="variance_weighted"
        ),
        rel=1e-9,
    )


@pytest.mark.parametrize("far", [False, True])
def test_r2_of_constant_targets(far: bool) -> None:
    net = network([4, 1])
    net.theta[:] = 0.0
    assert net.evaluate(X, np.full(60, float(far)))["r2"] == (0.0 if far else 1.0)


@pytest.mark.parametrize("n", [1, 4095, 4096, 4097, 9000])
def test_evaluation_in_parts_equals_evaluation_at_once(n: int) -> None:
    net = network([2, 5, 1], dtype="float64", seed=1)
    x = RNG.normal(size=(n, 2))
    y = x[:, 0]
    np.testing.assert_allclose(net.outputs(x), net.feedforward(x), rtol=1e-12, atol=1e-14)
    expected = ((net.feedforward(x)[:, 0] - y) ** 2).mean() / 2
    assert net.evaluate(x, y)["loss"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_few_rows_of_any_form_have_the_same_outputs_again_and_again(device: str) -> None:
    """The second call reuses the arrays of the first one."""
    net = nn.Network([5, 4, 3], device=device, seed=0)
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    x[x < 0] = 0
    expected = net.outputs(np.concatenate([x] * 9))[:3]  # too many rows to be reused
    forms = (x, x.astype(np.float64), x.tolist(), np.asfortranarray(x), sparse.csr_array(x), x)
    for form in forms:
        np.testing.assert_allclose(net.outputs(form), expected, rtol=1e-5)
    assert not np.shares_memory(net.outputs(x), net.outputs(x))


def test_outputs_of_a_row_do_not_depend_on_other_rows() -> None:
    net = network([4, 30, 3], "cross_entropy", dtype="float64")
    together = net.outputs(X)
    alone = np.concatenate([net.outputs(row[None]) for row in X])
    np.testing.assert_allclose(alone, together, rtol=1e-12)


@pytest.mark.parametrize("n", [3, 60])
def test_outputs_of_other_parameters_leave_the_network_as_it_is(n: int) -> None:
    net, other = (network([4, 30, 3], "cross_entropy", dtype="float64", seed=s) for s in (0, 1))
    before = net.outputs(X[:n])
    found = net.outputs(X[:n], theta=other.theta)
    np.testing.assert_array_equal(found, other.outputs(X[:n]))
    np.testing.assert_array_equal(net.outputs(X[:n]), before)  # nor does a reused workspace


def test_predict_scales_rows_and_feedforward_does_not() -> None:
    x = X * [1, 10, 100, 1000] + 5
    net = network([4, 3, 1], dtype="float64")
    model, _ = fit_model(net, x, X[:, 0], epochs=1, scale="standard")
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(model.predict(x), net.feedforward(scaled)[:, 0], rtol=1e-9)
    np.testing.assert_allclose(model.inputs(x), scaled, rtol=1e-9, atol=1e-12)
    kept = x.copy()
    model.evaluate(x, X[:, 0])
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("kind", ["standard", "robust", "unit"])
def test_scaling_on_the_device_equals_that_of_the_scaler(kind: str) -> None:
    x = X * [1, 10, 100, 1000] + 5
    net = network([4, 3, 1], dtype="float64")
    model, _ = fit_model(net, x, X[:, 0], epochs=1, scale=kind)
    assert model.preprocessing.scaler is not None
    by_scaler = model.preprocessing.scaler.transform(x, dtype=np.float64)
    np.testing.assert_allclose(model.outputs(x), net.feedforward(by_scaler), rtol=1e-9, atol=1e-12)


def test_predictions_of_scaled_targets_are_in_the_original_units() -> None:
    y = 1000.0 + 50.0 * X[:, 0]
    net = network([4, 1], dtype="float64")
    options: dict[str, Any] = {"epochs": 300, "batch_size": None, "optimizer": nn.SGD(0.3)}
    model, _ = fit_model(net, X, y, scale_targets=True, **options)
    np.testing.assert_allclose(model.predict(X), y, atol=0.5)
    assert model.evaluate(X, y)["r2"] > 0.999


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([4], "layers must be a list of n_in and at least one layer"),
        ([], "layers must be a list"),
        (4, "layers must be a list.*Received: layers=4"),
        ("4,2", "layers must be a list"),
        ([4, 0], "n_out must be a whole number, at least 1. Received: n_out=0"),
        ([4, -3, 2], "n_out must be a whole number, at least 1. Received: n_out=-3"),
        ([4, 2.0], "n_out must be a whole number, at least 1. Received: n_out=2.0"),
        ([4, True], "n_out must be a whole number, at least 1. Received: n_out=True"),
        ([4, "2"], "n_out must be a whole number"),
        ([0, 2], "n_in must be a whole number, at least 1. Received: n_in=0"),
        ([nn.Dense(3), 2], "n_in must be a whole number"),
        ([4, 3, nn.Dropout(0.5)], "the last layer must compute the output"),
        ([4, nn.Dropout(0.5)], "the last layer must compute the output"),
        ([4, nn.Dense(3, "softmax"), 2], "softmax must be on the last layer"),
    ],
)
def test_invalid_layers_are_refused(layers: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        network(layers)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dtype": "float16"}, "dtype"),
        ({"dtype": "float128"}, "dtype"),
        ({"dtype": "int32"}, "dtype"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\^64 - 1. Received: seed=-1"),
        ({"seed": 1 << 64}, "seed must be a whole number from 0"),
        ({"seed": 1.5}, "seed must be a whole number.*seed=1.5"),
        ({"seed": True}, "seed must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
        ({"activation": "rellu"}, "Did you mean 'relu'"),
        ({"device": 3.5}, "device must be a string or a Backend"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        nn.Network([4, 3, 2], "cross_entropy", **{"device": "numpy", **options})


def test_numpy_integers_are_valid_sizes_and_seeds() -> None:
    assert network([np.int64(4), np.int32(2)], seed=np.uint8(3)).n_out == 2


def test_text_labels_need_a_model_with_classes() -> None:
    net = network([4, 2], "cross_entropy")
    with pytest.raises(DataError, match=r"y must hold numbers\. Received: text"):
        net.evaluate(X[:2], ["no", "yes"])
    named = nn.Model(net, classes=("no", "yes"))
    assert named.evaluate(X[:2], ["no", "yes"]) == net.evaluate(X[:2], [0, 1])
    with pytest.raises(DataError, match=r"labels of the model's classes.*Received: .*maybe"):
        named.evaluate(X[:2], ["no", "maybe"])
    with pytest.raises(ArgumentError, match="classes must be 2 different labels"):
        nn.Model(net, classes=("a", "b", "c"))
