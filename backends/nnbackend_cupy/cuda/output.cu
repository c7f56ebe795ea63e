// An output layer of few units in one launch: forward, loss, and backward to the layer below.
//
//   z = x W + b;  a = phi(z);  da = dloss/da;  delta = da phi'(z);  dx = delta W^T phi_below'
//
// phi_below is the activation of the layer below, whose output is x; HAS_BELOW 0 omits it. WARPS
// warps of a block, 1 or all 4, share a row. O is the number of outputs; lane j holds output j. If
// several warps share a row, each of them computes the loss of all outputs.

#if HAS_LABELS
#define TARGETS const int label
#define Y_OF(j) (T)(label == j)
#define TARGET (int)y[row]
#else
#define TARGETS const T* y
#define Y_OF(j) y[j]
#define Y T
#define TARGET y + (long long)row * O
#endif

__device__ __forceinline__ T KERNEL_value(const T z) {
  // VALUE
}
__device__ __forceinline__ T KERNEL_slope(const T da, const T z, const T a) {
  // SLOPE
}
__device__ __forceinline__ T KERNEL_below(const T da, const T z, const T a) {
  // BELOW
}
// Writes da of a row and returns its loss, in every lane.
__device__ __forceinline__ T KERNEL_row(
    const T* out, TARGETS, T* delta, const T share, int columns, int lane, int lanes) {
  // FORMULA
}

struct KERNEL_Layer {
  const T *x, *W, *b, *z_below;
  T *z, *a, *delta, *dx;
  const Y* y;
  int rows, n_in;
};

// The shared memory of a block's rows. V weights of an input are loaded at once.
struct KERNEL_Shared {
  T outs[4][O], deltas[4][O], parts[4][O];  // of each warp
};

template <int V>
__device__ __forceinline__ double KERNEL_rows(const KERNEL_Layer& of, KERNEL_Shared& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int begin = WARPS == 1 ? lane : (int)threadIdx.x, step = 32 * WARPS;
  const bool is_first = WARPS == 1 || warp == 0;  // of the warps that share a row
  double sum = 0;
  const int first_row = WARPS == 1 ? blockIdx.x * 4 + warp : blockIdx.x;
  for (int row = first_row; row < of.rows; row += gridDim.x * (4 / WARPS)) {
    const long long first = (long long)row * of.n_in, at = (long long)row * O + lane;
    T parts[O] = {};
#pragma unroll 4
    for (int i = begin; i < of.n_in; i += step) {
      const T value = of.x[first + i];
#pragma unroll
      for (int o = 0; o < O; o += V) {
        const Pack<T, V> w = load<V>(of.W + i * O + o);
#pragma unroll
        for (int v = 0; v < V; v++) parts[o + v] += value * w.v[v];
      }
    }
    T mine = 0;
#pragma unroll
    for (int o = 0; o < O; o++) {
      const T whole = sum_of_lanes(parts[o], 32);
      if (lane == o) mine = whole;
    }
#if WARPS > 1
    if (lane < O) shared.parts[warp][lane] = mine;
    __syncthreads();
    if (lane < O) {
      mine = 0;
      for (int w = 0; w < 4; w++) mine += shared.parts[w][lane];
    }
#endif
    if (lane < O) {
      mine += of.b[lane];
      const T out = KERNEL_value(mine);
      shared.outs[warp][lane] = out;
      if (is_first) {
        of.z[at] = mine;
        of.a[at] = out;
      }
    }
    // There are no more outputs than lanes, so a lane reads and writes only its own output.
    const Y* y = of.y;
    const T loss = KERNEL_row(shared.outs[warp], TARGET, shared.deltas[warp], (T)(1.0 / of.rows), O,
                              lane, 32);
    if (lane < O) {
      const T own = KERNEL_slope(shared.deltas[warp][lane], mine, shared.outs[warp][lane]);
      if (is_first) of.delta[at] = own;
      shared.deltas[warp][lane] = own;
    }
    __syncwarp();
#pragma unroll
    for (int o = 0; o < O; o++) parts[o] = shared.deltas[warp][o];
#pragma unroll 4
    for (int i = begin; i < of.n_in; i += step) {
      T back = 0;
#pragma unroll
      for (int o = 0; o < O; o += V) {
        const Pack<T, V> w = load<V>(of.W + i * O + o);
#pragma unroll
        for (int v = 0; v < V; v++) back += parts[o + v] * w.v[v];
      }
#if HAS_BELOW
      back = KERNEL_below(back, of.z_below[first + i], of.x[first + i]);
#endif
      of.dx[first + i] = back;
    }
    if (is_first && lane == 0) sum += (double)loss;
#if WARPS > 1
    __syncthreads();  // the next row overwrites these parts
#else
    __syncwarp();  // the next row overwrites these deltas
#endif
  }
  return sum;
}

__global__ over_outputs(128, 1) KERNEL(
    const T x[B I], const T W[I O], const T b[O], T z[B O], T a[B O], T delta[B O],
    const Y y[B] if HAS_LABELS, const T y[B O] if not HAS_LABELS, const T z_below[B I], T dx[B I],
    double totals[4], scratch double partial[most], scratch unsigned counter[1], int rows = B,
    int n_in = I) {
  __shared__ KERNEL_Shared shared;
  __shared__ double sums[128];
  __shared__ bool is_last;
  const KERNEL_Layer layer = {x, W, b, z_below, z, a, delta, dx, y, rows, n_in};
  const int packed = O % 4 == 0 ? 4 : O % 2 == 0 ? 2 : 1;
  const bool is_even = (unsigned long long)W % (packed * sizeof(T)) == 0;
  double total;
  const double sum = is_even ? KERNEL_rows<packed>(layer, shared) : KERNEL_rows<1>(layer, shared);
  if (sum_grid<128>(sum, sums, partial, counter, &is_last, &total)) {
    totals[0] += total;
    totals[1] += rows;
  }
}

#undef TARGETS
#undef Y_OF
#undef TARGET
#if !HAS_LABELS
#undef Y
#endif
