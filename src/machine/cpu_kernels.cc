// Kernels of a training step on CPU: 3x3 depthwise convolution and batch normalisation, float32, NCHW.
//
// oneDNN as MindSpore uses it takes a general matrix product for depthwise convolutions, with nine columns a matrix.
// These kernels read and write each map once. Each channel is summed by one thread in a fixed order, so results do not
// depend on the number of threads. All functions have the signature of MindSpore's ops.Custom with func_type="aot".
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int64_t Int;

static int thread_count = 1;

static Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
static void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
static Vec fill(float x) { return Vec{} + x; }

static float total(Vec v) {
  float sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
}

// work(i, scratch) for each i below count. Threads are started for the call and sleep never: none outlives it.
template <class Work>
static void share(Int count, Int bytes, Work work) {
  std::atomic<Int> next{0};
  auto loop = [&] {
    std::vector<float> scratch;
    for (Int i; (i = next++) < count;) work(i, scratch);
  };
  std::vector<std::thread> others;
  Int wanted = std::min<Int>({thread_count, count, bytes >> 17});  // a start costs as much as some 100 kB
  try {
    for (Int i = 1; i < wanted; i++) others.emplace_back(loop);
  } catch (const std::system_error&) {  // the system has no more threads for this user: fewer do the work
  }
  loop();
  for (auto& thread : others) thread.join();
}

// ---- depthwise convolution
//
// A strip of a padded map lies in memory as rows of `pitch` = output width + 1 numbers. One column of zeros is enough:
// the right end of a row is the left end of the next. A convolution is then a sum of nine shifted copies of one long
// vector, whatever the width. With stride 2 there are four such strips, of even and odd rows and columns.
struct Shape {
  Int height, width, out_height, out_width, stride, top, left, pitch, rows, size;
  Int offset[9];

  Shape(const Int* in, const Int* out, const int32_t* geometry)
      : height(in[2]), width(in[3]), out_height(out[2]), out_width(out[3]), stride(geometry[0]),
        top(height % 2 ? 1 : geometry[1]), left(width % 2 ? 1 : geometry[1]), pitch(out_width + 1) {
    rows = std::clamp<Int>(4096 / pitch, 1, out_height + 1);  // of a strip, which fits into the first cache
    size = (rows + 2) * pitch + 2 * LANES;
    for (Int t = 0; t < 9; t++) {
      Int y = t / 3, x = t % 3;
      offset[t] = stride == 1 ? y * pitch + x : ((y & 1) * 2 + (x & 1)) * size + (y >> 1) * pitch + (x >> 1);
    }
  }

  // Rows first .. first + count - 1 of a map, with a column of zeros in front of each.
  void plain(float* to, const float* map, Int map_height, Int map_width, Int first, Int count) const {
    for (Int row = first; row < first + count; row++, to += pitch) {
      to[0] = 0;
      if (row < 0 || row >= map_height) std::fill(to + 1, to + pitch, 0.f);
      else std::memcpy(to + 1, map + row * map_width, 4 * map_width);
    }
    std::fill(to, to + 2 * LANES, 0.f);
  }

  // What the output rows first .. first + count - 1 see of the input.
  void input(float* to, const float* map, Int first, Int count, float* line) const {
    if (stride == 1) return plain(to, map, height, width, first - 1, count + 2);
    std::fill(line, line + 2 * pitch, 0.f);
    for (Int row = 0; row < 2 * count + 2; row++) {
      Int y = 2 * first + row - top;
      float *even = to + (row & 1) * 2 * size + (row >> 1) * pitch, *odd = even + size;
      if (y < 0 || y >= height) {
        std::fill(even, even + pitch, 0.f);
        std::fill(odd, odd + pitch, 0.f);
        continue;
      }
      std::memcpy(line + left, map + y * width, 4 * std::min(width, 2 * pitch - left));
      for (Int x = 0; x < pitch; x++) even[x] = line[2 * x], odd[x] = line[2 * x + 1];
    }
    for (Int part = 0; part < 4; part++) {
      float* end = to + part * size + (count + 1) * pitch;
      std::fill(end, end + 2 * LANES, 0.f);
    }
  }
};

template <int TAPS>
static void stencil(float* out, const float* in, const Int* offset, const float* weight, Int count) {
  Vec w[TAPS];
  for (int t = 0; t < TAPS; t++) w[t] = fill(weight[t]);
  for (Int i = 0; i < count; i += LANES) {
    Vec sum = w[0] * load(in + offset[0] + i);
    for (int t = 1; t < TAPS; t++) sum += w[t] * load(in + offset[t] + i);
    store(out + i, sum);
  }
}

static void correlate(Vec* sums, const float* in, const Int* offset, const float* grad, Int count) {
  Vec s[9];
  for (int t = 0; t < 9; t++) s[t] = sums[t];
  for (Int i = 0; i < count; i += LANES) {
    Vec g = load(grad + i);
    for (Int k = count - i; k < LANES; k++) g[k] = 0;  // behind the strip, which the next one counts
    for (int t = 0; t < 9; t++) s[t] += g * load(in + offset[t] + i);
  }
  for (int t = 0; t < 9; t++) sums[t] = s[t];
}

// The input's gradient at stride 2, strip by strip of even and odd rows and columns: each has its own taps.
static void spread(const Shape& s, float* dx, const float* grad, const float* w, Int first, Int count, float* line,
                   float* strip) {
  Int p = s.pitch, zero = p + 1, offset[4] = {zero, zero - 1, zero - p, zero - p - 1};
  float even_even[4] = {w[0], w[2], w[6], w[8]}, odd[2];
  stencil<4>(strip, grad, offset, even_even, count * p);
  odd[0] = w[1], odd[1] = w[7];
  Int below[2] = {zero, zero - p};
  stencil<2>(strip + s.size, grad, below, odd, count * p);
  odd[0] = w[3], odd[1] = w[5];
  stencil<2>(strip + 2 * s.size, grad, offset, odd, count * p);
  stencil<1>(strip + 3 * s.size, grad, offset, w + 4, count * p);
  for (Int row = 0; row < 2 * count; row++) {
    Int y = 2 * first + row - s.top;
    if (y < 0 || y >= s.height) continue;
    const float *even = strip + (row & 1) * 2 * s.size + (row >> 1) * p, *next = even + s.size;
    for (Int x = 0; x < p; x++) line[2 * x] = even[x], line[2 * x + 1] = next[x];
    std::memcpy(dx + y * s.width, line + s.left, 4 * s.width);
  }
}

// x [B, C, H, W], weight [C, 1, 3, 3], geometry [2] int32 (stride, padding in front of an even side; it is 1 for an odd one) -> y
extern "C" int depthwise(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  const float *x = (float*)data[0], *weight = (float*)data[1];
  float* y = (float*)data[3];
  Shape s(shapes[0], shapes[3], (int32_t*)data[2]);
  Int channels = shapes[0][1], planes = shapes[0][0] * channels;
  Int in_size = s.height * s.width, out_size = s.out_height * s.out_width;
  share(planes, 4 * planes * (in_size + out_size), [&](Int i, std::vector<float>& scratch) {
    scratch.resize(5 * s.size + 2 * s.pitch + s.width + 2);
    float *strip = scratch.data(), *out = strip + 4 * s.size, *line = out + s.size;
    for (Int row = 0; row < s.out_height; row += s.rows) {
      Int count = std::min(s.rows, s.out_height - row);
      s.input(strip, x + i * in_size, row, count, line);
      stencil<9>(out, strip, s.offset, weight + i % channels * 9, count * s.pitch);
      for (Int r = 0; r < count; r++)
        std::memcpy(y + i * out_size + (row + r) * s.out_width, out + r * s.pitch, 4 * s.out_width);
    }
  });
  return 0;
}

// x, weight, geometry, dy -> dx, dweight
extern "C" int depthwise_grad(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  const float *x = (float*)data[0], *weight = (float*)data[1], *dy = (float*)data[3];
  float *dx = (float*)data[4], *dweight = (float*)data[5];
  Shape s(shapes[0], shapes[3], (int32_t*)data[2]);
  Int batch = shapes[0][0], channels = shapes[0][1];
  Int in_size = s.height * s.width, out_size = s.out_height * s.out_width;
  Int last = s.out_height + (s.stride == 2);  // at stride 2 an even row of the input may lie behind the last window
  share(channels, 8 * batch * channels * (in_size + out_size), [&](Int c, std::vector<float>& scratch) {
    scratch.resize(9 * s.size + 2 * s.pitch + s.width + 2);
    float *strip = scratch.data(), *grad = strip + 4 * s.size, *out = grad + s.size, *line = out + 4 * s.size;
    float turned[9];
    std::reverse_copy(weight + c * 9, weight + c * 9 + 9, turned);
    Vec sums[9] = {};
    for (Int i = c; i < batch * channels; i += channels)
      for (Int row = 0; row < last; row += s.rows) {
        Int count = std::min(s.rows, last - row);
        s.input(strip, x + i * in_size, row, count, line);
        s.plain(grad, dy + i * out_size, s.out_height, s.out_width, row - 1, count + 2 - (s.stride == 2));
        correlate(sums, strip, s.offset, grad + s.pitch + 1, count * s.pitch);
        if (s.stride == 2) {
          spread(s, dx + i * in_size, grad, weight + c * 9, row, count, line, out);
          continue;
        }
        stencil<9>(out, grad, s.offset, turned, count * s.pitch);
        for (Int r = 0; r < count; r++)
          std::memcpy(dx + i * in_size + (row + r) * s.width, out + r * s.pitch, 4 * s.width);
      }
    for (int t = 0; t < 9; t++) dweight[c * 9 + t] = total(sums[t]);
  });
  return 0;
}

// ---- batch normalisation with a clip behind it

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

extern "C" void set_threads(int count) { thread_count = count; }
