// 1x1 convolution and its gradients as matrix products of small tiles, which stay in registers while they are summed.
// oneDNN does the same, but not with AVX-512 as MindSpore calls it. Where it is not there, there are no such kernels.
//
// The places of all maps of a batch are counted in one row, of which a tile takes COLUMNS, so that small maps fill it.
#include "common.h"

#ifdef __AVX512F__
constexpr int ROWS = 8, VECTORS = 3, COLUMNS = VECTORS * LANES;  // 24 sums, 3 vectors and a factor in 32 registers

static Int rounded(Int number, Int unit) { return (number + unit - 1) / unit * unit; }

// out [ROWS, COLUMNS] = the sum over k < depth of rows [depth, ROWS] times columns [depth, COLUMNS]
static void multiply(float* out, const float* rows, const float* columns, Int depth) {
  Vec sums[ROWS][VECTORS] = {};
  for (Int k = 0; k < depth; k++, rows += ROWS, columns += COLUMNS) {
    Vec v[VECTORS];
#pragma GCC unroll 3
    for (int j = 0; j < VECTORS; j++) v[j] = load(columns + j * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
      for (int j = 0; j < VECTORS; j++) sums[r][j] += rows[r] * v[j];
  }
  for (int r = 0; r < ROWS; r++)
    for (int j = 0; j < VECTORS; j++) store(out + r * COLUMNS + j * LANES, sums[r][j]);
}

// Calls piece(map of the batch, place in it, place behind `first`, count) for places first .. last - 1 of all maps.
template <class Piece>
static void walk(Int first, Int last, Int map, Piece piece) {
  for (Int at = first, count; at < last; at += count) {
    count = std::min(last - at, map - at % map);
    piece(at / map, at % map, at - first, count);
  }
}

// x [B, in, map], weight of output r and input k at r * row_step + k * depth_step -> y [B, out, map]
static void convolve(float* y, const float* x, const float* weight, Int batch, Int in, Int out, Int map, Int row_step,
                     Int depth_step) {
  Int all = batch * map;
  std::vector<float> rows(rounded(out, ROWS) * in);  // [out / ROWS, in, ROWS]
  for (Int r = 0; r < out; r++)
    for (Int k = 0; k < in; k++) rows[(r / ROWS * in + k) * ROWS + r % ROWS] = weight[r * row_step + k * depth_step];
  share(rounded(all, COLUMNS) / COLUMNS, 4 * all * (in + out), [&](Int tile, std::vector<float>& scratch) {
    scratch.resize(COLUMNS * (in + ROWS));
    float *columns = scratch.data(), *product = columns + COLUMNS * in;
    Int first = tile * COLUMNS, last = std::min(all, first + COLUMNS);
    walk(first, last, map, [&](Int b, Int place, Int behind, Int count) {
      for (Int k = 0; k < in; k++) copy(columns + k * COLUMNS + behind, x + (b * in + k) * map + place, count);
    });
    for (Int r = 0; r < out; r += ROWS) {
      multiply(product, rows.data() + r * in, columns, in);
      walk(first, last, map, [&](Int b, Int place, Int behind, Int count) {
        for (Int k = r; k < std::min(out, r + ROWS); k++)
          copy(y + (b * out + k) * map + place, product + (k - r) * COLUMNS + behind, count);
      });
    }
  });
}

// One step of transposing a square of LANES vectors: exchanges its blocks of STEP that do not lie on the diagonal.
template <int STEP>
static void exchange(Vec* v) {
  Places low, high;
  for (int k = 0; k < LANES; k++) low[k] = k & STEP ? LANES + k - STEP : k, high[k] = k & STEP ? LANES + k : k + STEP;
#pragma GCC unroll 16
  for (int i = 0; i + STEP < LANES; i++)
    if (!(i & STEP)) {
      Vec a = v[i], b = v[i + STEP];
      v[i] = __builtin_shuffle(a, b, low);
      v[i + STEP] = __builtin_shuffle(a, b, high);
    }
}

// Places first .. first + length - 1 of x [B, channels, map] -> [channels / WIDTH, length, WIDTH], filled with zeros.
template <int WIDTH>
static void transpose(float* to, const float* x, Int batch, Int channels, Int map, Int first, Int length,
                      float* lines) {
  constexpr int TAKEN = WIDTH < LANES ? WIDTH : LANES;  // numbers of a vector that stay side by side
  for (Int block = 0; block < channels; block += LANES) {
    std::fill(lines, lines + LANES * length, 0.f);
    walk(first, std::min(batch * map, first + length), map, [&](Int b, Int place, Int behind, Int count) {
      for (Int c = block; c < std::min(channels, block + LANES); c++)
        copy(lines + (c - block) * length + behind, x + (b * channels + c) * map + place, count);
    });
    for (Int at = 0; at < length; at += LANES) {
      Vec v[LANES];
#pragma GCC unroll 16
      for (int i = 0; i < LANES; i++) v[i] = load(lines + i * length + at);
      exchange<8>(v), exchange<4>(v), exchange<2>(v), exchange<1>(v);
      for (Int i = 0; i < LANES; i++)
        for (Int part = 0; part < LANES; part += TAKEN) {
          Int c = block + part;
          std::memcpy(to + (c / WIDTH * length + at + i) * WIDTH + c % WIDTH, (const float*)&v[i] + part, 4 * TAKEN);
        }
    }
  }
}

// x [B, in, map], dy [B, out, map] -> dweight [out, in]. The batch is cut into parts by its size alone, which are added
// in their order.
static void correlate(float* dweight, const float* x, const float* dy, Int batch, Int in, Int out, Int map) {
  Int all = batch * map, length = std::min<Int>(256, rounded(all, LANES)), chunks = rounded(all, length) / length;
  Int parts = std::min<Int>(chunks, 8), wide = rounded(in, COLUMNS), high = rounded(out, LANES);
  std::vector<float> sums(parts * high * wide);
  share(parts, 4 * all * (in + out), [&](Int part, std::vector<float>& scratch) {
    scratch.resize(length * (wide + high + LANES) + ROWS * COLUMNS);
    float *columns = scratch.data(), *rows = columns + length * wide, *lines = rows + length * high;
    float* product = lines + LANES * length;
    for (Int chunk = part * chunks / parts; chunk < (part + 1) * chunks / parts; chunk++) {
      transpose<COLUMNS>(columns, x, batch, in, map, chunk * length, length, lines);
      transpose<ROWS>(rows, dy, batch, out, map, chunk * length, length, lines);
      for (Int c = 0; c < wide; c += COLUMNS)
        for (Int r = 0; r < high; r += ROWS) {
          multiply(product, rows + r * length, columns + c * length, length);
          for (Int k = 0; k < ROWS; k++)
            for (Int j = 0; j < COLUMNS; j += LANES) {
              float* sum = sums.data() + (part * high + r + k) * wide + c + j;
              store(sum, load(sum) + load(product + k * COLUMNS + j));
            }
        }
    }
  });
  for (Int r = 0; r < out; r++) {
    std::copy(&sums[r * wide], &sums[r * wide] + in, dweight + r * in);
    for (Int part = 1; part < parts; part++)
      for (Int c = 0; c < in; c++) dweight[r * in + c] += sums[(part * high + r) * wide + c];
  }
}

// x [B, in, H, W], weight [out, in, 1, 1], geometry (not read: as of depthwise) -> y [B, out, H, W]
extern "C" int pointwise(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  Int batch = shapes[0][0], in = shapes[0][1], map = shapes[0][2] * shapes[0][3], out = shapes[1][0];
  convolve((float*)data[3], (float*)data[0], (float*)data[1], batch, in, out, map, in, 1);
  return 0;
}

// x, weight, geometry, dy -> dx, dweight
extern "C" int pointwise_grad(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  Int batch = shapes[0][0], in = shapes[0][1], map = shapes[0][2] * shapes[0][3], out = shapes[1][0];
  convolve((float*)data[4], (float*)data[3], (float*)data[1], batch, out, in, map, 1, in);
  correlate((float*)data[5], (float*)data[0], (float*)data[3], batch, in, out, map);
  return 0;
}
#endif
