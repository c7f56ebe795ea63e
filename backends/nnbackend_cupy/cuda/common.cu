// Common code of all kernels. Plain CUDA C++17 without includes: it compiles without headers, in
// hundredths of a second, and a C++ compiler can compile the same text for a CPU.
//
// Every sum has a fixed order (no atomic addition of floats), so that a step gives the same bits at
// every replay. CuPy compiles with -ftz=true: in single precision, subnormal numbers become 0. It
// does not use fast math: division and square root follow IEEE 754.
//
// Launch bounds request one block per multiprocessor, which is no limit: without the 1, the
// assembler spills a register or two of some kernels to fit one more block.

#define INFINITE (__longlong_as_double(0x7ff0000000000000ll))
#define SMALLEST (sizeof(T) == 4 ? 1.1754943508222875e-38 : 2.2250738585072014e-308)  // normal
#define NO_PLACE 0x7fffffff
#define EVERY_LANE 0xffffffffu

// ---- numbers ------------------------------------------------------------------------------------

template <class A> __device__ __forceinline__ A sign(A x) {
  return x > 0 ? (A)1 : x < 0 ? (A)-1 : x == 0 ? (A)0 : x;  // NaN stays NaN
}
// Unlike fmax and fmin these propagate NaN, as NumPy's do: divergence must be detected.
template <class A> __device__ __forceinline__ A maximum(A a, A b) {
  return a > b || a != a ? a : b;
}
template <class A> __device__ __forceinline__ A minimum(A a, A b) {
  return a < b || a != a ? a : b;
}

__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

// ---- vector loads and stores --------------------------------------------------------------------

// N numbers that are loaded and stored as one. With N > 1 the address must be a multiple of 16
// bytes, which a view of a longer vector may not be: check is_packable first.
template <class A, int N> struct alignas(N * sizeof(A)) Pack {
  A v[N];
};
template <class A> __device__ __forceinline__ bool is_packable(const A* place) {
  return ((unsigned long long)place & 15) == 0;
}
template <int N, class A> __device__ __forceinline__ Pack<A, N> load(const A* place) {
  return *(const Pack<A, N>*)place;
}
template <int N, class A> __device__ __forceinline__ void store(A* place, Pack<A, N> values) {
  *(Pack<A, N>*)place = values;
}

// A grid-stride loop over the elements of a matrix. Row and column are updated incrementally: a
// 64-bit division for each element would cost more than the rest.
struct Walk {
  long long i, row, step, row_step;
  int column, column_step, columns;
  __device__ __forceinline__ Walk(int columns, int at_once = 1)
      : Walk(columns, at_once, blockIdx.x, gridDim.x) {}
  // For some blocks of the grid only: the index of this block among them, and their number.
  __device__ __forceinline__ Walk(int columns, int at_once, unsigned block, unsigned blocks)
      : columns(columns) {
    // 32 bits are enough for the threads of a grid, and are divided several times faster.
    const unsigned first = (block * blockDim.x + threadIdx.x) * at_once;
    const unsigned all = blocks * blockDim.x * at_once, width = columns;
    i = first;
    row = first / width;
    column = first % width;
    step = all;
    row_step = all / width;
    column_step = all % width;
  }
  __device__ __forceinline__ void next() {
    i += step;
    row += row_step;
    column += column_step;
    if (column >= columns) {
      column -= columns;
      row++;
    }
  }
};

// out[i] = data[rows[i]] in out's dtype, with `stride` elements between rows of data, by some
// blocks of the grid, as for Walk. Four elements at once if all addresses are aligned.
template <int N, class In, class Out>
__device__ __forceinline__ void gather_packs(
    const In* data, const long long* rows, Out* out, long long stride, long long n, int columns,
    unsigned block, unsigned blocks) {
  for (Walk at(columns / N, 1, block, blocks); at.i < n / N; at.next()) {
    const Pack<In, N> from = load<N>(data + rows[at.row] * stride + at.column * N);
    Pack<Out, N> to;
    for (int k = 0; k < N; k++) to.v[k] = (Out)from.v[k];
    store<N>(out + at.i * N, to);
  }
}
template <class In, class Out>
__device__ __forceinline__ void gather(
    const In* data, const long long* rows, Out* out, long long stride, long long n, int columns,
    unsigned block, unsigned blocks) {
  const bool is_even = columns % 4 == 0 && stride % 4 == 0 &&
                       (unsigned long long)data % (4 * sizeof(In)) == 0 &&
                       (unsigned long long)out % (4 * sizeof(Out)) == 0;
  if (is_even)
    gather_packs<4>(data, rows, out, stride, n, columns, block, blocks);
  else
    gather_packs<1>(data, rows, out, stride, n, columns, block, blocks);
}

// A scaled input: t = (x - shift) * factor, and t / sqrt(1 + (t / clip)^2) if clip > 0; where the
// square could overflow, the result is the clip itself.
__device__ __forceinline__ double scaled(double x, double shift, double factor, double clip) {
  const double t = (x - shift) * factor;
  if (!(clip > 0)) return t;
  const double u = fmax(fmin(t / clip, 1e15), -1e15);
  return u * clip / sqrt(1 + u * u);
}

// ---- along a row: `lanes` consecutive lanes of a warp (1, 2, 4 ... 32) share it ------------------

template <class A> struct Place {
  A v;
  int j;
};
template <class A> __device__ __forceinline__ A sum_of(A a, A b) { return a + b; }
template <class A> __device__ __forceinline__ A prod_of(A a, A b) { return a * b; }
template <class A> __device__ __forceinline__ A max_of(A a, A b) { return maximum(a, b); }
template <class A> __device__ __forceinline__ A min_of(A a, A b) { return minimum(a, b); }
__device__ __forceinline__ int all_of(int a, int b) { return a && b; }
__device__ __forceinline__ int any_of(int a, int b) { return a || b; }

// The first of the largest; NaN is larger than all numbers, as in NumPy.
template <class A> __device__ __forceinline__ Place<A> argmax_of(Place<A> a, Place<A> b) {
  if (b.j == NO_PLACE || a.j == NO_PLACE) return a.j == NO_PLACE ? b : a;
  const bool a_nan = a.v != a.v, b_nan = b.v != b.v;
  const bool is_tie = a.v == b.v || (a_nan && b_nan);
  return (is_tie ? b.j < a.j : b_nan || (!a_nan && b.v > a.v)) ? b : a;
}
template <class A> __device__ __forceinline__ Place<A> argmin_of(Place<A> a, Place<A> b) {
  const Place<A> best = argmax_of(Place<A>{-a.v, a.j}, Place<A>{-b.v, b.j});
  return {-best.v, best.j};
}

template <class A> __device__ __forceinline__ A from_lane(A value, int mask) {
  return __shfl_xor_sync(EVERY_LANE, value, mask);
}
template <class A> __device__ __forceinline__ Place<A> from_lane(Place<A> value, int mask) {
  return {from_lane(value.v, mask), from_lane(value.j, mask)};
}
// All 32 lanes must call this, including those whose row is beyond the last.
#define OF_LANES(op)                                                              \
  template <class A> __device__ __forceinline__ A op##_of_lanes(A value, int lanes) { \
    for (int m = lanes >> 1; m > 0; m >>= 1) value = op##_of(value, from_lane(value, m)); \
    return value;                                                                 \
  }
OF_LANES(sum)
OF_LANES(prod)
OF_LANES(max)
OF_LANES(min)
OF_LANES(all)
OF_LANES(any)
OF_LANES(argmax)
OF_LANES(argmin)

// ---- over a block -------------------------------------------------------------------------------

// Adds one number per thread, column by column: threads t, t + width, t + 2 width ... belong to one
// column, whose sum is stored in sums[t % width]. THREADS and width are powers of two.
template <int THREADS, class A>
__device__ __forceinline__ void sum_columns(A value, A* sums, int width) {
  const int t = threadIdx.x;
  sums[t] = value;
  __syncthreads();
  for (int half = THREADS / 2; half >= width; half >>= 1) {
    if (t < half) sums[t] += sums[t + half];
    __syncthreads();
  }
}

// ---- over the grid ------------------------------------------------------------------------------

// Returns true in the threads of a block if all other blocks have stored their partial results. The
// last block adds them, in the order of the blocks, so that it does not matter which one it is.
// The counter wraps around to 0 and is ready for the next launch.
__device__ __forceinline__ bool is_last_block(unsigned* counter, unsigned n_blocks, bool* is_last) {
  __threadfence();  // this thread's writes are visible before the count
  __syncthreads();
  if (threadIdx.x == 0) *is_last = atomicInc(counter, n_blocks - 1) == n_blocks - 1;
  __syncthreads();
  __threadfence();  // and reads of other threads' writes come after it
  return *is_last;
}

// Adds one number per thread of the grid (one axis of blocks); returns true in one thread, which
// then has the total. partial holds a number for each block.
template <int THREADS>
__device__ __forceinline__ bool sum_grid(
    double value, double* sums, double* partial, unsigned* counter, bool* is_last, double* total) {
  const int t = threadIdx.x;
  sum_columns<THREADS>(value, sums, 1);
  if (t == 0) partial[blockIdx.x] = sums[0];
  if (!is_last_block(counter, gridDim.x, is_last)) return false;
  value = 0;
  for (unsigned k = t; k < gridDim.x; k += THREADS) value += __ldcg(partial + k);
  sum_columns<THREADS>(value, sums, 1);
  *total = sums[0];
  return t == 0;
}

// ---- asynchronous copies to shared memory ---------------------------------------------------------

// copy_async copies 4, 8 or 16 bytes, with that alignment, or writes zeros. A thread's copies up to
// end_copies() form a group; wait_for_copies<N>() waits for all of its groups except the last N. On
// the host the emulator defines them.
#ifdef __CUDACC__
#if __CUDA_ARCH__ >= 800
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* place, bool is_wanted) {
  unsigned long long to;
  asm("cvta.to.shared.u64 %0, %1;" : "=l"(to) : "l"(shared));
  const int bytes = is_wanted ? BYTES : 0;
  if constexpr (BYTES == 16)  // past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((unsigned)to), "l"(place), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"((unsigned)to), "l"(place), "n"(BYTES), "r"(bytes) : "memory");
}
__device__ __forceinline__ void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> __device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}
#else
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* place, bool is_wanted) {
  struct alignas(BYTES) Bytes {
    int v[BYTES / 4];
  };
  *(Bytes*)shared = is_wanted ? *(const Bytes*)place : Bytes{};
}
__device__ __forceinline__ void end_copies() {}
template <int N> __device__ __forceinline__ void wait_for_copies() {}
#endif
#endif

// ---- synchronization of resident blocks ---------------------------------------------------------

// Instructions that CUDA C++ has no function for without headers; on the host the emulator has them.
#ifdef __CUDACC__
// Loads what other multiprocessors may have written, bypassing the first-level cache, in every
// iteration of a loop.
__device__ __forceinline__ float fresh(const float* place) {
  float value;
  asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(value) : "l"(place));
  return value;
}
// Returns 0 if it is not wanted, without a branch, which would separate loads.
__device__ __forceinline__ float fresh_if(const float* place, bool is_wanted) {
  float value;
  asm volatile(
      "{ .reg .pred p; setp.ne.s32 p, %2, 0; mov.f32 %0, 0f00000000;"
      " @p ld.relaxed.gpu.global.f32 %0, [%1]; }"
      : "=f"(value) : "l"(place), "r"((int)is_wanted));
  return value;
}
__device__ __forceinline__ double fresh(const double* place) {
  double value;
  asm volatile("ld.relaxed.gpu.global.f64 %0, [%1];" : "=d"(value) : "l"(place));
  return value;
}
// Adds 1 and returns the count before, with acquire and release semantics: writes of this thread's
// block are visible to threads that read the new count, and writes of blocks counted before are
// visible here.
__device__ __forceinline__ unsigned long long count_in(unsigned long long* counter) {
  unsigned long long before;
  asm volatile("atom.add.acq_rel.gpu.global.u64 %0, [%1], 1;"
               : "=l"(before) : "l"(counter) : "memory");
  return before;
}
__device__ __forceinline__ unsigned long long acquired(const unsigned long long* place) {
  unsigned long long value;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(place) : "memory");
  return value;
}
#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
#endif
#endif
