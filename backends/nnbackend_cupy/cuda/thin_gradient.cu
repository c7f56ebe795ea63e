// dW = x^T delta and db = sum of delta's rows, where x or delta has at most 16 columns.
//
// FEW is their number; the other matrix is `many`, and is read once, at memory bandwidth. A block
// handles 64 of its columns and some of the rows; a thread handles V columns of rows at a fixed
// stride, and their products with all columns of `few`. With IS_DELTA_FEW 0, delta is `many`, and
// its sums are products with one more column of ones. The sums of a block go to `partial`
// (chunks, I O + O), and are added by weight_sums.cu.

#define V (16 / (int)sizeof(T))
#define LANES (64 / V)  // threads that share a row
#define ALL (FEW + !IS_DELTA_FEW)
#define AT_ONCE 4  // columns of `few` whose sums are exchanged at once
#define UNROLLED (FEW <= 2 ? 8 : FEW <= 8 ? 4 : 2)  // rows: outstanding loads against registers

template <bool IS_WIDE>
__device__ __forceinline__ Pack<T, V> KERNEL_row(const T* row, int column, int n_many) {
  if (IS_WIDE && column < n_many) return load<V>(row + column);
  Pack<T, V> values;
#pragma unroll
  for (int j = 0; j < V; j++)
    values.v[j] = !IS_WIDE && column + j < n_many ? row[column + j] : (T)0;
  return values;
}

template <bool IS_WIDE>
__device__ __forceinline__ void KERNEL_sum(
    const T* __restrict__ many, const T* __restrict__ few, int begin, int end, int n_many,
    T (&parts)[ALL][V], T& few_sum) {
  const int lane = threadIdx.x % LANES, column = blockIdx.x * 64 + lane * V;
#pragma unroll UNROLLED
  for (int row = begin + threadIdx.x / LANES; row < end; row += 256 / LANES) {
    const Pack<T, V> values = KERNEL_row<IS_WIDE>(many + (long long)row * n_many, column, n_many);
    const T* factors = few + (long long)row * FEW;
#pragma unroll
    for (int f = 0; f < FEW; f++) {
      const T factor = factors[f];
#pragma unroll
      for (int j = 0; j < V; j++) parts[f][j] += values.v[j] * factor;
    }
#if IS_DELTA_FEW
    if (lane < FEW) few_sum += factors[lane];
#else
#pragma unroll
    for (int j = 0; j < V; j++) parts[FEW][j] += values.v[j];
#endif
  }
}

__global__ over_strips(256, 2) KERNEL(
    const restrict T many[B M], const restrict T few[B F], T partial[*], int rows = B,
    int n_many = M, int rows_of_block = grid) {
  __shared__ T sums[8][AT_ONCE][64];  // of each warp
  const int t = threadIdx.x, warp = t / 32, lane = t % LANES;
  const int begin = blockIdx.y * rows_of_block;
  const int end = begin + rows_of_block < rows ? begin + rows_of_block : rows;
  T parts[ALL][V] = {}, few_sum = 0;
  if (n_many % V == 0 && is_packable(many))
    KERNEL_sum<true>(many, few, begin, end, n_many, parts, few_sum);
  else
    KERNEL_sum<false>(many, few, begin, end, n_many, parts, few_sum);
  partial += (long long)blockIdx.y * (n_many * FEW + (IS_DELTA_FEW ? FEW : n_many));
  const int column = blockIdx.x * 64 + t % 64;
#pragma unroll
  for (int first = 0; first < ALL; first += AT_ONCE) {
#pragma unroll
    for (int f = first; f < first + AT_ONCE && f < ALL; f++)
#pragma unroll
      for (int j = 0; j < V; j++) {
        T value = parts[f][j];
        for (int m = LANES; m < 32; m *= 2) value += from_lane(value, m);
        if (t % 32 < LANES) sums[warp][f - first][lane * V + j] = value;
      }
    __syncthreads();
    const int f = first + t / 64;
    if (f < ALL && column < n_many) {
      T value = sums[0][t / 64][t % 64];
#pragma unroll
      for (int w = 1; w < 8; w++) value += sums[w][t / 64][t % 64];
      partial[IS_DELTA_FEW ? column * FEW + f : f * n_many + column] = value;
    }
    __syncthreads();
  }
#if IS_DELTA_FEW
  if (blockIdx.x == 0) {
    sum_columns<256>(few_sum, &sums[0][0][0], LANES);
    if (t < FEW) partial[n_many * FEW + t] = sums[0][0][t];
  }
#endif
}

#undef V
#undef LANES
#undef ALL
#undef AT_ONCE
#undef UNROLLED
