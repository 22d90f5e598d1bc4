// The real nccl.h. It includes the runtime's headers, which need some of the CUDA compiler's that no wheel has; of all these it uses one
// name, so their guards are set and the name is given here.
#pragma once

#include <cuda.h>

#define __CUDA_RUNTIME_H__
#define __CUDA_FP16_H__
using cudaStream_t = CUstream;
#include <nccl.h>
