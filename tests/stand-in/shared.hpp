// What both stand-in libraries share: settings, the list of violations, and handles that are never used twice.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace stand_in {

// An environment variable; nullptr also where it is empty.
inline const char* setting(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

inline bool asked(const char* name) {
  const char* value = setting(name);
  return value && std::string(value) == "1";
}

// One line to standard error and to $STAND_IN_DIR/violations. One write each: processes share the file.
inline void violation(const std::string& text) {
  const std::string line = "stand-in: pid " + std::to_string(getpid()) + ": " + text + "\n";
  (void)!write(STDERR_FILENO, line.data(), line.size());
  if (const char* folder = setting("STAND_IN_DIR")) {
    const int file = open((std::string(folder) + "/violations").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) return;
    (void)!write(file, line.data(), line.size());
    close(file);
  }
}

// Opaque handles. A number is given out once, so that the use of a destroyed handle is always seen.
template <class Handle, class Thing>
class Handles {
 public:
  explicit Handles(std::uintptr_t first) : first_(first), next_(first) {}

  Handle add(std::shared_ptr<Thing> thing) {
    std::lock_guard lock(mutex_);
    next_ += 16;
    live_.emplace(next_, std::move(thing));
    return reinterpret_cast<Handle>(next_);
  }

  std::shared_ptr<Thing> find(Handle handle) const {
    std::lock_guard lock(mutex_);
    const auto found = live_.find(reinterpret_cast<std::uintptr_t>(handle));
    return found == live_.end() ? nullptr : found->second;
  }

  std::shared_ptr<Thing> take(Handle handle) {
    std::lock_guard lock(mutex_);
    const auto found = live_.find(reinterpret_cast<std::uintptr_t>(handle));
    if (found == live_.end()) return nullptr;
    auto thing = std::move(found->second);
    live_.erase(found);
    return thing;
  }

  // Was given out, and is no more.
  bool gone(Handle handle) const {
    std::lock_guard lock(mutex_);
    const auto number = reinterpret_cast<std::uintptr_t>(handle);
    return number > first_ && number <= next_ && !live_.contains(number);
  }

  std::vector<std::pair<Handle, std::shared_ptr<Thing>>> all() const {
    std::lock_guard lock(mutex_);
    std::vector<std::pair<Handle, std::shared_ptr<Thing>>> found;
    for (const auto& [number, thing] : live_) found.emplace_back(reinterpret_cast<Handle>(number), thing);
    return found;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::uintptr_t, std::shared_ptr<Thing>> live_;
  const std::uintptr_t first_;
  std::uintptr_t next_;
};

}  // namespace stand_in
