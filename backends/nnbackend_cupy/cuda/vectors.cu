// Penalties, norms and averages of parameters and gradients.

// gradient += l2 w + l1 sign(w);  totals[2] += rows * sum of (l1 |w| + l2 / 2 w^2).
extern "C" __global__ void __launch_bounds__(256, 1)
    KERNEL_penalty(const T* weights, T* gradient, T l1, T l2, double rows, double* totals,
                   double* partial, unsigned* counter, long long n) {
  __shared__ double sums[256];
  __shared__ bool is_last;
  const T half = (T)0.5 * l2;
  const long long step = (long long)gridDim.x * 256;
  T sum = 0;  // of a few elements; doubles are slow on many GPUs
#pragma unroll 4
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += step) {
    const T w = weights[i];
    gradient[i] = gradient[i] + l2 * w + l1 * sign(w);
    sum += (w < 0 ? -w : w) * l1 + half * w * w;
  }
  double total;
  if (sum_grid<256>(sum, sums, partial, counter, &is_last, &total)) totals[2] += rows * total;
}

// Computes the factor that clips a gradient to the norm max_norm. The next kernel applies it, since
// the norm must be complete first.
extern "C" __global__ void __launch_bounds__(256, 1)
    KERNEL_norm(const T* gradient, T max_norm, T* factor, double* partial, unsigned* counter,
                long long n) {
  __shared__ double sums[256];
  __shared__ bool is_last;
  const long long step = (long long)gridDim.x * 256;
  T sum = 0;
#pragma unroll 4
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += step)
    sum += gradient[i] * gradient[i];
  double total;
  if (sum_grid<256>(sum, sums, partial, counter, &is_last, &total)) {
    const T norm = (T)sqrt(total);
    *factor = max_norm / (norm > max_norm ? norm : max_norm);
  }
}

template <int N>
__device__ __forceinline__ void KERNEL_scale_pass(T* gradient, T factor, long long n) {
  const long long step = (long long)gridDim.x * 256;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n / N; i += step) {
    Pack<T, N> values = load<N>(gradient + i * N);
    for (int k = 0; k < N; k++) values.v[k] *= factor;
    store<N>(gradient + i * N, values);
  }
}

extern "C" __global__ void __launch_bounds__(256, 1)
    KERNEL_scale(T* gradient, const T* factor, long long n) {
  const T f = *factor;
  if (f == 1) return;  // below the limit: nothing to read or write
  const int packed = 16 / sizeof(T);
  if (n % packed == 0 && is_packable(gradient))
    KERNEL_scale_pass<packed>(gradient, f, n);
  else
    KERNEL_scale_pass<1>(gradient, f, n);
}

// Clips the norm of each column of W to `limit`. A block handles `width` columns (1, 2, 4, 8) and
// all rows: 8 columns fill a memory transaction, and narrow tiles give more blocks.
extern "C" __global__ void __launch_bounds__(256, 1)
    KERNEL_max_norm(T* W, T limit, int rows, int columns, int width) {
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
  const T norm = (T)SQRT(sums[t % width]);
  if (!(norm > limit)) return;
  const T factor = limit / norm;
  for (int row = strip; row < rows; row += strips) W[(long long)row * columns + column] *= factor;
}

// ema_weights = d ema_weights + (1 - d) theta; d is smaller at first.
extern "C" __global__ void __launch_bounds__(256, 1)
    KERNEL_average(const T* theta, T* ema_weights, double decay, const double* hyper, long long n) {
  const double early = (1.0 + hyper[2]) / (10.0 + hyper[2]);
  const T d = (T)(early < decay ? early : decay), rest = (T)1 - d;
  const long long step = (long long)gridDim.x * 256;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += step)
    ema_weights[i] += rest * (theta[i] - ema_weights[i]);
}

// The sum of sample weights, for losses of very many rows.
extern "C" __global__ void __launch_bounds__(256, 1)
    KERNEL_total(const T* weight, double* result, double* partial, unsigned* counter, long long n) {
  __shared__ double sums[256];
  __shared__ bool is_last;
  double total, sum = 0;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n;
       i += (long long)gridDim.x * 256)
    sum += weight[i];
  if (sum_grid<256>(sum, sums, partial, counter, &is_last, &total)) *result = total;
}
