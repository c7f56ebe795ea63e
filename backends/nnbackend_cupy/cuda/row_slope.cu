// delta = dC/dz from dC/da for an activation whose units depend on each other along a row.

__device__ __forceinline__ void KERNEL_row(
    T* delta, const T* z, const T* a, int columns, int lane, int lanes) {
  // FORMULA
}

__global__ over_rows(128, 1) KERNEL(
    T delta[B O], const T z[B O], const T a[B O], int rows = B, int columns = O,
    int lanes = grid) {
  const int row = blockIdx.x * (128 / lanes) + threadIdx.x / lanes;
  const long long first = row < rows ? (long long)row * columns : 0;
  // A row beyond the last has no columns, but its lanes must take part in the exchange.
  KERNEL_row(
      delta + first, z + first, a + first, row < rows ? columns : 0, threadIdx.x % lanes, lanes);
}
