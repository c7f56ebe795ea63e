// Computes the factor that clips a gradient to the norm max_norm. The next kernel applies it, since
// the norm must be complete first.

__global__ over_elements(256, 1) KERNEL(
    const T gradient[P], T max_norm, T factor[1], scratch double partial[most],
    scratch unsigned counter[1], long long n = P) {
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
