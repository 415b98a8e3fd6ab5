// Launches of the kernels for a caller in C: pointers to inputs, numbers, pointer to output.

#include "cuda_fp16.h"
#include KERNELS

#define LAUNCH(NAME, VALUE)                                                                  \
  extern "C" void launch_##NAME(int grid, int block, void** inputs, int* n, void* output) {  \
    each_thread(grid, block, [&] {                                                           \
      NAME(static_cast<VALUE*>(inputs[0]), static_cast<int*>(inputs[1]),                     \
           static_cast<int*>(inputs[2]), static_cast<float*>(inputs[3]),                     \
           static_cast<float*>(inputs[4]), n[0], n[1], n[2], n[3], n[4], n[5], n[6],         \
           static_cast<VALUE*>(output));                                                     \
    });                                                                                      \
  }

LAUNCH(deformable_attention_float32, float)
LAUNCH(deformable_attention_float16, __half)
