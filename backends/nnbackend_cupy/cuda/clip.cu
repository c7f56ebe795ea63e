// gradient *= factor, which norm.cu computed.

template <int N>
__device__ __forceinline__ void KERNEL_pass(T* gradient, T factor, long long n) {
  const long long step = (long long)gridDim.x * 256;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n / N; i += step) {
    Pack<T, N> values = load<N>(gradient + i * N);
    for (int k = 0; k < N; k++) values.v[k] *= factor;
    store<N>(gradient + i * N, values);
  }
}

__global__ over_elements(256, 1) KERNEL(T gradient[P], const T factor[1], long long n = P) {
  const T f = *factor;
  if (f == 1) return;  // below the limit: nothing to read or write
  const int packed = 16 / sizeof(T);
  if (n % packed == 0 && is_packable(gradient))
    KERNEL_pass<packed>(gradient, f, n);
  else
    KERNEL_pass<1>(gradient, f, n);
}
