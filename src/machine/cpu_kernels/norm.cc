// Batch normalisation with a clip behind it, which is ReLU, ReLU6 or nothing, and its gradients. The sum of squares.
#include <cmath>
#include <functional>
#include <numeric>

#include "common.h"

constexpr Int BLOCK = 4096;  // numbers that stay in the first cache, and whose sums float32 holds well

// Mean and sum of squares around it of what was added so far: the pairwise formula of Chan, Golub and LeVeque (1979).
struct Moments {
  double count = 0, mean = 0, squares = 0;

  void add(const float* x, Int added) {
    float sum = 0, around = 0;
#pragma omp simd reduction(+ : sum)
    for (Int i = 0; i < added; i++) sum += x[i];
    float own = sum / added;
#pragma omp simd reduction(+ : around)
    for (Int i = 0; i < added; i++) around += (x[i] - own) * (x[i] - own);
    double delta = own - mean, all = count + added;
    squares += around + delta * delta * count * added / all;
    mean += delta * added / all;
    count = all;
  }
};

// x [B, C, H, W], gamma, beta, moving_mean, moving_variance [C], numbers [4] (eps, weight of the new statistics, lowest
// and highest output) -> y, the new moving_mean and moving_variance, mean and 1 / deviation of the batch [C]
extern "C" int norm(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  const float *x = (float*)data[0], *gamma = (float*)data[1], *beta = (float*)data[2], *numbers = (float*)data[5];
  const float *old_mean = (float*)data[3], *old_variance = (float*)data[4];
  float *y = (float*)data[6], *new_mean = (float*)data[7], *new_variance = (float*)data[8];
  float *means = (float*)data[9], *inverses = (float*)data[10];
  Int batch = shapes[0][0], channels = shapes[0][1], size = shapes[0][2] * shapes[0][3];
  share(channels, 8 * batch * channels * size, [&](Int c, std::vector<float>&) {
    Moments all;
    for (Int b = 0; b < batch; b++)
      for (Int i = 0; i < size; i += BLOCK) all.add(x + (b * channels + c) * size + i, std::min(BLOCK, size - i));
    new_mean[c] = old_mean[c] + numbers[1] * (all.mean - old_mean[c]);
    new_variance[c] = old_variance[c] + numbers[1] * (all.squares / (all.count - 1) - old_variance[c]);
    means[c] = all.mean;
    inverses[c] = 1 / std::sqrt(all.squares / all.count + numbers[0]);
    float scale = gamma[c] * inverses[c], shift = beta[c] - means[c] * scale, low = numbers[2], high = numbers[3];
    for (Int b = 0; b < batch; b++) {
      const float* from = x + (b * channels + c) * size;
      float* to = y + (b * channels + c) * size;
#pragma omp simd
      for (Int i = 0; i < size; i++) {
        float z = from[i] * scale + shift;
        z = z < low ? low : z;
        to[i] = z > high ? high : z;
      }
    }
  });
  return 0;
}

// x, gamma, beta, numbers, mean, 1 / deviation, dy -> dx, dgamma, dbeta
extern "C" int norm_grad(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  const float *x = (float*)data[0], *gamma = (float*)data[1], *beta = (float*)data[2], *numbers = (float*)data[3];
  const float *means = (float*)data[4], *inverses = (float*)data[5], *dy = (float*)data[6];
  float *dx = (float*)data[7], *dgamma = (float*)data[8], *dbeta = (float*)data[9];
  Int batch = shapes[0][0], channels = shapes[0][1], size = shapes[0][2] * shapes[0][3];
  float low = numbers[2], high = numbers[3];
  share(channels, 12 * batch * channels * size, [&](Int c, std::vector<float>&) {
    float mean = means[c], scale = gamma[c] * inverses[c], shift = beta[c] - mean * scale;
    auto unclipped = [=](float value, float gradient) {
      float z = value * scale + shift;
      gradient = z > low ? gradient : 0;
      return z < high ? gradient : 0;
    };
    double sum = 0, product = 0;
    for (Int b = 0; b < batch; b++)
      for (Int first = 0; first < size; first += BLOCK) {
        const float *from = x + (b * channels + c) * size + first, *grad = dy + (b * channels + c) * size + first;
        Int count = std::min(BLOCK, size - first);
        float own_sum = 0, own_product = 0;
#pragma omp simd reduction(+ : own_sum, own_product)
        for (Int i = 0; i < count; i++) {
          float g = unclipped(from[i], grad[i]);
          own_sum += g;
          own_product += g * (from[i] - mean);
        }
        sum += own_sum;
        product += own_product;
      }
    dbeta[c] = sum;
    dgamma[c] = product * inverses[c];
    double count = double(batch) * size;
    float offset = sum / count, slope = product / count * inverses[c] * inverses[c];
    for (Int b = 0; b < batch; b++) {
      const float *from = x + (b * channels + c) * size, *grad = dy + (b * channels + c) * size;
      float* to = dx + (b * channels + c) * size;
#pragma omp simd
      for (Int i = 0; i < size; i++)
        to[i] = scale * (unclipped(from[i], grad[i]) - offset - (from[i] - mean) * slope);
    }
  });
  return 0;
}

// Tensors -> [1], the sum of the squares of all their numbers
extern "C" int squared_sum(int count, void** data, int* ndims, int64_t** shapes, const char**, void*, void*) {
  std::vector<double> sums(count - 1);
  std::vector<Int> sizes(count - 1);
  for (int t = 0; t < count - 1; t++)
    sizes[t] = std::accumulate(shapes[t], shapes[t] + ndims[t], Int(1), std::multiplies<Int>());
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

// How many threads a kernel may take.
extern "C" void set_threads(int count) { thread_count = count; }
