// z += b;  a = phi(z), element-wise. z and a may be one array.

__device__ __forceinline__ T KERNEL_value(const T z) {
  // FORMULA
}

template <int N>
__device__ __forceinline__ void KERNEL_pass(T* z, const T* b, T* a, long long n, int columns) {
  for (Walk at(columns, N); at.i < n; at.next()) {
    Pack<T, N> values = load<N>(z + at.i);
    const Pack<T, N> biases = load<N>(b + at.column);
    for (int k = 0; k < N; k++) values.v[k] += biases.v[k];
    if (z != a) store<N>(z + at.i, values);
    for (int k = 0; k < N; k++) values.v[k] = KERNEL_value(values.v[k]);
    store<N>(a + at.i, values);
  }
}

__global__ over_elements(256, 1) KERNEL(
    T z[B O], const T b[O], T a[B O], long long n = B * O, int columns = O) {
  const int packed = 16 / sizeof(T);
  if (columns % packed == 0 && is_packable(z) && is_packable(b) && is_packable(a))
    KERNEL_pass<packed>(z, b, a, n, columns);
  else
    KERNEL_pass<1>(z, b, a, n, columns);
}
