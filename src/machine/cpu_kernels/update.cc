// What follows the backward pass: the norm of all gradients, and the update of all parameters, by one call each where
// MindSpore has some ten operators for each parameter.
#include <cmath>
#include <functional>
#include <numeric>

#include "common.h"

static Int size_of(int dimensions, const int64_t* shape) {
  return std::accumulate(shape, shape + dimensions, Int(1), std::multiplies<Int>());
}

// Calls work(tensor, its first number, how many) for blocks that cover the first `count` tensors. bytes: that are read
// and written for each number.
template <class Work>
static void by_blocks(Int count, const int* dimensions, int64_t** shapes, Int bytes, Work work) {
  struct Block {
    Int tensor, first, count;
  };
  std::vector<Block> blocks;
  Int all = 0;
  for (Int t = 0; t < count; t++) {
    Int size = size_of(dimensions[t], shapes[t]);
    for (Int first = 0; first < size; first += BLOCK) blocks.push_back({t, first, std::min(BLOCK, size - first)});
    all += size;
  }
  share(blocks.size(), bytes * all, [&](Int i, std::vector<float>&) {
    work(blocks[i].tensor, blocks[i].first, blocks[i].count);
  });
}

// Tensors -> [1], the sum of the squares of all their numbers
extern "C" int squared_sum(int count, void** data, int* dimensions, int64_t** shapes, const char**, void*, void*) {
  std::vector<double> sums(count - 1);
  std::vector<Int> sizes(count - 1);
  for (int t = 0; t < count - 1; t++) sizes[t] = size_of(dimensions[t], shapes[t]);
  share(count - 1, 4 * std::accumulate(sizes.begin(), sizes.end(), Int(0)), [&](Int t, std::vector<float>&) {
    for (Int first = 0; first < sizes[t]; first += BLOCK) {
      const float* x = (float*)data[t] + first;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (Int i = 0; i < std::min(BLOCK, sizes[t] - first); i++) sum += x[i] * x[i];
      sums[t] += sum;
    }
  });
  *(float*)data[count - 1] = std::accumulate(sums.begin(), sums.end(), 0.0);
  return 0;
}

// now [4] (learning rate, factor of the gradients, 1 to update and 0 to leave all as it is, momentum), rule (largest
// number of a gradient, what the formula takes), table [2, N] (factor of the learning rate, weight decay), and N each of
// gradients, parameters, moments and what else the formula changes in place -> [1], whether it did
template <class Formula>
static int update(int count, void** data, int* dimensions, int64_t** shapes, Formula formula) {
  const float *now = (float*)data[0], *rule = (float*)data[1], *table = (float*)data[2];
  *(float*)data[count - 1] = now[2];
  if (now[2] == 0) return 0;
  Int n = shapes[2][1];
  by_blocks(n, dimensions + 3, shapes + 3, 4 * (count - 4) / n, [&](Int t, Int first, Int size) {
    auto part = [&](Int kind) { return (float*)data[3 + kind * n + t] + first; };
    const float* gradient = part(0);
    float *parameter = part(1), decayed[BLOCK], limit = rule[0], decay = table[n + t];
    for (Int i = 0; i < size; i++) {
      float scaled = gradient[i] * now[1];
      scaled = scaled > limit ? limit : scaled;
      decayed[i] = (scaled < -limit ? -limit : scaled) + decay * parameter[i];
    }
    formula(decayed, parameter, part, now[0] * table[t], now[3], size);
  });
  return 0;
}

// rule: limit, 1 for Nesterov's momentum
extern "C" int sgd(int count, void** data, int* dimensions, int64_t** shapes, const char**, void*, void*) {
  bool nesterov = ((float*)data[1])[1];
  return update(count, data, dimensions, shapes, [=](float* g, float* p, auto part, float rate, float momentum, Int n) {
    float* m = part(2);
#pragma omp simd
    for (Int i = 0; i < n; i++) {
      m[i] = momentum * m[i] + g[i];
      p[i] -= rate * (nesterov ? g[i] + momentum * m[i] : m[i]);
    }
  });
}

// rule: limit, decay of the mean of the squares, 1 - decay, epsilon. The means stand behind the moments.
extern "C" int rmsprop(int count, void** data, int* dimensions, int64_t** shapes, const char**, void*, void*) {
  const float* rule = (float*)data[1];
  float kept = rule[1], rest = rule[2], epsilon = rule[3];
  return update(count, data, dimensions, shapes, [=](float* g, float* p, auto part, float rate, float momentum, Int n) {
    float *m = part(2), *square = part(3);
#pragma omp simd
    for (Int i = 0; i < n; i++) {
      square[i] = kept * square[i] + rest * (g[i] * g[i]);
      m[i] = momentum * m[i] + rate * g[i] / std::sqrt(square[i] + epsilon);
      p[i] -= m[i];
    }
  });
}

// rest [1], N weights and N averages -> [1], which says nothing: average += rest * (weight - average) in place
extern "C" int follow(int count, void** data, int* dimensions, int64_t** shapes, const char**, void*, void*) {
  float rest = *(float*)data[0];
  *(float*)data[count - 1] = rest;
  if (rest == 0) return 0;  // a weight may not be finite then
  Int n = (count - 2) / 2;
  by_blocks(n, dimensions + 1, shapes + 1, 12, [&](Int t, Int first, Int size) {
    const float* weight = (float*)data[1 + t] + first;
    float* average = (float*)data[1 + n + t] + first;
#pragma omp simd
    for (Int i = 0; i < size; i++) average[i] += rest * (weight[i] - average[i]);
  });
  return 0;
}
