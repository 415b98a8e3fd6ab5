// What a kernel needs of CUDA, on a CPU: g++ -I this folder compiles an unchanged .cu file whose
// threads do not talk to one another, and `each_thread` runs them one after the other.

#pragma once

#include <cmath>

#define __device__
#define __global__

struct alignas(16) float4 {
  float x, y, z, w;
};

using __half = _Float16;
inline float __half2float(__half value) { return value; }
inline __half __float2half(float value) { return static_cast<__half>(value); }

struct Index {
  unsigned x;
};
inline Index blockIdx, blockDim, threadIdx;

template <typename Kernel>
void each_thread(int grid, int block, Kernel kernel) {
  blockDim.x = block;
  for (blockIdx.x = 0; blockIdx.x < static_cast<unsigned>(grid); ++blockIdx.x) {
    for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) {
      kernel();
    }
  }
}
