// The gradient of the winning piece of each unit; 0 for the others.

__global__ over_elements(256, 1) KERNEL(
    const T delta[B O], const int which[B O], T dz[B Z], int pieces, long long n = B * O,
    int columns = O) {
  for (Walk at(columns); at.i < n; at.next()) {
    T* of_unit = dz + at.row * columns * pieces + at.column;
    const T d = delta[at.i];
    const int winner = which[at.i];
    for (int k = 0; k < pieces; k++) of_unit[(long long)k * columns] = d * (T)(k == winner);
  }
}
