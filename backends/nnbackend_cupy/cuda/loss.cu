// A loss and its gradient in one launch: delta = d(mean loss)/d(out), and the sums for `totals`.
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

// Writes delta of a row and returns its loss, in every lane.
__device__ __forceinline__ T KERNEL_row(
    const T* out, TARGETS, T* delta, const T share, int columns, int lane, int lanes) {
  // FORMULA
}

__global__ over_sums(128, 1) KERNEL(
    const T out[B O], const Y y[B] if HAS_LABELS, const T y[B O] if not HAS_LABELS,
    const T weight[B] if IS_WEIGHTED, const double weight_total[1] if IS_WEIGHTED,
    int has_total if IS_WEIGHTED, T delta[B O], double totals[4], scratch double partial[most],
    scratch unsigned counter[1], int rows = B, int columns = O, int lanes = grid) {
  __shared__ double sums[128];
  __shared__ bool is_last;
  const int t = threadIdx.x, rows_of_block = 128 / lanes;
#if IS_WEIGHTED
  // Every block adds all weights, in the same order, which avoids another launch; for very many
  // rows an earlier launch computes the total.
  double all = 0;
  if (has_total)
    all = *weight_total;
  else {
    for (int k = t; k < rows; k += 128) all += weight[k];
    sum_columns<128>(all, sums, 1);
    all = sums[0];
    __syncthreads();  // the sums are reused below
  }
#endif
  double total, sum = 0;
  // Whole warps iterate together, since lanes exchange numbers; a row beyond the last has no
  // columns.
  for (int base = blockIdx.x * rows_of_block; base < rows; base += gridDim.x * rows_of_block) {
    const int row = base + t / lanes, lane = t % lanes;
    const bool is_inside = row < rows;
    const long long first = is_inside ? (long long)row * columns : 0;
#if IS_WEIGHTED
    const T own = is_inside ? weight[row] : (T)0;
    // If all weights are 0, the share is 0, not NaN: SMALLEST is the smallest normal number.
    const T share = own / ((T)all + (T)SMALLEST);
#else
    const T own = 1, share = (T)(1.0 / rows);
#endif
    const T loss = KERNEL_row(out + first, TARGET, delta + first, share, is_inside ? columns : 0,
                              lane, lanes);
    if (is_inside && lane == 0) sum += (double)(loss * own);
  }
  if (sum_grid<128>(sum, sums, partial, counter, &is_last, &total)) {
    totals[0] += total;
#if IS_WEIGHTED
    totals[1] += all;
#else
    totals[1] += rows;
#endif
  }
}

#undef TARGETS
#undef Y_OF
#undef TARGET
