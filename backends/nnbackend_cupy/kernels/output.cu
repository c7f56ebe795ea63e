// The output layer of few units in one launch: forward, loss, and the way back to the layer below.
//
//   z = x W + b;  a = phi(z);  da = dloss/da;  delta = da phi'(z);  dx = delta W^T phi_below'
//
// phi_below is the activation of the layer below, whose output is x; HAS_BELOW 0 leaves it out. A
// warp makes a row at a time. O is the number of outputs; an output is kept by the lane of its number.

#if HAS_LABELS
#define TARGETS const int label
#define TARGET (int)y[row]
#else
#define TARGETS const T* y
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
// Writes a row's part of da and gives its loss, in every lane.
__device__ __forceinline__ T KERNEL_row(
    const T* out, TARGETS, T* delta, const T share, int columns, int lane, int lanes) {
  // FORMULA
}

extern "C" __global__ void __launch_bounds__(64, 1)
    KERNEL(const T* __restrict__ x, const T* __restrict__ W, const T* b, T* z, T* a, T* delta,
           const Y* y, const T* z_below, T* dx, double* totals, double* partial, unsigned* counter,
           int rows, int n_in) {
  __shared__ double sums[64];
  __shared__ T outs[2][O], deltas[2][O];  // of each warp
  __shared__ bool is_last;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  double total, sum = 0;
  for (int row = blockIdx.x * 2 + warp; row < rows; row += gridDim.x * 2) {
    const long long first = (long long)row * n_in;
    T parts[O] = {};
#pragma unroll 4
    for (int i = lane; i < n_in; i += 32) {
      const T value = x[first + i];
#pragma unroll
      for (int o = 0; o < O; o++) parts[o] += value * W[i * O + o];
    }
    T mine = 0;
#pragma unroll
    for (int o = 0; o < O; o++) {
      const T whole = sum_of_lanes(parts[o], 32);
      if (lane == o) mine = whole;
    }
    const long long at = (long long)row * O + lane;
    if (lane < O) {
      mine += b[lane];
      const T out = KERNEL_value(mine);
      z[at] = mine;
      a[at] = out;
      outs[warp][lane] = out;
    }
    // With no more outputs than lanes, a lane reads and writes its own output alone.
    const T loss = KERNEL_row(outs[warp], TARGET, deltas[warp], (T)(1.0 / rows), O, lane, 32);
    if (lane < O) {
      const T own = KERNEL_slope(deltas[warp][lane], mine, outs[warp][lane]);
      delta[at] = own;
      deltas[warp][lane] = own;
    }
    __syncwarp();
#pragma unroll
    for (int o = 0; o < O; o++) parts[o] = deltas[warp][o];
#pragma unroll 4
    for (int i = lane; i < n_in; i += 32) {
      T back = 0;
#pragma unroll
      for (int o = 0; o < O; o++) back += parts[o] * W[i * O + o];
#if HAS_BELOW
      back = KERNEL_below(back, z_below[first + i], x[first + i]);
#endif
      dx[first + i] = back;
    }
    if (lane == 0) sum += (double)loss;
    __syncwarp();  // the next row's deltas take the place of these
  }
  if (sum_grid<64>(sum, sums, partial, counter, &is_last, &total)) {
    totals[0] += total;
    totals[1] += rows;
  }
}

#undef TARGETS
#undef TARGET
