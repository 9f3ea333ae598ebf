"""Triton kernels that mix tiles of experts where a matrix product needs them.

Import only where `triton_matmul.is_available()`. Every tile and every sum is fixed by the shapes:
nothing is tuned and nothing added atomically, so that results repeat to the last bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

EXPERTS = 8  # most experts whose gradients one program keeps in registers


@triton.jit
def _mixed_matmul_kernel(
    x_ptr,
    routing_ptr,
    weight_ptr,
    y_ptr,
    B,
    M,
    N,
    K,
    x_b,
    x_k,
    x_n,
    routing_b,
    routing_e,
    weight_e,
    weight_m,
    weight_k,
    y_b,
    y_m,
    y_n,
    E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Two examples a program: each tile of an expert that is read serves both.

    The pairs are the fastest axis of the grid, so that programs that run side by side read the same
    experts and find them in the L2 cache. An odd last example is its own partner.
    """
    b0 = 2 * tl.program_id(0).to(tl.int64)
    b1 = tl.minimum(b0 + 1, B - 1)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)

    acc0 = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    acc1 = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first_k in range(0, K, BLOCK_K):
        k = first_k + tl.arange(0, BLOCK_K)
        in_weight = (m < M)[:, None] & (k < K)[None, :]
        tiles = weight_ptr + m[:, None] * weight_m + k[None, :] * weight_k
        mixed0 = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        mixed1 = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        for e in tl.static_range(E):
            tile = tl.load(tiles + e * weight_e, in_weight, other=0.0).to(tl.float32)
            mixed0 += tl.load(routing_ptr + b0 * routing_b + e * routing_e).to(tl.float32) * tile
            mixed1 += tl.load(routing_ptr + b1 * routing_b + e * routing_e).to(tl.float32) * tile

        in_x = (k < K)[:, None] & (n < N)[None, :]
        tiles = x_ptr + k[:, None] * x_k + n[None, :] * x_n
        x0 = tl.load(tiles + b0 * x_b, in_x, other=0.0)
        x1 = tl.load(tiles + b1 * x_b, in_x, other=0.0)
        acc0 = tl.dot(mixed0.to(x0.dtype), x0, acc0, input_precision='ieee')
        acc1 = tl.dot(mixed1.to(x1.dtype), x1, acc1, input_precision='ieee')

    in_y = (m < M)[:, None] & (n < N)[None, :]
    tiles = y_ptr + m[:, None] * y_m + n[None, :] * y_n
    tl.store(tiles + b0 * y_b, acc0.to(y_ptr.dtype.element_ty), in_y)
    tl.store(tiles + b1 * y_b, acc1.to(y_ptr.dtype.element_ty), in_y)


@triton.jit
def _expert_grads_kernel(
    grad_y_ptr,
    x_ptr,
    routing_ptr,
    weight_ptr,
    grad_routing_ptr,
    grad_weight_ptr,
    B,
    M,
    N,
    K,
    E,
    grad_y_b,
    grad_y_m,
    grad_y_n,
    x_b,
    x_k,
    x_n,
    routing_b,
    routing_e,
    weight_e,
    weight_m,
    weight_k,
    BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """An [M, K] tile of some experts a program, over the whole batch.

    The gradient of an example's kernel goes, tile by tile, straight into the experts' gradients and
    into the tile's share of the routing weights' gradients, [tiles, B, E].
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    grad_routing_ptr += (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * B * E

    e3, m3, k3 = e[:, None, None], m[None, :, None], k[None, None, :]
    in_weight = (e3 < E) & (m3 < M) & (k3 < K)
    experts = tl.load(
        weight_ptr + e3 * weight_e + m3 * weight_m + k3 * weight_k, in_weight, other=0.0
    )
    grad_experts = tl.zeros((BLOCK_E, BLOCK_M, BLOCK_K), tl.float32)
    for _ in range(B):
        grad_kernel = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        for first_n in range(0, N, BLOCK_N):
            n = first_n + tl.arange(0, BLOCK_N)
            grad_y = tl.load(
                grad_y_ptr + m[:, None] * grad_y_m + n[None, :] * grad_y_n,
                (m < M)[:, None] & (n < N)[None, :],
                other=0.0,
            )
            x = tl.load(
                x_ptr + n[:, None] * x_n + k[None, :] * x_k,
                (n < N)[:, None] & (k < K)[None, :],
                other=0.0,
            )
            grad_kernel = tl.dot(grad_y, x, grad_kernel, input_precision='ieee')
        grad_kernel = grad_kernel[None, :, :]
        routing = tl.load(routing_ptr + e * routing_e, e < E, other=0.0).to(tl.float32)
        grad_experts += routing[:, None, None] * grad_kernel
        grad_routing = tl.sum(tl.sum(experts.to(tl.float32) * grad_kernel, 2), 1)
        tl.store(grad_routing_ptr + e, grad_routing, e < E)

        grad_y_ptr += grad_y_b
        x_ptr += x_b
        routing_ptr += routing_b
        grad_routing_ptr += E

    tl.store(
        grad_weight_ptr + e3 * M * K + m3 * K + k3,
        grad_experts.to(grad_weight_ptr.dtype.element_ty),
        in_weight,
    )


def mixed_matmul(
    x: Tensor, routing: Tensor, weight: Tensor, y: Tensor, most_positions: int
) -> None:
    """Writes y[b] = (routing[b] @ weight) @ x[b]; shapes as in `triton_matmul.mixed_matmul`.

    Experts are mixed anew for every `most_positions`, a power of two from 16 on, columns of x.
    """
    (batch, depth, positions), (experts, rows, _) = x.shape, weight.shape
    block_m, block_n, block_k = 32, _block(positions, most_positions), 32
    grid = (triton.cdiv(batch, 2), triton.cdiv(rows, block_m), triton.cdiv(positions, block_n))
    with torch.cuda.device_of(x):
        _mixed_matmul_kernel[grid](
            x,
            routing,
            weight,
            y,
            batch,
            rows,
            positions,
            depth,
            *x.stride(),
            *routing.stride(),
            *weight.stride(),
            *y.stride(),
            E=experts,
            BLOCK_M=block_m,
            BLOCK_N=block_n,
            BLOCK_K=block_k,
            num_warps=8 if block_n == 128 else 4,
            # each stage keeps a tile of every expert in shared memory, 99 KB on small GPUs
            num_stages=2 if experts * weight.element_size() <= 32 else 1,
        )


def expert_grads(
    grad_y: Tensor, x: Tensor, routing: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `mixed_matmul`'s routing [B, E] and weight [E, M, K], in their types."""
    (batch, depth, positions), (experts, rows, _) = x.shape, weight.shape
    block_m, block_k = 32, 64
    tiles = triton.cdiv(rows, block_m), triton.cdiv(depth, block_k)
    grid = (*tiles, triton.cdiv(experts, EXPERTS))
    grad_routing = x.new_empty(tiles[0] * tiles[1], batch, experts, dtype=torch.float32)
    grad_weight = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    with torch.cuda.device_of(x):
        _expert_grads_kernel[grid](
            grad_y,
            x,
            routing,
            weight,
            grad_routing,
            grad_weight,
            batch,
            rows,
            positions,
            depth,
            experts,
            *grad_y.stride(),
            *x.stride(),
            *routing.stride(),
            *weight.stride(),
            BLOCK_E=min(triton.next_power_of_2(experts), EXPERTS),
            BLOCK_M=block_m,
            BLOCK_N=_block(positions, 64),
            BLOCK_K=block_k,
            num_warps=8,
            num_stages=2,
        )
    return grad_routing.sum(0).to(routing.dtype), grad_weight


def _block(size: int, most: int) -> int:
    """The side of a tile; the matrix units take 16 and up."""
    return min(max(triton.next_power_of_2(size), 16), most)
