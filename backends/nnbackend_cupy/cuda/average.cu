// ema_weights = d ema_weights + (1 - d) theta; d is smaller at first.

__global__ over_elements(256, 1) KERNEL(
    const T theta[P], T ema_weights[P], double decay, const double hyper[3], long long n = P) {
  const double early = (1.0 + hyper[2]) / (10.0 + hyper[2]);
  const T d = (T)(early < decay ? early : decay), rest = (T)1 - d;
  const long long step = (long long)gridDim.x * 256;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += step)
    ema_weights[i] += rest * (theta[i] - ema_weights[i]);
}
