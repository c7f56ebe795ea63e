// Clips the norm of each column of W to `limit`. A block handles `width` columns (1, 2, 4, 8) and
// all rows: 8 columns fill a memory transaction, and narrow tiles give more blocks.

__global__ over_norms(256, 1) KERNEL(
    T W[I O], T limit, int rows = I, int columns = O, int width = grid) {
  __shared__ T sums[256];
  const int t = threadIdx.x, strip = t / width, strips = 256 / width;
  const int column = blockIdx.x * width + t % width;
  T sum = 0;
  if (column < columns)
    for (int row = strip; row < rows; row += strips) {
      const T w = W[(long long)row * columns + column];
      sum += w * w;
    }
  sum_columns<256>(sum, sums, width);
  if (column >= columns) return;
  const T norm = root(sums[t % width]);
  if (!(norm > limit)) return;
  const T factor = limit / norm;
  for (int row = strip; row < rows; row += strips) W[(long long)row * columns + column] *= factor;
}
