// Arithmetic of the NCCL stand-in, by type. Every step is rounded to the type, as in a ring of adders.
#pragma once

#include "nccl_header.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace stand_in {

template <class To, class From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// bfloat16: the upper half of a float, rounded to nearest, ties to even.
struct Brain {
  std::uint16_t raw;
  float get() const { return bits<float>(std::uint32_t{raw} << 16); }
  static Brain of(float value) {
    const auto all = bits<std::uint32_t>(value);
    if (std::isnan(value)) return {static_cast<std::uint16_t>((all >> 16) | 0x40)};
    return {static_cast<std::uint16_t>((all + 0x7fff + ((all >> 16) & 1)) >> 16)};
  }
};

// float16, rounded to nearest, ties to even.
struct Half {
  std::uint16_t raw;
  float get() const {
    const std::uint32_t sign = (raw & 0x8000u) << 16, exponent = (raw >> 10) & 0x1f, fraction = raw & 0x3ffu;
    if (exponent == 0x1f) return bits<float>(sign | 0x7f800000u | (fraction << 13));
    if (exponent == 0) return std::copysign(std::ldexp(static_cast<float>(fraction), -24), bits<float>(sign | 0x3f800000u));
    return bits<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  }
  static Half of(float value) {
    const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
    const float size = std::fabs(value);
    const auto signed_as = [sign](std::uint32_t raw) { return Half{static_cast<std::uint16_t>(sign | raw)}; };
    if (std::isnan(value)) return signed_as(0x7e00);
    if (size >= 65520.0f) return signed_as(0x7c00);
    // Below the smallest normal number the step is 2^-24; nearbyint rounds ties to even.
    if (size < 0x1p-14f) return signed_as(static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, 24))));
    const auto all = bits<std::uint32_t>(size);
    return signed_as((all - (112u << 23) + 0xfff + ((all >> 13) & 1)) >> 13);
  }
};

inline float widened(Brain value) { return value.get(); }
inline float widened(Half value) { return value.get(); }
template <class T>
T widened(T value) {
  return value;
}

template <class T, class Wide>
T narrowed(Wide value) {
  if constexpr (std::is_class_v<T>) {
    return T::of(value);
  } else {
    return static_cast<T>(value);
  }
}

// Calls `body` with a value of the type; false for a type that is not supported here.
template <class Body>
bool with_type(ncclDataType_t type, Body&& body) {
  switch (type) {
    case ncclUint8: body(std::uint8_t{}); return true;
    case ncclInt32: body(std::int32_t{}); return true;
    case ncclInt64: body(std::int64_t{}); return true;
    case ncclFloat16: body(Half{}); return true;
    case ncclFloat32: body(float{}); return true;
    case ncclFloat64: body(double{}); return true;
    case ncclBfloat16: body(Brain{}); return true;
    default: return false;
  }
}

// Bytes of one element; 0 for a type that is not supported here.
inline std::size_t width(ncclDataType_t type) {
  std::size_t bytes = 0;
  with_type(type, [&](auto one) { bytes = sizeof one; });
  return bytes;
}

inline bool is_float(ncclDataType_t type) {
  return type == ncclFloat16 || type == ncclFloat32 || type == ncclFloat64 || type == ncclBfloat16;
}

// into = into + from, or the larger.
inline void combine(ncclDataType_t type, bool larger, void* into, const void* from, std::size_t count) {
  with_type(type, [&](auto one) {
    using T = decltype(one);
    auto* to = static_cast<T*>(into);
    const auto* more = static_cast<const T*>(from);
    for (std::size_t i = 0; i < count; ++i) {
      const auto a = widened(to[i]), b = widened(more[i]);
      to[i] = narrowed<T>(larger ? (a < b ? b : a) : a + b);
    }
  });
}

}  // namespace stand_in
