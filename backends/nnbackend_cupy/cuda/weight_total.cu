// The sum of sample weights, for losses of very many rows.

__global__ over_elements(256, 1) KERNEL(
    const T weight[N], double result[1], scratch double partial[most], scratch unsigned counter[1],
    long long n = N) {
  __shared__ double sums[256];
  __shared__ bool is_last;
  double total, sum = 0;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n;
       i += (long long)gridDim.x * 256)
    sum += weight[i];
  if (sum_grid<256>(sum, sums, partial, counter, &is_last, &total)) *result = total;
}
