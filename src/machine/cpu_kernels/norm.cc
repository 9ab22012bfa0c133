// Batch normalisation with a clip behind it, which is ReLU, ReLU6 or nothing, and its gradients. Frozen norms likewise.
#include "common.h"

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
// and highest output) -> y, mean and 1 / deviation of the batch [C]. The moving statistics change in place.
extern "C" int norm(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  const float *x = (float*)data[0], *gamma = (float*)data[1], *beta = (float*)data[2], *numbers = (float*)data[5];
  float *moving_mean = (float*)data[3], *moving_variance = (float*)data[4];
  float *y = (float*)data[6], *means = (float*)data[7], *inverses = (float*)data[8];
  Int batch = shapes[0][0], channels = shapes[0][1], size = shapes[0][2] * shapes[0][3];
  share(channels, 8 * batch * channels * size, [&](Int c, std::vector<float>&) {
    Moments all;
    for (Int b = 0; b < batch; b++)
      for (Int i = 0; i < size; i += BLOCK) all.add(x + (b * channels + c) * size + i, std::min(BLOCK, size - i));
    moving_mean[c] += numbers[1] * (all.mean - moving_mean[c]);
    moving_variance[c] += numbers[1] * (all.squares / (all.count - 1) - moving_variance[c]);
    means[c] = all.mean;
    inverses[c] = 1 / std::sqrt(all.squares / all.count + numbers[0]);
    float scale = gamma[c] * inverses[c];
    Line line = {scale, beta[c] - means[c] * scale, numbers[2], numbers[3]};
    for (Int i = c; i < batch * channels; i += channels) line(y + i * size, x + i * size, size);
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

// x, gamma, beta, moving_mean, moving_variance, numbers -> y, of the moving statistics
extern "C" int frozen_norm(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  Int channels = shapes[0][1], planes = shapes[0][0] * channels, size = shapes[0][2] * shapes[0][3];
  Lines lines(data + 1, channels);
  share(planes, 8 * planes * size, [&](Int i, std::vector<float>&) {
    lines[i % channels]((float*)data[6] + i * size, (float*)data[0] + i * size, size);
  });
  return 0;
}

// dy, y, gamma, beta, moving_mean, moving_variance, numbers -> dx
extern "C" int frozen_norm_grad(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  Int channels = shapes[0][1], planes = shapes[0][0] * channels, size = shapes[0][2] * shapes[0][3];
  Lines lines(data + 2, channels);
  Masked masked = lines.mask((float*)data[0], (float*)data[1]);
  share(planes, 12 * planes * size, [&](Int i, std::vector<float>&) {
    float *dx = (float*)data[7] + i * size, scale = lines.scale[i % channels];
    copy(dx, masked + i * size, size);
#pragma omp simd
    for (Int k = 0; k < size; k++) dx[k] *= scale;
  });
  return 0;
}

// images [B, H, W, 3] uint8, mean, scale [3] -> [B, 3, H, W], (images - mean) * scale
extern "C" int normalize(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  const float *mean = (float*)data[1], *scale = (float*)data[2];
  Int batch = shapes[0][0], high = shapes[0][1], size = high * shapes[0][2], width = shapes[0][2];
  share(batch * high, 15 * batch * size, [&](Int row, std::vector<float>&) {
    const uint8_t* from = (uint8_t*)data[0] + row * width * 3;
    float* to = (float*)data[3] + row / high * 3 * size + row % high * width;
    for (Int c = 0; c < 3; c++) {
      float middle = mean[c], factor = scale[c];
#pragma omp simd
      for (Int i = 0; i < width; i++) to[c * size + i] = (from[3 * i + c] - middle) * factor;
    }
  });
  return 0;
}

// How many threads a kernel may take.
extern "C" void set_threads(int count) { thread_count = count; }
