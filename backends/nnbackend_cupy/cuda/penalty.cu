// gradient += l2 w + l1 sign(w);  totals[2] += rows * sum of (l1 |w| + l2 / 2 w^2).

__global__ over_elements(256, 1) KERNEL(
    const T weights[P], T gradient[P], T l1, T l2, double rows, double totals[4],
    scratch double partial[most], scratch unsigned counter[1], long long n = P) {
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
