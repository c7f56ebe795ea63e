// Runs a CUDA C++ kernel on the host: each CUDA thread is a fiber with its own stack. A fiber waits
// in a barrier until all others have arrived, and a barrier that not all reach is reported. Threads
// and blocks run in the requested order (0 as numbered, 1 backwards, more: shuffled with that seed),
// so that a missing barrier gives wrong numbers in some order. In the shuffled orders several blocks
// run at once, and an atomic operation switches from one to another, sometimes for long; from order
// 4 on, some warps also lag far behind others.
// The blocks of a cooperative launch or of a cluster all run at once, in every order; one that waits
// for others switches to them, and a barrier that not all blocks reach is reported.
// Shared memory is poisoned before each block. With -fsanitize=alignment,bounds, a misaligned vector
// load or an index beyond an array ends the launch.
// Not emulated: caches, fences, timing, and -ftz (subnormal numbers).
#pragma once
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __constant__ static
#define __restrict__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))
// A separate section, so that it can be found and poisoned.
#define __shared__ static __attribute__((section("emulated_shared")))

struct dim3 {
  unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

enum State : char { RUNNING, IN_BLOCK_BARRIER, IN_WARP_BARRIER, IN_CLUSTER_BARRIER, DONE };
const int MOST_THREADS = 1024, STACK = 64 << 10;
const int RESIDENT = 8, AT_ONCE = 3;  // blocks: of a cooperative launch at most, of others
const int MOST_IDLE = 20000;  // turns in which blocks only wait for each other
struct Fiber {
  jmp_buf place;
  bool is_made;
  dim3 index;
  unsigned exchanges;        // of values in its warp
  unsigned long long waits;  // in the cluster's barrier
};
static Fiber all_fibers[RESIDENT * MOST_THREADS], *fibers;  // all, and those of this block
static State all_states[RESIDENT * MOST_THREADS], *states;  // the same; apart, to scan them fast
static char* stacks;
static jmp_buf scheduler, outside;
static ucontext_t scheduler_context;
static int current, n_threads, order_kind, idle;
static bool is_handing_over;
static unsigned long long arrived, all_threads;  // at the cluster's barrier, since the launch; of it
static void (*body)(void**);
static void** arguments;
static unsigned long long slots[2][RESIDENT * MOST_THREADS];  // of even exchanges, and of odd ones
static unsigned seed;

extern "C" char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

static unsigned random_below(unsigned n) {
  seed = seed * 1664525u + 1013904223u;
  // The upper bits: the lower ones have a short period, and might never choose a lagging warp.
  return ((seed >> 16) * n) >> 16;
}

static void swap(int* a, int* b) {
  const int kept = *a;
  *a = *b;
  *b = kept;
}

static void arrange(int* order, int n, int kind) {
  if (kind == 1)
    for (int i = 0; i < n / 2; i++) swap(order + i, order + n - 1 - i);
  if (kind > 1)
    for (int i = n - 1; i > 0; i--) swap(order + i, order + random_below(i + 1));
}

static void switch_to_scheduler() {
  if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
}

static void leave(State state) {
  idle = 0;
  states[current] = state;
  switch_to_scheduler();
}

static void hand_over() {  // to another block, sometimes
  if (order_kind < 2) return;
  is_handing_over = true;
  leave(RUNNING);
}

static void wait_for_others() {
  const int before = idle;
  is_handing_over = true;
  states[current] = RUNNING;
  idle = before + 1;
  switch_to_scheduler();
}

static void live() {  // a fiber runs one thread after another
  for (;;) {
    body(arguments);
    leave(DONE);
  }
}

static void resume(int i) {
  current = i;
  threadIdx = fibers[i].index;
  if (_setjmp(scheduler)) return;
  if (fibers[i].is_made) _longjmp(fibers[i].place, 1);
  fibers[i].is_made = true;
  ucontext_t fresh;
  getcontext(&fresh);
  fresh.uc_stack.ss_sp = stacks + (size_t)(fibers - all_fibers + i) * STACK;
  fresh.uc_stack.ss_size = STACK;
  fresh.uc_link = &scheduler_context;
  makecontext(&fresh, live, 0);
  setcontext(&fresh);
}

static int warp_end(int i) { return (i | 31) + 1 < n_threads ? (i | 31) + 1 : n_threads; }

static bool all_in(State state, int begin, int end) {
  for (int i = begin; i < end; i++)
    if (states[i] != state) return false;
  return true;
}

static void release(int begin, int end) {
  for (int i = begin; i < end; i++) states[i] = RUNNING;
}

// ---- blocks -------------------------------------------------------------------------------------

struct Block {
  bool is_live;
  dim3 index;
  char* shared;  // its shared memory while another block runs
  unsigned lags[MOST_THREADS / 32];  // of a warp, how often it is skipped
  unsigned lag;  // the same for the whole block
};
static Block blocks[RESIDENT];
static Block* here;

static size_t shared_size() {
  return __start_emulated_shared ? __stop_emulated_shared - __start_emulated_shared : 0;
}

static void enter(Block* block) {
  if (here && here->is_live) memcpy(here->shared, __start_emulated_shared, shared_size());
  here = block;
  memcpy(__start_emulated_shared, here->shared, shared_size());
  fibers = all_fibers + (here - blocks) * MOST_THREADS;
  states = all_states + (here - blocks) * MOST_THREADS;
  blockIdx = here->index;
}

static void begin(Block* block, unsigned number) {
  block->index = {number % gridDim.x, number / gridDim.x % gridDim.y,
                  number / gridDim.x / gridDim.y};
  for (size_t at = 0; at + 4 <= shared_size(); at += 4)  // not a number, in float and double
    memcpy(block->shared + at, "\xd7\xea\xfd\x7f", 4);
  for (unsigned i = 0; i < (unsigned)n_threads; i++) {
    Fiber& fiber = all_fibers[(block - blocks) * MOST_THREADS + i];
    all_states[(block - blocks) * MOST_THREADS + i] = RUNNING;
    fiber.waits = fiber.exchanges = 0;
    const unsigned x = blockDim.x, y = blockDim.y;
    fiber.index = {i % x, i / x % y, i / x / y};
  }
  for (int w = 0; w < MOST_THREADS / 32; w++)
    block->lags[w] = order_kind > 3 && random_below(2) ? 8 : 0;
  if (block == here) here = 0;
  block->lag = 0;
  block->is_live = true;
}

// A block that has switched to others may have to wait until they have ended, which detects a block
// that has counted itself too early.
static void change(int n_blocks) {
  if (here && is_handing_over) here->lag = random_below(4) ? 64 : 0;
  Block* chosen;
  do chosen = blocks + random_below(n_blocks);
  while (!chosen->is_live || (chosen->lag && random_below(chosen->lag)));
  enter(chosen);
}

// Runs each thread of the block once, to its next barrier; false if no thread can continue.
static bool pass() {
  int order[MOST_THREADS], n = 0;
  bool is_waiting = false;
  is_handing_over = false;
  for (int i = 0; i < n_threads; i++) {
    if (states[i] == IN_CLUSTER_BARRIER) {
      if (arrived >= fibers[i].waits * all_threads) states[i] = RUNNING;
      is_waiting = true;
    }
    if (states[i] == RUNNING) order[n++] = i;
  }
  arrange(order, n, order_kind);
  const bool has_moved = n > 0;
  for (int k = 0; k < n && !is_handing_over; k++) {
    const unsigned lag = here->lags[order[k] / 32];
    if (lag == 0 || random_below(lag) == 0) resume(order[k]);
  }
  for (int i = 0; i < n_threads; i += 32)
    if (all_in(IN_WARP_BARRIER, i, warp_end(i))) release(i, warp_end(i));
  if (all_in(IN_BLOCK_BARRIER, 0, n_threads)) release(0, n_threads);
  if (all_in(DONE, 0, n_threads)) here->is_live = false;
  if (!has_moved && is_waiting) {
    is_handing_over = true;
    idle++;
  }
  return (has_moved || is_waiting) && idle < MOST_IDLE;
}

static void say_stuck(char* error, int size) {
  int done = 0;
  for (int i = 0; i < n_threads; i++) done += states[i] == DONE;
  if (idle >= MOST_IDLE)
    snprintf(error, size, "blocks wait for each other in a barrier that not all reach");
  else
    snprintf(error, size,
           "block (%u, %u, %u): %d threads wait in a barrier that not all reach (%d ended)",
           blockIdx.x, blockIdx.y, blockIdx.z, n_threads - done, done);
}

// shape: grid x y z, block x y z, whether all blocks run at once. Returns 0, or 1 with the reason in `error`.
static int launch(const unsigned* shape, int kind, char* memory, char* error, int error_size) {
  static int* order;
  gridDim = {shape[0], shape[1], shape[2]};
  blockDim = {shape[3], shape[4], shape[5]};
  n_threads = blockDim.x * blockDim.y * blockDim.z;
  order_kind = kind;
  seed = 12345u + kind;
  int n_blocks = gridDim.x * gridDim.y * gridDim.z, next = 0, left = n_blocks, failed = 0;
  const int at_once = shape[6] ? n_blocks : kind < 2 ? 1 : AT_ONCE;
  if (at_once > RESIDENT) {
    snprintf(error, error_size, "%d blocks cannot be resident, %d can", n_blocks, RESIDENT);
    return 1;
  }
  idle = 0;
  arrived = 0;
  all_threads = (unsigned long long)n_blocks * n_threads;
  stacks = memory;  // shared by all libraries: new pages for each launch would take most of its time
  for (int i = 0; i < at_once * MOST_THREADS; i++) all_fibers[i].is_made = false;
  free(order);
  order = (int*)malloc(n_blocks * sizeof(int));
  for (int b = 0; b < n_blocks; b++) order[b] = b;
  arrange(order, n_blocks, kind);
  here = 0;
  for (int b = 0; b < RESIDENT; b++) blocks[b].is_live = false;
  for (int b = 0; b < at_once; b++) {
    free(blocks[b].shared);
    blocks[b].shared = (char*)malloc(shared_size() + 1);
    if (next < n_blocks) begin(blocks + b, order[next++]);
  }
  struct sigaction trapping = {}, before;
  trapping.sa_handler = [](int) { _longjmp(outside, 1); };
  trapping.sa_flags = SA_NODEFER;  // the handler never returns
  sigaction(SIGILL, &trapping, &before);
  if (_setjmp(outside)) {
    snprintf(error, error_size,
             "block (%u, %u, %u), thread (%u, %u, %u): a misaligned address or a bad index",
             blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    sigaction(SIGILL, &before, 0);
    return 1;
  }
  while (left && !failed) {
    if (!here || !here->is_live || is_handing_over) change(at_once);
    if (!pass()) {
      say_stuck(error, error_size);
      failed = 1;
    }
    if (!here->is_live && --left && next < n_blocks) begin(here, order[next++]);
  }
  sigaction(SIGILL, &before, 0);
  return failed;
}

// ---- types of a kernel's arguments: a letter each, as NumPy's dtype.char, pointers with a star --

template <class A> struct Kind;
#define KIND(type, letter) \
  template <> struct Kind<type> { static const char* name() { return letter; } };
KIND(bool, "?") KIND(signed char, "b") KIND(unsigned char, "B") KIND(short, "h")
KIND(unsigned short, "H") KIND(int, "i") KIND(unsigned, "I") KIND(long long, "q")
KIND(unsigned long long, "Q") KIND(float, "f") KIND(double, "d")
template <class A> struct Kind<const A> : Kind<A> {};
template <class A> struct Kind<A*> {
  static const char* name() {
    static char text[3];
    snprintf(text, sizeof text, "%s*", Kind<A>::name());
    return text;
  }
};

template <int... I> struct Indices {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> { typedef Indices<I...> type; };

template <class... A> void describe(void (*)(A...), char* text) {
  const char* names[] = {Kind<A>::name()..., ""};
  for (unsigned i = 0; i < sizeof...(A); i++) sprintf(text + strlen(text), "%s ", names[i]);
}
template <class... A, int... I> void call(void (*kernel)(A...), void** given, Indices<I...>) {
  kernel(*(A*)given[I]...);
}
template <class... A> void call(void (*kernel)(A...), void** given) {
  call(kernel, given, typename Count<sizeof...(A)>::type());
}

}  // namespace emulated

#define EMULATED_KERNEL(name)                                                                   \
  extern "C" void describe_##name(char* text) { *text = 0; emulated::describe(name, text); }    \
  static void body_##name(void** given) { emulated::call(name, given); }                        \
  extern "C" int run_##name(                                                                    \
      const unsigned* shape, int kind, void** given, char* stacks, char* error, int n) {        \
    emulated::body = body_##name;                                                               \
    emulated::arguments = given;                                                                \
    return emulated::launch(shape, kind, stacks, error, n);                                     \
  }
extern "C" unsigned long emulated_stacks() {
  return (unsigned long)emulated::RESIDENT * emulated::MOST_THREADS * emulated::STACK;
}

// ---- built-in variables and functions of CUDA ---------------------------------------------------

static inline void __syncthreads() { emulated::leave(emulated::IN_BLOCK_BARRIER); }
static inline void __syncwarp(unsigned = ~0u) { emulated::leave(emulated::IN_WARP_BARRIER); }
static inline void __threadfence() {}

// A lane is at most one exchange ahead of the others, so two slots of each lane are enough.
template <class A> A emulated_exchange(A value, int lane) {
  A got;
  const unsigned turn = emulated::fibers[emulated::current].exchanges++ & 1;
  unsigned long long* slots = emulated::slots[turn] + (emulated::fibers - emulated::all_fibers);
  memcpy(&slots[emulated::current], &value, sizeof(A));
  __syncwarp();
  int source = (emulated::current & ~31) + (lane & 31);
  memcpy(&got, &slots[source < emulated::n_threads ? source : emulated::current], sizeof(A));
  return got;
}
template <class A> A __shfl_sync(unsigned, A value, int lane) {
  return emulated_exchange(value, lane);
}
template <class A> A __shfl_xor_sync(unsigned, A value, int mask) {
  return emulated_exchange(value, (emulated::current & 31) ^ mask);
}
template <class A> A __shfl_down_sync(unsigned, A value, int distance) {
  int lane = emulated::current & 31;
  return emulated_exchange(value, lane + distance < 32 ? lane + distance : lane);
}

static inline unsigned atomicAdd(unsigned* place, unsigned value) {
  unsigned before = *place;
  *place += value;
  emulated::hand_over();
  return before;
}
static inline unsigned long long atomicAdd(unsigned long long* place, unsigned long long value) {
  unsigned long long before = *place;
  *place += value;
  emulated::hand_over();
  return before;
}
static inline unsigned atomicInc(unsigned* place, unsigned limit) {
  unsigned before = *place;
  *place = before >= limit ? 0 : before + 1;
  emulated::hand_over();
  return before;
}
// Functions that kernels implement in PTX: loads of what other blocks write, one of them in a
// waiting loop, and the barrier of a cluster.
template <class A> A fresh(const A* place) { return *place; }
template <class A> A fresh_if(const A* place, bool is_wanted) { return is_wanted ? *place : (A)0; }
static inline unsigned long long count_in(unsigned long long* counter) {
  return atomicAdd(counter, 1ull);
}
static inline unsigned long long acquired(const unsigned long long* place) {
  emulated::wait_for_others();
  return *place;
}
static inline void cluster_arrive() { emulated::arrived++; }
static inline void cluster_wait() {
  emulated::fibers[emulated::current].waits++;
  emulated::leave(emulated::IN_CLUSTER_BARRIER);
}
// Asynchronous copies to shared memory: they run at once in some orders, in others as late as
// possible, when the kernel waits for them.
struct EmulatedCopy {
  char* to;
  const char* from;
  int bytes;
  unsigned group;
  bool is_wanted;
};
struct EmulatedCopies {
  EmulatedCopy copies[64];
  int n;
  unsigned group;
};
static EmulatedCopies emulated_copies[emulated::RESIDENT * emulated::MOST_THREADS];
static EmulatedCopies& own_copies() {
  return emulated_copies[emulated::fibers - emulated::all_fibers + emulated::current];
}
static void make(const EmulatedCopy& copy) {
  if (copy.is_wanted)
    memcpy(copy.to, copy.from, copy.bytes);
  else
    memset(copy.to, 0, copy.bytes);
}
template <int BYTES> void copy_async(void* shared, const void* place, bool is_wanted) {
  if ((size_t)shared % BYTES || (size_t)place % BYTES) __builtin_trap();
  EmulatedCopies& own = own_copies();
  const EmulatedCopy copy = {(char*)shared, (const char*)place, BYTES, own.group, is_wanted};
  if (emulated::order_kind % 3 != 1)
    make(copy);
  else if (own.n < 64)
    own.copies[own.n++] = copy;
  else
    __builtin_trap();
}
static inline void end_copies() { own_copies().group++; }
template <int N> void wait_for_copies() {
  EmulatedCopies& own = own_copies();
  int left = 0;
  for (int i = 0; i < own.n; i++)
    if (own.group - own.copies[i].group > N)
      make(own.copies[i]);
    else
      own.copies[left++] = own.copies[i];
  own.n = left;
}
template <class A> A __ldcg(const A* place) { return *place; }
template <class A> A __ldg(const A* place) { return *place; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline double __longlong_as_double(long long bits) {
  double number;
  memcpy(&number, &bits, sizeof number);
  return number;
}
