"""One image's kernels from experts in half precision, mixed by an operator in C++ if asked for.

PyTorch's own operations write the experts in float32 before they mix them. This reads each expert
once, widens it in registers and writes the mixed kernel alone. It is bound by memory, and half the
bytes take less time than experts in float32 do: docs/deploy.md.
"""

import re
from zlib import crc32

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from .tracing import is_compiling

NAME = 'condconv_det_mixing'
MIN_TORCH = '2.6'
SOURCE = r"""
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

using Vec = at::vec::Vectorized<float>;
constexpr int64_t kPairs = 4;  // of vectors, which stay in registers
constexpr int64_t kTile = 2 * kPairs * Vec::size();
constexpr int64_t kTilesOfAThread = 256;

// Sum over e of routing[e] * experts[e]: float32 [E] and half precision [E, ...] -> float32 [...].
// Numbers of an expert lie side by side; experts may lie further apart than they are long.
at::Tensor mix(const at::Tensor& routing, const at::Tensor& experts) {
  const int64_t count = experts.size(0), stride = experts.stride(0);
  at::Tensor mixed = at::empty(experts.sizes().slice(1), routing.options());
  const int64_t size = mixed.numel();
  const float* weights = routing.const_data_ptr<float>();
  float* out = mixed.mutable_data_ptr<float>();
  AT_DISPATCH_REDUCED_FLOATING_TYPES(experts.scalar_type(), "mix", [&] {
    const scalar_t* in = experts.const_data_ptr<scalar_t>();
    at::parallel_for(0, size / kTile, kTilesOfAThread, [&](int64_t begin, int64_t end) {
      for (int64_t place = begin * kTile; place < end * kTile; place += kTile) {
        Vec sums[2 * kPairs];
        for (Vec& sum : sums) sum = Vec(0);
        for (int64_t e = 0; e < count; ++e) {
          for (int64_t pair = 0; pair < kPairs; ++pair) {
            const auto [low, high] = at::vec::convert_to_float<scalar_t>(
                at::vec::Vectorized<scalar_t>::loadu(
                    in + e * stride + place + 2 * pair * Vec::size()));
            sums[2 * pair] = at::vec::fmadd(Vec(weights[e]), low, sums[2 * pair]);
            sums[2 * pair + 1] = at::vec::fmadd(Vec(weights[e]), high, sums[2 * pair + 1]);
          }
        }
        for (int64_t i = 0; i < 2 * kPairs; ++i) sums[i].store(out + place + i * Vec::size());
      }
    });
    for (int64_t place = size / kTile * kTile; place < size; ++place) {
      out[place] = 0;
      for (int64_t e = 0; e < count; ++e) out[place] += weights[e] * float(in[e * stride + place]);
    }
  });
  return mixed;
}

TORCH_LIBRARY(condconv_det_mixing, library) {
  library.def("mix(Tensor routing, Tensor experts) -> Tensor");
}

TORCH_LIBRARY_IMPL(condconv_det_mixing, CPU, library) {
  library.impl("mix", &mix);
}
"""

operator = None  # the one in use


def compile_mixing(verbose: bool = False) -> bool:
    """Builds the operator, or takes what an earlier call built, and uses it from now on.

    It mixes the kernels of one image on the CPU in float32, without gradients, whose experts are in
    half precision (`cast_experts`). Needs a C++ compiler, ninja, setuptools and torch >= 2.6;
    without them all is computed as before.

    Args:
        verbose: show what the compiler says, and raise what would make it False.

    Returns:
        Whether the operator is in use.
    """
    global operator
    if operator is None:
        # openmp's calls go to the library that PyTorch has loaded
        flags = ['-O3', '-fopenmp']
        if torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512'):
            flags += ['-mavx2', '-mfma', '-mf16c', '-DCPU_CAPABILITY_AVX2', '-DCPU_CAPABILITY=AVX2']
        try:
            if TorchVersion(torch.__version__) < MIN_TORCH:
                raise ImportError(f'needs torch >= {MIN_TORCH}, this is {torch.__version__}')
            from torch.utils.cpp_extension import load_inline  # needs setuptools

            load_inline(
                # one of another PyTorch, or of another version of the source, is of no use
                re.sub(r'\W', '_', f'{NAME}_{torch.__version__}_{crc32(SOURCE.encode()):x}'),
                SOURCE,
                extra_cflags=flags,
                is_python_module=False,
                no_implicit_headers=True,
                verbose=verbose,
            )
        except (ImportError, OSError, RuntimeError):
            if verbose:
                raise
        else:
            operator = getattr(torch.ops, NAME).mix
    return operator is not None


def can_mix(routing: Tensor, weight: Tensor) -> bool:
    """Whether `mix` takes these: the operator is in use, and this is what it was built for."""
    return (
        operator is not None
        and routing.shape[0] == 1
        and routing.dtype == torch.float32
        and weight.dtype in (torch.float16, torch.bfloat16)
        and weight.device.type == 'cpu'
        and weight[0].is_contiguous()
        and not is_compiling()
        and not (torch.is_grad_enabled() and (routing.requires_grad or weight.requires_grad))
    )


def mix(routing: Tensor, weight: Tensor) -> Tensor:
    """One image's kernel: float32 [1, E] and half precision [E, ...] -> float32 [1, N]."""
    return operator(routing[0].contiguous(), weight).view(1, -1)
