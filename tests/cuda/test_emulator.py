"""The emulator computes correctly, and detects errors that a device might hide."""

from __future__ import annotations

import numpy as np
import pytest
from emulator import LACKING, ORDERS, EmulationError, compile_on_host

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))

SUM = """
extern "C" __global__ void sum_rows(const float* x, int n, float* out) {
  __shared__ float part[64];
  int t = threadIdx.x;
  float sum = 0.0f;
  for (int i = t; i < n; i += 64) sum += x[blockIdx.x * n + i];
  part[t] = sum;
  __syncthreads();
  for (int k = 32; k > 0; k >>= 1) {
    if (t < k) part[t] += part[t + k];
    __syncthreads();
  }
  if (t == 0) out[blockIdx.x] = part[0];
}
"""
WARP = """
extern "C" __global__ void warp_sum(const double* x, double* out) {
  double sum = x[threadIdx.x];
  for (int k = 16; k > 0; k >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, k);
  out[threadIdx.x] = sum;
}
"""


def rows() -> np.ndarray:
    return np.random.default_rng(0).random((5, 333), np.float32)


def sums(source: str, order: int, x: np.ndarray, out: np.ndarray) -> None:
    compile_on_host(source, "sum_rows", order)((5,), (64,), (x, np.int32(x.shape[1]), out))


@pytest.mark.parametrize("order", ORDERS)
def test_a_sum_of_rows(order: int) -> None:
    x, out = rows(), np.zeros(5, np.float32)
    sums(SUM, order, x, out)
    np.testing.assert_allclose(out, x.sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_a_sum_within_each_warp(order: int) -> None:
    x, out = np.arange(64.0), np.zeros(64)
    compile_on_host(WARP, "warp_sum", order)((1,), (64,), (x, out))
    np.testing.assert_array_equal(out, np.repeat(x.reshape(2, 32).sum(axis=1), 32))


def test_a_missing_barrier_gives_wrong_sums_in_some_order() -> None:
    x, out = rows(), np.zeros(5, np.float32)
    wrong = []
    for order in ORDERS:
        sums(SUM.replace("__syncthreads();", "", 1), order, x, out)
        wrong.append(not np.allclose(out, x.sum(axis=1)))
    assert any(wrong)


def test_a_barrier_that_not_all_reach_is_reported() -> None:
    stuck = SUM.replace("    if (t < k) part[t]", "    if (t >= k) return;\n    part[t]")
    with pytest.raises(EmulationError, match=r"threads wait in a barrier .* \(32 ended\)"):
        sums(stuck, 0, rows(), np.zeros(5, np.float32))


def test_a_write_outside_an_array_is_reported() -> None:
    out = np.zeros(5, np.float32)
    with pytest.raises(EmulationError, match="wrote behind an array of 16 bytes"):
        sums(SUM, 0, rows(), out[:4])
    assert out[4] == 0.0


def test_a_read_outside_an_array_gives_nan() -> None:
    x, out = rows(), np.zeros(5, np.float32)
    sums(SUM, 0, x[:4], out)
    assert np.isfinite(out[:4]).all()
    assert np.isnan(out[4])


@pytest.mark.parametrize(
    ("n", "kind", "says"),
    [
        (np.int64(333), np.float32, "argument 1 must be 'i'. Received: 'q'"),
        (np.int32(333), np.float64, r"argument 0 must be 'f\*'. Received: 'd\*'"),
        (333, np.float32, "argument 1 must be 'i'"),
    ],
)
def test_arguments_of_another_kind_are_refused(n: object, kind: type, says: str) -> None:
    run = compile_on_host(SUM, "sum_rows")
    with pytest.raises(EmulationError, match=says):
        run((5,), (64,), (rows().astype(kind), n, np.zeros(5, np.float32)))


def test_a_misaligned_vector_is_reported() -> None:
    text = """
    struct alignas(16) Four { float v[4]; };
    extern "C" __global__ void first(const float* x, float* y) {
      const Four four = *(const Four*)x;
      y[0] = four.v[0] + four.v[3];
    }
    """
    run = compile_on_host(text, "first")
    vector, y = np.zeros(12, np.float32), np.zeros(1, np.float32)
    shift = -(vector.ctypes.data // 4) % 4
    run((1,), (1,), (vector[shift:], y))
    with pytest.raises(EmulationError, match="misaligned address"):
        run((1,), (1,), (vector[shift + 1 :], y))
    run((1,), (1,), (vector[shift:], y))  # the emulator still works


def test_an_index_beyond_shared_memory_is_reported() -> None:
    beyond = SUM.replace("t < k) part[t]", "t <= k) part[t]").replace("k = 32", "k = 64")
    with pytest.raises(EmulationError, match="bad index"):
        sums(beyond, 0, rows(), np.zeros(5, np.float32))


def test_overlapping_arrays_overlap_in_the_copy() -> None:
    text = """
    extern "C" __global__ void shift(const double* x, double* y) {
      if (threadIdx.x == 0) for (int i = 0; i < 4; i++) y[i] = x[i] + 1.0;
    }
    """
    x = np.zeros(5)
    compile_on_host(text, "shift")((1,), (32,), (x[:4], x[1:]))
    np.testing.assert_array_equal(x, [0.0, 1.0, 2.0, 3.0, 4.0])


# ---- blocks that wait for each other ------------------------------------------------------------

# Each block stores a number; after the barrier every block adds all of them.
EXCHANGE = """
extern "C" __global__ void exchange(double* parts, double* sums, unsigned long long* counter) {
  const int t = threadIdx.x;
  if (t == 40) parts[blockIdx.x] = blockIdx.x + 1.0;
  __syncthreads();
  BARRIER
  __syncthreads();
  double sum = 0;
  if (t == 50) {
    for (unsigned b = 0; b < gridDim.x; b++) sum += parts[b];
    sums[blockIdx.x] = sum;
  }
}
"""
OF_GRID = """
  if (t == 0) {
    const unsigned long long all = (atomicAdd(counter, 1ull) / gridDim.x + 1) * gridDim.x;
    while (acquired(counter) < all) {}
  }
"""
OF_CLUSTER = "cluster_arrive(); cluster_wait();"


def exchange(barrier: str, order: int, blocks: int = 5, is_resident: bool = True) -> list[float]:
    parts, sums = np.zeros(blocks), np.zeros(blocks)
    run = compile_on_host(EXCHANGE.replace("BARRIER", barrier), "exchange", order, is_resident)
    counter = np.full(1, 7 * blocks, np.uint64)
    run((blocks,), (64,), (parts, sums, counter))
    return sums.tolist()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("barrier", [OF_GRID, OF_CLUSTER])
def test_blocks_exchange(barrier: str, order: int) -> None:
    assert exchange(barrier, order) == [15.0] * 5


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("barrier", [OF_GRID, OF_CLUSTER])
def test_a_block_that_does_not_reach_the_barrier_is_reported(barrier: str, order: int) -> None:
    lacking = f"if (blockIdx.x == 1) return; {barrier}"
    with pytest.raises(EmulationError, match="blocks wait for each other"):
        exchange(lacking, order)


@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_barrier_among_blocks_gives_wrong_sums(order: int) -> None:
    assert exchange("", order) != [15.0] * 5


def test_blocks_that_are_not_resident_deadlock() -> None:
    with pytest.raises(EmulationError, match="blocks wait for each other"):
        exchange(OF_GRID, 0, is_resident=False)
    with pytest.raises(EmulationError, match="9 blocks cannot be resident, 8 can"):
        exchange(OF_GRID, 0, blocks=9)
