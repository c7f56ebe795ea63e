// out = (rows - shift) * factor, computed in double and rounded once; clipped smoothly where
// clip > 0. out may be rows. `stride` is the distance of rows, in elements.

extern "C" __global__ void __launch_bounds__(256, 1)
    KERNEL(const In* rows, const double* shift, const double* factor, double clip, Out* out,
           long long stride, long long n, int columns) {
  for (Walk at(columns); at.i < n; at.next())
    out[at.i] = (Out)scaled((double)rows[at.row * stride + at.column], shift[at.column],
                            factor[at.column], clip);
}
