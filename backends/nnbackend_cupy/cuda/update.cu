// One step of an update rule on the whole parameter vector, in place, in one launch.
//
// EACH(DO) names the rule's vectors, as DO(0) DO(1). Each block computes the coefficients of a
// step (learning rate over bias correction and the like) once, from `hyper`, in double precision, so
// that the host reads nothing and a captured step follows its schedule.

__device__ __forceinline__ void KERNEL_coefficients(
    const double rate, const double momentum, const double count, T* c) {
  // COEFFICIENTS
}

#define REFERENCE(k) T &s##k,
__device__ __forceinline__ void KERNEL_move(T& theta, const T g, EACH(REFERENCE) const T* c) {
  // MOVE
}
#undef REFERENCE

#define PARAMETER(k) T *s##k,
#define ARGUMENT(k) s##k,
#define LOAD(k) Pack<T, N> values##k = load<N>(s##k + i);
#define VALUE(k) values##k.v[j],
#define STORE(k) store<N>(s##k + i, values##k);

template <int N>
__device__ __forceinline__ void KERNEL_pass(
    T* theta, const T* gradient, EACH(PARAMETER) const T* c, const T keep, long long begin,
    long long end, long long n_weights) {
  const long long step = (long long)gridDim.x * blockDim.x * N;
  long long i = begin + ((long long)blockIdx.x * blockDim.x + threadIdx.x) * N;
  for (; i < end; i += step) {
    Pack<T, N> values = load<N>(theta + i);
    const Pack<T, N> slopes = load<N>(gradient + i);
    EACH(LOAD)
    for (int j = 0; j < N; j++) {
      if (i + j < n_weights) values.v[j] *= keep;  // decoupled decay, on weights only
      KERNEL_move(values.v[j], slopes.v[j], EACH(VALUE) c);
    }
    store<N>(theta + i, values);
    EACH(STORE)
  }
}

#define AND_PACKABLE(k) &&is_packable(s##k)

__global__ over_elements(256, 1) KERNEL(
    T theta[P], const T gradient[P], T s#[P], const double hyper[3], double decay,
    long long n_weights, long long n = P) {
  __shared__ T c[N_COEFFICIENTS + 1];
  if (threadIdx.x == 0) {
    KERNEL_coefficients(hyper[0], hyper[1], hyper[2], c);
    c[N_COEFFICIENTS] = (T)(1.0 - hyper[0] * decay);
  }
  __syncthreads();
  const T keep = c[N_COEFFICIENTS];
  const int packed = 16 / sizeof(T);
  const long long whole =
      is_packable(theta) && is_packable(gradient) EACH(AND_PACKABLE) ? n - n % packed : 0;
  KERNEL_pass<packed>(theta, gradient, EACH(ARGUMENT) c, keep, 0, whole, n_weights);
  KERNEL_pass<1>(theta, gradient, EACH(ARGUMENT) c, keep, whole, n, n_weights);
}

#undef PARAMETER
#undef ARGUMENT
#undef LOAD
#undef VALUE
#undef STORE
#undef AND_PACKABLE
