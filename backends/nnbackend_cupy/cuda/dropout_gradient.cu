// The gradient of dropout: dx = da * mask * scale.

__global__ over_elements(256, 1) KERNEL(
    const T da[B O], const bool mask[B O], T scale, T dx[B O], long long n = B * O) {
  const long long step = (long long)gridDim.x * 256;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += step)
    dx[i] = da[i] * (mask[i] ? scale : (T)0);
}
