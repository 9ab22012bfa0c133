// 3x3 depthwise convolution of stride 1 or 2 and its gradients. oneDNN, as MindSpore calls it, computes a matrix
// product of nine columns for each channel instead.
//
// A strip of a padded map lies in memory as rows of `pitch` = output width + 1 numbers. One column of zeros is enough:
// the right end of a row is the left end of the next. A convolution is then a sum of nine shifted copies of one long
// vector, whatever the width. With stride 2 there are four such strips, of even and odd rows and columns.
#include "common.h"

struct Shape {
  Int height, width, out_height, out_width, stride, top, left, pitch, rows, size;
  Int offset[9];

  Shape(const Int* in, const Int* out, const int32_t* geometry)
      : height(in[2]), width(in[3]), out_height(out[2]), out_width(out[3]), stride(geometry[0]),
        top(height % 2 ? 1 : geometry[1]), left(width % 2 ? 1 : geometry[1]), pitch(out_width + 1) {
    rows = std::clamp<Int>(4096 / stride / pitch, 1, out_height + 1);  // of a strip, which fits into the first cache
    size = (rows + 2) * pitch + 2 * LANES;
    for (Int t = 0; t < 9; t++) {
      Int y = t / 3, x = t % 3;
      offset[t] = stride == 1 ? y * pitch + x : ((y & 1) * 2 + (x & 1)) * size + (y >> 1) * pitch + (x >> 1);
    }
  }

  // Rows first .. first + count - 1 of a map, with a column of zeros in front of each.
  template <class Map>
  void plain(float* to, const Map& map, Int map_height, Int map_width, Int first, Int count) const {
    for (Int row = first; row < first + count; row++, to += pitch) {
      to[0] = 0;
      if (row < 0 || row >= map_height) std::fill(to + 1, to + pitch, 0.f);
      else copy(to + 1, map + row * map_width, map_width);
    }
    std::fill(to, to + 2 * LANES, 0.f);
  }

  // What the output rows first .. first + count - 1 see of the input.
  void input(float* to, const float* map, Int first, Int count, float* lines) const {
    if (stride == 1) return plain(to, map, height, width, first - 1, count + 2);
    Int length = 2 * pitch, kept = std::min(width, length - left);
    for (Int row = 0; row < 2 * count + 2; row++) {
      Int y = 2 * first + row - top;
      float *line = lines + (row & 1) * 2 * size + (row >> 1) * length, *end = line;
      if (y >= 0 && y < height) {
        line[0] = 0;
        copy(line + left, map + y * width, kept);
        end = line + left + kept;
      }
      std::fill(end, line + length, 0.f);
    }
    for (Int odd = 0; odd < 2; odd++, lines += 2 * size, to += 2 * size) {
      std::fill(lines + (count + 1) * length, lines + (count + 1) * length + 4 * LANES, 0.f);
      for (Int i = 0; i < (count + 1) * pitch + LANES; i += LANES) {
        Vec a = load(lines + 2 * i), b = load(lines + 2 * i + LANES);
        store(to + i, pick(a, b, 0));
        store(to + size + i, pick(a, b, 1));
      }
    }
  }
};

constexpr auto as_is = [](Vec sum) { return sum; };

// out[i] = what `end` makes of the sum over taps of weight[t] * in[offset[t] + i]; writes up to a vector more than
// count.
template <int TAPS, class End>
static void stencil(float* out, const float* in, const Int* offset, const float* weight, Int count, End end) {
  Vec w[TAPS];
  const float* from[TAPS];
  for (int t = 0; t < TAPS; t++) w[t] = fill(weight[t]), from[t] = in + offset[t];
  for (Int i = 0; i < count; i += LANES) {
    Vec sum = w[0] * load(from[0] + i);
    for (int t = 1; t < TAPS; t++) sum += w[t] * load(from[t] + i);
    store(out + i, end(sum));
  }
}

// Adds grad[i] * in[offset[t] + i] over all i to the sums of the nine taps t.
static void correlate(Vec* sums, const float* in, const Int* offset, const float* grad, Int count) {
  Vec s[9];
  const float* from[9];
  for (int t = 0; t < 9; t++) s[t] = sums[t], from[t] = in + offset[t];
  Int i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int t = 0; t < 9; t++) s[t] += load(grad + i) * load(from[t] + i);
  Vec rest = load(grad + i);
  for (int k = 0; k < LANES; k++) rest[k] = i + k < count ? rest[k] : 0;  // what follows belongs to the next strip
  for (int t = 0; t < 9; t++) s[t] += rest * load(from[t] + i);
  for (int t = 0; t < 9; t++) sums[t] = s[t];
}

// The input's gradient at stride 2, strip by strip of even and odd rows and columns: each has its own taps.
static void spread(const Shape& s, float* dx, const float* grad, const float* w, Int first, Int count, float* lines,
                   float* strip) {
  Int p = s.pitch, zero = p + 1, offset[4] = {zero, zero - 1, zero - p, zero - p - 1};
  Int above[2] = {zero, zero - p};
  float corners[4] = {w[0], w[2], w[6], w[8]}, column[2] = {w[1], w[7]}, line[2] = {w[3], w[5]};
  stencil<4>(strip, grad, offset, corners, count * p, as_is);
  stencil<2>(strip + s.size, grad, above, column, count * p, as_is);
  stencil<2>(strip + 2 * s.size, grad, offset, line, count * p, as_is);
  stencil<1>(strip + 3 * s.size, grad, offset, w + 4, count * p, as_is);
  for (Int odd = 0; odd < 2; odd++, strip += 2 * s.size, lines += 2 * s.size) {
    for (Int i = 0; i < count * p; i += LANES) {
      Vec a = load(strip + i), b = load(strip + s.size + i);
      store(lines + 2 * i, mix(a, b, 0));
      store(lines + 2 * i + LANES, mix(a, b, LANES / 2));
    }
    for (Int row = 0; row < count; row++) {
      Int y = 2 * (first + row) + odd - s.top;
      if (y >= 0 && y < s.height) copy(dx + y * s.width, lines + 2 * row * p + s.left, s.width);
    }
  }
}

// x [B, C, H, W], weight [C, 1, 3, 3], geometry [2] int32: stride, padding in front of an even side (of an odd one: 1),
// perhaps a norm as of Lines -> y [B, C, H / stride, W / stride], rounded up
extern "C" int depthwise(int count, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  const float *x = (float*)data[0], *weight = (float*)data[1];
  float* y = (float*)data[count - 1];
  Shape s(shapes[0], shapes[count - 1], (int32_t*)data[2]);
  Int channels = shapes[0][1], planes = shapes[0][0] * channels;
  Int in_size = s.height * s.width, out_size = s.out_height * s.out_width;
  Lines lines(count > 4 ? data + 3 : nullptr, channels);
  share(planes, 4 * planes * (in_size + out_size), [&](Int i, std::vector<float>& scratch) {
    scratch.resize(9 * s.size);
    float *strip = scratch.data(), *out = strip + 4 * s.size, *rows = out + s.size;
    for (Int row = 0; row < s.out_height; row += s.rows) {
      Int high = std::min(s.rows, s.out_height - row);
      s.input(strip, x + i * in_size, row, high, rows);
      stencil<9>(out, strip, s.offset, weight + i % channels * 9, high * s.pitch, lines[i % channels]);
      for (Int r = 0; r < high; r++)
        copy(y + i * out_size + (row + r) * s.out_width, out + r * s.pitch, s.out_width);
    }
  });
  return 0;
}

// x, weight, geometry, dy, perhaps y and its norm -> dx, dweight
extern "C" int depthwise_grad(int count, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  const float *x = (float*)data[0], *weight = (float*)data[1];
  float *dx = (float*)data[count - 2], *dweight = (float*)data[count - 1];
  Shape s(shapes[0], shapes[3], (int32_t*)data[2]);
  Int batch = shapes[0][0], channels = shapes[0][1];
  Int in_size = s.height * s.width, out_size = s.out_height * s.out_width;
  Int last = s.out_height + (s.stride == 2);  // at stride 2 an even row of the input may lie behind the last window
  Lines lines(count > 6 ? data + 5 : nullptr, channels);
  Masked dy = lines.mask((float*)data[3], (float*)data[4]);
  share(channels, 8 * batch * channels * (in_size + out_size), [&](Int c, std::vector<float>& scratch) {
    scratch.resize(13 * s.size);
    float *strip = scratch.data(), *grad = strip + 4 * s.size, *out = grad + s.size, *rows = out + 4 * s.size;
    float scaled[9], turned[9], scale = lines.scale[c];
    for (int t = 0; t < 9; t++) scaled[t] = turned[8 - t] = weight[c * 9 + t] * scale;
    Vec sums[9] = {};
    for (Int i = c; i < batch * channels; i += channels)
      for (Int row = 0; row < last; row += s.rows) {
        Int high = std::min(s.rows, last - row);
        s.input(strip, x + i * in_size, row, high, rows);
        s.plain(grad, dy + i * out_size, s.out_height, s.out_width, row - 1, high + 2 - (s.stride == 2));
        correlate(sums, strip, s.offset, grad + s.pitch + 1, high * s.pitch);
        if (s.stride == 2) {
          spread(s, dx + i * in_size, grad, scaled, row, high, rows, out);
          continue;
        }
        stencil<9>(out, grad, s.offset, turned, high * s.pitch, as_is);
        for (Int r = 0; r < high; r++)
          copy(dx + i * in_size + (row + r) * s.width, out + r * s.pitch, s.width);
      }
    for (int t = 0; t < 9; t++) dweight[c * 9 + t] = total(sums[t]) * scale;
  });
  return 0;
}
