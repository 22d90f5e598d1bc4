// libcuda.so.1 for tests: the driver functions that the product calls, over host memory. A pointer to device memory is a pointer
// to host memory.
#include <cuda.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>

#include "shared.hpp"
#include "stream.hpp"

using namespace stand_in;

namespace {

constexpr std::size_t total_memory = std::size_t{16} << 30;

struct OwnedStream : Stream {
  OwnedStream(bool blocking, CUcontext context) : Stream(blocking), context(context) {}
  const CUcontext context;
};

struct OwnedEvent : Event {
  OwnedEvent(bool timing, CUcontext context) : Event(timing), context(context) {}
  const CUcontext context;
};

struct Context {
  explicit Context(int device) : device(device) {}
  const int device;
  CUcontext handle = nullptr;
  unsigned retained = 1;
  std::shared_ptr<OwnedStream> null_stream;
  // Held while work is given to a stream, so that null stream and blocking streams agree on what came before.
  std::mutex order;
  std::vector<std::weak_ptr<Stream>> blocking;
};

// Never destroyed: threads of streams may outlive main.
struct Driver {
  std::atomic<bool> initialised = false;
  Handles<CUcontext, Context> contexts{0x5c00'0000'0000};
  Handles<CUstream, OwnedStream> streams{0x5d00'0000'0000};
  Handles<CUevent, OwnedEvent> events{0x5e00'0000'0000};
  Threads threads;
  std::atomic<unsigned long> waits = 0;
  std::mutex mutex;
  std::map<int, CUcontext> primary;
};

Driver& driver() {
  static Driver& only = *new Driver;
  return only;
}

thread_local CUcontext current = nullptr;

[[noreturn]] void refuse(CUresult code, const std::string& text) {
  violation(text);
  throw code;
}

// Runs the body of an entry point; results are thrown inside and returned here.
template <class Body>
CUresult guarded(const char* name, Body&& body) noexcept {
  try {
    if (inside_stream) refuse(CUDA_ERROR_NOT_PERMITTED, std::string(name) + " inside a host function");
    if (!driver().initialised) refuse(CUDA_ERROR_NOT_INITIALIZED, std::string(name) + " before cuInit");
    body();
    return CUDA_SUCCESS;
  } catch (CUresult result) {
    return result;
  } catch (const std::bad_alloc&) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  } catch (...) {
    return CUDA_ERROR_UNKNOWN;
  }
}

template <class Body>
CUresult in_context(const char* name, Body&& body) noexcept {
  return guarded(name, [&] {
    if (!current) refuse(CUDA_ERROR_INVALID_CONTEXT, std::string(name) + " without a current context");
    const auto context = driver().contexts.find(current);
    if (!context) refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, std::string(name) + " in a context that was released");
    body(*context);
  });
}

template <class T>
T& given(T* pointer) {
  if (!pointer) throw CUDA_ERROR_INVALID_VALUE;
  return *pointer;
}

template <class Handle, class Thing>
std::shared_ptr<Thing> alive(const Handles<Handle, Thing>& handles, Handle handle, const char* name, const char* what) {
  if (auto thing = handles.find(handle)) return thing;
  if (handles.gone(handle)) violation(std::string(name) + ": the " + what + " was destroyed");
  throw CUDA_ERROR_INVALID_HANDLE;
}

std::shared_ptr<OwnedStream> stream_of(const Context& context, CUstream handle, const char* name) {
  if (!handle || handle == CU_STREAM_LEGACY) return context.null_stream;
  return alive(driver().streams, handle, name, "stream");
}

std::shared_ptr<OwnedEvent> event_of(CUevent handle, const char* name) { return alive(driver().events, handle, name, "event"); }

std::shared_ptr<Context> home_of(const OwnedStream& stream) {
  if (auto context = driver().contexts.find(stream.context)) return context;
  throw CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

// Gives work to a stream. The null stream waits for what blocking streams have, and they for what it has.
void submit(const std::shared_ptr<OwnedStream>& stream, std::function<void()> work) {
  const auto context = home_of(*stream);
  std::lock_guard lock(context->order);
  std::vector<std::pair<std::shared_ptr<Stream>, std::uint64_t>> before;
  const auto after = [&](const std::shared_ptr<Stream>& other) {
    if (!other->idle()) before.emplace_back(other, other->position());
  };
  if (stream == context->null_stream) {
    std::erase_if(context->blocking, [](const auto& other) { return other.expired(); });
    for (const auto& other : context->blocking) {
      if (const auto kept = other.lock()) after(kept);
    }
  } else if (stream->blocking) {
    after(context->null_stream);
  }
  if (before.empty()) return stream->push(std::move(work));
  stream->push([before = std::move(before), work = std::move(work)] {
    for (const auto& [other, position] : before) other->wait(position);
    work();
  });
}

void synchronise(const std::shared_ptr<OwnedStream>& stream) {
  if (stream == home_of(*stream)->null_stream) submit(stream, [] {});
  stream->wait(stream->position());
}

void synchronise(const Context& context) {
  for (const auto& [handle, stream] : driver().streams.all()) {
    if (stream->context == context.handle) stream->wait(stream->position());
  }
  context.null_stream->wait(context.null_stream->position());
}

std::shared_ptr<OwnedStream> started(bool blocking, CUcontext context) {
  auto stream = std::make_shared<OwnedStream>(blocking, context);
  driver().threads.start(stream);
  return stream;
}

int devices() {
  const char* wanted = setting("STAND_IN_GPUS");
  return wanted ? std::atoi(wanted) : 8;
}

void check_device(CUdevice device) {
  if (device < 0 || device >= devices()) throw CUDA_ERROR_INVALID_DEVICE;
}

CUuuid uuid_of(CUdevice device) {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  const std::string name = asked("STAND_IN_SAME_UUID") ? "same" : std::string(host) + "/" + std::to_string(device);
  CUuuid uuid;
  for (std::size_t half = 0; half < 2; ++half) {
    std::uint64_t hash = 0xcbf29ce484222325 + half;
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    std::memcpy(uuid.bytes + 8 * half, &hash, 8);
  }
  return uuid;
}

int attribute_of(CUdevice_attribute attribute, CUdevice device) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return 9;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return 0;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 1;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return 2147483647;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1000000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return 1000000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return 128;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: return device + 1;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: return 2;
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: return 1;
    default: return 0;
  }
}

void make_stream(CUstream* out, unsigned flags, const std::shared_ptr<Context>& context) {
  if (!out || flags & ~static_cast<unsigned>(CU_STREAM_NON_BLOCKING)) throw CUDA_ERROR_INVALID_VALUE;
  const auto stream = started(!(flags & CU_STREAM_NON_BLOCKING), context->handle);
  if (stream->blocking) {
    std::lock_guard lock(context->order);
    context->blocking.push_back(stream);
  }
  *out = driver().streams.add(stream);
}

void leaked(const char* what, std::size_t count, const std::string& when) {
  if (count && asked("STAND_IN_CHECK_LEAKS")) violation(std::to_string(count) + " " + what + " leaked: alive " + when);
}

// What belongs to a context goes with it.
template <class Handle, class Thing>
std::size_t drop_of(Handles<Handle, Thing>& handles, CUcontext context, void (*end)(Thing&)) {
  std::size_t count = 0;
  for (const auto& [handle, thing] : handles.all()) {
    if (thing->context != context || !handles.take(handle)) continue;
    end(*thing);
    ++count;
  }
  return count;
}

void destroy(const std::shared_ptr<Context>& context) {
  driver().contexts.take(context->handle);
  const auto streams = drop_of<CUstream, OwnedStream>(driver().streams, context->handle, [](OwnedStream& s) { s.close(); });
  const auto events = drop_of<CUevent, OwnedEvent>(driver().events, context->handle, [](OwnedEvent&) {});
  context->null_stream->close();
  const auto when = "when the context of device " + std::to_string(context->device) + " was released";
  leaked("streams", streams, when);
  leaked("events", events, when);
}

struct Named {
  CUresult code;
  const char* name;
  const char* text;
};

constexpr Named results[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {CUDA_ERROR_NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

CUresult describe(CUresult code, const char** text, const char* Named::* field) {
  if (!text) return CUDA_ERROR_INVALID_VALUE;
  for (const auto& result : results) {
    if (result.code == code) {
      *text = result.*field;
      return CUDA_SUCCESS;
    }
  }
  *text = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

__attribute__((destructor)) void at_exit() {
  const std::string when = "at the end of the process";
  leaked("streams", driver().streams.all().size(), when);
  leaked("events", driver().events.all().size(), when);
  leaked("primary contexts", driver().contexts.all().size(), when);
  driver().threads.reap();
}

}  // namespace

extern "C" {

// How many calls of cuStreamWaitEvent this process has made.
unsigned long stand_in_waits(void) { return driver().waits; }

CUresult cuInit(unsigned int flags) {
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (devices() <= 0) return CUDA_ERROR_NO_DEVICE;
  driver().initialised = true;
  return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) {
  if (!version) return CUDA_ERROR_INVALID_VALUE;
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char** text) { return describe(error, text, &Named::name); }
CUresult cuGetErrorString(CUresult error, const char** text) { return describe(error, text, &Named::text); }

CUresult cuGetProcAddress(const char* symbol, void** function, int, cuuint64_t, CUdriverProcAddressQueryResult* status) {
  if (!symbol || !function) return CUDA_ERROR_INVALID_VALUE;
  Dl_info self;
  *function = nullptr;
  if (dladdr(reinterpret_cast<void*>(&stand_in_waits), &self)) {
    if (void* library = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD)) {
      *function = dlsym(library, (std::string(symbol) + "_v2").c_str());
      if (!*function) *function = dlsym(library, symbol);
      dlclose(library);
    }
  }
  if (status) *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

// Devices.

CUresult cuDeviceGetCount(int* count) {
  return guarded(__func__, [&] { given(count) = devices(); });
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return guarded(__func__, [&] {
    check_device(ordinal);
    given(device) = ordinal;
  });
}

CUresult cuDeviceGetName(char* name, int bytes, CUdevice device) {
  return guarded(__func__, [&] {
    check_device(device);
    if (bytes <= 0) throw CUDA_ERROR_INVALID_VALUE;
    std::snprintf(&given(name), bytes, "host memory (stand-in)");
  });
}

CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  return guarded(__func__, [&] {
    check_device(device);
    given(uuid) = uuid_of(device);
  });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return guarded(__func__, [&] {
    check_device(device);
    given(value) = attribute_of(attribute, device);
  });
}

CUresult cuDeviceTotalMem(size_t* bytes, CUdevice device) {
  return guarded(__func__, [&] {
    check_device(device);
    given(bytes) = total_memory;
  });
}

CUresult cuDeviceGetPCIBusId(char* id, int bytes, CUdevice device) {
  return guarded(__func__, [&] {
    check_device(device);
    if (bytes < 13) throw CUDA_ERROR_INVALID_VALUE;
    std::snprintf(&given(id), bytes, "0000:%02x:00.0", static_cast<unsigned>(device + 1) & 0xffu);
  });
}

// Contexts.

CUresult cuDevicePrimaryCtxRetain(CUcontext* out, CUdevice device) {
  return guarded(__func__, [&] {
    check_device(device);
    given(out);
    std::lock_guard lock(driver().mutex);
    if (const auto known = driver().primary.find(device); known != driver().primary.end()) {
      ++driver().contexts.find(known->second)->retained;
      *out = known->second;
      return;
    }
    const auto context = std::make_shared<Context>(device);
    context->handle = driver().contexts.add(context);
    context->null_stream = started(true, context->handle);
    driver().primary[device] = *out = context->handle;
  });
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  return guarded(__func__, [&] {
    check_device(device);
    std::unique_lock lock(driver().mutex);
    const auto known = driver().primary.find(device);
    if (known == driver().primary.end()) {
      refuse(CUDA_ERROR_INVALID_CONTEXT, "a primary context was released more often than retained");
    }
    const auto context = driver().contexts.find(known->second);
    if (--context->retained) return;
    driver().primary.erase(known);
    lock.unlock();
    destroy(context);
  });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int* flags, int* active) {
  return guarded(__func__, [&] {
    check_device(device);
    std::lock_guard lock(driver().mutex);
    given(flags) = 0;
    given(active) = driver().primary.contains(device);
  });
}

CUresult cuCtxSetCurrent(CUcontext context) {
  return guarded(__func__, [&] {
    if (context && !driver().contexts.find(context)) {
      refuse(CUDA_ERROR_INVALID_CONTEXT, "cuCtxSetCurrent: no such context, or it was released");
    }
    current = context;
  });
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  return guarded(__func__, [&] { given(context) = current; });
}

CUresult cuCtxGetDevice(CUdevice* device) {
  return in_context(__func__, [&](Context& context) { given(device) = context.device; });
}

CUresult cuCtxSynchronize(void) {
  return in_context(__func__, [&](Context& context) { synchronise(context); });
}

CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return in_context(__func__, [&](Context&) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
  });
}

// Streams.

CUresult cuStreamCreate(CUstream* stream, unsigned int flags) {
  return in_context(__func__, [&](Context& context) { make_stream(stream, flags, driver().contexts.find(context.handle)); });
}

CUresult cuStreamCreateWithPriority(CUstream* stream, unsigned int flags, int) { return cuStreamCreate(stream, flags); }

CUresult cuStreamDestroy(CUstream stream) {
  return in_context(__func__, [&](Context&) {
    alive(driver().streams, stream, "cuStreamDestroy", "stream")->close();
    driver().streams.take(stream);
  });
}

CUresult cuStreamGetCtx(CUstream stream, CUcontext* context) {
  return in_context(__func__, [&](Context& here) { given(context) = stream_of(here, stream, "cuStreamGetCtx")->context; });
}

CUresult cuStreamQuery(CUstream stream) {
  return in_context(__func__, [&](Context& context) {
    const auto found = stream_of(context, stream, "cuStreamQuery");
    bool idle = found->idle();
    if (found == context.null_stream) {
      std::lock_guard lock(context.order);
      for (const auto& other : context.blocking) {
        if (const auto kept = other.lock()) idle = idle && kept->idle();
      }
    }
    if (!idle) throw CUDA_ERROR_NOT_READY;
  });
}

CUresult cuStreamSynchronize(CUstream stream) {
  return in_context(__func__, [&](Context& context) { synchronise(stream_of(context, stream, "cuStreamSynchronize")); });
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int) {
  return in_context(__func__, [&](Context& context) {
    const auto waits = stream_of(context, stream, "cuStreamWaitEvent");
    const auto record = event_of(event, "cuStreamWaitEvent")->latest();
    const unsigned long count = ++driver().waits;
    const char* left_out = setting("STAND_IN_SKIP_WAIT");
    if (!record || (left_out && std::strtoul(left_out, nullptr, 10) == count)) return;
    submit(waits, [record] { record->wait(); });
  });
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void* data) {
  return in_context(__func__, [&](Context& context) {
    if (!function) throw CUDA_ERROR_INVALID_VALUE;
    const auto target = stream_of(context, stream, "cuLaunchHostFunc");
    if (target->context != context.handle) {
      refuse(CUDA_ERROR_INVALID_HANDLE, "cuLaunchHostFunc: the stream is not of the current context");
    }
    submit(target, [=] { function(data); });
  });
}

// Events.

CUresult cuEventCreate(CUevent* event, unsigned int flags) {
  return in_context(__func__, [&](Context& context) {
    const unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING;
    if (flags & ~known) throw CUDA_ERROR_INVALID_VALUE;
    given(event);
    *event = driver().events.add(std::make_shared<OwnedEvent>(!(flags & CU_EVENT_DISABLE_TIMING), context.handle));
  });
}

CUresult cuEventDestroy(CUevent event) {
  return in_context(__func__, [&](Context&) {
    event_of(event, "cuEventDestroy");
    driver().events.take(event);
  });
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  return in_context(__func__, [&](Context& context) {
    const auto target = stream_of(context, stream, "cuEventRecord");
    const auto found = event_of(event, "cuEventRecord");
    if (target->context != found->context) {
      refuse(CUDA_ERROR_INVALID_HANDLE, "cuEventRecord: event and stream are of different contexts");
    }
    submit(target, [record = found->renew()] { record->complete(); });
  });
}

CUresult cuEventQuery(CUevent event) {
  return in_context(__func__, [&](Context&) {
    const auto record = event_of(event, "cuEventQuery")->latest();
    if (record && !record->done()) throw CUDA_ERROR_NOT_READY;
  });
}

CUresult cuEventSynchronize(CUevent event) {
  return in_context(__func__, [&](Context&) {
    if (const auto record = event_of(event, "cuEventSynchronize")->latest()) record->wait();
  });
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return in_context(__func__, [&](Context&) {
    const auto from = event_of(start, "cuEventElapsedTime");
    const auto to = event_of(end, "cuEventElapsedTime");
    const auto first = from->latest();
    const auto second = to->latest();
    if (!from->timing || !to->timing || !first || !second) throw CUDA_ERROR_INVALID_HANDLE;
    if (!first->done() || !second->done()) throw CUDA_ERROR_NOT_READY;
    given(milliseconds) = std::chrono::duration<float, std::milli>(second->at() - first->at()).count();
  });
}

// Names without a version, under which bindings of other versions of the header look these up.
#define ALSO_AS(name, target) __attribute__((alias(#target))) decltype(target) also_##target __asm__(name);
ALSO_AS("cuDeviceGetUuid", cuDeviceGetUuid_v2)
ALSO_AS("cuEventElapsedTime", cuEventElapsedTime_v2)

}  // extern "C"
