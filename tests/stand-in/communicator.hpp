// One rank's end of a communicator: joining, and running operations on the threads of streams. Faults strike here. Who may call what,
// and when, is decided in nccl.cpp.
#pragma once

#include <chrono>
#include <condition_variable>
#include <thread>

#include "board.hpp"
#include "faults.hpp"
#include "reduce.hpp"

namespace stand_in {

struct Operation {
  Signature what;
  const void* send;
  void* receive;
  CUstream stream;
  Fault fault;
};

class Communicator {
 public:
  Communicator(int rank, int ranks, int device, CUcontext context, bool blocking)
      : rank(rank), ranks(ranks), device(device), context(context), blocking(blocking) {}

  const int rank;
  const int ranks;
  const int device;
  const CUcontext context;
  const bool blocking;

  // What ncclCommGetAsyncError says.
  std::atomic<ncclResult_t> result = ncclInProgress;
  std::atomic<bool> finalized = false;
  std::atomic<bool> connected = false;
  // The call that goes on in the background, if it does.
  std::thread background;
  std::mutex calls;

  // Takes a seat at the board. An empty text is success.
  std::string sit(const std::string& folder, const CUuuid& uuid) {
    const std::string path = folder + "/board";
    board_ = Board::open_at(path, ranks);
    if (!board_) return repeated("no communicator waits at " + folder + ", or all its ranks have joined");
    std::uint32_t nobody = 0;
    if (!board_->ranks().compare_exchange_strong(nobody, ranks) && nobody != static_cast<std::uint32_t>(ranks)) {
      violation("rank " + std::to_string(rank) + " joins as one of " + std::to_string(ranks) + ", others as of " + std::to_string(nobody));
      return "the number of ranks differs between ranks";
    }
    if (board_->seat(rank).taken.exchange(1)) return repeated("its seat is taken");
    board_->seat(rank).device = uuid;
    const bool last = ++board_->joined() == static_cast<std::uint32_t>(ranks);
    board_->ring();
    // The memory lasts as long as it is mapped.
    if (last && unlink(path.c_str()) == 0) rmdir(folder.c_str());
    return "";
  }

  // Waits for all others. An empty text is success.
  std::string meet() {
    const CUuuid& uuid = board_->seat(rank).device;
    if (!board_->wait(aborted_, [&] { return board_->joined() == static_cast<std::uint32_t>(ranks); })) return "aborted";
    for (int other = 0; other < ranks; ++other) {
      if (other != rank && std::memcmp(&board_->seat(other).device, &uuid, sizeof uuid) == 0) {
        return "rank " + std::to_string(rank) + " and rank " + std::to_string(other) + " are on one GPU";
      }
    }
    return "";
  }

  // Puts it on its stream; `launch` does so. In the order of these calls the operations run, whatever their streams.
  template <class Launch>
  ncclResult_t issue(Launch&& launch) {
    std::lock_guard lock(mutex_);
    const ncclResult_t result = launch(issued_);
    if (result == ncclSuccess) ++issued_;
    return result;
  }

  // The `number`-th operation, on its stream's thread. Returns early, with nothing done, after an abort.
  void run(const Operation& op, std::uint64_t number) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return aborted_ || done_ == number; });
      if (aborted_) return;
      running_ = true;
      changed_.wait_for(lock, std::chrono::milliseconds(op.fault.slow_ms), [&] { return aborted_.load(); });
    }
    const bool complete = !aborted_ && perform(op, number);
    std::unique_lock lock(mutex_);
    if (!complete) changed_.wait(lock, [&] { return aborted_.load(); });
    else ++done_;
    running_ = false;
    changed_.notify_all();
  }

  // Until all that was issued is done; false after an abort.
  bool drain() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return aborted_ || done_ == issued_; });
    return !aborted_;
  }

  // A pause that an abort ends.
  bool pause(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return !changed_.wait_for(lock, time, [&] { return aborted_.load(); });
  }

  // Releases whatever waits, and returns when no operation touches a buffer any more.
  void abort() {
    {
      std::lock_guard lock(mutex_);
      aborted_ = true;
      changed_.notify_all();
    }
    settle();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !running_; });
  }

  // Waits for what goes on in the background.
  void settle() {
    std::lock_guard lock(calls);
    if (aborted_ && board_) board_->ring();
    if (background.joinable()) background.join();
  }

  // From "in progress" to another state; an error that came meanwhile stays.
  void progress_to(ncclResult_t next) {
    ncclResult_t before = ncclInProgress;
    result.compare_exchange_strong(before, next);
  }

 private:
  std::string repeated(const std::string& why) {
    violation("rank " + std::to_string(rank) + " was initialised twice with one unique id: " + why);
    return "the unique id was used before";
  }

  bool perform(const Operation& op, std::uint64_t number) {
    if (op.fault.error) result = op.fault.error;
    if (op.fault.error || op.fault.hang) return false;
    if (!agree(op.what, number) || !exchange(op)) return false;
    if (op.fault.wrong) spoil(op);
    return true;
  }

  // Turns a low bit of each element's exponent.
  void spoil(const Operation& op) {
    auto* bytes = static_cast<unsigned char*>(op.receive);
    const std::size_t each = width(op.what.type);
    for (std::uint64_t i = 1; i <= op.what.count; ++i) bytes[i * each - 1] ^= 1;
  }

  // All ranks must be at the same operation.
  bool agree(const Signature& mine, std::uint64_t number) {
    const std::size_t turn = number % 4;
    board_->seat(rank).signatures[turn] = mine;
    board_->seat(rank).entered = number + 1;
    board_->ring();
    if (!board_->wait(aborted_, [&] { return all([&](Board::Seat& seat) { return seat.entered > number; }); })) return false;
    const Signature first = board_->seat(0).signatures[turn];
    if (all([&](Board::Seat& seat) { return seat.signatures[turn] == first; })) return true;
    if (mine != first) {
      violation("operation " + std::to_string(number + 1) + " differs: rank 0: " + described(first) + "; rank " +
                std::to_string(rank) + ": " + described(mine));
    }
    result = ncclInvalidUsage;
    return false;
  }

  // Shows the own data chunk by chunk and reads that of the others.
  bool exchange(const Operation& op) {
    const std::size_t bytes = width(op.what.type), step = Board::chunk / bytes;
    for (std::uint64_t from = 0; from < op.what.count; from += step) {
      const std::size_t count = std::min<std::uint64_t>(step, op.what.count - from);
      const std::uint64_t number = chunks_++;
      // Free: whoever has shown the chunk before has read the one before that, which lay here.
      show(op, from * bytes, count, board_->place(rank, number));
      board_->seat(rank).shown = number + 1;
      board_->ring();
      if (!board_->wait(aborted_, [&] { return all([&](Board::Seat& s) { return s.shown > number; }); })) return false;
      read(op, from * bytes, count, number);
    }
    return true;
  }

  void show(const Operation& op, std::size_t offset, std::size_t count, char* place) {
    if (op.what.kind == Kind::broadcast && op.what.detail != rank) return;
    const char* data = static_cast<const char*>(op.send) + offset;
    std::memcpy(place, data, count * width(op.what.type));
  }

  void read(const Operation& op, std::size_t offset, std::size_t count, std::uint64_t number) {
    const std::size_t bytes = count * width(op.what.type);
    char* to = static_cast<char*>(op.receive) + offset;
    switch (op.what.kind) {
      case Kind::broadcast:
        std::memcpy(to, board_->place(op.what.detail, number), bytes);
        break;
      case Kind::all_reduce:
        std::memcpy(to, board_->place(0, number), bytes);
        for (int other = 1; other < ranks; ++other) combine(op.what.type, op.what.detail, to, board_->place(other, number), count);
        break;
    }
  }

  template <class Test>
  bool all(Test&& test) {
    for (int other = 0; other < ranks; ++other) {
      if (!test(board_->seat(other))) return false;
    }
    return true;
  }

  std::unique_ptr<Board> board_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> aborted_ = false;
  bool running_ = false;
  std::uint64_t issued_ = 0;
  std::uint64_t done_ = 0;
  std::uint64_t chunks_ = 0;
};

}  // namespace stand_in
