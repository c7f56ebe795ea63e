// Starts a step in one launch: counts it, reads its learning rate and momentum, and gathers the
// rows of its batch from up to three arrays, out[i] = data[order[batch * batch_size + i]].
//
// Each array has separate blocks. All blocks read the old value of the clock; the last block to
// finish advances it.

// ARRAYS(DO) names the arrays, as DO(0) DO(1); In##k and Out##k are their types.
#define PARAMETERS(k)                                                                       \
  const In##k *data##k, Out##k *out##k, long long stride##k, long long n##k, int columns##k, \
      int blocks##k,
#define GATHER(k)                                                                         \
  if (block >= 0 && block < blocks##k)                                                    \
    gather(data##k, rows, out##k, stride##k, n##k, columns##k, (unsigned)block, blocks##k); \
  block -= blocks##k;

extern "C" __global__ void __launch_bounds__(256, 1)
    KERNEL(ARRAYS(PARAMETERS) const long long* order, long long* clock, const double* rates,
           double* hyper, unsigned* counter, long long batch_size, long long steps) {
  __shared__ bool is_last;
  const long long step = clock[0] + 1, batch = clock[1] + 1;
  const long long* rows = order + batch * batch_size;
  int block = blockIdx.x;
  ARRAYS(GATHER)
  if (is_last_block(counter, gridDim.x, &is_last) && threadIdx.x == 0) {
    clock[0] = step;
    clock[1] = batch;
    hyper[0] = rates[batch];
    hyper[1] = rates[steps + batch];
    hyper[2] = (double)step;
  }
}

#undef PARAMETERS
#undef GATHER
