// Counts what makes the host wait for the GPU, and the GPU memory that is taken: LD_PRELOAD=gpu-count.so GPU_COUNT=FILE PROGRAM
// scripts/gpu-bench uses it for this program and for PyTorch alike; both call the CUDA runtime as a library of its own. FILE, which may be
// read at any time, has four 64-bit integers: waits, nanoseconds in them, bytes of GPU memory now, and at most. Children count nothing.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct counts {
  atomic_llong waits, wait_ns, bytes, peak;
};
static struct counts nowhere, *counts = &nowhere;

__attribute__((constructor)) static void begin(void) {
  const char* file = getenv("GPU_COUNT");
  int out = file ? open(file, O_RDWR | O_CREAT | O_TRUNC, 0644) : -1;
  if (out >= 0 && ftruncate(out, sizeof *counts) == 0) {
    void* shared = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, out, 0);
    if (shared != MAP_FAILED) counts = shared;
  }
  if (out >= 0) close(out);
  unsetenv("GPU_COUNT");
  unsetenv("LD_PRELOAD");
}

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// The runtime's own function: after this library in the order of loading, or in one that was loaded apart from it.
static void* real_one(const char* name) {
  void* found = dlsym(RTLD_NEXT, name);
  const char* libraries[] = {"libcudart.so.13", "libcudart.so.12"};
  for (int i = 0; !found && i < 2; i++) {
    void* library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);
    if (library) found = dlsym(library, name);
  }
  return found;
}

enum { not_supported = 801 };  // cudaErrorNotSupported
#define REAL(name)                                      \
  static __typeof__(name)* real;                        \
  if (!real) real = (__typeof__(name)*)real_one(#name); \
  if (!real) return not_supported

#define WAITS(name, parameters, arguments)              \
  int name parameters {                                 \
    REAL(name);                                         \
    long long began = now();                            \
    int result = real arguments;                        \
    atomic_fetch_add(&counts->wait_ns, now() - began);  \
    atomic_fetch_add(&counts->waits, 1);                \
    return result;                                      \
  }

WAITS(cudaStreamSynchronize, (void* stream), (stream))
WAITS(cudaEventSynchronize, (void* event), (event))
WAITS(cudaDeviceSynchronize, (void), ())
WAITS(cudaMemcpy, (void* to, const void* from, size_t n, int kind), (to, from, n, kind))

// Sizes of what is allocated, by address.
enum { SLOTS = 1 << 16 };
static struct { void* at; size_t n; } slots[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t slot_of(void* at) { return ((size_t)at >> 9) % SLOTS; }

int cudaMalloc(void** at, size_t n) {
  REAL(cudaMalloc);
  int result = real(at, n);
  if (result != 0) return result;
  pthread_mutex_lock(&lock);
  for (size_t tries = 0, i = slot_of(*at); tries < SLOTS; tries++, i = (i + 1) % SLOTS) {
    if (slots[i].at) continue;
    slots[i].at = *at;
    slots[i].n = n;
    break;
  }
  long long all = atomic_fetch_add(&counts->bytes, (long long)n) + (long long)n;
  if (all > atomic_load(&counts->peak)) atomic_store(&counts->peak, all);
  pthread_mutex_unlock(&lock);
  return result;
}

int cudaFree(void* at) {
  REAL(cudaFree);
  pthread_mutex_lock(&lock);
  for (size_t tries = 0, i = slot_of(at); at && tries < SLOTS; tries++, i = (i + 1) % SLOTS) {
    if (slots[i].at != at) continue;
    slots[i].at = NULL;
    atomic_fetch_sub(&counts->bytes, (long long)slots[i].n);
    break;
  }
  pthread_mutex_unlock(&lock);
  return real(at);
}
