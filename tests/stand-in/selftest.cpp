// Tries the stand-ins from outside, by their public calls: `selftest NAME` in one process, `selftest NAME RANK RANKS FILE` in several, which
// find each other by the file. Exit code 1, with a line for each, when something is not as it should be.
#include "nccl_header.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

extern "C" unsigned long stand_in_waits(void);

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

bool failed = false;

void check(bool holds, const char* what, int line) {
  if (holds) return;
  std::fprintf(stderr, "selftest.cpp:%d: not so: %s\n", line, what);
  failed = true;
}
#define CHECK(...) check((__VA_ARGS__), #__VA_ARGS__, __LINE__)
#define OK(...) check((__VA_ARGS__) == 0, #__VA_ARGS__, __LINE__)

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// A device in use by this thread, given back at the end, when the one before it is in use again.
struct Device {
  explicit Device(int ordinal = 0) : ordinal(ordinal) {
    OK(cuInit(0));
    OK(cuCtxGetCurrent(&before));
    OK(cuDevicePrimaryCtxRetain(&context, ordinal));
    OK(cuCtxSetCurrent(context));
  }
  ~Device() {
    OK(cuCtxSetCurrent(context));
    OK(cuCtxSynchronize());
    OK(cuCtxSetCurrent(before));
    OK(cuDevicePrimaryCtxRelease(ordinal));
  }
  int ordinal;
  CUcontext before = nullptr;
  CUcontext context = nullptr;
};

struct Stream {
  explicit Stream(unsigned flags = CU_STREAM_NON_BLOCKING) { OK(cuStreamCreate(&handle, flags)); }
  ~Stream() {
    if (handle) OK(cuStreamDestroy(handle));
  }
  operator CUstream() const { return handle; }
  CUstream handle = nullptr;
};

struct Event {
  explicit Event(unsigned flags = CU_EVENT_DEFAULT) { OK(cuEventCreate(&handle, flags)); }
  ~Event() {
    if (handle) OK(cuEventDestroy(handle));
  }
  operator CUevent() const { return handle; }
  CUevent handle = nullptr;
};

// Any function as work of a stream: the tests' compute.
void enqueue(CUstream stream, std::function<void()> work) {
  const auto run = [](void* data) {
    const std::unique_ptr<std::function<void()>> work(static_cast<std::function<void()>*>(data));
    (*work)();
  };
  OK(cuLaunchHostFunc(stream, run, new std::function<void()>(std::move(work))));
}

void delay(CUstream stream, std::chrono::milliseconds time) {
  enqueue(stream, [time] { std::this_thread::sleep_for(time); });
}

// Holds a stream until it is opened. Whoever waited for the stream meanwhile would wait for ever.
class Gate {
 public:
  void hold(CUstream stream) {
    enqueue(stream, [opened = opened_] { opened.wait(); });
  }
  void open() { gate_.set_value(); }

 private:
  std::promise<void> gate_;
  std::shared_future<void> opened_ = gate_.get_future().share();
};

// The driver.

void test_streams() {
  Device device;
  Stream one, two;
  std::vector<int> order;
  std::atomic<bool> two_ran = false;
  Gate gate, last;
  gate.hold(one);
  for (int i = 0; i < 100; ++i) enqueue(one, [&order, i] { order.push_back(i); });
  enqueue(two, [&] { two_ran = true; });
  CHECK(cuStreamQuery(one) == CUDA_ERROR_NOT_READY);
  OK(cuStreamSynchronize(two));
  CHECK(two_ran && cuStreamQuery(one) == CUDA_ERROR_NOT_READY);
  gate.open();
  OK(cuStreamSynchronize(one));
  OK(cuStreamQuery(one));
  CHECK(order.size() == 100);
  for (int i = 0; i < static_cast<int>(order.size()); ++i) CHECK(order[i] == i);

  // What is pending runs, also after its stream was destroyed.
  std::atomic<bool> ran = false;
  {
    Stream three;
    last.hold(three);
    enqueue(three, [&] { ran = true; });
  }
  CHECK(!ran);
  last.open();
  for (int i = 0; i < 100 && !ran; ++i) std::this_thread::sleep_for(10ms);
  CHECK(ran);
}

void test_events() {
  Device device;
  Stream one, two;
  Event event, end, untimed(CU_EVENT_DISABLE_TIMING);
  // Never recorded is complete.
  OK(cuEventQuery(event));
  OK(cuEventSynchronize(event));
  OK(cuStreamWaitEvent(two, event, 0));
  float time = -1;
  CHECK(cuEventElapsedTime(&time, event, end) == CUDA_ERROR_INVALID_HANDLE);

  // A wait is for the recording that is there when it is asked for.
  std::atomic<int> stage = 0, seen = -1;
  Gate first, second;
  first.hold(one);
  enqueue(one, [&] { stage = 1; });
  OK(cuEventRecord(event, one));
  OK(cuStreamWaitEvent(two, event, 0));
  enqueue(two, [&] { seen = stage.load(); });
  second.hold(one);
  enqueue(one, [&] { stage = 2; });
  OK(cuEventRecord(event, one));
  OK(cuEventRecord(end, one));
  CHECK(cuEventQuery(event) == CUDA_ERROR_NOT_READY);
  CHECK(cuEventElapsedTime(&time, event, end) == CUDA_ERROR_NOT_READY);
  first.open();
  OK(cuStreamSynchronize(two));
  CHECK(seen == 1);
  CHECK(cuEventQuery(event) == CUDA_ERROR_NOT_READY);
  second.open();
  OK(cuEventSynchronize(event));
  CHECK(stage == 2);

  OK(cuEventRecord(event, one));
  delay(one, 50ms);
  OK(cuEventRecord(end, one));
  OK(cuEventRecord(untimed, one));
  OK(cuStreamSynchronize(one));
  OK(cuEventElapsedTime(&time, event, end));
  CHECK(time >= 49 && time < 30000);
  CHECK(cuEventElapsedTime(&time, event, untimed) == CUDA_ERROR_INVALID_HANDLE);

  // An event may go while others wait for it.
  std::atomic<bool> waited = false;
  {
    Event brief;
    delay(one, 100ms);
    enqueue(one, [&] { stage = 3; });
    OK(cuEventRecord(brief, one));
    OK(cuStreamWaitEvent(two, brief, 0));
    enqueue(two, [&] { waited = stage == 3; });
  }
  OK(cuStreamSynchronize(two));
  CHECK(waited);
}

void test_null_stream() {
  Device device;
  Stream blocking(CU_STREAM_DEFAULT), free;
  std::vector<int> order;
  Gate gate;
  gate.hold(blocking);
  enqueue(blocking, [&] { order.push_back(1); });
  enqueue(nullptr, [&] { order.push_back(2); });
  enqueue(blocking, [&] { order.push_back(3); });
  std::atomic<bool> ran = false;
  enqueue(free, [&] { ran = true; });
  OK(cuStreamSynchronize(free));
  CHECK(ran && cuStreamQuery(nullptr) == CUDA_ERROR_NOT_READY);
  gate.open();
  OK(cuStreamSynchronize(nullptr));
  OK(cuStreamSynchronize(blocking));
  CHECK(order == std::vector<int>{1, 2, 3});
}

void test_devices() {
  int count = 0, version = 0, active = -1, value = 0;
  unsigned flags = 0;
  OK(cuInit(0));
  OK(cuDriverGetVersion(&version));
  CHECK(version == CUDA_VERSION);
  OK(cuDeviceGetCount(&count));
  CHECK(count == 2);
  CUdevice device = -1;
  CHECK(cuDeviceGet(&device, 2) == CUDA_ERROR_INVALID_DEVICE);
  OK(cuDeviceGet(&device, 1));
  char name[100], bus[16];
  OK(cuDeviceGetName(name, sizeof name, device));
  CHECK(std::string(name) == "host memory (stand-in)");
  OK(cuDeviceGetPCIBusId(bus, sizeof bus, device));
  CHECK(std::string(bus) == "0000:02:00.0");
  CUuuid one, two;
  OK(cuDeviceGetUuid(&one, 0));
  OK(cuDeviceGetUuid(&two, 1));
  CHECK((std::memcmp(&one, &two, sizeof one) == 0) == (std::getenv("STAND_IN_SAME_UUID") != nullptr));
  OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, device));
  CHECK(value == 32);
  OK(cuDevicePrimaryCtxGetState(device, &flags, &active));
  CHECK(active == 0);
  {
    Device used(1);
    OK(cuDevicePrimaryCtxGetState(device, &flags, &active));
    CHECK(active == 1);
    OK(cuCtxGetDevice(&device));
    CHECK(device == 1);
    int least = -1, greatest = 1;
    OK(cuCtxGetStreamPriorityRange(&least, &greatest));
    CHECK(greatest < least);
    CUstream stream = nullptr;
    OK(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, greatest));
    OK(cuStreamDestroy(stream));
  }
  const char* text = nullptr;
  OK(cuGetErrorName(CUDA_ERROR_NOT_READY, &text));
  CHECK(std::string(text) == "CUDA_ERROR_NOT_READY");
  void* function = nullptr;
  CUdriverProcAddressQueryResult status;
  OK(cuGetProcAddress("cuStreamQuery", &function, CUDA_VERSION, 0, &status));
  CHECK(function == reinterpret_cast<void*>(&cuStreamQuery));
  CHECK(cuGetProcAddress("cuNothing", &function, CUDA_VERSION, 0, &status) == CUDA_ERROR_NOT_FOUND);
}

// Two waits order two copies; prints what comes out, which is 3 only if neither is left out.
void test_skip() {
  Device device;
  Stream one, two;
  Event first, second;
  std::atomic<int> value = 1, copied = 0;
  delay(one, 300ms);
  enqueue(one, [&] { value = 3; });
  OK(cuEventRecord(first, one));
  OK(cuStreamWaitEvent(two, first, 0));
  delay(two, 100ms);
  enqueue(two, [&] { copied = value.load(); });
  OK(cuEventRecord(second, two));
  OK(cuStreamWaitEvent(one, second, 0));
  enqueue(one, [&] { value = 5; });
  OK(cuCtxSynchronize());
  CHECK(stand_in_waits() == 2);
  std::printf("%d\n", copied.load());
}

// Everything here is wrong; the test that runs it looks for the violation.
void test_misuse(const std::string& kind) {
  if (kind == "uninitialised") {
    int count = 0;
    CHECK(cuDeviceGetCount(&count) == CUDA_ERROR_NOT_INITIALIZED);
    return;
  }
  OK(cuInit(0));
  if (kind == "no-context") {
    CUstream stream = nullptr;
    CHECK(cuStreamCreate(&stream, 0) == CUDA_ERROR_INVALID_CONTEXT);
    return;
  }
  if (kind == "group-end") {
    CHECK(ncclGroupEnd() == ncclInvalidUsage);
    return;
  }
  if (kind == "open-group") {
    OK(ncclGroupStart());
    return;
  }
  Device device;
  if (kind == "stream") {
    Stream stream;
    OK(cuStreamDestroy(stream));
    CHECK(cuStreamSynchronize(stream) == CUDA_ERROR_INVALID_HANDLE);
    stream.handle = nullptr;
  } else if (kind == "event") {
    Event event;
    OK(cuEventDestroy(event));
    CHECK(cuEventRecord(event, nullptr) == CUDA_ERROR_INVALID_HANDLE);
    event.handle = nullptr;
  } else if (kind == "other-context") {
    Stream stream;
    Device other(1);
    CHECK(cuLaunchHostFunc(stream, [](void*) {}, nullptr) == CUDA_ERROR_INVALID_HANDLE);
  } else if (kind == "released") {
    OK(cuDevicePrimaryCtxRelease(0));
    CHECK(cuCtxSynchronize() == CUDA_ERROR_CONTEXT_IS_DESTROYED);
    OK(cuDevicePrimaryCtxRetain(&device.context, 0));
    OK(cuCtxSetCurrent(device.context));
  } else if (kind == "host-function") {
    std::atomic<int> result = 0;
    enqueue(nullptr, [&] { result = cuCtxSynchronize(); });
    OK(cuCtxSynchronize());
    CHECK(result == CUDA_ERROR_NOT_PERMITTED);
  } else if (kind == "leaks") {
    CUcontext again = nullptr;
    CUstream stream = nullptr;
    CUevent event = nullptr;
    OK(cuDevicePrimaryCtxRetain(&again, 0));
    OK(cuStreamCreate(&stream, 0));
    OK(cuEventCreate(&event, 0));
  } else {
    CHECK(!"a known kind");
  }
}

// NCCL.

int rank = 0, ranks = 1;
std::string meeting;

ncclUniqueId unique_id(const std::string& suffix = "") {
  ncclUniqueId id;
  const std::string file = meeting + suffix;
  if (rank == 0) {
    OK(ncclGetUniqueId(&id));
    std::ofstream(file + ".new", std::ios::binary).write(id.internal, sizeof id.internal);
    std::rename((file + ".new").c_str(), file.c_str());
    return id;
  }
  for (int i = 0; i < 2000 && access(file.c_str(), R_OK) != 0; ++i) std::this_thread::sleep_for(10ms);
  std::ifstream(file, std::ios::binary).read(id.internal, sizeof id.internal);
  return id;
}

// Until what is in progress is not any more.
ncclResult_t settled(ncclComm_t comm, double most = 20) {
  ncclResult_t result = ncclInProgress;
  const auto start = Clock::now();
  while (result == ncclInProgress && seconds_since(start) < most) {
    OK(ncclCommGetAsyncError(comm, &result));
    std::this_thread::sleep_for(2ms);
  }
  return result;
}

// A rank with its device, stream and communicator.
struct Worker {
  explicit Worker(bool blocking = false) : device(rank) {
    const ncclUniqueId id = unique_id();
    if (blocking) {
      OK(ncclCommInitRank(&comm, ranks, id, rank));
    } else {
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      CHECK(ncclCommInitRankConfig(&comm, ranks, id, rank, &config) == ncclInProgress);
      CHECK(settled(comm) == ncclSuccess);
    }
  }
  ~Worker() {
    if (comm) OK(ncclCommDestroy(comm));
  }
  void abort() {
    const auto start = Clock::now();
    OK(ncclCommAbort(comm));
    CHECK(seconds_since(start) < 10);
    comm = nullptr;
  }
  template <class T>
  ncclResult_t sum(std::vector<T>& data, ncclDataType_t type, ncclRedOp_t op = ncclSum) {
    return ncclAllReduce(data.data(), data.data(), data.size(), type, op, comm, stream);
  }
  Device device;
  Stream stream;
  ncclComm_t comm = nullptr;
};

template <class T>
void try_sums(Worker& worker, ncclDataType_t type, std::function<T(double)> of, std::function<double(T)> value) {
  for (const std::size_t count : {std::size_t{1}, std::size_t{1000}, std::size_t{1'500'001}}) {
    std::vector<T> data(count), sums(count);
    for (std::size_t i = 0; i < count; ++i) data[i] = of(static_cast<double>((i + rank) % 13));
    OK(ncclAllReduce(data.data(), sums.data(), count, type, ncclSum, worker.comm, worker.stream));
    OK(worker.sum(data, type, ncclMax));
    OK(cuStreamSynchronize(worker.stream));
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < count; ++i) {
      double sum = 0, most = 0;
      for (int other = 0; other < ranks; ++other) {
        const auto one = static_cast<double>((i + other) % 13);
        sum += one;
        most = std::max(most, one);
      }
      wrong += value(sums[i]) != sum || value(data[i]) != most;
    }
    CHECK(wrong == 0);
  }
}

template <class T>
void try_numbers(Worker& worker, ncclDataType_t type) {
  try_sums<T>(worker, type, [](double v) { return static_cast<T>(v); }, [](T v) { return static_cast<double>(v); });
}

// Only small whole numbers, which both 16-bit types hold exactly.
std::uint16_t brain(double v) {
  const auto f = static_cast<float>(v);
  std::uint32_t raw;
  std::memcpy(&raw, &f, 4);
  return static_cast<std::uint16_t>(raw >> 16);
}
double of_brain(std::uint16_t raw) {
  const std::uint32_t all = std::uint32_t{raw} << 16;
  float f;
  std::memcpy(&f, &all, 4);
  return f;
}
std::uint16_t half(double v) {
  if (v == 0) return 0;
  int exponent = 0;
  const double fraction = std::frexp(v, &exponent);
  return static_cast<std::uint16_t>(((exponent + 14) << 10) + static_cast<int>((2 * fraction - 1) * 1024));
}
double of_half(std::uint16_t raw) { return raw == 0 ? 0 : std::ldexp(1024 + (raw & 1023), (raw >> 10) - 25); }

void test_types() {
  Worker worker;
  try_numbers<float>(worker, ncclFloat32);
  try_numbers<double>(worker, ncclFloat64);
  try_numbers<std::int32_t>(worker, ncclInt32);
  try_numbers<std::int64_t>(worker, ncclInt64);
  try_numbers<std::uint8_t>(worker, ncclUint8);
  try_sums<std::uint16_t>(worker, ncclBfloat16, brain, of_brain);
  try_sums<std::uint16_t>(worker, ncclFloat16, half, of_half);
  int number = 0;
  OK(ncclGetVersion(&number));
  CHECK(number == NCCL_VERSION_CODE);
  OK(ncclCommCount(worker.comm, &number));
  CHECK(number == ranks);
  OK(ncclCommUserRank(worker.comm, &number));
  CHECK(number == rank);
  OK(ncclCommCuDevice(worker.comm, &number));
  CHECK(number == rank);
}

// Sums are rounded to the type at each step, in the order of the ranks; ties go to even.
void test_rounding() {
  Worker worker;
  // 256 + 1 is a tie in bfloat16, and so is 2048 + 1 in float16; with two more ones the order shows.
  std::vector<std::uint16_t> brains{brain(rank == 0 ? 256 : 1)}, halves{half(rank == 0 ? 2048 : 1)};
  std::vector<float> floats{rank == 0 ? 16777216.0f : 1.0f};
  OK(worker.sum(brains, ncclBfloat16));
  OK(worker.sum(halves, ncclFloat16));
  OK(worker.sum(floats, ncclFloat32));
  // Subnormal and infinite halves: 3 times 2^-24, and 60000 times 2.
  std::vector<std::uint16_t> small{static_cast<std::uint16_t>(rank < 2 ? rank + 1 : 0)}, large{half(rank < 2 ? 60000 : 0)};
  OK(worker.sum(small, ncclFloat16));
  OK(worker.sum(large, ncclFloat16));
  OK(cuStreamSynchronize(worker.stream));
  CHECK(of_brain(brains[0]) == 256);
  CHECK(of_half(halves[0]) == 2048);
  CHECK(floats[0] == 16777216.0f);
  CHECK(small[0] == 3);
  CHECK(large[0] == 0x7c00);
}

void test_collectives() {
  Worker worker(true);
  const std::size_t count = 600'000;
  std::vector<int> given(count, rank + 1), got(count, -1);
  OK(ncclBroadcast(given.data(), got.data(), count, ncclInt32, ranks - 1, worker.comm, worker.stream));
  OK(cuStreamSynchronize(worker.stream));
  CHECK(got == std::vector<int>(count, ranks));
}

void test_large() {
  Worker worker;
  std::vector<float> data(30'000'000, rank + 1.0f);
  const auto start = Clock::now();
  OK(worker.sum(data, ncclFloat32));
  OK(cuStreamSynchronize(worker.stream));
  std::printf("120 MB in %.2f s\n", seconds_since(start));
  const float sum = static_cast<float>(ranks * (ranks + 1) / 2);
  CHECK(std::all_of(data.begin(), data.end(), [=](float v) { return v == sum; }));
}

void test_groups() {
  Worker worker;
  std::vector<float> one(1000, 1.0f), two(5000, 2.0f);
  Stream other;
  OK(ncclGroupStart());
  OK(worker.sum(one, ncclFloat32));
  OK(ncclGroupStart());
  OK(ncclAllReduce(two.data(), two.data(), two.size(), ncclFloat32, ncclSum, worker.comm, other));
  OK(ncclGroupEnd());
  std::this_thread::sleep_for(50ms);
  OK(cuStreamQuery(worker.stream));
  CHECK(one[0] == 1.0f);
  OK(ncclGroupEnd());
  OK(cuCtxSynchronize());
  CHECK(one == std::vector<float>(1000, static_cast<float>(ranks)));
  CHECK(two == std::vector<float>(5000, 2.0f * static_cast<float>(ranks)));
}

// Compute before and after each operation, on another stream, ordered by events; random sizes and groups, alike on all ranks.
void test_stress() {
  Worker worker;
  Stream compute;
  std::mt19937 random(7);
  Event ready(CU_EVENT_DISABLE_TIMING), done(CU_EVENT_DISABLE_TIMING);
  for (int issued = 0; issued < 1000;) {
    const int together = 1 + random() % 4;
    std::vector<std::vector<float>> data;
    for (int i = 0; i < together; ++i) data.emplace_back(1 + random() % 3000, 0.0f);
    enqueue(compute, [&] { for (auto& one : data) std::fill(one.begin(), one.end(), rank + 1.0f); });
    OK(cuEventRecord(ready, compute));
    OK(cuStreamWaitEvent(worker.stream, ready, 0));
    OK(ncclGroupStart());
    for (auto& one : data) OK(worker.sum(one, ncclFloat32));
    OK(ncclGroupEnd());
    OK(cuEventRecord(done, worker.stream));
    OK(cuStreamWaitEvent(compute, done, 0));
    std::atomic<bool> right = true;
    const float sum = static_cast<float>(ranks * (ranks + 1) / 2);
    enqueue(compute, [&] {
      for (auto& one : data) right = right && std::all_of(one.begin(), one.end(), [=](float v) { return v == sum; });
    });
    OK(cuStreamSynchronize(compute));
    CHECK(right);
    issued += together;
  }
  CHECK(ncclCommFinalize(worker.comm) == ncclInProgress);
  CHECK(settled(worker.comm) == ncclSuccess);
}

// Rank 1 never takes part: the others' operations wait until they are aborted, from another thread.
void test_abort() {
  Worker worker;
  std::vector<float> data(1000, 1.0f), more(1000, 1.0f);
  if (rank == 1) return worker.abort();
  OK(worker.sum(data, ncclFloat32));
  OK(worker.sum(more, ncclFloat32));
  std::this_thread::sleep_for(200ms);
  CHECK(cuStreamQuery(worker.stream) == CUDA_ERROR_NOT_READY);
  ncclResult_t result = ncclInProgress;
  OK(ncclCommGetAsyncError(worker.comm, &result));
  CHECK(result == ncclSuccess);
  std::thread([&] { worker.abort(); }).join();
  const auto start = Clock::now();
  OK(cuStreamSynchronize(worker.stream));
  CHECK(seconds_since(start) < 10);
}

// Nobody else comes: the initialisation goes on until it is aborted.
void test_alone() {
  Device device;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t comm = nullptr;
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  CHECK(ncclCommInitRankConfig(&comm, 2, id, 0, &config) == ncclInProgress);
  CHECK(settled(comm, 0.3) == ncclInProgress);
  OK(ncclCommAbort(comm));
}

// With STAND_IN_SLOW_CONNECT: the first operations are on their stream only when the communicator is no longer in progress.
void test_connect() {
  Worker worker;
  std::vector<float> data(1000, 1.0f);
  CHECK(worker.sum(data, ncclFloat32) == ncclInProgress);
  CHECK(settled(worker.comm, 0.15) == ncclInProgress);
  OK(cuStreamQuery(worker.stream));
  CHECK(settled(worker.comm) == ncclSuccess);
  OK(worker.sum(data, ncclFloat32));
  OK(cuStreamSynchronize(worker.stream));
  CHECK(data[0] == static_cast<float>(ranks * ranks));
}

// Under a fault: four operations, one after another; prints what became of them.
void test_fault() {
  Worker worker;
  for (int op = 1; op <= 4; ++op) {
    std::vector<float> data(1000, 1.0f);
    const auto start = Clock::now();
    const ncclResult_t returned = worker.sum(data, ncclFloat32);
    if (returned != ncclSuccess) {
      std::printf("operation %d returned %d: %s\n", op, returned, ncclGetLastError(worker.comm));
      return worker.abort();
    }
    ncclResult_t error = ncclSuccess;
    while (cuStreamQuery(worker.stream) != CUDA_SUCCESS) {
      OK(ncclCommGetAsyncError(worker.comm, &error));
      if (error != ncclSuccess || seconds_since(start) > 2) break;
      std::this_thread::sleep_for(1ms);
    }
    if (cuStreamQuery(worker.stream) != CUDA_SUCCESS) {
      std::printf("operation %d never completes, error %d\n", op, error);
      worker.abort();
      OK(cuStreamSynchronize(worker.stream));
      return;
    }
    // By a clock that all processes of a machine share.
    const auto since_boot = [](Clock::time_point at) {
      return static_cast<long long>(std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count());
    };
    std::printf("operation %d took from %lld to %lld us\n", op, since_boot(start), since_boot(Clock::now()));
  }
}

// Rank 1 does something else in the second operation.
void test_mismatch(const std::string& kind) {
  Worker worker;
  std::vector<float> data(1000, 1.0f);
  OK(worker.sum(data, ncclFloat32));
  const bool other = rank == 1;
  if (kind == "kind" && other) OK(ncclBroadcast(data.data(), data.data(), 1000, ncclFloat32, 0, worker.comm, worker.stream));
  else if (kind == "group" && !other) {
    OK(ncclGroupStart());
    for (int i = 0; i < 2; ++i) OK(ncclAllReduce(data.data(), data.data(), 1000, ncclFloat32, ncclSum, worker.comm, worker.stream));
    OK(ncclGroupEnd());
  } else if (kind == "root") OK(ncclBroadcast(data.data(), data.data(), 1000, ncclFloat32, other, worker.comm, worker.stream));
  else OK(ncclAllReduce(data.data(), data.data(), kind == "count" && other ? 999 : 1000, kind == "type" && other ? ncclInt32 : ncclFloat32,
                        ncclSum, worker.comm, worker.stream));
  ncclResult_t error = ncclSuccess;
  for (int i = 0; i < 1000 && error == ncclSuccess; ++i) {
    OK(ncclCommGetAsyncError(worker.comm, &error));
    std::this_thread::sleep_for(5ms);
  }
  CHECK(error == ncclInvalidUsage);
  worker.abort();
}

// Wrong uses of a communicator, each seen by the test that runs it.
void test_use_after(const std::string& kind) {
  Worker worker;
  std::vector<float> data(10, 1.0f);
  if (kind == "abort") {
    const ncclComm_t comm = worker.comm;
    worker.abort();
    CHECK(ncclAllReduce(data.data(), data.data(), 10, ncclFloat32, ncclSum, comm, worker.stream) != ncclSuccess);
  } else if (kind == "destroy") {
    const ncclComm_t comm = std::exchange(worker.comm, nullptr);
    OK(ncclCommDestroy(comm));
    ncclResult_t result;
    CHECK(ncclCommGetAsyncError(comm, &result) != ncclSuccess);
  } else if (kind == "finalize") {
    CHECK(ncclCommFinalize(worker.comm) == ncclInProgress);
    CHECK(worker.sum(data, ncclFloat32) != ncclSuccess);
    CHECK(settled(worker.comm) == ncclSuccess);
  } else if (kind == "leak") {
    worker.comm = nullptr;
  } else if (kind == "context") {
    Device other(rank + ranks);
    CHECK(worker.sum(data, ncclFloat32) != ncclSuccess);
  } else if (kind == "stream") {
    Stream gone;
    OK(cuStreamDestroy(gone));
    CHECK(ncclAllReduce(data.data(), data.data(), 10, ncclFloat32, ncclSum, worker.comm, std::exchange(gone.handle, nullptr)) != ncclSuccess);
  } else {
    CHECK(!"a known kind");
  }
}

// Both processes call themselves rank 0 of two.
void test_twice() {
  Device device(rank);
  const ncclUniqueId id = unique_id();
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t comm = nullptr;
  const ncclResult_t result = ncclCommInitRankConfig(&comm, ranks, id, 0, &config);
  CHECK(result == ncclInProgress || result == ncclInvalidUsage);
  std::this_thread::sleep_for(500ms);
  if (comm) OK(ncclCommAbort(comm));
}

// All ranks on the first GPU.
void test_one_gpu() {
  Device device(0);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t comm = nullptr;
  CHECK(ncclCommInitRankConfig(&comm, ranks, unique_id(), rank, &config) == ncclInProgress);
  CHECK(settled(comm) == ncclInvalidUsage);
  CHECK(std::string(ncclGetLastError(comm)).find("on one GPU") != std::string::npos);
  OK(ncclCommAbort(comm));
}

const std::map<std::string, std::function<void(const std::string&)>> tests = {
    {"streams", [](auto&) { test_streams(); }},
    {"events", [](auto&) { test_events(); }},
    {"null-stream", [](auto&) { test_null_stream(); }},
    {"devices", [](auto&) { test_devices(); }},
    {"skip", [](auto&) { test_skip(); }},
    {"misuse", test_misuse},
    {"types", [](auto&) { test_types(); }},
    {"rounding", [](auto&) { test_rounding(); }},
    {"collectives", [](auto&) { test_collectives(); }},
    {"large", [](auto&) { test_large(); }},
    {"groups", [](auto&) { test_groups(); }},
    {"stress", [](auto&) { test_stress(); }},
    {"abort", [](auto&) { test_abort(); }},
    {"alone", [](auto&) { test_alone(); }},
    {"connect", [](auto&) { test_connect(); }},
    {"fault", [](auto&) { test_fault(); }},
    {"mismatch", test_mismatch},
    {"use-after", test_use_after},
    {"twice", [](auto&) { test_twice(); }},
    {"one-gpu", [](auto&) { test_one_gpu(); }},
};

}  // namespace

// `NAME[=KIND] [RANK RANKS FILE]`
int main(int count, char** words) {
  const std::string first = count > 1 ? words[1] : "", name = first.substr(0, first.find('='));
  const auto test = tests.find(name);
  if (test == tests.end() || (count != 2 && count != 5)) {
    std::fprintf(stderr, "selftest NAME[=KIND] [RANK RANKS FILE]\n");
    return 2;
  }
  if (count == 5) {
    rank = std::atoi(words[2]);
    ranks = std::atoi(words[3]);
    meeting = words[4];
  }
  test->second(name.size() < first.size() ? first.substr(name.size() + 1) : "");
  return failed ? 1 : 0;
}
