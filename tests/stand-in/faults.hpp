// Faults that the environment asks for. STAND_IN_FAULT is a list, separated by semicolons, of
//   rank=R,op=K,error=NAME    the operation never completes, and the communicator has this asynchronous error
//   rank=R,op=K,hang          the operation never completes
//   rank=R,op=K,wrong         the result is another on this rank
//   rank=R,op=K,return=NAME   the call itself returns this error
//   rank=R,slow_ms=M          each operation starts so much later
//   rank=R,call_ms=M          each call of an operation takes so much longer
// K counts the operations of the process from 1. With `once`, a fault strikes one process that shares STAND_IN_DIR.
#pragma once

#include "nccl_header.hpp"

#include <sstream>

#include "shared.hpp"

namespace stand_in {

struct Fault {
  int rank = -1;
  unsigned long op = 0;
  bool once = false;
  bool hang = false;
  bool wrong = false;
  ncclResult_t error = ncclSuccess;
  ncclResult_t result = ncclSuccess;
  int slow_ms = 0;
  int call_ms = 0;
};

inline ncclResult_t result_called(const std::string& name) {
  if (name == "unhandled_cuda") return ncclUnhandledCudaError;
  if (name == "system") return ncclSystemError;
  if (name == "internal") return ncclInternalError;
  if (name == "invalid_argument") return ncclInvalidArgument;
  if (name == "invalid_usage") return ncclInvalidUsage;
  if (name == "remote") return ncclRemoteError;
  violation("STAND_IN_FAULT: no result is called " + name);
  return ncclInternalError;
}

inline Fault parse_fault(const std::string& text) {
  Fault fault;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const auto equals = part.find('=');
    const std::string key = part.substr(0, equals), value = equals == std::string::npos ? "" : part.substr(equals + 1);
    if (key == "rank") fault.rank = std::atoi(value.c_str());
    else if (key == "op") fault.op = std::strtoul(value.c_str(), nullptr, 10);
    else if (key == "error") fault.error = result_called(value);
    else if (key == "return") fault.result = result_called(value);
    else if (key == "slow_ms") fault.slow_ms = std::atoi(value.c_str());
    else if (key == "call_ms") fault.call_ms = std::atoi(value.c_str());
    else if (key == "hang") fault.hang = true;
    else if (key == "wrong") fault.wrong = true;
    else if (key == "once") fault.once = true;
    else violation("STAND_IN_FAULT: not understood: " + part);
  }
  return fault;
}

// The first to make its mark in STAND_IN_DIR.
inline bool first_strike() {
  const char* folder = setting("STAND_IN_DIR");
  if (!folder) return true;
  const int mark = open((std::string(folder) + "/struck").c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (mark >= 0) close(mark);
  return mark >= 0;
}

// What is to happen to the `op`-th operation of `rank`.
inline Fault fault_of(int rank, unsigned long op) {
  static const std::vector<Fault>& faults = *[] {
    auto* all = new std::vector<Fault>;
    std::istringstream texts(setting("STAND_IN_FAULT") ? setting("STAND_IN_FAULT") : "");
    for (std::string text; std::getline(texts, text, ';');) all->push_back(parse_fault(text));
    return all;
  }();
  Fault sum;
  for (const auto& fault : faults) {
    if (fault.rank != rank) continue;
    sum.slow_ms += fault.slow_ms;
    sum.call_ms += fault.call_ms;
    if (fault.op != op || (fault.once && !first_strike())) continue;
    sum.hang = sum.hang || fault.hang;
    sum.wrong = sum.wrong || fault.wrong;
    if (fault.error) sum.error = fault.error;
    if (fault.result) sum.result = fault.result;
  }
  return sum;
}

}  // namespace stand_in
