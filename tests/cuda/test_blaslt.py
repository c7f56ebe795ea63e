"""Products by cuBLASLt against NumPy, with a model of the library; its constants against it."""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from emulator import LACKING
from stand_in_backend import modules, new_backend
from stand_in_blaslt import Model

import nnbackend as nn
from nnbackend.errors import ArgumentError, DivergedError
from nnbackend.network.activations import Activation

needs_emulator = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
SHAPES = [(1, 1, 1), (5, 7, 3), (1, 9, 4), (8, 1, 5), (16, 32, 1)]


def normal(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@needs_emulator
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["plain", "bias", "relu", "bias_gradient"])
@pytest.mark.parametrize(("turn_a", "turn_b"), [(False, False), (True, False), (False, True)])
def test_products(
    dtype: str, shape: tuple[int, int, int], way: str, turn_a: bool, turn_b: bool
) -> None:
    backend, (m, k, n) = new_backend(), shape
    a, b, v = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype, seed=1), normal(n, dtype=dtype)
    on = backend.to_device
    first = on(np.ascontiguousarray(a.T)).T if turn_a else on(a)
    second = on(np.ascontiguousarray(b.T)).T if turn_b else on(b)
    out, vector = on(np.full((m, n), np.nan, dtype)), on(v)
    options: dict[str, Any] = {}
    if way in ("bias", "relu"):
        options = {"bias": vector, "relu": way == "relu"}
    elif way == "bias_gradient":
        options = {"bias_gradient": vector}
    assert backend._blas.multiply(first, second, out, **options) == (way != "plain")
    wanted = a.astype(np.float64) @ b + (v if way in ("bias", "relu") else 0.0)
    wanted = wanted.clip(0) if way == "relu" else wanted
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(backend.to_host(out), wanted, atol=tolerance)
    if way == "bias_gradient":
        np.testing.assert_allclose(backend.to_host(vector), b.sum(axis=0), atol=tolerance)


@needs_emulator
@pytest.mark.parametrize("refused", [{4, 6, 256}, {1, 4, 6, 256}])
def test_fallbacks_without_an_algorithm(refused: set[int]) -> None:
    backend = new_backend()
    backend.model.refused = refused
    x, W, b = (backend.to_device(v) for v in (normal(5, 4), normal(4, 3), normal(3)))
    z = backend.empty((5, 3), "float64")
    from nnbackend.network.activations import get_activation

    backend.dense_forward(x, W, b, get_activation("relu"), z, z)
    wanted = (normal(5, 4) @ normal(4, 3) + normal(3)).clip(0)
    np.testing.assert_allclose(backend.to_host(z), wanted, atol=1e-12)
    assert backend.model.epilogues == ([] if 1 in refused else [1])
    assert bool(backend._fallbacks) == (1 in refused)


@needs_emulator
def test_a_cached_refusal_references_no_arrays() -> None:
    # Otherwise it would keep device memory allocated.
    backend = new_backend()
    backend.model.refused = {1, 4, 6, 256}
    arrays = [backend.to_device(normal(*shape)) for shape in ((5, 4), (4, 3), (5, 3), (3,))]
    roots = [weakref.ref(array._data) for array in arrays]
    untraceable = Activation("own", lambda z, xp: xp.flip(z, axis=1), lambda z, a, xp: z)
    x, W, z, b = arrays
    backend.dense_forward(x, W, b, untraceable, z, z)
    assert len(backend._fallbacks) == 2
    del arrays, x, W, z, b
    gc.collect()
    assert [root() for root in roots] == [None] * 4


@needs_emulator
def test_a_divergence_hidden_from_the_loss_is_detected_in_the_weights() -> None:
    backend = new_backend()
    backend.uses_narrow = False  # its ReLU propagates NaN
    net = nn.Network([4, nn.Dense(5, "relu"), nn.Dense(2, "softmax")], device=backend)
    theta = net.backend.to_host(net.theta)
    theta[:20] = np.nan  # the first layer's weights: cuBLASLt's ReLU of NaN is 0
    net.backend.to_device(theta, out=net.theta)
    x = normal(12, 4, dtype=net.dtype)
    assert np.isfinite(net.outputs(x)).all()
    with pytest.raises(DivergedError, match="weights became infinite or not a number"):
        nn.train(net, x, np.arange(12) % 2, epochs=1)


@needs_emulator
def test_an_unknown_precision() -> None:
    with pytest.raises(ArgumentError, match="'float32', 'tf32', 'bf16'"):
        new_backend("half")


@pytest.fixture
def library() -> Any:
    """Return the real library, if installed; it can describe products without a GPU."""
    if LACKING is not None:
        pytest.skip(LACKING)
    pytest.importorskip("cuda.pathfinder")
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        found = ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
    except Exception as error:
        pytest.skip(f"cuBLASLt is not installed: {error}")
    signatures = modules().BlasLt.multiply.__globals__["SIGNATURES"]
    for name, arguments in signatures.items():
        getattr(found, f"cublasLt{name}").argtypes = arguments
    return found


def test_the_model_and_the_library_accept_the_same_descriptions(library: Any) -> None:
    for lt in (library, Model()):
        description, layout, preference = (ctypes.c_void_p() for _ in range(3))
        for compute, scale in ((68, 0), (77, 0), (75, 0), (70, 1)):
            assert lt.cublasLtMatmulDescCreate(ctypes.byref(description), compute, scale) == 0
        values = {3: ctypes.c_int32(1), 4: ctypes.c_int32(0), 8: ctypes.c_void_p(4096)}
        for key, value in values.items():
            size = ctypes.sizeof(value)
            pointer = ctypes.byref(value)
            assert lt.cublasLtMatmulDescSetAttribute(description, key, pointer, size) == 0
        for epilogue in (1, 4, 6, 256):
            word = ctypes.byref(ctypes.c_uint32(epilogue))
            assert lt.cublasLtMatmulDescSetAttribute(description, 7, word, 4) == 0
            assert lt.cublasLtMatmulDescSetAttribute(description, 7, word, 8) == 7
        assert lt.cublasLtMatrixLayoutCreate(ctypes.byref(layout), 0, 5, 3, 5) == 0
        assert lt.cublasLtMatmulPreferenceCreate(ctypes.byref(preference)) == 0
        sizes = {1: ctypes.c_uint64(32 << 20), **{k: ctypes.c_uint32(4) for k in (5, 6, 7, 8)}}
        for key, value in sizes.items():
            set_attribute = lt.cublasLtMatmulPreferenceSetAttribute
            size = ctypes.sizeof(value)
            assert set_attribute(preference, key, ctypes.byref(value), size) == 0
            assert set_attribute(preference, key, ctypes.byref(value), 2) == 7


@needs_emulator
def test_the_heuristic_result_has_the_size_of_the_header() -> None:
    assert ctypes.sizeof(modules().BlasLt.multiply.__globals__["Heuristic"]) == 96
