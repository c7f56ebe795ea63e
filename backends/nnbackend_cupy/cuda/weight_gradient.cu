// dW = x^T delta and db = sum of delta's rows, for many rows and few units.
//
// A block computes SIDE x SIDE of dW from some of the rows. Its threads form groups; each group
// covers the whole tile with M x N numbers per thread, and handles rows at a fixed stride. Rows are
// copied to shared memory STAGES - 1 stages before they are needed. Each block stores its sums in
// `partial` (chunks, I O + O); weight_sums.cu adds them.

#define SIDE 64
#define STAGES 4
#define V (16 / (int)sizeof(T))    // numbers that are loaded at once
#define ROWS (64 / (int)sizeof(T))  // of a stage: a thread fetches V numbers of x and V of delta
#define M 8
#define N (32 / (int)sizeof(T))
#define WARPS_ACROSS (SIDE / N / 8)  // of a group; a warp is 4 threads down and 8 across
#define WARPS_OF_GROUP (SIDE / M / 4 * WARPS_ACROSS)
#define GROUPS (8 / WARPS_OF_GROUP)
#define TILES (GROUPS / 2)  // that fit the memory of the stages

struct KERNEL_Stage {
  alignas(16) T x[ROWS][SIDE], delta[ROWS][SIDE];
};

// Copies a thread's part of one matrix, stage by stage; elements beyond its rows and columns
// become 0.
template <int W> struct KERNEL_Fetch {
  enum { AT_ONCE = 256 * W / SIDE };  // rows
  const T* from;
  int place, left, columns;
  bool is_inside;
  __device__ __forceinline__ KERNEL_Fetch(
      const T* matrix, int begin, int end, int first, int columns)
      : columns(columns) {
    const int row = threadIdx.x / (SIDE / W), column = threadIdx.x % (SIDE / W) * W;
    from = matrix + (long long)(begin + row) * columns + first + column;
    place = row * SIDE + column;
    left = end - begin - row;
    is_inside = first + column < columns;
  }
  __device__ __forceinline__ void next(T* stage) {
#pragma unroll
    for (int r = 0; r < ROWS; r += AT_ONCE)
      copy_async<W * sizeof(T)>(
          stage + place + r * SIDE, from + (long long)r * columns, is_inside && r < left);
    from += (long long)ROWS * columns;
    left -= ROWS;
  }
};

// Adds a block's rows to the threads' parts of x^T delta; W numbers are copied at once.
template <int W>
__device__ __forceinline__ void KERNEL_add_rows(
    KERNEL_Stage* stages, KERNEL_Fetch<W> x, KERNEL_Fetch<W> delta, int n_stages, int group,
    int down, int across, bool is_summing, T (&parts)[M][N], T& sum) {
  const int t = threadIdx.x;
#define FETCH(n)                                 \
  if ((n) < n_stages) {                          \
    KERNEL_Stage& into = stages[(n) % STAGES];   \
    x.next(&into.x[0][0]);                       \
    delta.next(&into.delta[0][0]);               \
  }                                              \
  end_copies();
#pragma unroll
  for (int n = 0; n < STAGES - 1; n++) {
    FETCH(n)
  }
#pragma unroll 1
  for (int n = 0; n < n_stages; n++) {
    wait_for_copies<STAGES - 2>();
    __syncthreads();  // after the copies of all threads, and the reads of the stage to overwrite
    FETCH(n + STAGES - 1)
    const KERNEL_Stage& stage = stages[n % STAGES];
    const T* left_row = &stage.x[group][down * V];
    const T* right_row = &stage.delta[group][across * V];
#pragma unroll 4
    for (int r = 0; r < ROWS; r += GROUPS) {
      Pack<T, V> left[M / V], right[N / V];
#pragma unroll
      for (int k = 0; k < M / V; k++) left[k] = load<V>(left_row + r * SIDE + k * (SIDE / M * V));
#pragma unroll
      for (int k = 0; k < N / V; k++) right[k] = load<V>(right_row + r * SIDE + k * (SIDE / N * V));
#pragma unroll
      for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++) parts[i][j] += left[i / V].v[i % V] * right[j / V].v[j % V];
    }
    if (is_summing) {
      const T* own = &stage.delta[t / SIDE][t % SIDE];
#pragma unroll
      for (int r = 0; r < ROWS; r += 256 / SIDE) sum += own[r * SIDE];
    }
  }
#undef FETCH
}

// Two blocks on a multiprocessor: while one waits, the other computes.
__global__ over_tiles(256, 2) KERNEL(
    const restrict T x[B I], const restrict T delta[B O], T partial[*], int rows = B, int n_in = I,
    int n_out = O, int rows_of_block = grid) {
  __shared__ KERNEL_Stage stages[STAGES];
  __shared__ T sums[256];
  const int t = threadIdx.x, warp = t / 32, group = warp / WARPS_OF_GROUP;
  // Lanes that differ in the lowest bit read the same x, in the second bit the same delta: the wide
  // loads of half a warp are then one access to shared memory.
  const int across = (warp % WARPS_ACROSS) * 8 + (t >> 1 & 6) + (t & 1);
  const int down = (warp % WARPS_OF_GROUP / WARPS_ACROSS) * 4 + (t >> 3 & 2) + (t >> 1 & 1);
  const int tiles_across = (n_out + SIDE - 1) / SIDE;
  const int first_in = blockIdx.x / tiles_across * SIDE;
  const int first_out = blockIdx.x % tiles_across * SIDE;
  const int begin = blockIdx.y * rows_of_block;
  const int end = begin + rows_of_block < rows ? begin + rows_of_block : rows;
  const int n_stages = end > begin ? (end - begin + ROWS - 1) / ROWS : 0;
  T parts[M][N] = {}, sum = 0;
#define ADD_ROWS(W)                                                                         \
  KERNEL_add_rows<W>(stages, KERNEL_Fetch<W>(x, begin, end, first_in, n_in),                \
                     KERNEL_Fetch<W>(delta, begin, end, first_out, n_out), n_stages, group, \
                     down, across, first_in == 0, parts, sum)
  if (n_in % V == 0 && n_out % V == 0 && is_packable(x) && is_packable(delta))
    ADD_ROWS(V);
  else
    ADD_ROWS(1);
#undef ADD_ROWS
  __syncthreads();  // the sums overwrite the stages
  T* tile = &stages[0].x[0][0] + group % TILES * SIDE * SIDE;
#pragma unroll
  for (int g = 0; g < GROUPS; g += TILES) {
    if (group / TILES == g / TILES) {
#pragma unroll
      for (int i = 0; i < M; i++)
#pragma unroll
        for (int k = 0; k < N / V; k++) {
          const int row = i / V * (SIDE / M * V) + down * V + i % V;
          T* place = tile + row * SIDE + (k * (SIDE / N) + across) * V;
          Pack<T, V> whole;
          if (g > 0) whole = load<V>(place);
#pragma unroll
          for (int j = 0; j < V; j++)
            whole.v[j] = g > 0 ? whole.v[j] + parts[i][k * V + j] : parts[i][k * V + j];
          store(place, whole);
        }
    }
    __syncthreads();
  }
  partial += (long long)blockIdx.y * (n_in + 1) * n_out;
  const T* whole = &stages[0].x[0][0];
  for (int e = t; e < SIDE * SIDE; e += 256) {
    const int i = first_in + e / SIDE, o = first_out + e % SIDE;
    T value = whole[e];
#pragma unroll
    for (int k = 1; k < TILES; k++) value += whole[k * SIDE * SIDE + e];
    if (i < n_in && o < n_out) partial[(long long)i * n_out + o] = value;
  }
  if (first_in == 0) {
    sum_columns<256>(sum, sums, SIDE);
    if (t < SIDE && first_out + t < n_out)
      partial[(long long)n_in * n_out + first_out + t] = sums[t];
  }
}

#undef SIDE
#undef STAGES
#undef V
#undef ROWS
#undef M
#undef N
#undef WARPS_ACROSS
#undef WARPS_OF_GROUP
#undef GROUPS
#undef TILES
