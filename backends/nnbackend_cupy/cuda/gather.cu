// out[i] = data[order[batch * batch_size + i]] in out's dtype: the rows of a step, from data in a
// smaller dtype. `stride` is the distance of rows of data, in elements.

__global__ over_elements(256, 1) KERNEL(
    strided In data[N C...], const long long order[M], const long long clock[2], Out out[B C...],
    long long batch_size, long long stride = data_stride, long long n = B * C, int columns = C) {
  gather(data, order + clock[1] * batch_size, out, stride, n, columns, blockIdx.x, gridDim.x);
}
