// Whole training steps of a narrow network in one launch: n steps, one after another.
//
// Three phases make a step, with a barrier after each. BARRIER says among whom: 0 the threads of
// one block, 1 the blocks of one cluster, 2 the blocks of a grid, which are all resident.
//   1. HAS_WIDE_INPUT only: z1 = x W1 in tiles, the sum cut into parts, of all rows together.
//   2. ROWS rows at a time, each group in one block: forward, loss, backward, down to delta of
//      layer 1. Activations stay in shared memory; the last phase finds them in `scratch` as well.
//   3. Tiles of all gradients, each summed over all rows, and at once the update of its parameters.
//
// In `scratch` a layer's units lie as [group][unit][row of the group], and so do the rows in shared
// memory. Weights above layer 1 are also kept transposed there, for the way back. What one block
// writes and another reads is read with `fresh`. Every sum has a fixed order.

#if HAS_LABELS
#define TARGETS const int label
#define TARGET is_inside ? (int)run.targets[first] : -1
#else
#define TARGETS const T* y
#define TARGET run.targets + first
#endif

// Past the first-level cache, which does not see what other multiprocessors write.
__device__ __forceinline__ T KERNEL_fresh(const T* place) { return *(const volatile T*)place; }

__device__ __forceinline__ int KERNEL_least(int a, int b) { return a < b ? a : b; }

// ---- formulas -----------------------------------------------------------------------------------

  // ACTIVATIONS

// Writes a row's part of delta and gives its loss, in every lane.
__device__ __forceinline__ T KERNEL_row(
    const T* out, TARGETS, T* delta, const T share, int columns, int lane, int lanes) {
  // LOSS
}

__device__ __forceinline__ void KERNEL_coefficients(
    const double rate, const double momentum, const double count, T* c) {
  // COEFFICIENTS
}

#define REFERENCE(k) T &s##k,
__device__ __forceinline__ void KERNEL_move(T& theta, const T g, STATES(REFERENCE) const T* c) {
  // MOVE
}

// ---- what all phases see ------------------------------------------------------------------------

#define POINTER(k) T *s##k;
struct KERNEL_Run {
  T *theta, *gradient, *scratch;
  STATES(POINTER)
  const X* data;
  const Y* targets;
  const T *weights, *shift, *factor;  // of the data's rows; by what its columns are scaled
  T inverse_clip, l1, l2;
  long long stride, y_stride;  // from row to row of data and targets, in elements
  int rows;
  T* pool;            // shared memory: tiles, or the rows of a group
  const int* places;  // of the batch's rows in the data
  const T* c;         // the update's coefficients, and by what weights shrink
  const double* all_weights;  // the sum of the batch's

  __device__ __forceinline__ T input(int row, int i) const {
    T x = (T)data[places[row] * stride + i];
#if HAS_SCALE
    x = (x - shift[i]) * factor[i];
#endif
#if HAS_SCALE == 2
    x = x / sqrtf((T)1 + (x * inverse_clip) * (x * inverse_clip));
#endif
    return x;
  }
};
typedef const KERNEL_Run& KERNEL_Here;

// Between arrive and wait a thread may read what the last phase has left, but another block may be
// in the next one, and in the phase after it has overwritten what is not kept twice.
__device__ __forceinline__ unsigned long long KERNEL_arrive(unsigned long long* counter) {
  unsigned long long all = 0;
  __syncthreads();
#if BARRIER == 1
  cluster_arrive();
#elif BARRIER == 2
  if (threadIdx.x == 0) {
    __threadfence();  // what this block has written is seen before the count
    const unsigned long long before = atomicAdd(counter, 1ull);
    all = (before / gridDim.x + 1) * gridDim.x;  // the count when all have come; it never restarts
  }
#endif
  return all;
}
__device__ __forceinline__ void KERNEL_wait(unsigned long long* counter, unsigned long long all) {
#if BARRIER == 1
  cluster_wait();
#elif BARRIER == 2
  if (threadIdx.x == 0) {
    while (acquired(counter) < all) {
    }
    __threadfence();
  }
#endif
  __syncthreads();
}

// ---- tiles: products over many terms, the operands staged in shared memory -----------------------

// put(m, n, sum over k of A[k][m] B[k][n]) for a tile of M x N, multiples of 4. stage_a(k, count,
// to) brings `count` terms from k on to `to`, M + 4 elements a term; the same for stage_b and N.
// A thread sums 4 x 4 elements over every SLICES-th term.
template <int M, int N, class StageA, class StageB, class Put>
__device__ __forceinline__ void KERNEL_tile(
    T* pool, int begin, int end, StageA stage_a, StageB stage_b, Put put) {
  constexpr int QUADS = M / 4 * (N / 4), SLICES = THREADS / QUADS;
  constexpr int CHUNK = POOL / (M + N + 8);
  static_assert(SLICES > 0 && SLICES * M * N <= POOL, "a tile must fit the block and its memory");
  const int t = threadIdx.x, slice = t / QUADS, m = t % QUADS / (N / 4) * 4, n = t % (N / 4) * 4;
  T *a = pool, *b = pool + CHUNK * (M + 4);
  T sums[4][4] = {};
  for (int k0 = begin; k0 < end; k0 += CHUNK) {
    const int count = KERNEL_least(CHUNK, end - k0);
    stage_a(k0, count, a);
    stage_b(k0, count, b);
    __syncthreads();
    if (slice < SLICES)
#pragma unroll 2
      for (int k = slice; k < count; k += SLICES) {
        const Pack<T, 4> of_a = load<4>(a + k * (M + 4) + m), of_b = load<4>(b + k * (N + 4) + n);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int j = 0; j < 4; j++) sums[i][j] += of_a.v[i] * of_b.v[j];
      }
    __syncthreads();
  }
  if (slice < SLICES)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      Pack<T, 4> row;
#pragma unroll
      for (int j = 0; j < 4; j++) row.v[j] = sums[i][j];
      store<4>(pool + (slice * M + m + i) * N + n, row);
    }
  __syncthreads();
  for (int e = t; e < M * N; e += THREADS) {
    T sum = 0;
#pragma unroll
    for (int s = 0; s < SLICES; s++) sum += pool[s * M * N + e];
    put(e / N, e % N, sum);
  }
  __syncthreads();
}

// Terms are rows of the batch: units m0 .. m0 + M of a layer of `width` units, from scratch. Beside
// them stands a unit that is always 1: its gradient is that of the bias.
template <int M>
__device__ __forceinline__ void KERNEL_stage_units(
    const T* units, int width, int m0, int row0, int count, T* to) {
  const int first = row0 / ROWS, n = ((row0 + count + ROWS - 1) / ROWS - first) * ROWS * M;
#pragma unroll 4
  for (int e = threadIdx.x; e < n; e += THREADS) {
    const int r = e % ROWS, m = e / ROWS % M, group = first + e / (ROWS * M), unit = m0 + m;
    const int k = group * ROWS + r - row0;
    if (k >= 0 && k < count)
      to[k * (M + 4) + m] = unit < width ? KERNEL_fresh(units + (group * width + unit) * ROWS + r)
                                         : (T)(unit == width);
  }
}

// The same of the inputs.
template <int M>
__device__ __forceinline__ void KERNEL_stage_inputs(
    KERNEL_Here run, int m0, int row0, int count, T* to) {
#pragma unroll 4
  for (int e = threadIdx.x; e < count * M; e += THREADS) {
    const int m = e % M, k = e / M, i = m0 + m;
    to[k * (M + 4) + m] = i < N_IN ? run.input(row0 + k, i) : (T)(i == N_IN);
  }
}

// ---- phase 1 ------------------------------------------------------------------------------------

// One of PARTS parts of the sum for a tile of z1, into scratch as [part][group][unit][row].
template <int M, int N, int O, int PARTS>
__device__ __forceinline__ void KERNEL_wide_input(KERNEL_Here run, const T* W, T* parts) {
  constexpr int DEEP = (N_IN + PARTS - 1) / PARTS, ACROSS = (O + N - 1) / N;
  const int tasks = (run.rows + M - 1) / M * ACROSS * PARTS;
  for (int task = blockIdx.x; task < tasks; task += gridDim.x) {
    const int part = task % PARTS, n0 = task / PARTS % ACROSS * N, m0 = task / PARTS / ACROSS * M;
    const int end = KERNEL_least(N_IN, (part + 1) * DEEP);
    KERNEL_tile<M, N>(
        run.pool, part * DEEP, end,
        [&](int i0, int count, T* to) {
          // 8 neighbours of 4 rows for a warp: no two write to one bank.
          const int eights = (count + 7) / 8;
#pragma unroll 4
          for (int e = threadIdx.x; e < eights * 8 * M; e += THREADS) {
            const int k = e / (8 * M) * 8 + e % 8, m = e / 8 % M, row = m0 + m;
            if (k < count)
              to[k * (M + 4) + m] = row < run.rows ? run.input(row, i0 + k) : (T)0;
          }
        },
        [&](int i0, int count, T* to) {
#pragma unroll 4
          for (int e = threadIdx.x; e < count * N; e += THREADS) {
            const int k = e / N, n = e % N, j = n0 + n;
            to[k * (N + 4) + n] = j < O ? KERNEL_fresh(W + (long long)(i0 + k) * O + j) : (T)0;
          }
        },
        [&](int m, int n, T sum) {
          const int row = m0 + m, j = n0 + n;
          if (row < run.rows && j < O)
            parts[(((long long)part * GROUPS + row / ROWS) * O + j) * ROWS + row % ROWS] = sum;
        });
  }
}

// ---- phase 2 ------------------------------------------------------------------------------------

// partial = in W, a part of the sum for each slice of threads. in is (K, ROWS), W (K, O).
template <int K, int O> struct KERNEL_Slices {
  static constexpr int FULL = THREADS / O < (K + 3) / 4 ? THREADS / O : (K + 3) / 4;
  static constexpr int DEEP = (K + FULL - 1) / FULL, COUNT = (K + DEEP - 1) / DEEP;
};
template <int K, int O>
__device__ __forceinline__ void KERNEL_product(const T* in, const T* W, T* partial) {
  constexpr int DEEP = KERNEL_Slices<K, O>::DEEP, AT_ONCE = DEEP < 16 ? DEEP : 16;
  static_assert(THREADS >= O, "each unit needs a thread");
  const int j = threadIdx.x % O, slice = threadIdx.x / O, begin = slice * DEEP;
  if (slice < KERNEL_Slices<K, O>::COUNT) {
    const int end = KERNEL_least(K, begin + DEEP);
    Pack<T, ROWS> sums = {};
    for (int k = begin; k < end; k += AT_ONCE) {
      T w[AT_ONCE];
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++)
        w[u] = k + u < end ? KERNEL_fresh(W + (k + u) * O + j) : (T)0;
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++)
        if (k + u < end) {
          const Pack<T, ROWS> of_k = load<ROWS>(in + (k + u) * ROWS);
#pragma unroll
          for (int r = 0; r < ROWS; r++) sums.v[r] += of_k.v[r] * w[u];
        }
    }
    store<ROWS>(partial + (slice * O + j) * ROWS, sums);
  }
  __syncthreads();
}
template <int K, int O> __device__ __forceinline__ T KERNEL_sum(const T* partial, int e) {
  T sum = 0;
#pragma unroll
  for (int s = 0; s < KERNEL_Slices<K, O>::COUNT; s++) sum += partial[s * O * ROWS + e];
  return sum;
}

// z = in W + b, a = phi(z), for the rows of a group; z is kept where Z is a place of its own.
template <class Phi, int I, int O, int B, int Z, int A>
__device__ __forceinline__ void KERNEL_units(KERNEL_Here run, int e, T z, int group, T* kept) {
  z += KERNEL_fresh(run.theta + B + e / ROWS);
  const T a = Phi::value(z);
  if (Z != A) run.pool[Z + e] = z;
  run.pool[A + e] = a;
  if (kept && group * ROWS + e % ROWS < run.rows) kept[(long long)group * O * ROWS + e] = a;
}
template <class Phi, int I, int O, int IN, int W, int B, int Z, int A>
__device__ __forceinline__ void KERNEL_forward(KERNEL_Here run, int group, T* kept) {
  T* partial = run.pool + PARTIAL;
  KERNEL_product<I, O>(run.pool + IN, run.theta + W, partial);
  for (int e = threadIdx.x; e < O * ROWS; e += THREADS)
    KERNEL_units<Phi, I, O, B, Z, A>(run, e, KERNEL_sum<I, O>(partial, e), group, kept);
  __syncthreads();
}

// The inputs of a group, or layer 1 from the parts that phase 1 has left.
template <int IN> __device__ __forceinline__ void KERNEL_load(KERNEL_Here run, int group) {
  for (int e = threadIdx.x; e < N_IN * ROWS; e += THREADS) {
    // Neighbours in a row are neighbours in memory.
    const int i = e % N_IN, r = e / N_IN, row = group * ROWS + r;
    run.pool[IN + i * ROWS + r] = row < run.rows ? run.input(row, i) : (T)0;
  }
  __syncthreads();
}
template <class Phi, int O, int B, int Z, int A, int PARTS>
__device__ __forceinline__ void KERNEL_load_units(
    KERNEL_Here run, const T* parts, int group, T* kept) {
  for (int e = threadIdx.x; e < O * ROWS; e += THREADS) {
    const bool is_inside = group * ROWS + e % ROWS < run.rows;
    T sum = 0;
#pragma unroll 8
    for (int part = 0; part < PARTS; part++)
      if (is_inside)
        sum += KERNEL_fresh(parts + ((long long)part * GROUPS + group) * O * ROWS + e);
    KERNEL_units<Phi, N_IN, O, B, Z, A>(run, e, sum, group, kept);
  }
  __syncthreads();
}

template <int OUT, int DELTA>
__device__ __forceinline__ void KERNEL_compare(KERNEL_Here run, int group, T* losses) {
  const int lane = threadIdx.x % 32;
#if IS_WEIGHTED
  const T all = (T)*run.all_weights + (T)SMALLEST;  // where all weights are 0, shares are not NaN
#endif
  for (int r = threadIdx.x / 32; r < ROWS; r += THREADS / 32) {
    const int row = group * ROWS + r;
    const bool is_inside = row < run.rows;
    const long long first = is_inside ? run.places[row] * run.y_stride : 0;
#if IS_WEIGHTED
    const T own = is_inside ? run.weights[run.places[row]] : (T)0, share = own / all;
#else
    const T own = 1, share = (T)(1.0 / run.rows);
#endif
    const T loss = KERNEL_row(run.pool + OUT + r, TARGET, run.pool + DELTA + r, share,
                              is_inside ? N_OUT : 0, lane, 32);
    if (is_inside && lane == 0) losses[row] = loss * own;
  }
  __syncthreads();
}

// delta = da phi'(z), also to scratch; 0 in rows beyond the last, whose da may be anything.
template <class Phi, int O, int Z, int A, int DELTA>
__device__ __forceinline__ void KERNEL_slope(KERNEL_Here run, int e, T da, int group, T* kept) {
  const bool is_inside = group * ROWS + e % ROWS < run.rows;
  const T delta = is_inside ? Phi::slope(da, run.pool[Z + e], run.pool[A + e]) : (T)0;
  run.pool[DELTA + e] = delta;
  if (is_inside) kept[(long long)group * O * ROWS + e] = delta;
}
template <class Phi, int O, int Z, int A, int DELTA>
__device__ __forceinline__ void KERNEL_begin_backward(KERNEL_Here run, int group, T* kept) {
  for (int e = threadIdx.x; e < O * ROWS; e += THREADS)
    KERNEL_slope<Phi, O, Z, A, DELTA>(run, e, run.pool[DELTA + e], group, kept);
  __syncthreads();
}
// From delta of the layer above, of O units, to that of a layer of I units.
template <class Phi, int I, int O, int ABOVE, int Z, int A, int DELTA>
__device__ __forceinline__ void KERNEL_backward(
    KERNEL_Here run, const T* transposed, int group, T* kept) {
  T* partial = run.pool + PARTIAL;
  KERNEL_product<O, I>(run.pool + ABOVE, transposed, partial);
  for (int e = threadIdx.x; e < I * ROWS; e += THREADS)
    KERNEL_slope<Phi, I, Z, A, DELTA>(run, e, KERNEL_sum<O, I>(partial, e), group, kept);
  __syncthreads();
}

// ---- phase 3 ------------------------------------------------------------------------------------

#define REFERENCE_AT(k) run.s##k[at],
__device__ __forceinline__ T KERNEL_update(
    KERNEL_Here run, int at, bool is_weight, T g, T* penalty) {
  T value = run.theta[at];
#if HAS_PENALTY
  if (is_weight) {
    g = g + run.l2 * value + run.l1 * sign(value);
    *penalty += (value < 0 ? -value : value) * run.l1 + (T)0.5 * run.l2 * value * value;
  }
#endif
  run.gradient[at] = g;
  if (is_weight) value *= run.c[N_COEFFICIENTS];  // decoupled decay, on weights only
  KERNEL_move(value, g, STATES(REFERENCE_AT) run.c);
  run.theta[at] = value;
  return value;
}

// A layer's places: in theta, in scratch (of layer 1 the data stand in for `below`), and how many
// tiles are those of the layers before it.
struct KERNEL_Layer {
  int n_in, n_out, W, b, below, delta, transposed, tiles_before;
};
__constant__ KERNEL_Layer KERNEL_layers[N_LAYERS] = {LAYERS};

// Tiles of dW = a^T delta with the biases as one more row, and their update.
template <int M, int N>
__device__ __forceinline__ void KERNEL_gradients(KERNEL_Here run, T* penalty) {
  for (int task = blockIdx.x; task < N_TILES; task += gridDim.x) {
    int l = N_LAYERS - 1;
    while (task < KERNEL_layers[l].tiles_before) l--;
    const KERNEL_Layer& layer = KERNEL_layers[l];
    const int across = (layer.n_out + N - 1) / N, tile = task - layer.tiles_before;
    const int n0 = tile % across * N, m0 = tile / across * M;
    KERNEL_tile<M, N>(
        run.pool, 0, run.rows,
        [&](int row0, int count, T* to) {
          if (l == 0)
            KERNEL_stage_inputs<M>(run, m0, row0, count, to);
          else
            KERNEL_stage_units<M>(run.scratch + layer.below, layer.n_in, m0, row0, count, to);
        },
        [&](int row0, int count, T* to) {
          KERNEL_stage_units<N>(run.scratch + layer.delta, layer.n_out, n0, row0, count, to);
        },
        [&](int m, int n, T sum) {
          const int i = m0 + m, j = n0 + n;
          if (i > layer.n_in || j >= layer.n_out) return;
          const bool is_weight = i < layer.n_in;
          const int at = is_weight ? layer.W + i * layer.n_out + j : layer.b + j;
          const T moved = KERNEL_update(run, at, is_weight, sum, penalty);
          if (l > 0 && is_weight) run.scratch[layer.transposed + j * layer.n_in + i] = moved;
        });
  }
}

// The last block adds up the losses of all rows.
__device__ __forceinline__ void KERNEL_total(
    KERNEL_Here run, const T* losses, double* sums, double* totals) {
  if (blockIdx.x + 1 < gridDim.x) return;
  double sum = 0;
  for (int row = threadIdx.x; row < run.rows; row += THREADS) sum += KERNEL_fresh(losses + row);
  sum_columns<THREADS>(sum, sums, 1);
  if (threadIdx.x == 0) {
    totals[0] += sums[0];
    totals[1] += IS_WEIGHTED ? *run.all_weights : (double)run.rows;
  }
}

// Penalties: each block leaves its part, and the last block adds up all parts when all are there.
__device__ __forceinline__ void KERNEL_leave_penalty(T penalty, double* sums, double* parts) {
  sum_columns<THREADS>((double)penalty, sums, 1);
  if (threadIdx.x == 0) parts[blockIdx.x] = sums[0];
}
__device__ __forceinline__ void KERNEL_add_penalty(
    const double* parts, double rows, double* sums, double* totals) {
  if (blockIdx.x + 1 < gridDim.x) return;
  double sum = 0;
  for (int k = threadIdx.x; k < gridDim.x; k += THREADS) sum += *(const volatile double*)(parts + k);
  sum_columns<THREADS>(sum, sums, 1);
  if (threadIdx.x == 0) totals[2] += rows * sums[0];
}

// ---- the steps ----------------------------------------------------------------------------------

__device__ __forceinline__ void KERNEL_transpose(const T* W, T* transposed, int rows, int columns) {
  for (int e = blockIdx.x * THREADS + threadIdx.x; e < rows * columns; e += gridDim.x * THREADS)
    transposed[e % columns * rows + e / columns] = W[e];
}
__device__ __forceinline__ void KERNEL_find_rows(
    const long long* order, long long first, const T* weights, int rows, int* places,
    double* sums, double* all_weights) {
  double sum = 0;
  for (int row = threadIdx.x; row < rows; row += THREADS) {
    places[row] = HAS_ORDER ? (int)order[first + row] : row;
    if (IS_WEIGHTED) sum += weights[places[row]];
  }
#if IS_WEIGHTED
  sum_columns<THREADS>(sum, sums, 1);
  if (threadIdx.x == 0) *all_weights = sums[0];
#endif
}

#define PARAMETER(k) T *s##k,
#define ARGUMENT(k) s##k,
#define FIND_ROWS \
  KERNEL_find_rows(order, (batch + 1) * batch_size, weights, rows, places, sums, &all_weights)
extern "C" CLUSTER_SIZE __global__ void __launch_bounds__(THREADS, 1)
    KERNEL(T* theta, T* gradient, STATES(PARAMETER) T* scratch, double* parts,
           unsigned long long* counter, const X* data, const Y* targets, const T* weights,
           const T* shift, const T* factor, const long long* order, long long* clock,
           const double* rates, double* hyper, double* totals, double decay, T inverse_clip, T l1,
           T l2, double penalty_rows, long long stride, long long y_stride, long long batch_size,
           long long rate_steps, int rows, int steps) {
  __shared__ __align__(64) T pool[POOL];
  __shared__ int places[CAPACITY];
  __shared__ T c[N_COEFFICIENTS + 1];
  __shared__ double sums[THREADS], all_weights;
  const KERNEL_Run run = {
      theta, gradient, scratch, STATES(ARGUMENT) data, targets, weights, shift, factor,
      inverse_clip, l1, l2, stride, y_stride, rows, pool, places, c, &all_weights};
  const bool is_last_thread = threadIdx.x == THREADS - 1;  // thread 0 may be in the barrier
  long long step = clock[0], batch = clock[1];
  const int groups = (rows + ROWS - 1) / ROWS;

  // TRANSPOSES
  unsigned long long all = KERNEL_arrive(counter);
  FIND_ROWS;
  KERNEL_wait(counter, all);
  for (int s = 0; s < steps; s++) {
    step++;
    batch++;
    // Read behind the barrier, when other blocks may be in the next step: two places take turns.
    T* losses = scratch + LOSSES + s % 2 * CAPACITY;
#if HAS_WIDE_INPUT
  // WIDE_INPUT
    all = KERNEL_arrive(counter);
    KERNEL_wait(counter, all);
#endif
    for (int group = blockIdx.x; group < groups; group += gridDim.x) {
  // ROWS
    }
    all = KERNEL_arrive(counter);
    if (is_last_thread) {
      const double rate = rates[batch];
      KERNEL_coefficients(rate, rates[rate_steps + batch], (double)step, c);
      c[N_COEFFICIENTS] = (T)(1.0 - rate * decay);
    }
#if HAS_PENALTY
    if (s > 0)
      KERNEL_add_penalty(parts + (s - 1) % 2 * gridDim.x, penalty_rows, sums, totals);
#endif
    KERNEL_wait(counter, all);
    T penalty = 0;
    KERNEL_gradients<TILE_M, TILE_N>(run, &penalty);
#if HAS_PENALTY
    KERNEL_leave_penalty(penalty, sums, parts + s % 2 * gridDim.x);
#endif
    all = KERNEL_arrive(counter);
    KERNEL_total(run, losses, sums, totals);
    if (s + 1 < steps) FIND_ROWS;
    KERNEL_wait(counter, all);
  }
#if HAS_PENALTY
  if (steps > 0)
    KERNEL_add_penalty(parts + (steps - 1) % 2 * gridDim.x, penalty_rows, sums, totals);
#endif
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    clock[0] = step;
    clock[1] = batch;
    hyper[0] = rates[batch];
    hyper[1] = rates[rate_steps + batch];
    hyper[2] = (double)step;
  }
}

#undef FIND_ROWS
#undef TARGETS
#undef TARGET
#undef REFERENCE
#undef POINTER
#undef REFERENCE_AT
#undef PARAMETER
#undef ARGUMENT
