// out[i] = data[order[batch * batch_size + i]] in out's dtype: the rows of a step, from data in a
// smaller dtype. `stride` is the distance of rows of data, in elements.

extern "C" __global__ void __launch_bounds__(256, 1)
    KERNEL(const In* data, const long long* order, const long long* clock, Out* out,
           long long batch_size, long long stride, long long n, int columns) {
  gather(data, order + clock[1] * batch_size, out, stride, n, columns, blockIdx.x, gridDim.x);
}
