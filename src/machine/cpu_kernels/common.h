// What the kernels of a training step on CPU share. They compute in float32 on maps [B, C, H, W], and read and write
// each map as few times as they can: memory is slower than they are.
//
// One thread sums a channel, in a fixed order: results do not depend on the number of threads. MindSpore's ops.Custom
// with func_type="aot" calls the functions that are `extern "C"` with the number of inputs and outputs, their
// addresses, numbers of dimensions, shapes and types, and expects 0.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Places __attribute__((vector_size(4 * LANES)));
typedef int64_t Int;

constexpr Int BLOCK = 4096;  // numbers that stay in the first cache, and whose sums float32 holds well

inline int thread_count = 1;  // see set_threads()

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Vec fill(float x) { return Vec{} + x; }

// Every other number of two vectors in a row.
inline Vec pick(Vec a, Vec b, int first) {
  Places places;
  for (int k = 0; k < LANES; k++) places[k] = first + 2 * k;
  return __builtin_shuffle(a, b, places);
}

// The numbers of two vectors in turn, beginning with number `first`.
inline Vec mix(Vec a, Vec b, int first) {
  Places places;
  for (int k = 0; k < LANES; k++) places[k] = first + k / 2 + k % 2 * LANES;
  return __builtin_shuffle(a, b, places);
}

inline float total(Vec v) {
  float sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
}

// Rows are short: a call of memcpy() for each would take longer than the copy.
inline void copy(float* to, const float* from, Int count) {
  Int i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, load(from + i));
  if (count >= LANES) return store(to + count - LANES, load(from + count - LANES));
  if (count & 8) std::memcpy(to + i, from + i, 32), i += 8;
  if (count & 4) std::memcpy(to + i, from + i, 16), i += 4;
  if (count & 2) std::memcpy(to + i, from + i, 8), i += 2;
  if (count & 1) to[i] = from[i];
}

// A gradient behind a clip, on its way to what stands in front of it: `values` where the output y lies between the
// limits, else 0. y: nullptr where nothing is clipped.
struct Masked {
  const float *values, *y;
  float low, high;

  Masked operator+(Int places) const { return {values + places, y ? y + places : y, low, high}; }
};

inline void copy(float* to, const Masked& from, Int count) {
  if (!from.y) return copy(to, from.values, count);
  Vec low = fill(from.low), high = fill(from.high), none = {};
  auto kept = [&](Int i) {
    Vec y = load(from.y + i), value = load(from.values + i);
    value = y > low ? value : none;
    return y < high ? value : none;
  };
  Int i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, kept(i));
  if (count >= LANES) return store(to + count - LANES, kept(count - LANES));
  for (; i < count; i++) to[i] = from.y[i] > from.low && from.y[i] < from.high ? from.values[i] : 0;
}

// y = clip(x * scale + shift) of one channel.
struct Line {
  float scale, shift, low, high;

  Vec operator()(Vec x) const {
    Vec y = x * fill(scale) + fill(shift), bottom = fill(low), top = fill(high);
    y = y < bottom ? bottom : y;
    return y > top ? top : y;
  }

  void operator()(float* to, const float* from, Int count) const {
    float factor = scale, added = shift, bottom = low, top = high;
#pragma omp simd
    for (Int i = 0; i < count; i++) {
      float y = from[i] * factor + added;
      y = y < bottom ? bottom : y;
      to[i] = y > top ? top : y;
    }
  }
};

// A frozen norm with a clip behind it: a Line for each channel. Without a norm they change nothing.
struct Lines {
  std::vector<float> scale, shift;
  float low = -std::numeric_limits<float>::infinity(), high = -low;

  // norm: gamma, beta, moving_mean, moving_variance [C], numbers [4] as of norm(); nullptr for none
  Lines(void** norm, Int channels) : scale(channels, 1.f), shift(channels, 0.f) {
    if (!norm) return;
    const float *gamma = (float*)norm[0], *beta = (float*)norm[1], *mean = (float*)norm[2], *variance = (float*)norm[3];
    const float* numbers = (float*)norm[4];
    for (Int c = 0; c < channels; c++) {
      scale[c] = gamma[c] / std::sqrt(variance[c] + numbers[0]);
      shift[c] = beta[c] - mean[c] * scale[c];
    }
    low = numbers[2], high = numbers[3];
  }

  Line operator[](Int channel) const { return {scale[channel], shift[channel], low, high}; }

  Masked mask(const float* gradient, const float* y) const {
    return {gradient, std::isinf(low) && std::isinf(high) ? nullptr : y, low, high};
  }
};

// Calls work(i, scratch) for each i below count. Threads live for one call: none is there to spin or to be forked.
// bytes: that are read and written in all.
template <class Work>
inline void share(Int count, Int bytes, Work work) {
  std::atomic<Int> next{0};
  auto loop = [&] {
    std::vector<float> scratch;
    for (Int i; (i = next++) < count;) work(i, scratch);
  };
  std::vector<std::thread> others;
  Int wanted = std::min<Int>({thread_count, count, bytes >> 17});  // to start one takes as long as some 100 kB
  try {
    for (Int i = 1; i < wanted; i++) others.emplace_back(loop);
  } catch (const std::system_error&) {  // the system has no more threads for this user: fewer do the work
  }
  loop();
  for (auto& thread : others) thread.join();
}
