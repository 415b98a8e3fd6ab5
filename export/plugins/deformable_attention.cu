// Multi-scale deformable attention in one pass: what training/networks/deformable_attention.py
// defines, without its maps channels first or its samples ever lying in memory.
//
// One thread computes four channels of one head of one query. Neighbouring threads hold
// neighbouring channels, so a corner of 32 channels is one 128-byte line. Coordinates, weights and
// sums are float32, whatever the values are stored in.

#include <cuda_fp16.h>

namespace {

struct alignas(8) Half4 {
  __half x, y, z, w;
};

__device__ inline float4 load4(const float* values) {
  return *reinterpret_cast<const float4*>(values);
}

__device__ inline float4 load4(const __half* values) {
  const Half4 found = *reinterpret_cast<const Half4*>(values);
  return {__half2float(found.x), __half2float(found.y), __half2float(found.z),
          __half2float(found.w)};
}

__device__ inline void store4(float* values, float4 sum) {
  *reinterpret_cast<float4*>(values) = sum;
}

__device__ inline void store4(__half* values, float4 sum) {
  *reinterpret_cast<Half4*>(values) = {__float2half(sum.x), __float2half(sum.y),
                                       __float2half(sum.z), __float2half(sum.w)};
}

// value (N, S, M, D), spatial_shapes (L, 2) as (h, w), level_start_index (L,), sampling_locations
// (N, Q, M, L, P, 2) as (x, y), attention_weights (N, Q, M, L, P) -> output (N, Q, M, D);
// quads = D / 4, threads = N * Q * M * quads.
template <typename Value>
__device__ void attend(const Value* value, const int* spatial_shapes, const int* level_start_index,
                       const float* sampling_locations, const float* attention_weights,
                       int threads, int tokens, int queries, int heads, int quads, int levels,
                       int points, Value* output) {
  const long long thread = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= threads) {
    return;
  }
  const int quad = thread % quads;
  const long long sampled = thread / quads;  // (N, Q, M), flat
  const int head = sampled % heads;
  const long long item = sampled / heads / queries;
  const long long pixel_stride = static_cast<long long>(heads) * quads * 4;
  const Value* head_values = value + item * tokens * pixel_stride + (head * quads + quad) * 4;
  const float* locations = sampling_locations + sampled * levels * points * 2;
  const float* weights = attention_weights + sampled * levels * points;

  float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int level = 0; level < levels; ++level) {
    const int height = spatial_shapes[2 * level];
    const int width = spatial_shapes[2 * level + 1];
    const Value* map = head_values + level_start_index[level] * pixel_stride;
    for (int point = 0; point < points; ++point, locations += 2, ++weights) {
      const float x = locations[0] * width - 0.5f;
      const float y = locations[1] * height - 0.5f;
      // Also false for what is not a number, which must not become an address.
      if (!(x > -1.0f && y > -1.0f && x < width && y < height)) {
        continue;
      }
      const float left = floorf(x);
      const float top = floorf(y);
      for (int corner = 0; corner < 4; ++corner) {
        const int column = static_cast<int>(left) + corner % 2;
        const int row = static_cast<int>(top) + corner / 2;
        if (column < 0 || row < 0 || column >= width || row >= height) {
          continue;
        }
        const float share = (1.0f - fabsf(x - column)) * (1.0f - fabsf(y - row)) * weights[0];
        const float4 found = load4(map + (row * width + column) * pixel_stride);
        sum.x += share * found.x;
        sum.y += share * found.y;
        sum.z += share * found.z;
        sum.w += share * found.w;
      }
    }
  }
  store4(output + thread * 4, sum);
}

}  // namespace

// Arguments in the order TensorRT passes them: inputs, numbers, output.
#define DEFORMABLE_ATTENTION(NAME, VALUE)                                                       \
  extern "C" __global__ void NAME(                                                              \
      const VALUE* value, const int* spatial_shapes, const int* level_start_index,              \
      const float* sampling_locations, const float* attention_weights, int threads, int tokens, \
      int queries, int heads, int quads, int levels, int points, VALUE* output) {               \
    attend<VALUE>(value, spatial_shapes, level_start_index, sampling_locations,                 \
                  attention_weights, threads, tokens, queries, heads, quads, levels, points,    \
                  output);                                                                      \
  }

DEFORMABLE_ATTENTION(deformable_attention_float32, float)
DEFORMABLE_ATTENTION(deformable_attention_float16, __half)
