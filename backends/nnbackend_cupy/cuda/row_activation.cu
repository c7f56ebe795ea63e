// An activation whose units depend on each other along a row, such as softmax: `lanes` consecutive
// lanes of a warp share a row. With IS_SLOPE delta = dC/dz from dC/da; else z += b, a = phi(z).

#if IS_SLOPE
#define ARRAYS T *delta, const T *z, const T *a
#define OF_ROW delta + first, z + first, a + first
#else
#define ARRAYS T *z, const T *b, T *a
#define OF_ROW z + first, b, a + first
#endif

__device__ __forceinline__ void KERNEL_row(ARRAYS, int columns, int lane, int lanes) {
  // FORMULA
}

extern "C" __global__ void __launch_bounds__(128, 1)
    KERNEL(ARRAYS, int rows, int columns, int lanes) {
  const int row = blockIdx.x * (128 / lanes) + threadIdx.x / lanes;
  const long long first = row < rows ? (long long)row * columns : 0;
  // A row beyond the last has no columns, but its lanes must take part in the exchange.
  KERNEL_row(OF_ROW, row < rows ? columns : 0, threadIdx.x % lanes, lanes);
}

#undef ARRAYS
#undef OF_ROW
