"""Pickles of backend objects without an entry point, and tensors that must be converted first."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rows import registered

import nnbackend as nn
from nnbackend.errors import BackendError, DeviceMismatchError
from nnbackend.testing import GhostBackend, ReferenceBackend, ghost

X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


class Mine(ReferenceBackend):
    """A backend without an entry point."""

    name = "mine"

    def __init__(self, index: int) -> None:
        self.device, self.index = f"mine:{index}", index


class Unpicklable(Mine):
    def __init__(self) -> None:
        super().__init__(0)
        self.handle = lambda: None


# ---- pickles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["numpy", "numba", "ghost"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_of_a_network_trains_like_it(device: str, copied: Any) -> None:
    # Weights and biases must be views of the copy's theta.
    with registered("ghost"):
        net = nn.Network([3, 4, nn.Maxout(3), 2], "cross_entropy", device=device)
        nn.train(net, X, Y, epochs=1)
        net.outputs(X[:3])  # caches a workspace
        other = copied(net)
        assert other.backend is net.backend
        for one in (net, other):
            nn.train(one, X, Y, epochs=2, batch_size=7)
    host = net.backend.to_host
    assert host(other.theta).tobytes() == host(net.theta).tobytes()
    assert [w.tobytes() for w in other.get_parameters()[0]] == [
        w.tobytes() for w in net.get_parameters()[0]
    ]
    assert other.outputs(X).tobytes() == net.outputs(X).tobytes()


def test_a_backend_without_an_entry_point_is_pickled_with_network_and_estimator() -> None:
    net = nn.Network([3, 4, 2], "cross_entropy", device=Mine(3))
    nn.train(net, X, Y, epochs=1)
    other = pickle.loads(pickle.dumps(net))
    assert type(other.backend) is Mine
    assert (other.backend.device, other.backend.index) == ("mine:3", 3)
    assert other.outputs(X).tobytes() == net.outputs(X).tobytes()
    model = nn.MLPClassifier((4,), max_iter=2, device=Mine(1), random_state=0)
    model.partial_fit(X, Y, classes=[0, 1])
    again = pickle.loads(pickle.dumps(model))
    assert again.device.device == "mine:1"
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_a_registered_backend_is_pickled_as_its_device_string() -> None:
    with registered("ghost"):
        stored = pickle.dumps(nn.get_backend("ghost:1"))
        assert b"Ghost" not in stored
        assert pickle.loads(stored) is nn.get_backend("ghost:1")


def test_an_unpicklable_backend_is_refused_with_the_cure() -> None:
    class Local(Mine):
        pass

    for backend in (Unpicklable(), Local(0)):
        net = nn.Network([3, 2], device=backend)
        with pytest.raises(BackendError, match="must be registered") as caught:
            pickle.dumps(net)
        for words in ("Received: <backend mine:0>", "Register it", "Model(net).save"):
            assert words in str(caught.value)


# ---- tensors ------------------------------------------------------------------------------------


class Tensor:
    """A stand-in for PyTorch's tensors, with their conversion to NumPy."""

    def __init__(self, array: np.ndarray, place: str = "cpu", grad: bool = False) -> None:
        self._array, self.requires_grad = array, grad
        self.device = SimpleNamespace(type=place)
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.device.type != "cpu":
            raise TypeError(f"can't convert {self.device.type}:0 device type tensor to numpy.")
        return self._array


@pytest.mark.parametrize(
    ("place", "grad", "cure"), [("cpu", True, ".detach()"), ("mps", False, ".cpu()")]
)
def test_tensors_that_cannot_be_read_are_refused_with_the_cure(
    place: str, grad: bool, cure: str
) -> None:
    net = nn.Network([3, 4, 2], "cross_entropy", device="numpy")
    x, y, w = (Tensor(part, place, grad) for part in (X, Y, X[:, 1] ** 2))
    for name, call in (
        ("x", lambda: net.feedforward(x)),
        ("x", lambda: net.outputs(x)),
        ("x", lambda: nn.train(net, x, Y, epochs=1)),
        ("y", lambda: nn.train(net, X, y, epochs=1)),
        ("sample_weight", lambda: nn.train(net, X, Y, epochs=1, sample_weight=w)),
        ("y", lambda: net.evaluate(X, y)),
    ):
        with pytest.raises(
            DeviceMismatchError, match=f"{name} must be an array on the host"
        ) as caught:
            call()
        assert "Tensor, which" in str(caught.value)
        assert str(caught.value).endswith(f"Use {name}{cure}.")


def test_tensors_of_the_host_are_read() -> None:
    net = nn.Network([3, 4, 2], "cross_entropy", device="numpy")
    np.testing.assert_array_equal(net.outputs(Tensor(X)), net.outputs(X))
    with pytest.raises(DeviceMismatchError, match=r"use net.backend.to_device\(numpy.asarray\(x\)"):
        net.feedforward(Tensor(X))


def test_an_array_of_another_ghost_is_refused_as_before() -> None:
    net = nn.Network([3, 2], device=GhostBackend(0))
    with pytest.raises((DeviceMismatchError, ghost.GhostError)):
        net.feedforward(GhostBackend(1).zeros((2, 3), "float32"))
