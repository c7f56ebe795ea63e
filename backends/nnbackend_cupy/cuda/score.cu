// A score of each row, summed: totals[3] += sum of weight * score, in double precision.
// `lanes` consecutive lanes of a warp share a row.

#if HAS_LABELS
#define TARGETS const int label
#define Y_OF(j) (T)(label == j)
#define TARGET is_inside ? (int)y[row] : -1
#else
#define TARGETS const T* y
#define Y_OF(j) y[j]
#define TARGET y + first
#endif

__device__ __forceinline__ T KERNEL_row(
    const T* out, TARGETS, int columns, int lane, int lanes) {
  // FORMULA
}

__global__ over_sums(128, 1) KERNEL(
    const T out[B O], const Y y[B] if HAS_LABELS, const T y[B O] if not HAS_LABELS,
    const T weight[B] if IS_WEIGHTED, double totals[4], scratch double partial[most],
    scratch unsigned counter[1], int rows = B, int columns = O, int lanes = grid) {
  __shared__ double sums[128];
  __shared__ bool is_last;
  const int rows_of_block = 128 / lanes;
  double total, sum = 0;
  for (int base = blockIdx.x * rows_of_block; base < rows; base += gridDim.x * rows_of_block) {
    const int row = base + threadIdx.x / lanes, lane = threadIdx.x % lanes;
    const bool is_inside = row < rows;
    const long long first = is_inside ? (long long)row * columns : 0;
    const T score = KERNEL_row(out + first, TARGET, is_inside ? columns : 0, lane, lanes);
#if IS_WEIGHTED
    const double own = is_inside ? (double)weight[row] : 0.0;
#else
    const double own = 1;
#endif
    if (is_inside && lane == 0) sum += own * (double)score;
  }
  if (sum_grid<128>(sum, sums, partial, counter, &is_last, &total)) totals[3] += total;
}

#undef TARGETS
#undef Y_OF
#undef TARGET
