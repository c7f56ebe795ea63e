// Complete training steps of a narrow network in one launch: n steps, one after another.
//
// A step has three phases, with a barrier after each. BARRIER is its scope: 0 the threads of one
// block, 1 the blocks of one cluster, 2 the blocks of a grid, which are all resident.
//   1. HAS_WIDE_INPUT only: z1 = x W1 in tiles over all rows, the sum split into parts.
//   2. ROWS rows at a time, each group in one block: forward, loss, backward, down to delta of
//      layer 1. Activations stay in shared memory, with a copy in `scratch` for the last phase.
//   3. Tiles of all gradients, each summed over all rows, followed by the update of its parameters.
//
// In `scratch` a layer's units are stored as [group][unit][row of the group], as are the rows in
// shared memory. It also holds the transposed weights above layer 1, for the backward pass. A block
// reads what another one wrote with `fresh`. Every sum has a fixed order.

#if HAS_LABELS
#define TARGETS const int label
#define Y_OF(j) (T)(label == j)
#define TARGET run.labels[r]
#else
#define TARGETS const T* y
#define Y_OF(j) y[j]
#define Y T
#define TARGET run.pool + TARGET_ROWS + r * N_OUT
#endif

__device__ __forceinline__ int KERNEL_least(int a, int b) { return a < b ? a : b; }

// ---- formulas -----------------------------------------------------------------------------------

  // ACTIVATIONS

// Writes delta of a row and returns its loss, in every lane.
__device__ __forceinline__ T KERNEL_row(
    const T* out, TARGETS, T* delta, const T share, int columns, int lane, int lanes) {
  // LOSS
}

__device__ __forceinline__ void KERNEL_coefficients(
    const double rate, const double momentum, const double count, T* c) {
  // COEFFICIENTS
}

#define REFERENCE(k) T &s##k,
__device__ __forceinline__ void KERNEL_move(T& theta, const T g, EACH(REFERENCE) const T* c) {
  // MOVE
}

// ---- common to all phases -----------------------------------------------------------------------

#define POINTER(k) T *s##k;
struct KERNEL_Run {
  T *theta, *gradient, *scratch;
  EACH(POINTER)
  const X* data;
  const Y* targets;
  const T* weights;              // of the data's rows
  const double *shift, *factor;  // scaling of its columns
  double clip;                   // of scaled inputs, or 0
  T l1, l2;
  long long stride, y_stride;  // distance of rows of data and targets, in elements
  int rows;
  T* pool;            // shared memory: tiles, or the rows of a group
  const int* places;  // indices of the batch's rows in the data
  const T* c;         // the update's coefficients, then the factor of weight decay
  const double* all_weights;  // the sum of the batch's weights
  int* labels;                // of the rows of a group
  T* own_weights;

  __device__ __forceinline__ T input(int row, int i) const {
    const X x = data[places[row] * stride + i];
#if HAS_SCALE
    return (T)scaled((double)x, shift[i], factor[i], clip);
#else
    return (T)x;
#endif
    return x;
  }
};
typedef const KERNEL_Run& KERNEL_Here;

// Between arrive and wait a thread may read the results of the last phase, but another block may be
// in the next phase already; the phase after it overwrites what is not stored twice.
__device__ __forceinline__ unsigned long long KERNEL_arrive(unsigned long long* counter) {
  unsigned long long all = 0;
  __syncthreads();
#if BARRIER == 1
  cluster_arrive();
#elif BARRIER == 2
  if (threadIdx.x == 0) {
    const unsigned long long before = count_in(counter);
    all = (before / gridDim.x + 1) * gridDim.x;  // when all have arrived; it never restarts
    if (all == before + 1) all = 0;              // all have arrived
  }
#endif
  return all;
}
__device__ __forceinline__ void KERNEL_wait(unsigned long long* counter, unsigned long long all) {
#if BARRIER == 1
  cluster_wait();
#elif BARRIER == 2
  if (threadIdx.x == 0)
    while (all && acquired(counter) < all) {
    }
#endif
  __syncthreads();
}

// ---- tiles: products over many terms, the operands staged in shared memory -----------------------

// store(lane, step, load(lane, step)) for all lanes and steps. A thread keeps its lane, so that a
// step needs little address arithmetic. Many loads are outstanding at once: the second-level cache
// takes as long as hundreds of instructions. Beyond the last step, the last element is loaded again
// instead of a branch.
template <int LANES, class Load, class Store>
__device__ __forceinline__ void KERNEL_stage(int steps, Load load, Store store) {
  constexpr int AT_ONCE = THREADS >= LANES ? THREADS / LANES : 1;
  const int own = THREADS >= LANES ? threadIdx.x / LANES : 0;
  if (own >= AT_ONCE) return;
#pragma unroll 1
  for (int lane = threadIdx.x % LANES; lane < LANES; lane += THREADS >= LANES ? LANES : THREADS)
#pragma unroll 1
    for (int first = 0; first < steps; first += LOADS * AT_ONCE) {
      T values[LOADS];
#pragma unroll
      for (int u = 0; u < LOADS; u++)
        if (first + u * AT_ONCE < steps)
          values[u] = load(lane, KERNEL_least(first + u * AT_ONCE + own, steps - 1));
#pragma unroll
      for (int u = 0; u < LOADS; u++) {
        const int step = first + u * AT_ONCE + own;
        if (step < steps) store(lane, step, values[u]);
      }
    }
}

// end.put(slot, m, n, sum over k of A[k][m] B[k][n]) for a tile of M x N, multiples of 4, after
// end.prepare(slot, m, n), which may load what put needs: a thread has SLOTS elements.
// stage_a(k, count, to) copies `count` terms from k on to `to`, M + 4 elements a term; the same for
// stage_b and N. A thread sums 4 x 4 elements over every SLICES-th term.
template <int M, int N> constexpr int KERNEL_SLOTS = (M * N + THREADS - 1) / THREADS;
template <int M, int N, class StageA, class StageB, class End>
__device__ __forceinline__ void KERNEL_tile(
    T* pool, int begin, int end, StageA stage_a, StageB stage_b, End& last) {
  constexpr int QUADS = M / 4 * (N / 4), SLICES = THREADS / QUADS;
  constexpr int CHUNK = POOL / (M + N + 8) / ROWS * ROWS;  // whole groups
  static_assert(SLICES > 0 && SLICES * M * N <= POOL, "a tile must fit the block and its memory");
  const int t = threadIdx.x, slice = t / QUADS, m = t % QUADS / (N / 4) * 4, n = t % (N / 4) * 4;
  T *a = pool, *b = pool + CHUNK * (M + 4);
  T sums[4][4] = {};
#pragma unroll
  for (int slot = 0; slot < KERNEL_SLOTS<M, N>; slot++) {
    const int e = t + slot * THREADS;
    if (e < M * N) last.prepare(slot, e / N, e % N);
  }
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
#pragma unroll
  for (int slot = 0; slot < KERNEL_SLOTS<M, N>; slot++) {
    const int e = t + slot * THREADS;
    if (e < M * N) {
      T sum = 0;
#pragma unroll
      for (int s = 0; s < SLICES; s++) sum += pool[s * M * N + e];
      last.put(slot, e / N, e % N, sum);
    }
  }
  __syncthreads();
}

// Terms are rows of the batch: units m0 .. m0 + M of a layer of `width` units, from scratch, and
// one more unit that is always 1: its gradient is that of the bias.
template <int M>
__device__ __forceinline__ void KERNEL_stage_units(
    const T* units, int width, int m0, int row0, int count, T* to) {
  const T* of_rows = units + row0 * width;
  KERNEL_stage<M * ROWS>(
      (count + ROWS - 1) / ROWS,
      [&](int lane, int group) {
        const int unit = KERNEL_least(m0 + lane / ROWS, width - 1);
        return fresh(of_rows + ((group * width + unit) * ROWS + lane % ROWS));
      },
      [&](int lane, int group, T value) {
        // Terms beyond the last, which complete its group, are not summed.
        const int m = lane / ROWS, k = group * ROWS + lane % ROWS;
        to[k * (M + 4) + m] = m0 + m < width ? value : (T)(m0 + m == width);
      });
}

// The same for the inputs.
template <int M>
__device__ __forceinline__ void KERNEL_stage_inputs(
    KERNEL_Here run, int m0, int row0, int count, T* to) {
  KERNEL_stage<M>(
      count,
      [&](int m, int k) { return run.input(row0 + k, KERNEL_least(m0 + m, N_IN - 1)); },
      [&](int m, int k, T value) {
        to[k * (M + 4) + m] = m0 + m < N_IN ? value : (T)(m0 + m == N_IN);
      });
}

// ---- phase 1 ------------------------------------------------------------------------------------

template <int O> struct KERNEL_Parts {
  T* parts;
  int rows, m0, n0;
  __device__ __forceinline__ void prepare(int slot, int m, int n) {}
  __device__ __forceinline__ void put(int slot, int m, int n, T sum) {
    const int row = m0 + m, j = n0 + n;
    if (row < rows && j < O) parts[((row / ROWS) * O + j) * ROWS + row % ROWS] = sum;
  }
};

// One of PARTS parts of the sum for a tile of z1, into scratch as [part][group][unit][row].
template <int M, int N, int O, int PARTS>
__device__ __forceinline__ void KERNEL_wide_input(KERNEL_Here run, const T* W, T* parts) {
  constexpr int DEEP = (N_IN + PARTS - 1) / PARTS, ACROSS = (O + N - 1) / N;
  const int tasks = (run.rows + M - 1) / M * ACROSS * PARTS;
  for (int task = blockIdx.x; task < tasks; task += gridDim.x) {
    const int part = task % PARTS, n0 = task / PARTS % ACROSS * N, m0 = task / PARTS / ACROSS * M;
    KERNEL_Parts<O> end = {parts + part * GROUPS * O * ROWS, run.rows, m0, n0};
    KERNEL_tile<M, N>(
        run.pool, part * DEEP, KERNEL_least(N_IN, (part + 1) * DEEP),
        [&](int i0, int count, T* to) {
          // A warp writes 8 consecutive elements of 4 rows, without bank conflicts.
          KERNEL_stage<8 * M>(
              (count + 7) / 8,
              [&](int lane, int eight) {
                const int k = KERNEL_least(eight * 8 + lane % 8, count - 1);
                return run.input(KERNEL_least(m0 + lane / 8, run.rows - 1), i0 + k);
              },
              [&](int lane, int eight, T value) {
                const int k = eight * 8 + lane % 8;
                if (k < count) to[k * (M + 4) + lane / 8] = value;
              });
        },
        [&](int i0, int count, T* to) {
          KERNEL_stage<N>(
              count,
              [&](int n, int k) {
                return fresh(W + ((i0 + k) * O + KERNEL_least(n0 + n, O - 1)));
              },
              [&](int n, int k, T value) { to[k * (N + 4) + n] = value; });
        },
        end);
  }
}

// ---- phase 2 ------------------------------------------------------------------------------------

// partial = in W, one part of the sum per slice of threads. in is (K, ROWS), W (K, O).
template <int K, int O> struct KERNEL_Slices {
  static constexpr int FULL = THREADS / O < (K + 3) / 4 ? THREADS / O : (K + 3) / 4;
  static constexpr int DEEP = (K + FULL - 1) / FULL, COUNT = (K + DEEP - 1) / DEEP;
  static constexpr bool IS_EVEN = COUNT * DEEP == K;  // all slices have the same length
};
// The first weights of a product, and its biases, loaded during the product before it.
template <int K, int O, bool HAS_BIAS> struct KERNEL_Early {
  static constexpr int DEEP = KERNEL_Slices<K, O>::DEEP, COUNT = DEEP < 16 ? DEEP : 16;
  static constexpr int SLOTS = (O * ROWS + THREADS - 1) / THREADS;
  T w[COUNT], bias[SLOTS];
  __device__ __forceinline__ void load(const T* W, const T* b) {
    const int slice = threadIdx.x / O, begin = slice * DEEP;
    const int end = slice < KERNEL_Slices<K, O>::COUNT ? KERNEL_least(K, begin + DEEP) : 0;
#pragma unroll
    for (int u = 0; u < COUNT; u++)
      w[u] = fresh_if(W + (begin + u) * O + threadIdx.x % O, begin + u < end);
    if (HAS_BIAS)
#pragma unroll
      for (int s = 0; s < SLOTS; s++) {
        const int e = threadIdx.x + s * THREADS;
        bias[s] = fresh_if(b + e / ROWS, e < O * ROWS);
      }
  }
};
struct KERNEL_Nothing {
  __device__ __forceinline__ void load(const T* W, const T* b) {}
};
template <int K, int O, class Early>
__device__ __forceinline__ void KERNEL_product(
    const Early& early, const T* in, const T* W, T* partial) {
  constexpr int DEEP = Early::DEEP, AT_ONCE = Early::COUNT;
  static_assert(THREADS >= O, "each unit needs a thread");
  const int j = threadIdx.x % O, slice = threadIdx.x / O, begin = slice * DEEP;
  if (slice < KERNEL_Slices<K, O>::COUNT) {
    const int end = KERNEL_least(K, begin + DEEP);
    Pack<T, ROWS> sums = {};
#pragma unroll
    for (int ahead = 0; ahead < DEEP; ahead += AT_ONCE) {
      T w[AT_ONCE];
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++) {
        const int k = begin + ahead + u;
        w[u] = ahead == 0 ? early.w[u] : fresh_if(W + k * O + j, k < end);
      }
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++)
        if (ahead + u < DEEP && (KERNEL_Slices<K, O>::IS_EVEN || begin + ahead + u < end)) {
          const Pack<T, ROWS> of_k = load<ROWS>(in + (begin + ahead + u) * ROWS);
#pragma unroll
          for (int r = 0; r < ROWS; r++) sums.v[r] += of_k.v[r] * w[u];
        }
    }
    store<ROWS>(partial + (slice * O + j) * ROWS, sums);
  }
}
template <int K, int O> __device__ __forceinline__ T KERNEL_sum(const T* partial, int e) {
  T sum = 0;
#pragma unroll
  for (int s = 0; s < KERNEL_Slices<K, O>::COUNT; s++) sum += partial[s * O * ROWS + e];
  return sum;
}

// z = in W + b, a = phi(z), for the rows of a group; z is stored if Z differs from A.
template <class Phi, int O, int Z, int A>
__device__ __forceinline__ void KERNEL_units(KERNEL_Here run, int e, T z, int group, T* kept) {
  const T a = Phi::value(z);
  if (Z != A) run.pool[Z + e] = z;
  run.pool[A + e] = a;
  if (kept && group * ROWS + e % ROWS < run.rows) kept[group * O * ROWS + e] = a;
}
template <class Phi, int I, int O, int IN, int Z, int A, class Early, class Next>
__device__ __forceinline__ void KERNEL_forward(
    KERNEL_Here run, int group, T* kept, const Early& early, const T* W, Next& next,
    const T* next_W, const T* next_b) {
  T* partial = run.pool + PARTIAL;
  KERNEL_product<I, O>(early, run.pool + IN, W, partial);
  next.load(next_W, next_b);
  __syncthreads();
#pragma unroll
  for (int s = 0; s < Early::SLOTS; s++) {
    const int e = threadIdx.x + s * THREADS;
    if (e < O * ROWS)
      KERNEL_units<Phi, O, Z, A>(run, e, KERNEL_sum<I, O>(partial, e) + early.bias[s], group, kept);
  }
  __syncthreads();
}

// The targets of a group's rows, and their weights: loaded early into registers, then stored.
struct KERNEL_Targets {
  static constexpr int SLOTS = HAS_LABELS ? 1 : (N_OUT * ROWS + THREADS - 1) / THREADS;
  Y of_row[SLOTS];
  T weight;
  __device__ __forceinline__ void load(KERNEL_Here run, int group) {
#pragma unroll
    for (int s = 0; s < SLOTS; s++) {
      const int e = threadIdx.x + s * THREADS, columns = HAS_LABELS ? 1 : N_OUT;
      const int row = group * ROWS + e / columns;
      const bool is_inside = e < ROWS * columns && row < run.rows;
      of_row[s] = is_inside ? run.targets[run.places[row] * run.y_stride + e % columns] : (Y)0;
      if (IS_WEIGHTED && s == 0 && e < ROWS)
        weight = group * ROWS + e < run.rows ? run.weights[run.places[group * ROWS + e]] : (T)0;
    }
  }
  __device__ __forceinline__ void keep(KERNEL_Here run) {
#pragma unroll
    for (int s = 0; s < SLOTS; s++) {
      const int e = threadIdx.x + s * THREADS;
      if (HAS_LABELS && e < ROWS) run.labels[e] = (int)of_row[s];
      if (!HAS_LABELS && e < ROWS * N_OUT) run.pool[TARGET_ROWS + e] = (T)of_row[s];
      if (IS_WEIGHTED && s == 0 && e < ROWS) run.own_weights[e] = weight;
    }
  }
};

// The inputs of a group, or layer 1 from the partial sums of phase 1.
template <int IN> __device__ __forceinline__ void KERNEL_load(KERNEL_Here run, int group) {
  KERNEL_Targets targets;
  targets.load(run, group);
  // Consecutive lanes read consecutive addresses of a row.
  KERNEL_stage<N_IN>(
      ROWS,
      [&](int i, int r) { return run.input(KERNEL_least(group * ROWS + r, run.rows - 1), i); },
      [&](int i, int r, T x) {
        run.pool[IN + i * ROWS + r] = group * ROWS + r < run.rows ? x : (T)0;
      });
  targets.keep(run);
  __syncthreads();
}
template <class Phi, int O, int Z, int A, int PARTS>
__device__ __forceinline__ void KERNEL_load_units(
    KERNEL_Here run, const T* parts, const T* b, int group, T* kept) {
  KERNEL_Targets targets;
  targets.load(run, group);
  for (int e = threadIdx.x; e < O * ROWS; e += THREADS) {
    const bool is_inside = group * ROWS + e % ROWS < run.rows;
    T of_part[PARTS];
#pragma unroll
    for (int k = 0; k < PARTS; k++)
      of_part[k] = fresh_if(parts + (k * GROUPS + group) * O * ROWS + e, is_inside);
    const T bias = fresh(b + e / ROWS);
    T sum = 0;
#pragma unroll
    for (int k = 0; k < PARTS; k++) sum += of_part[k];
    KERNEL_units<Phi, O, Z, A>(run, e, sum + bias, group, kept);
  }
  targets.keep(run);
  __syncthreads();
}

template <int OUT, int DELTA>
__device__ __forceinline__ void KERNEL_compare(KERNEL_Here run, int group, T* losses) {
  const int lane = threadIdx.x % 32;
#if IS_WEIGHTED
  const T all = (T)*run.all_weights + (T)SMALLEST;  // if all weights are 0, shares are not NaN
#endif
  for (int r = threadIdx.x / 32; r < ROWS; r += THREADS / 32) {
    const int row = group * ROWS + r;
    const bool is_inside = row < run.rows;
#if IS_WEIGHTED
    const T own = run.own_weights[r], share = own / all;
#else
    const T own = 1, share = (T)(1.0 / run.rows);
#endif
    const T loss = KERNEL_row(run.pool + OUT + r, TARGET, run.pool + DELTA + r, share,
                              is_inside ? N_OUT : 0, lane, 32);
    if (is_inside && lane == 0) losses[row] = loss * own;
  }
  __syncthreads();
}

// delta = da phi'(z), also to scratch; 0 in rows beyond the last, whose da is undefined.
template <class Phi, int O, int Z, int A, int DELTA>
__device__ __forceinline__ void KERNEL_slope(KERNEL_Here run, int e, T da, int group, T* kept) {
  const bool is_inside = group * ROWS + e % ROWS < run.rows;
  const T delta = is_inside ? Phi::slope(da, run.pool[Z + e], run.pool[A + e]) : (T)0;
  run.pool[DELTA + e] = delta;
  if (is_inside) kept[group * O * ROWS + e] = delta;
}
template <class Phi, int O, int Z, int A, int DELTA>
__device__ __forceinline__ void KERNEL_begin_backward(KERNEL_Here run, int group, T* kept) {
  for (int e = threadIdx.x; e < O * ROWS; e += THREADS)
    KERNEL_slope<Phi, O, Z, A, DELTA>(run, e, run.pool[DELTA + e], group, kept);
  __syncthreads();
}
// From delta of the layer above, of O units, to that of a layer of I units.
template <class Phi, int I, int O, int ABOVE, int Z, int A, int DELTA, class Early, class Next>
__device__ __forceinline__ void KERNEL_backward(
    KERNEL_Here run, int group, T* kept, const Early& early, const T* transposed, Next& next,
    const T* next_transposed) {
  T* partial = run.pool + PARTIAL;
  KERNEL_product<O, I>(early, run.pool + ABOVE, transposed, partial);
  next.load(next_transposed, next_transposed);
  __syncthreads();
#pragma unroll
  for (int s = 0; s < Early::SLOTS; s++) {
    const int e = threadIdx.x + s * THREADS;
    if (e < I * ROWS)
      KERNEL_slope<Phi, I, Z, A, DELTA>(run, e, KERNEL_sum<O, I>(partial, e), group, kept);
  }
  __syncthreads();
}

// ---- phase 3 ------------------------------------------------------------------------------------

// A layer's offsets in theta and in scratch (layer 1 uses the data instead of `below`), and the
// number of tiles of the layers before it.
struct KERNEL_Layer {
  int n_in, n_out, W, b, below, delta, transposed, tiles_before;
};
__constant__ KERNEL_Layer KERNEL_layers[N_LAYERS] = {LAYERS};

// The update of a tile's parameters, which are loaded before their gradients are computed.
#define LOADED(k) T s##k[SLOTS];
#define LOAD_AT(k) s##k[slot] = run.s##k[at];
#define REFERENCE_AT(k) s##k[slot],
#define STORE_AT(k) run.s##k[at] = s##k[slot];
template <int SLOTS> struct KERNEL_Update {
  KERNEL_Here run;
  const KERNEL_Layer& layer;
  const int m0, n0;
  const bool has_transposed;
  T penalty, theta[SLOTS];
  EACH(LOADED)

  __device__ __forceinline__ KERNEL_Update(
      KERNEL_Here run, const KERNEL_Layer& layer, int m0, int n0, bool has_transposed)
      : run(run), layer(layer), m0(m0), n0(n0), has_transposed(has_transposed), penalty(0) {}
  __device__ __forceinline__ bool is_inside(int m, int n) const {
    return m0 + m <= layer.n_in && n0 + n < layer.n_out;
  }
  __device__ __forceinline__ int place(int m, int n) const {
    return (m0 + m < layer.n_in ? layer.W + (m0 + m) * layer.n_out : layer.b) + n0 + n;
  }
  __device__ __forceinline__ void prepare(int slot, int m, int n) {
    if (!is_inside(m, n)) return;
    const int at = place(m, n);
    theta[slot] = run.theta[at];
    EACH(LOAD_AT)
  }
  __device__ __forceinline__ void put(int slot, int m, int n, T g) {
    if (!is_inside(m, n)) return;
    const int at = place(m, n), i = m0 + m, j = n0 + n;
    const bool is_weight = i < layer.n_in;
    T value = theta[slot];
#if HAS_PENALTY
    if (is_weight) {
      g = g + run.l2 * value + run.l1 * sign(value);
      penalty += (value < 0 ? -value : value) * run.l1 + (T)0.5 * run.l2 * value * value;
    }
#endif
    run.gradient[at] = g;
    if (is_weight) value *= run.c[N_COEFFICIENTS];  // decoupled decay, on weights only
    KERNEL_move(value, g, EACH(REFERENCE_AT) run.c);
    run.theta[at] = value;
    EACH(STORE_AT)
    if (has_transposed && is_weight) run.scratch[layer.transposed + j * layer.n_in + i] = value;
  }
};

// Tiles of dW = a^T delta with the biases as one more row, and their update; returns the penalty of
// this thread's weights.
template <int M, int N> __device__ __forceinline__ T KERNEL_gradients(KERNEL_Here run) {
  T penalty = 0;
  for (int task = blockIdx.x; task < N_TILES; task += gridDim.x) {
    int l = N_LAYERS - 1;
    while (task < KERNEL_layers[l].tiles_before) l--;
    const KERNEL_Layer& layer = KERNEL_layers[l];
    const int across = (layer.n_out + N - 1) / N, tile = task - layer.tiles_before;
    const int n0 = tile % across * N, m0 = tile / across * M;
    KERNEL_Update<KERNEL_SLOTS<M, N>> update(run, layer, m0, n0, l > 0);
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
        update);
    penalty += update.penalty;
  }
  return penalty;
}

// The last block adds the losses of all rows.
__device__ __forceinline__ void KERNEL_total(
    KERNEL_Here run, const T* losses, double* sums, double* totals) {
  if (blockIdx.x + 1 < gridDim.x) return;
  double sum = 0;
  for (int row = threadIdx.x; row < run.rows; row += THREADS) sum += fresh(losses + row);
  sum_columns<THREADS>(sum, sums, 1);
  if (threadIdx.x == 0) {
    totals[0] += sums[0];
    totals[1] += IS_WEIGHTED ? *run.all_weights : (double)run.rows;
  }
}

// Penalties: each block stores its part, and the last block adds all parts.
__device__ __forceinline__ void KERNEL_leave_penalty(T penalty, double* sums, double* parts) {
  sum_columns<THREADS>((double)penalty, sums, 1);
  if (threadIdx.x == 0) parts[blockIdx.x] = sums[0];
}
__device__ __forceinline__ void KERNEL_add_penalty(
    const double* parts, double rows, double* sums, double* totals) {
  if (blockIdx.x + 1 < gridDim.x) return;
  double sum = 0;
  for (int k = threadIdx.x; k < gridDim.x; k += THREADS) sum += fresh(parts + k);
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

#define ARGUMENT(k) s##k,
#define FIND_ROWS \
  KERNEL_find_rows(order, (batch + 1) * batch_size, weights, rows, places, sums, &all_weights)
CLUSTER_SIZE __global__ resident(THREADS, 1) KERNEL(
    T theta[P], T gradient[P], T s#[P], T scratch[*], double parts[*],
    unsigned long long counter[1], strided X data[N C...], strided Y targets[M] if HAS_LABELS,
    strided T targets[M O] if not HAS_LABELS, const T weights[*], const double shift[*],
    const double factor[*], const long long order[*], long long clock[2], const double rates[2 S],
    double hyper[3], double totals[4], double decay, double clip, T l1, T l2, double penalty_rows,
    long long batch_size, int rows, int steps, long long stride = data_stride,
    long long y_stride = targets_stride, long long rate_steps = S) {
  __shared__ __align__(64) T pool[POOL];
  __shared__ int places[CAPACITY];
  __shared__ T c[N_COEFFICIENTS + 1];
  __shared__ double sums[THREADS], all_weights;
  __shared__ int labels[ROWS];
  __shared__ T own_weights[ROWS];
  const KERNEL_Run run = {
      theta, gradient, scratch, EACH(ARGUMENT) data, targets, weights, shift, factor,
      clip, l1, l2, stride, y_stride, rows, pool, places, c, &all_weights,
      labels, own_weights};
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
    // Read after the barrier, when other blocks may be in the next step: two buffers alternate.
    T* losses = scratch + LOSSES + s % 2 * CAPACITY;
#if HAS_WIDE_INPUT
  // WIDE_INPUT
    all = KERNEL_arrive(counter);
    KERNEL_wait(counter, all);
#endif
    for (int group = blockIdx.x; group < groups; group += gridDim.x) {
  // OF_ROWS
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
    const T penalty = KERNEL_gradients<TILE_M, TILE_N>(run);
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
#undef Y_OF
#undef TARGET
#undef REFERENCE
#undef POINTER
#undef LOADED
#undef LOAD_AT
#undef REFERENCE_AT
#undef STORE_AT
#undef ARGUMENT
#if !HAS_LABELS
#undef Y
#endif
