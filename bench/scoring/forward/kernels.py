"""Calls the compiled kernels for bfloat16 on AVX512_BF16 processors: products, norms, rotation, attention, sums.

On these processors no bfloat16 product of torch returns float32 sums. Without AMX its products reach two thirds of
oneDNN's rate and its flash attention multiplies with MKL; with AMX it takes longer for the head's sum and for
norms. drsow compiles the sources in `cpp/` when it first loads a model. Without a C++ compiler, and on every other
processor, it uses torch's operations.

DRSOW_KERNELS is for tests: "off" never uses the kernels.
"""

import functools
import os
import subprocess
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.faults import warn
from bench.schema import UsageError
from bench.scoring.forward.building import can_be_had, compiled
from bench.scoring.forward.trie import Step

WIDTH = 64
"""Number of rows of every product, and of columns of a panel."""

LANES = 16
"""Number of float32 numbers that a kernel computes at once."""


def suit(*, has_bf16: bool, setting: str) -> bool:
    """Whether to use the kernels on a processor.

    Args:
        has_bf16: Whether the processor has AVX512_BF16. Every processor with AMX has it.
        setting: DRSOW_KERNELS: "auto" or "off".

    Raises:
        UsageError: The setting has another value.
    """
    if setting not in {"auto", "off"}:
        raise UsageError(f"DRSOW_KERNELS is {setting!r}: set it to auto or off")
    return has_bf16 and setting == "auto"


def suit_here() -> bool:
    """`suit` for this machine's processor and setting."""
    has_bf16 = torch.cpu._is_avx512_bf16_supported() and torch.backends.mkldnn.is_available()
    return suit(has_bf16=has_bf16, setting=os.environ.get("DRSOW_KERNELS", "auto"))


@functools.cache
def ready() -> bool:
    """Whether the kernels suit this processor, are compiled and loaded. If they cannot be, stderr gives the reason."""
    if not suit_here():
        return False
    try:
        torch.ops.load_library(compiled())
        # The kernels may load although this build of torch lacks the functions that they call.
        ones = torch.ones(WIDTH, WIDTH, dtype=torch.bfloat16)
        if torch.equal(panel_product(ones, panels(ones), None), WIDTH * ones):
            return True
        reason = "their products are wrong"
    except subprocess.TimeoutExpired as error:
        reason = f"{error.cmd[0]} took more than {error.timeout:.0f} s"
    except subprocess.CalledProcessError as error:
        reason = f"{error.cmd[0]} failed: {_first_line(error.stderr) or f'exit status {error.returncode}'}"
    except (OSError, RuntimeError) as error:
        reason = _first_line(str(error)) or type(error).__name__
    advice = "Install g++ or set CXX."
    warn(f"Compiled kernels are unavailable ({reason}); using PyTorch's slower ones. {advice}")
    return False


def expected() -> bool:
    """What `ready` will say, unless the kernels cannot be compiled or loaded. Compiles nothing."""
    return suit_here() and can_be_had()


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def panels(weight: Tensor) -> Tensor:
    """Rearranges a weight (n, k) into panels for the products, (n / WIDTH, k / 2, WIDTH, 2).

    Args:
        weight: bfloat16; n is a multiple of WIDTH, and k is even.
    """
    n, k = weight.shape
    pairs = weight.contiguous().view(torch.int32).view(n // WIDTH, WIDTH, k // 2)
    return pairs.transpose(1, 2).contiguous().view(torch.bfloat16).view(n // WIDTH, k // 2, WIDTH, 2)


def out_of_panels(weight: Tensor) -> Tensor:
    """The weight, (n, k), of its panels."""
    n_panels, half, _, _ = weight.shape
    pairs = weight.view(torch.int32).view(n_panels, half, WIDTH).transpose(1, 2).contiguous()
    return pairs.view(torch.bfloat16).view(n_panels * WIDTH, 2 * half)


def in_panels(weight: Tensor) -> bool:
    """Whether a layer's weight is in panels."""
    return weight.dim() == 4


def fits_panels(weight: Tensor) -> bool:
    """Whether a weight, (n, k), can be rearranged into panels."""
    return fits_totals(weight) and weight.shape[0] % WIDTH == 0


def fits_totals(weight: Tensor) -> bool:
    """Whether `exp_totals` supports a weight, (n, k)."""
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or weight.dim() != 2:
        return False
    return weight.shape[1] % 2 == 0 and weight.is_contiguous()


def fits_norm(weight: Tensor) -> bool:
    """Whether `rms_norm` supports a weight, (k,)."""
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or weight.dim() != 1:
        return False
    return len(weight) % LANES == 0 and weight.is_contiguous()


def fits_heads(query: Tensor, value: Tensor) -> bool:
    """Whether `kernel_attention` supports these heads, (1, heads, n, head_dim) and (1, kv_heads, keys, width)."""
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or query.shape[-1] % 2:
        return False
    return value.shape[-1] % WIDTH == 0


def fits_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether `rotary` supports these heads, (1, heads, n, depth), and positions, (1, n, depth)."""
    if x.dtype != torch.bfloat16 or x.device.type != "cpu" or x.dim() != 4 or x.stride(3) != 1:
        return False
    positions = (1, *x.shape[2:])
    same = all(each.dtype == x.dtype and each.shape == positions and each.is_contiguous() for each in (cos, sin))
    return same and len(x) == 1 and x.shape[3] % (2 * LANES) == 0


def panel_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias, (m, n), bfloat16; x: (m, k), m a multiple of WIDTH, weight: panels, bias: (n,)."""
    return torch.ops.drsow.panel_product(x.contiguous(), weight, bias)


def gated_panel_product(x: Tensor, gate: Tensor, up: Tensor, *, gelu: bool) -> Tensor:
    """act(x @ gate.T) * (x @ up.T), (m, n), bfloat16, rounded once.

    Args:
        x: (m, k), m a multiple of WIDTH.
        gate: Panels.
        up: Panels.
        gelu: Whether the activation is GELU in its tanh form; otherwise it is SiLU.
    """
    return torch.ops.drsow.gated_panel_product(x.contiguous(), gate, up, gelu)


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, shift: bool) -> Tensor:
    """Each row over the root of its mean square plus eps, times a weight, (m, k), bfloat16.

    Args:
        x: (m, k), bfloat16, k a multiple of LANES.
        weight: (k,), bfloat16.
        eps: Added to the mean square.
        shift: Whether the factor is 1 + weight, and the product is rounded once, as in Gemma. Otherwise a row is
            rounded before it is multiplied by its weight, as in Llama.
    """
    return torch.ops.drsow.rms_norm(x.contiguous(), weight, eps, shift)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x * cos + (-x's second half, x's first half) * sin, (1, heads, n, depth), bfloat16.

    Both products and the sum are rounded, as by torch.

    Args:
        x: (1, heads, n, depth), bfloat16, depth a multiple of 2 * LANES.
        cos: Of each token's angles, (1, n, depth), bfloat16.
        sin: The same for the sine.
    """
    return torch.ops.drsow.rotary(x[0], cos[0], sin[0])[None]


def exp_totals(hidden: Tensor, weight: Tensor, *, top: Tensor | None = None) -> Tensor:
    """sum_j exp(hidden @ weight_j), (m,), float64; inf if a logit is over 88.

    Products are summed in float32, and each exponential is float32.

    Args:
        hidden: (m, k), bfloat16, m a multiple of WIDTH.
        weight: (n, k), bfloat16, k even.
        top: If given, (m,), float32, gets max_j hidden @ weight_j.
    """
    return torch.ops.drsow.exp_totals(hidden.contiguous(), weight, top)


class SeenKeys(NamedTuple):
    """The blocks of WIDTH keys that each run of WIDTH queries of a step sees."""

    first: Tensor
    """Index of the first block of each run of queries, and the number of blocks, (runs + 1,), int64."""
    starts: Tensor
    """First key of each block, (blocks,), int64; even, because values are stored in pairs."""
    seen: Tensor
    """The keys of a block that each query sees, one bit per key from the lowest bit on, (blocks, WIDTH), int64."""


def seen_keys(step: Step, *, n_before: int, window: int | None) -> SeenKeys:
    """The blocks of a packed step: query q sees key k when k <= q < end[k], and every key of the trunk.

    Args:
        step: A step of n tokens.
        n_before: Number of the trunk's keys, which precede the step's.
        window: A query sees keys that are nearer than this; None for all keys.
    """
    end, positions = step.end, step.positions
    # Every query of the step sees a key of the trunk: from index -1 to the end of the step.
    begins = np.concatenate([np.full(n_before, -1), np.arange(len(end))])
    ends = np.concatenate([np.full(n_before, len(end)), end])
    depths = np.concatenate([np.arange(n_before), positions])
    first, starts, seen = [0], [], []
    for low in range(0, len(end), WIDTH):
        q = np.arange(low, min(low + WIDTH, len(end)))
        near = True if window is None else positions[q].min() - depths < window
        wanted = np.flatnonzero((ends > low) & (begins <= q[-1]) & near)
        while len(wanted):
            start = int(wanted[0]) // 2 * 2
            starts.append(start)
            wanted = wanted[np.searchsorted(wanted, start + WIDTH) :]
            k = slice(start, start + WIDTH)
            visible = (begins[k] <= q[:, None]) & (q[:, None] < ends[k])
            if window is not None:
                visible &= positions[q, None] - depths[k] < window
            whole = np.zeros((WIDTH, WIDTH), dtype=bool)
            whole[: visible.shape[0], : visible.shape[1]] = visible
            seen.append(np.packbits(whole, axis=1, bitorder="little").view(np.int64)[:, 0])
        first.append(len(starts))
    return SeenKeys(torch.tensor(first), torch.tensor(starts), torch.from_numpy(np.stack(seen)))


def kernel_attention(
    query: Tensor, key: Tensor, value: Tensor, seen: SeenKeys, *, rows: int, scale: float | None
) -> Tensor:
    """Softmax attention of a packed step, (1, rows, heads, width), bfloat16; zeros behind the n-th row.

    Products and sums are float32; a weight is rounded before it meets its value, as in torch's flash kernel.

    Args:
        query: (1, heads, n, head_dim).
        key: (1, kv_heads, keys, head_dim), the trunk's before the step's own.
        value: (1, kv_heads, keys, width), width a multiple of WIDTH.
        seen: From `seen_keys`.
        rows: Of the result, at least n.
        scale: Of the scores; None: the usual one over the root of head_dim.
    """
    scale = query.shape[3] ** -0.5 if scale is None else scale
    return torch.ops.drsow.attention(query[0], key[0], value[0], *seen, rows, scale)[None]
