// dW and db from the partial sums: 16 numbers per block, whose threads partition the chunks.

__global__ over_weight_sums(256, 1) KERNEL(
    const restrict T partial[*], T dW[I O], T db[O], int chunks, int n_weights = I * O,
    int n = grid) {
  __shared__ T sums[256];
  const int t = threadIdx.x, e = blockIdx.x * 16 + t % 16;
  T sum = 0;
  if (e < n) {
#pragma unroll 8
    for (int k = t / 16; k < chunks; k += 16) sum += partial[(long long)k * n + e];
  }
  sum_columns<256>(sum, sums, 16);
  if (t >= 16 || e >= n) return;
  if (e < n_weights)
    dW[e] = sums[t];
  else
    db[e - n_weights] = sums[t];
}
