// The multibox loss, smooth L1 and GIoU, each with its gradient in the same call: all else is a factor of it. What only
// positive anchors have is computed for them alone.
#include <functional>

#include "common.h"

// e^x for x <= 0, to some units in the last place: 2^n * e^r with |r| <= ln 2 / 2, and Taylor's series of e^r.
static Vec exponential(Vec x) {
  Vec least = fill(-87.f), magic = fill(12582912.f);  // adding 1.5 * 2^23 rounds to a whole number
  x = x < least ? least : x;
  Vec shifted = x * fill(1.44269504f) + magic, n = shifted - magic;
  Vec r = x - n * fill(0.693145752f) - n * fill(1.42860677e-6f);  // ln 2 in two parts; n times the first is exact
  Vec sum = fill(1.f / 5040);
  for (float term : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f}) sum = sum * r + fill(term);
  return reinterpret_cast<Vec>(reinterpret_cast<Places>(sum) + (reinterpret_cast<Places>(shifted) << 23));
}

// x [count, classes] -> log of the sum of e^x of each row
static void log_sums(float* to, const float* x, Int count, Int classes, std::vector<float>& scratch) {
  Int rows = std::max<Int>(BLOCK / classes, 1);
  scratch.resize(rows * classes + LANES);
  for (Int first = 0; first < count; first += rows) {
    Int high = std::min(rows, count - first);
    const float* from = x + first * classes;
    float* part = scratch.data();
    for (Int r = 0; r < high; r++) {
      to[first + r] = *std::max_element(from + r * classes, from + (r + 1) * classes);
      for (Int c = 0; c < classes; c++) part[r * classes + c] = from[r * classes + c] - to[first + r];
    }
    for (Int i = 0; i < high * classes; i += LANES) store(part + i, exponential(load(part + i)));
    for (Int r = 0; r < high; r++) {
      float sum = 0;
      for (Int c = 0; c < classes; c++) sum += part[r * classes + c];
      to[first + r] += std::log(sum);
    }
  }
}

// weight [anchors] of the negatives: 1 for the `wanted` largest numbers of loss; ties at the last place share what is
// left.
static void choose_hardest(float* weight, const float* loss, const int32_t* label, Int anchors, float wanted) {
  std::vector<float> values;
  for (Int a = 0; a < anchors; a++)
    if (label[a] <= 0) values.push_back(std::isnan(loss[a]) ? std::numeric_limits<float>::infinity() : loss[a]);
  wanted = std::min<float>(wanted, values.size());
  if (wanted <= 0) return;
  auto last = values.begin() + std::max<Int>(wanted - 1, 0);
  std::nth_element(values.begin(), last, values.end(), std::greater<float>());
  float edge = *last, above = 0, tied = 0;
  for (float value : values) above += value > edge, tied += value == edge;
  for (Int a = 0; a < anchors; a++)
    if (label[a] <= 0) weight[a] = loss[a] > edge ? 1 : loss[a] == edge ? (wanted - above) / tied : 0;
}

// logits [B, A, C], labels [B, A] int32, numbers [3] (negatives for each positive, negatives of an image without
// positives, label smoothing) -> loss [B], its gradient [B, A, C]
extern "C" int multibox(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  const float *numbers = (float*)data[2], smoothing = numbers[2];
  Int batch = shapes[0][0], anchors = shapes[0][1], classes = shapes[0][2];
  share(batch, 8 * batch * anchors * classes, [&](Int b, std::vector<float>& scratch) {
    const float* x = (float*)data[0] + b * anchors * classes;
    float* gradient = (float*)data[4] + b * anchors * classes;
    const int32_t* label = (int32_t*)data[1] + b * anchors;
    std::vector<float> log_sum(anchors), loss(anchors), weight(anchors);
    log_sums(log_sum.data(), x, anchors, classes, scratch);
    float positives = 0;
    for (Int a = 0; a < anchors; a++) {
      loss[a] = log_sum[a] - x[a * classes + label[a]];
      weight[a] = label[a] > 0;
      positives += weight[a];
    }
    float wanted = positives > 0 ? std::floor(positives * numbers[0]) : numbers[1];
    choose_hardest(weight.data(), loss.data(), label, anchors, wanted);
    std::fill(gradient, gradient + anchors * classes, 0.f);
    double sum = 0;
    for (Int a = 0; a < anchors; a++, x += classes, gradient += classes) {
      sum += loss[a] * weight[a];  // of a weight 0 too, which the loss need not survive
      if (weight[a] == 0) continue;
      float mean = 0;
      for (Int c = 0; c < classes; c++) {
        mean += x[c] / classes;
        gradient[c] = weight[a] * (std::exp(x[c] - log_sum[a]) - smoothing / classes);
      }
      gradient[label[a]] -= weight[a] * (1 - smoothing);
      sum += smoothing * (x[label[a]] - mean) * weight[a];
    }
    ((float*)data[3])[b] = sum;
  });
  return 0;
}

// One axis of a predicted and a true box in units of the anchor, as compare() of box_losses.py has them, and how the
// shared part and the side of the hull change with the delta of the centre and with that of the side.
struct Axis {
  double predicted, truth, shared, hull, grown, shared_by[2], hull_by[2];

  // numbers [4]: variance of centres, of sides, least and largest log of a side
  Axis(const float* delta, const float* target, const float* numbers) {
    auto log_side = [&](float value) { return std::clamp(value * numbers[1], numbers[2], numbers[3]); };
    double apart = (double(delta[0]) - target[0]) * numbers[0];
    double away = apart > 0 ? numbers[0] : apart < 0 ? -numbers[0] : 0;
    predicted = std::exp(double(log_side(delta[2]))), truth = std::exp(double(log_side(target[2])));
    bool free = delta[2] * numbers[1] >= numbers[2] && delta[2] * numbers[1] <= numbers[3];
    grown = free ? predicted * numbers[1] : 0;
    double middle = (predicted + truth) / 2, inner = std::min(predicted, truth), outer = std::max(predicted, truth);
    double left = middle - std::abs(apart), right = middle + std::abs(apart);
    bool inside = inner <= left, around = outer >= right, overlap = std::min(inner, left) >= 0;
    shared = overlap ? std::min(inner, left) : 0, hull = std::max(outer, right);
    shared_by[0] = overlap && !inside ? -away : 0;
    shared_by[1] = overlap ? grown * (inside ? predicted <= truth : 0.5) : 0;
    hull_by[0] = around ? 0 : away;
    hull_by[1] = grown * (around ? predicted >= truth : 0.5);
  }
};

// Calls formula(delta, target, x axis, y axis, gradient) -> loss for positive anchors.
//
// deltas, targets [B, A, 4], labels [B, A] int32, numbers as of Axis -> loss [B, A], IoU [B, A], gradient
// [B, A, 4], all 0 for negatives
template <class Formula>
static int by_positives(void** data, int64_t** shapes, Formula formula) {
  Int count = shapes[0][0] * shapes[0][1];
  float *loss = (float*)data[4], *iou = (float*)data[5], *gradient = (float*)data[6];
  std::fill(loss, loss + count, 0.f);
  std::fill(iou, iou + count, 0.f);
  std::fill(gradient, gradient + 4 * count, 0.f);
  for (Int a = 0; a < count; a++) {
    if (((int32_t*)data[2])[a] <= 0) continue;
    const float *delta = (float*)data[0] + 4 * a, *target = (float*)data[1] + 4 * a, *numbers = (float*)data[3];
    Axis x(delta, target, numbers), y(delta + 1, target + 1, numbers);
    double shared = x.shared * y.shared;
    iou[a] = shared / (x.predicted * y.predicted + x.truth * y.truth - shared);
    loss[a] = formula(delta, target, x, y, gradient + 4 * a);
  }
  return 0;
}

extern "C" int smooth_l1(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return by_positives(data, shapes, [](const float* delta, const float* target, const Axis&, const Axis&, float* to) {
    float sum = 0;
    for (Int i = 0; i < 4; i++) {
      float apart = delta[i] - target[i], distance = std::abs(apart);
      sum += distance < 1 ? 0.5f * distance * distance : distance - 0.5f;
      to[i] = distance < 1 ? apart : apart > 0 ? 1 : -1;
    }
    return sum;
  });
}

extern "C" int giou(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return by_positives(data, shapes, [](const float*, const float*, const Axis& x, const Axis& y, float* to) {
    double shared = x.shared * y.shared, all = x.predicted * y.predicted + x.truth * y.truth - shared;
    double filled = all / x.hull / y.hull;
    for (Int i = 0; i < 4; i++) {
      const Axis &own = i % 2 ? y : x, &other = i % 2 ? x : y;
      double more_shared = own.shared_by[i / 2] * other.shared, more_hull = own.hull_by[i / 2] / own.hull;
      double more = (i < 2 ? 0 : own.grown * other.predicted) - more_shared;
      to[i] = shared / all * more / all - more_shared / all - (more / all - more_hull) * filled;
    }
    return float(2 - shared / all - filled);
  });
}
