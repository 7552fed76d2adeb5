// Layer normalisation over the last axis, forward and backward, as XLA custom calls: the prototype
// that `compiled.py` measures. Rows are shared out to threads; a row stays in the first-level cache,
// so two passes over it cost memory one, and the variance is that of centred values.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Floats>;

template <typename Work>
void share_out(int64_t rows, Work work) {
  const int64_t count = std::max<int64_t>(1, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (int64_t t = 1; t < count; ++t)
    threads.emplace_back([=] { work(t, rows * t / count, rows * (t + 1) / count); });
  work(0, 0, rows / count);
  for (auto& thread : threads) thread.join();
}

ffi::Error Forward(float eps, Floats x, Floats scale, Floats bias, Result y, Result mean,
                   Result root) {
  const int64_t c = scale.element_count(), rows = x.element_count() / c;
  const float *px = x.typed_data(), *ps = scale.typed_data(), *pb = bias.typed_data();
  float *py = y->typed_data(), *pm = mean->typed_data(), *pr = root->typed_data();
  share_out(rows, [=](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* row = px + i * c;
      float sum = 0, square = 0;
      for (int64_t j = 0; j < c; ++j) sum += row[j];
      const float m = sum / c;
      for (int64_t j = 0; j < c; ++j) square += (row[j] - m) * (row[j] - m);
      const float r = 1 / std::sqrt(square / c + eps);
      for (int64_t j = 0; j < c; ++j) py[i * c + j] = (row[j] - m) * r * ps[j] + pb[j];
      pm[i] = m, pr[i] = r;
    }
  });
  return ffi::Error::Success();
}

ffi::Error Backward(Floats x, Floats scale, Floats mean, Floats root, Floats dy, Result dx,
                    Result dscale, Result dbias) {
  const int64_t c = scale.element_count(), rows = x.element_count() / c;
  const float *px = x.typed_data(), *ps = scale.typed_data(), *pm = mean.typed_data(),
              *pr = root.typed_data(), *pg = dy.typed_data();
  float *pd = dx->typed_data(), *ds = dscale->typed_data(), *db = dbias->typed_data();
  const int64_t count = std::max<int64_t>(1, std::thread::hardware_concurrency());
  std::vector<float> sums(2 * c * count);
  float* all = sums.data();
  share_out(rows, [=](int64_t t, int64_t begin, int64_t end) {
    float *s = all + 2 * c * t, *b = s + c;
    for (int64_t i = begin; i < end; ++i) {
      const float *row = px + i * c, *g = pg + i * c;
      const float m = pm[i], r = pr[i];
      float along = 0, level = 0;
      for (int64_t j = 0; j < c; ++j) {
        const float z = (row[j] - m) * r;
        along += g[j] * ps[j] * z, level += g[j] * ps[j];
        s[j] += g[j] * z, b[j] += g[j];
      }
      along /= c, level /= c;
      for (int64_t j = 0; j < c; ++j)
        pd[i * c + j] = r * (g[j] * ps[j] - level - (row[j] - m) * r * along);
    }
  });
  std::fill(ds, ds + c, 0.f), std::fill(db, db + c, 0.f);
  for (int64_t t = 0; t < count; ++t)
    for (int64_t j = 0; j < c; ++j) ds[j] += all[2 * c * t + j], db[j] += all[2 * c * t + c + j];
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(forward, Forward,
                              ffi::Ffi::Bind()
                                  .Attr<float>("eps")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(backward, Backward,
                              ffi::Ffi::Bind()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
