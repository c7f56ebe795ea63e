// The largest piece of each unit, and which one it is.

__global__ over_elements(256, 1) KERNEL(
    const T z[B Z], T a[B O], int which[B O], int pieces, long long n = B * O, int columns = O) {
  for (Walk at(columns); at.i < n; at.next()) {
    const T* of_unit = z + at.row * columns * pieces + at.column;
    T best = of_unit[0];
    int winner = 0;
    for (int k = 1; k < pieces; k++) {
      const T v = of_unit[(long long)k * columns];
      if (v > best || (v != v && best == best)) {  // ties go to the first; NaN is kept
        best = v;
        winner = k;
      }
    }
    a[at.i] = best;
    which[at.i] = winner;
  }
}
