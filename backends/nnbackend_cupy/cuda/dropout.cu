// Dropout in training: a = x * mask * scale.

// Philox4x64-10: four random words for a counter and a key.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
__device__ __forceinline__ void KERNEL_philox(
    unsigned long long c0, unsigned long long c2, unsigned long long k0, unsigned long long k1,
    unsigned long long* words) {
  const unsigned long long m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
  unsigned long long c1 = 0, c3 = 0;
  for (int r = 0; r < 10; r++) {
    const unsigned long long high0 = __umul64hi(m0, c0), high1 = __umul64hi(m1, c2);
    const unsigned long long low0 = m0 * c0, low1 = m1 * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B97F4A7C15ull;  // the golden ratio
    k1 += 0xBB67AE8584CAA73Bull;  // sqrt(3) - 1
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// a = x * mask * scale. A block of random words covers 16 units of one row, 16 bits each. Every
// thread draws one such block; then all threads loop over the units of all blocks in memory order,
// so that neighboring threads access neighboring addresses.
__global__ over_units(64, 1) KERNEL(
    const T x[B O], T a[B O], bool mask[B O], const long long clock[2], unsigned long long seed,
    unsigned long long layer, unsigned long long first_row, int threshold, T scale,
    unsigned rows = B, int columns = O) {
  __shared__ unsigned long long words[64 * 4];
  const unsigned blocks_of_row = (columns + 15) / 16, n_blocks = rows * blocks_of_row;
  const unsigned first = blockIdx.x * 64, own = first + threadIdx.x;
  // NumPy increments the counter before it draws: the first block has counter 1.
  if (own < n_blocks)
    KERNEL_philox(first_row * blocks_of_row + own + 1, clock[0], seed, layer,
                  words + 4 * threadIdx.x);
  __syncthreads();
  for (int u = threadIdx.x; u < 64 * 16; u += 64) {
    const unsigned block = first + u / 16, row = block / blocks_of_row;
    const int column = block % blocks_of_row * 16 + u % 16;
    if (row < rows && column < columns) {
      const int bits = (int)(words[u / 4] >> (u % 4 * 16)) & 0xFFFF;
      const bool is_kept = bits < threshold;
      const long long i = (long long)row * columns + column;
      mask[i] = is_kept;
      a[i] = x[i] * (is_kept ? scale : (T)0);  // a product, which propagates NaN
    }
  }
}
