// Starts a step in one launch: counts it, reads its learning rate and momentum, and gathers the
// rows of its batch from up to three arrays, out[i] = data[order[batch * batch_size + i]].
//
// Each array has separate blocks. All blocks read the old value of the clock; the last block to
// finish advances it.

// EACH(DO) names the arrays, as DO(0) DO(1); In##k and Out##k are their types.
#define GATHER(k)                                                                         \
  if (block >= 0 && block < blocks##k)                                                    \
    gather(data##k, rows, out##k, stride##k, n##k, columns##k, (unsigned)block, blocks##k); \
  block -= blocks##k;

__global__ over_gathered(256, 1) KERNEL(
    strided In# data#[N# C#...], Out# out#[B# C#...], const long long order[M], long long clock[2],
    const double rates[2 S], double hyper[3], long long batch_size, scratch unsigned counter[1],
    long long steps = S, long long stride# = data#_stride, long long n# = B# * C#,
    int columns# = C#, int blocks# = grid) {
  __shared__ bool is_last;
  const long long step = clock[0] + 1, batch = clock[1] + 1;
  const long long* rows = order + batch * batch_size;
  int block = blockIdx.x;
  EACH(GATHER)
  if (is_last_block(counter, gridDim.x, &is_last) && threadIdx.x == 0) {
    clock[0] = step;
    clock[1] = batch;
    hyper[0] = rates[batch];
    hyper[1] = rates[steps + batch];
    hyper[2] = (double)step;
  }
}

#undef GATHER
