// The memory that the ranks of one communicator share: a file, mapped by all. Who waits here sleeps on the bell, which whoever
// changes something rings. Knows no NCCL calls and no streams.
#pragma once

#include <cuda.h>
#include <linux/futex.h>
#include "nccl_header.hpp"
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include <array>
#include <atomic>
#include <cstring>
#include <new>
#include <string>

#include "shared.hpp"

namespace stand_in {

enum class Kind : std::uint32_t { all_reduce, broadcast };

// What all ranks must agree on.
struct Signature {
  Kind kind;
  ncclDataType_t type;
  // Root of a broadcast; 1 in a reduction to the larger.
  std::int32_t detail;
  std::uint64_t count;
  // In its group, itself among them: ranks whose groups differ are not at the same operation, for NCCL orders a group anew.
  std::uint64_t left = 1;
  bool operator==(const Signature&) const = default;
};

inline std::string described(const Signature& what) {
  static constexpr const char* kinds[] = {"all-reduce", "broadcast"};
  std::string text = kinds[static_cast<std::uint32_t>(what.kind) % 2];
  if (what.kind == Kind::all_reduce) text += what.detail ? " (max)" : " (sum)";
  if (what.kind == Kind::broadcast) text += " from rank " + std::to_string(what.detail);
  text += " of " + std::to_string(what.count) + " elements of type " + std::to_string(what.type);
  return what.left == 1 ? text : text + ", " + std::to_string(what.left - 1) + " more after it in its group";
}

class Board {
 public:
  static constexpr int most_ranks = 64;
  // Bytes that one rank shows the others at a time; each has two such places, used in turn.
  static constexpr std::size_t chunk = std::size_t{1} << 20;

  // The counters only grow. A rank is never more than one operation, nor one chunk, ahead of another.
  struct Seat {
    std::atomic<std::uint32_t> taken;
    CUuuid device;
    std::atomic<std::uint64_t> entered;
    std::atomic<std::uint64_t> shown;
    std::array<Signature, 4> signatures;
  };

  // Empties a new file for a communicator.
  static bool create(const std::string& path) {
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) return false;
    const bool ok = ftruncate(file, front) == 0;
    close(file);
    return ok;
  }

  // nullptr with errno where it cannot be had.
  static std::unique_ptr<Board> open_at(const std::string& path, int ranks) {
    const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) return nullptr;
    const std::size_t bytes = front + 2 * chunk * ranks;
    void* memory = MAP_FAILED;
    if (ftruncate(file, bytes) == 0) memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return nullptr;
    return std::unique_ptr<Board>(new Board(memory, bytes));
  }

  ~Board() { munmap(memory_, bytes_); }
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;

  Seat& seat(int rank) { return shared().seats[rank]; }
  std::atomic<std::uint32_t>& ranks() { return shared().ranks; }
  std::atomic<std::uint32_t>& joined() { return shared().joined; }

  char* place(int rank, std::uint64_t number) {
    return static_cast<char*>(memory_) + front + (2 * static_cast<std::size_t>(rank) + number % 2) * chunk;
  }

  void ring() {
    shared().bell.fetch_add(1);
    syscall(SYS_futex, &shared().bell, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
  }

  // Until `ready`; false if `given_up` comes first, which is looked at whenever the bell rings.
  template <class Ready>
  bool wait(const std::atomic<bool>& given_up, Ready&& ready) {
    for (;;) {
      const std::uint32_t heard = shared().bell.load();
      if (given_up) return false;
      if (ready()) return true;
      const timespec most{0, 50'000'000};
      syscall(SYS_futex, &shared().bell, FUTEX_WAIT, heard, &most, nullptr, 0);
    }
  }

 private:
  struct Shared {
    std::atomic<std::uint32_t> ranks;
    std::atomic<std::uint32_t> joined;
    std::atomic<std::uint32_t> bell;
    std::array<Seat, most_ranks> seats;
  };
  static constexpr std::size_t front = (sizeof(Shared) + 4095) / 4096 * 4096;
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);

  Board(void* memory, std::size_t bytes) : memory_(memory), bytes_(bytes) {}
  // A file of zeros is an empty board.
  Shared& shared() { return *std::launder(static_cast<Shared*>(memory_)); }

  void* memory_;
  std::size_t bytes_;
};

}  // namespace stand_in
