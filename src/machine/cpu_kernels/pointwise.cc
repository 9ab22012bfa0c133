// 1x1 convolution and its gradients as matrix products of small tiles, which stay in registers while they are summed.
// oneDNN does the same, but not with AVX-512 as MindSpore calls it. Where it is not there, there are no such kernels.
//
// The places of all maps of a batch are counted in one row, of which a tile takes COLUMNS, so that small maps fill it.
#include <memory>

#include "common.h"

#ifdef __AVX512F__
constexpr int ROWS = 8, VECTORS = 3, COLUMNS = VECTORS * LANES;  // 24 sums, 3 vectors and a factor in 32 registers
constexpr Int PANELS = 4;  // of COLUMNS places that are copied together

typedef std::unique_ptr<float[]> Numbers;  // not set to zero: what is not computed is not used either

static Int rounded(Int number, Int unit) { return (number + unit - 1) / unit * unit; }

// out [ROWS, COLUMNS] = what `end` makes of a row of sums over k < depth of rows [depth, ROWS] times columns [depth,
// COLUMNS]
template <class End>
static void multiply(float* out, const float* rows, const float* columns, Int depth, End end) {
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
    for (int j = 0; j < VECTORS; j++) store(out + r * COLUMNS + j * LANES, end(r, sums[r][j]));
}

// Calls piece(map of the batch, place in it, place behind `first`, count) for places first .. last - 1 of all maps.
template <class Piece>
static void walk(Int first, Int last, Int map, Piece piece) {
  for (Int at = first, count; at < last; at += count) {
    count = std::min(last - at, map - at % map);
    piece(at / map, at % map, at - first, count);
  }
}

// x [B, in, map], weight [out, in], or [in, out] times scale [in] where that is given -> y [B, out, map], of which each
// channel goes through its line
template <class Map>
static void convolve(float* y, const Map& x, const float* weight, const float* scale, Int batch, Int in, Int out,
                     Int map, const Lines& lines) {
  struct Piece {
    Int map, place, panel, behind, count;  // so many places of a map, and where they stand in the panels
  };
  Int all = batch * map;
  Numbers rows(new float[rounded(out, ROWS) * in]);  // [out / ROWS, in, ROWS]
  for (Int r = 0; r < out; r++)
    for (Int k = 0; k < in; k++) {
      float factor = scale ? weight[k * out + r] * scale[k] : weight[r * in + k];
      rows[(r / ROWS * in + k) * ROWS + r % ROWS] = factor;
    }
  share(rounded(all, PANELS * COLUMNS) / (PANELS * COLUMNS), 4 * all * (in + out),
        [&](Int tile, std::vector<float>&) {
    std::vector<Piece> pieces;
    for (Int p = 0, first = tile * PANELS * COLUMNS; p < PANELS; p++, first += COLUMNS)
      walk(first, std::min(all, first + COLUMNS), map, [&](Int b, Int place, Int behind, Int count) {
        pieces.push_back({b, place, p, behind, count});
      });
    Numbers scratch(new float[COLUMNS * (PANELS * in + ROWS)]);
    float *columns = scratch.get(), *product = columns + PANELS * COLUMNS * in;
    for (Int k = 0; k < in; k++)
      for (const Piece& s : pieces)
        copy(columns + (s.panel * in + k) * COLUMNS + s.behind, x + (s.map * in + k) * map + s.place, s.count);
    for (Int r = 0; r < out; r += ROWS) {
      auto end = [&](Int k, Vec sum) { return lines[std::min(r + k, out - 1)](sum); };
      Int computed = -1;
      for (const Piece& s : pieces) {
        if (s.panel > computed) multiply(product, &rows[r * in], columns + s.panel * in * COLUMNS, in, end);
        computed = s.panel;
        for (Int k = r; k < std::min(out, r + ROWS); k++)
          copy(y + (s.map * out + k) * map + s.place, product + (k - r) * COLUMNS + s.behind, s.count);
      }
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
template <int WIDTH, class Map>
static void transpose(float* to, const Map& x, Int batch, Int channels, Int map, Int first, Int length,
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

// columns [B, n, map], rows [B, m, map]: calls put(r, sums over batch and map of row r times each column) for all r. The
// batch is cut into parts by its size alone, which are added in their order.
template <class Columns, class Rows, class Put>
static void correlate(const Columns& given_columns, const Rows& given_rows, Int batch, Int n, Int m, Int map, Put put) {
  Int all = batch * map, length = std::min<Int>(256, rounded(all, LANES)), chunks = rounded(all, length) / length;
  Int parts = std::min<Int>(chunks, 8), wide = rounded(n, COLUMNS), high = rounded(m, LANES);
  Numbers sums(new float[parts * high * wide]);
  share(parts, 4 * all * (n + m), [&](Int part, std::vector<float>&) {
    Numbers scratch(new float[length * (wide + high + LANES) + ROWS * COLUMNS]);
    float *columns = scratch.get(), *rows = columns + length * wide, *lines = rows + length * high;
    float* product = lines + LANES * length;
    for (Int chunk = part * chunks / parts, begin = chunk; chunk < (part + 1) * chunks / parts; chunk++) {
      transpose<COLUMNS>(columns, given_columns, batch, n, map, chunk * length, length, lines);
      transpose<ROWS>(rows, given_rows, batch, m, map, chunk * length, length, lines);
      for (Int c = 0; c < wide; c += COLUMNS)
        for (Int r = 0; r < m; r += ROWS) {
          multiply(product, rows + r * length, columns + c * length, length, [](Int, Vec sum) { return sum; });
          for (Int k = 0; k < ROWS; k++)
            for (Int j = 0; j < COLUMNS; j += LANES) {
              float* sum = &sums[(part * high + r + k) * wide + c + j];
              Vec added = load(product + k * COLUMNS + j);
              store(sum, chunk == begin ? added : load(sum) + added);
            }
        }
    }
  });
  for (Int r = 0; r < m; r++) {
    float* row = &sums[r * wide];
    for (Int part = 1; part < parts; part++) {
      const float* other = &sums[(part * high + r) * wide];
#pragma omp simd
      for (Int c = 0; c < n; c++) row[c] += other[c];
    }
    put(r, row);
  }
}

// x [B, in, H, W], weight [out, in, 1, 1], geometry (not read: as of depthwise), perhaps a norm as of Lines
// -> y [B, out, H, W]
extern "C" int pointwise(int count, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  Int batch = shapes[0][0], in = shapes[0][1], map = shapes[0][2] * shapes[0][3], out = shapes[1][0];
  Lines lines(count > 4 ? data + 3 : nullptr, out);
  convolve((float*)data[count - 1], (float*)data[0], (float*)data[1], nullptr, batch, in, out, map, lines);
  return 0;
}

// x, weight, geometry, dy, perhaps y and its norm -> dx, dweight
extern "C" int pointwise_grad(int count, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  Int batch = shapes[0][0], in = shapes[0][1], map = shapes[0][2] * shapes[0][3], out = shapes[1][0];
  Lines lines(count > 6 ? data + 5 : nullptr, out), none(nullptr, in);
  Masked dy = lines.mask((float*)data[3], (float*)data[4]);
  const float* scale = lines.scale.data();
  convolve((float*)data[count - 2], dy, (float*)data[1], scale, batch, out, in, map, none);
  const float* x = (float*)data[0];
  float* dweight = (float*)data[count - 1];
  if (rounded(out, COLUMNS) * rounded(in, ROWS) < rounded(in, COLUMNS) * rounded(out, ROWS))  // fewer empty columns
    correlate(dy, x, batch, out, in, map, [=](Int r, const float* sums) {
      for (Int c = 0; c < out; c++) dweight[c * in + r] = sums[c] * scale[c];
    });
  else
    correlate(x, dy, batch, in, out, map, [=](Int r, const float* sums) {
      for (Int c = 0; c < in; c++) dweight[r * in + c] = sums[c] * scale[r];
    });
  return 0;
}
#endif
