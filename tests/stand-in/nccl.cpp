// libnccl.so.2 for tests: the calls that the product makes, between processes of one machine, over the driver stand-in. What the
// real library forbids or leaves undefined is reported as a violation.
#include "nccl_header.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "communicator.hpp"

using namespace stand_in;

namespace {

constexpr std::chrono::milliseconds slow_connection{300};

struct Failure {
  ncclResult_t code;
  std::string text;
};

// Never destroyed: threads of streams may outlive main.
struct Library {
  Handles<ncclComm_t, Communicator> communicators{0x6c00'0000'0000};
  std::atomic<unsigned long> operations = 0;
  std::atomic<int> open_groups = 0;
  std::mutex mutex;
  std::string last_error;
};

Library& library() {
  static Library& only = *new Library;
  return only;
}

using Comm = std::shared_ptr<Communicator>;
using Batch = std::vector<std::pair<Comm, Operation>>;

struct Group {
  int depth = 0;
  Batch batch;
  ncclResult_t error = ncclSuccess;
};
thread_local Group group;

void remember(const std::string& text) {
  std::lock_guard lock(library().mutex);
  library().last_error = text;
}

[[noreturn]] void fail(ncclResult_t code, const std::string& text) { throw Failure{code, text}; }

[[noreturn]] void refuse(ncclResult_t code, const std::string& text) {
  violation(text);
  fail(code, text);
}

// Runs the body of an entry point.
template <class Body>
ncclResult_t guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (const Failure& failure) {
    remember(failure.text);
    return failure.code;
  } catch (const std::exception& error) {
    remember(error.what());
    return ncclSystemError;
  }
}

void check(CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return;
  const char* name = nullptr;
  cuGetErrorName(result, &name);
  fail(ncclUnhandledCudaError, std::string(what) + " returned " + (name ? name : "an unknown error"));
}

template <class T>
T& given(T* pointer) {
  if (!pointer) fail(ncclInvalidArgument, "a pointer is null");
  return *pointer;
}

Comm checked(Comm comm, ncclComm_t handle, const char* name) {
  if (comm) return comm;
  if (!library().communicators.gone(handle)) fail(ncclInvalidArgument, std::string(name) + ": not a communicator");
  refuse(ncclInvalidArgument, std::string(name) + " on a communicator after its destruction or abort");
}

Comm find(ncclComm_t handle, const char* name) { return checked(library().communicators.find(handle), handle, name); }

// A communicator that takes operations.
Comm ready(ncclComm_t handle, const char* name) {
  const Comm comm = find(handle, name);
  const std::string who = std::string(name) + " on rank " + std::to_string(comm->rank);
  if (comm->finalized) refuse(ncclInvalidUsage, who + " after ncclCommFinalize");
  const ncclResult_t result = comm->result;
  if (result == ncclInProgress) refuse(ncclInvalidArgument, who + " while an earlier call is in progress");
  if (result != ncclSuccess) fail(result, who + " after an asynchronous error");
  return comm;
}

// Lets the rest of a call go on in the background; the communicator is in progress meanwhile.
void continue_in_background(const Comm& comm, std::function<void()> rest) {
  comm->settle();
  std::lock_guard lock(comm->calls);
  comm->background = std::thread(std::move(rest));
}

// Operations on streams.

void launch(const Comm& comm, const Operation& op) {
  struct Work {
    Comm comm;
    Operation op;
    std::uint64_t number;
  };
  const ncclResult_t result = comm->issue([&](std::uint64_t number) {
    auto* work = new Work{comm, op, number};
    const auto run = [](void* data) {
      const std::unique_ptr<Work> work(static_cast<Work*>(data));
      work->comm->run(work->op, work->number);
    };
    if (cuLaunchHostFunc(op.stream, run, work) == CUDA_SUCCESS) return ncclSuccess;
    delete work;
    return ncclUnhandledCudaError;
  });
  if (result != ncclSuccess) fail(result, "an operation cannot be put on its stream");
}

// The first operations of a communicator may have to connect it first: in the background, if it does not block.
ncclResult_t launch_all(const Comm& comm, std::vector<Operation> ops) {
  for (std::size_t i = 0; i < ops.size(); ++i) ops[i].what.left = ops.size() - i;
  if (asked("STAND_IN_SLOW_CONNECT") && !comm->connected) {
    if (!comm->blocking) {
      comm->result = ncclInProgress;
      continue_in_background(comm, [comm, ops = std::move(ops)] {
        if (!comm->pause(slow_connection)) return;
        const ncclResult_t result = guarded([&] {
          check(cuCtxSetCurrent(comm->context), "cuCtxSetCurrent");
          for (const auto& op : ops) launch(comm, op);
          return ncclSuccess;
        });
        comm->connected = true;
        comm->progress_to(result);
      });
      return ncclInProgress;
    }
    comm->pause(slow_connection);
  }
  comm->connected = true;
  for (const auto& op : ops) launch(comm, op);
  return ncclSuccess;
}

// Communicator by communicator, in the order in which they first appear.
ncclResult_t launch_batch(Batch batch) {
  ncclResult_t result = ncclSuccess;
  while (!batch.empty()) {
    const Comm comm = batch.front().first;
    std::vector<Operation> ops;
    std::erase_if(batch, [&](const auto& one) {
      if (one.first != comm) return false;
      ops.push_back(one.second);
      return true;
    });
    if (const ncclResult_t one = launch_all(comm, std::move(ops)); one != ncclSuccess) result = one;
  }
  return result;
}

void check_stream(const Communicator& comm, CUstream stream, const char* name) {
  CUcontext owner = nullptr, current = nullptr;
  check(cuStreamGetCtx(stream, &owner), "cuStreamGetCtx");
  check(cuCtxGetCurrent(&current), "cuCtxGetCurrent");
  if (owner != comm.context) refuse(ncclInvalidUsage, std::string(name) + ": the stream is not of the communicator's context");
  if (current != comm.context) refuse(ncclInvalidUsage, std::string(name) + ": the communicator's context is not current");
}

ncclResult_t enqueue(const char* name, const Comm& comm, Operation op) {
  if (!width(op.what.type)) fail(ncclInvalidArgument, std::string(name) + ": the stand-in does not know this type");
  if (!op.receive || !op.send) fail(ncclInvalidArgument, std::string(name) + ": a buffer is null");
  check_stream(*comm, op.stream, name);
  const unsigned long number = ++library().operations;
  op.fault = fault_of(comm->rank, number);
  std::this_thread::sleep_for(std::chrono::milliseconds(op.fault.call_ms));
  if (op.fault.result) fail(op.fault.result, "as asked for, operation " + std::to_string(number) + " returns an error");
  if (group.depth == 0) return launch_batch({{comm, op}});
  group.batch.emplace_back(comm, op);
  return ncclSuccess;
}

// As `guarded`; inside a group an error is that of the group, too.
template <class Body>
ncclResult_t guarded_operation(Body&& body) noexcept {
  const ncclResult_t result = guarded(std::forward<Body>(body));
  if (result != ncclSuccess && result != ncclInProgress && group.depth > 0 && group.error == ncclSuccess) group.error = result;
  return result;
}

// Life of a communicator.

ncclResult_t initialise(ncclComm_t* out, int ranks, const ncclUniqueId& id, int rank, bool blocking) {
  given(out) = nullptr;
  if (ranks < 1 || ranks > Board::most_ranks || rank < 0 || rank >= ranks) {
    fail(ncclInvalidArgument, "rank " + std::to_string(rank) + " of " + std::to_string(ranks));
  }
  if (group.depth > 0) refuse(ncclInvalidUsage, "the stand-in does not initialise communicators inside a group");
  int device = 0;
  CUcontext context = nullptr;
  CUuuid uuid;
  check(cuCtxGetDevice(&device), "cuCtxGetDevice");
  check(cuCtxGetCurrent(&context), "cuCtxGetCurrent");
  check(cuDeviceGetUuid(&uuid, device), "cuDeviceGetUuid");
  const auto comm = std::make_shared<Communicator>(rank, ranks, device, context, blocking);
  const std::string folder(id.internal, strnlen(id.internal, sizeof id.internal));
  if (const std::string why = comm->sit(folder, uuid); !why.empty()) fail(ncclInvalidUsage, why);
  const auto meet = [comm = comm.get()] {
    const std::string why = comm->meet();
    if (!why.empty()) remember(why);
    comm->progress_to(why.empty() ? ncclSuccess : ncclInvalidUsage);
  };
  if (!blocking) {
    *out = library().communicators.add(comm);
    continue_in_background(comm, meet);
    return ncclInProgress;
  }
  meet();
  if (comm->result == ncclSuccess) *out = library().communicators.add(comm);
  return comm->result;
}

ncclResult_t finalize(const Comm& comm) {
  if (comm->finalized.exchange(true)) refuse(ncclInvalidUsage, "ncclCommFinalize twice");
  if (comm->blocking) return comm->drain() ? ncclSuccess : ncclInternalError;
  comm->settle();
  comm->result = ncclInProgress;
  continue_in_background(comm, [comm = comm.get()] {
    if (comm->drain()) comm->progress_to(ncclSuccess);
  });
  return ncclInProgress;
}

void destroy(const Comm& comm) {
  comm->settle();
  if (comm->result != ncclSuccess) {
    violation("ncclCommDestroy on rank " + std::to_string(comm->rank) + " after an asynchronous error: it needs an abort");
    return comm->abort();
  }
  comm->drain();
}

Operation reduction(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t op, CUstream stream) {
  if (op != ncclSum && op != ncclMax) fail(ncclInvalidArgument, "ncclAllReduce: the stand-in does not know this operator");
  return {{Kind::all_reduce, type, op == ncclMax, count}, send, receive, stream, {}};
}

__attribute__((destructor)) void at_exit() {
  if (const int open = library().open_groups) violation("the process ends inside " + std::to_string(open) + " groups");
  const std::size_t alive = library().communicators.all().size();
  if (alive && asked("STAND_IN_CHECK_LEAKS")) {
    violation(std::to_string(alive) + " communicators leaked: alive at the end of the process");
  }
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  return guarded([&] {
    given(version) = NCCL_VERSION_CODE;
    return ncclSuccess;
  });
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    default: return "unknown result code";
  }
}

const char* ncclGetLastError(ncclComm_t) {
  static thread_local std::string copy;
  std::lock_guard lock(library().mutex);
  copy = library().last_error;
  return copy.c_str();
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  return guarded([&] {
    const char* base = setting("STAND_IN_DIR");
    if (!base) base = setting("TMPDIR");
    std::string folder = std::string(base ? base : "/tmp") + "/nccl-XXXXXX";
    if (folder.size() >= sizeof given(id).internal) fail(ncclSystemError, "the name is too long for a unique id: " + folder);
    if (!mkdtemp(folder.data()) || !Board::create(folder + "/board")) fail(ncclSystemError, "cannot create " + folder);
    std::memset(id->internal, 0, sizeof id->internal);
    std::memcpy(id->internal, folder.data(), folder.size());
    return ncclSuccess;
  });
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  return guarded([&] { return initialise(comm, ranks, id, rank, true); });
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  return guarded([&] {
    // Only what every version of the structure has is looked at.
    if (config && config->magic != NCCL_API_MAGIC) fail(ncclInvalidArgument, "the configuration was not initialised");
    const int blocking = config ? config->blocking : NCCL_CONFIG_UNDEF_INT;
    if (blocking != 0 && blocking != 1 && blocking != NCCL_CONFIG_UNDEF_INT) fail(ncclInvalidArgument, "blocking is neither 0 nor 1");
    return initialise(comm, ranks, id, rank, blocking != 0);
  });
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  return guarded([&] {
    given(error) = find(comm, "ncclCommGetAsyncError")->result;
    return ncclSuccess;
  });
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  return guarded([&] { return finalize(ready(comm, "ncclCommFinalize")); });
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  return guarded([&] {
    if (!comm) return ncclSuccess;
    destroy(checked(library().communicators.take(comm), comm, "ncclCommDestroy"));
    return ncclSuccess;
  });
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  return guarded([&] {
    if (!comm) return ncclSuccess;
    checked(library().communicators.take(comm), comm, "ncclCommAbort")->abort();
    return ncclSuccess;
  });
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  return guarded([&] {
    given(count) = find(comm, "ncclCommCount")->ranks;
    return ncclSuccess;
  });
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  return guarded([&] {
    given(rank) = find(comm, "ncclCommUserRank")->rank;
    return ncclSuccess;
  });
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
  return guarded([&] {
    given(device) = find(comm, "ncclCommCuDevice")->device;
    return ncclSuccess;
  });
}

ncclResult_t ncclGroupStart(void) {
  ++group.depth;
  ++library().open_groups;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
  return guarded([&] {
    if (group.depth == 0) refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    --library().open_groups;
    if (--group.depth > 0) return ncclSuccess;
    const Group ended = std::exchange(group, {});
    if (ended.error != ncclSuccess) return ended.error;
    for (const auto& [comm, op] : ended.batch) {
      const auto live = library().communicators.all();
      const auto same = [&](const auto& one) { return one.second == comm; };
      if (std::none_of(live.begin(), live.end(), same)) {
        refuse(ncclInvalidArgument, "ncclGroupEnd: a communicator of the group was destroyed or aborted meanwhile");
      }
    }
    return launch_batch(ended.batch);
  });
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t handle, cudaStream_t stream) {
  return guarded_operation([&] {
    const Comm comm = ready(handle, "ncclAllReduce");
    return enqueue("ncclAllReduce", comm, reduction(send, receive, count, type, op, stream));
  });
}

ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type, int root, ncclComm_t handle, cudaStream_t stream) {
  return guarded_operation([&] {
    const Comm comm = ready(handle, "ncclBroadcast");
    if (root < 0 || root >= comm->ranks) fail(ncclInvalidArgument, "ncclBroadcast: no such root");
    // Only the root sends.
    const void* data = comm->rank == root ? send : receive;
    return enqueue("ncclBroadcast", comm, {{Kind::broadcast, type, root, count}, data, receive, stream, {}});
  });
}

}  // extern "C"
