// Streams and events of the driver stand-in. Work of one stream runs in order, on a thread of its own; nothing else is ordered
// but by events. Knows no handles and reports nothing.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace stand_in {

// True on the threads of streams, where no driver call is permitted.
inline thread_local bool inside_stream = false;

class Stream {
 public:
  explicit Stream(bool blocking) : blocking(blocking) {}

  // Is ordered with the null stream.
  const bool blocking;

  void push(std::function<void()> work) {
    std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
    ++pushed_;
    changed_.notify_all();
  }

  // How much has been pushed so far.
  std::uint64_t position() const {
    std::lock_guard lock(mutex_);
    return pushed_;
  }

  bool idle() const {
    std::lock_guard lock(mutex_);
    return done_ == pushed_;
  }

  void wait(std::uint64_t position) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ >= position; });
  }

  // Its thread ends after what has been pushed.
  void close() {
    std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }

  // Its thread has ended, or is about to.
  bool over() const {
    std::lock_guard lock(mutex_);
    return closing_ && done_ == pushed_;
  }

  void run() {
    inside_stream = true;
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return closing_ || !work_.empty(); });
      if (work_.empty()) return;
      auto next = std::move(work_.front());
      work_.pop_front();
      lock.unlock();
      next();
      next = nullptr;
      lock.lock();
      ++done_;
      changed_.notify_all();
    }
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  std::uint64_t pushed_ = 0;
  std::uint64_t done_ = 0;
  bool closing_ = false;
};

// One recording of an event. Recording again makes another: who waits keeps the one it saw.
class Record {
 public:
  void complete() {
    std::lock_guard lock(mutex_);
    at_ = std::chrono::steady_clock::now();
    done_ = true;
    changed_.notify_all();
  }

  bool done() const {
    std::lock_guard lock(mutex_);
    return done_;
  }

  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
  }

  std::chrono::steady_clock::time_point at() const {
    std::lock_guard lock(mutex_);
    return at_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::chrono::steady_clock::time_point at_;
};

class Event {
 public:
  explicit Event(bool timing) : timing(timing) {}

  const bool timing;

  // Empty before the first recording.
  std::shared_ptr<Record> latest() const {
    std::lock_guard lock(mutex_);
    return latest_;
  }

  std::shared_ptr<Record> renew() {
    std::lock_guard lock(mutex_);
    return latest_ = std::make_shared<Record>();
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<Record> latest_;
};

// The threads of streams. A thread holds its stream, so a stream may be destroyed with work pending.
class Threads {
 public:
  void start(std::shared_ptr<Stream> stream) {
    reap();
    std::lock_guard lock(mutex_);
    running_.push_back({stream, std::thread([stream] { stream->run(); })});
  }

  // Joins the threads that end by themselves.
  void reap() {
    std::lock_guard lock(mutex_);
    std::erase_if(running_, [](Running& one) {
      if (!one.stream->over()) return false;
      one.thread.join();
      return true;
    });
  }

 private:
  struct Running {
    std::shared_ptr<Stream> stream;
    std::thread thread;
  };
  std::mutex mutex_;
  std::vector<Running> running_;
};

}  // namespace stand_in
