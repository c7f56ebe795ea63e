// out = (rows - shift) * factor, computed in double and rounded once; clipped smoothly where
// clip > 0. out may be rows. `stride` is the distance of rows, in elements.

__global__ over_elements(256, 1) KERNEL(
    strided In rows[B I], const double shift[I], const double factor[I], double clip, T out[B I],
    long long stride = rows_stride, long long n = B * I, int columns = I) {
  for (Walk at(columns); at.i < n; at.next())
    out[at.i] = (T)scaled((double)rows[at.row * stride + at.column], shift[at.column],
                          factor[at.column], clip);
}
