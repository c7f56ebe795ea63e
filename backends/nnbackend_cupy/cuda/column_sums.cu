// db = sum of delta's rows.
//
// A block handles `width` columns (1, 2, 4 ... 32) and some of the rows. If several blocks share
// a column, the last one to finish adds their partial sums in `partial` (blocks, columns).

__global__ over_columns(256, 1) KERNEL(
    const restrict T delta[B O], T db[O], scratch T partial[chunks O],
    scratch unsigned counters[tiles], int rows = B, int columns = O, int width = grid,
    int rows_of_block = grid) {
  __shared__ T sums[256];
  __shared__ bool is_last;
  const int t = threadIdx.x, strip = t / width, strips = 256 / width;
  const int column = blockIdx.x * width + t % width;
  const bool is_inside = column < columns;
  const int begin = blockIdx.y * rows_of_block;
  const int end = begin + rows_of_block < rows ? begin + rows_of_block : rows;
  T sum = 0;
  if (is_inside) {
#pragma unroll 4
    for (int row = begin + strip; row < end; row += strips) {
      const long long i = (long long)row * columns + column;
      sum += delta[i];
    }
  }
  sum_columns<256>(sum, sums, width);
  const bool is_first_strip = strip == 0 && is_inside;
  if (gridDim.y == 1) {
    if (is_first_strip) db[column] = sums[t];
    return;
  }
  if (is_first_strip) partial[(long long)blockIdx.y * columns + column] = sums[t];
  if (!is_last_block(counters + blockIdx.x, gridDim.y, &is_last)) return;
  sum = 0;
  if (is_inside)
    for (int k = strip; k < gridDim.y; k += strips)
      sum += __ldcg(partial + (long long)k * columns + column);
  sum_columns<256>(sum, sums, width);
  if (is_first_strip) db[column] = sums[t];
}
