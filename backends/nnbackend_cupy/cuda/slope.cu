// delta = delta * phi'(z), element-wise. z and a may be one array.

__device__ __forceinline__ T KERNEL_slope(const T da, const T z, const T a) {
  // FORMULA
}

template <int N>
__device__ __forceinline__ void KERNEL_pass(T* delta, const T* z, const T* a, long long n) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n / N; i += step) {
    Pack<T, N> values = load<N>(delta + i * N);
    const Pack<T, N> zs = load<N>(z + i * N), as = load<N>(a + i * N);
    for (int k = 0; k < N; k++) values.v[k] = KERNEL_slope(values.v[k], zs.v[k], as.v[k]);
    store<N>(delta + i * N, values);
  }
}

__global__ over_elements(256, 1) KERNEL(
    T delta[B O], const T z[B O], const T a[B O], long long n = B * O) {
  const int packed = 16 / sizeof(T);
  if (n % packed == 0 && is_packable(delta) && is_packable(z) && is_packable(a))
    KERNEL_pass<packed>(delta, z, a, n);
  else
    KERNEL_pass<1>(delta, z, a, n);
}
