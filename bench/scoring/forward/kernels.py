"""Our own kernels for models in bfloat16 on a processor that multiplies it without tiles (AVX512_BF16, no AMX).

There torch's products reach two thirds of what oneDNN's can, none of bfloat16 keeps its sums in float32, and its flash
attention multiplies by MKL. `kernels.cpp` beside this is compiled when a model is first loaded, where there is a C++
compiler; without one, and on every other processor, torch's own are taken.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import cpp_extension

from bench.scoring.cache import user_cache
from bench.scoring.forward.trie import Step

SOURCE = Path(__file__).with_name("kernels.cpp")

WIDTH = 64
"""Rows of every product, and columns of a panel."""

FLAGS = (
    *("-O3", "-std=c++20", "-fPIC", "-shared", "-fopenmp"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mfma"),
)
"""Not -march=native: machines that share a home folder share what was compiled."""


@functools.cache
def ready() -> bool:
    """Whether the kernels are for this processor, and compiled and loaded; says on stderr where they cannot be."""
    if not (torch.cpu._is_avx512_bf16_supported() and torch.backends.mkldnn.is_available()):
        return False
    if torch.cpu._is_amx_tile_supported():
        return False
    try:
        torch.ops.load_library(compiled())
        # A build of torch may have them and not what they call.
        ones = torch.ones(WIDTH, WIDTH, dtype=torch.bfloat16)
        if torch.equal(linear(ones, panels(ones), None), WIDTH * ones):
            return True
        reason = "their products are wrong"
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error) or type(error).__name__).strip().splitlines()[0]
    print(f"no kernels of our own ({reason}): torch's instead, slower", file=sys.stderr)
    return False


def compiled() -> Path:
    """The compiled kernels, in the user's own cache by their source, their flags and torch's version.

    Not in DRSOW_CACHE: that may be a team's, and this is code.

    Raises:
        OSError: there is no compiler, or the cache cannot be written.
        CalledProcessError: it does not compile.
    """
    compiler = os.environ.get("CXX", "g++")
    said = "\0".join((SOURCE.read_text(encoding="utf-8"), *FLAGS, torch.__version__, compiler))
    path = user_cache() / "kernels" / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.so"
    if path.is_file():
        return path
    if shutil.which(compiler) is None:
        raise FileNotFoundError(f"no {compiler} here")
    path.parent.mkdir(parents=True, exist_ok=True)
    includes = [f"-I{folder}" for folder in cpp_extension.include_paths()]
    libraries = [f"-L{folder}" for folder in cpp_extension.library_paths()]
    # Into place in one stroke: other processes may be at it too.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        out = Path(folder) / path.name
        words = [compiler, *FLAGS, *includes, str(SOURCE), "-o", str(out), *libraries, "-ltorch_cpu", "-lc10"]
        subprocess.run(words, check=True, capture_output=True, text=True)
        out.replace(path)
    return path


def panels(weight: Tensor) -> Tensor:
    """A weight (n, k) as the products want it, (n / WIDTH, k / 2, WIDTH, 2).

    Args:
        weight: bfloat16; n a multiple of WIDTH, k even.
    """
    n, k = weight.shape
    pairs = weight.contiguous().view(torch.int32).view(n // WIDTH, WIDTH, k // 2)
    return pairs.transpose(1, 2).contiguous().view(torch.bfloat16).view(n // WIDTH, k // 2, WIDTH, 2)


def takes(weight: Tensor) -> bool:
    """Whether a layer with this weight, (n, k), can have it in panels here."""
    return takes_head(weight) and weight.shape[0] % WIDTH == 0


def takes_head(weight: Tensor) -> bool:
    """Whether `exp_totals` is for this weight, (n, k)."""
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or weight.dim() != 2:
        return False
    return weight.shape[1] % 2 == 0 and weight.is_contiguous() and ready()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias, (m, n), bfloat16; x: (m, k), m a multiple of WIDTH, weight: panels, bias: (n,)."""
    return torch.ops.drsow.linear(x.contiguous(), weight, bias)


def gated(x: Tensor, gate: Tensor, up: Tensor, *, gelu: bool) -> Tensor:
    """act(x @ gate.T) * (x @ up.T), (m, n), bfloat16, rounded once.

    Args:
        x: (m, k), m a multiple of WIDTH.
        gate: Panels.
        up: Panels.
        gelu: The activation: GELU by its tanh, else SiLU.
    """
    return torch.ops.drsow.gated(x.contiguous(), gate, up, gelu)


def exp_totals(hidden: Tensor, weight: Tensor) -> Tensor:
    """sum_j exp(hidden @ weight_j), (m,), float64; inf where a logit is over 88.

    Products are summed in float32, each exponential is float32.

    Args:
        hidden: (m, k), bfloat16, m a multiple of WIDTH.
        weight: (n, k), bfloat16, k even.
    """
    return torch.ops.drsow.exp_totals(hidden.contiguous(), weight)


def takes_heads(query: Tensor, value: Tensor) -> bool:
    """Whether `attend` is for these heads, (1, heads, n, head_dim) and (1, kv_heads, keys, width)."""
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or query.shape[-1] % 2:
        return False
    return value.shape[-1] % WIDTH == 0 and ready()


class Blocks(NamedTuple):
    """Which keys each WIDTH queries of a step look at, WIDTH at a time."""

    first: Tensor
    """Index of each run of queries' first block, and the end, (runs + 1,), int64."""
    starts: Tensor
    """First key of each block, (blocks,), int64, even: values stand in pairs."""
    seen: Tensor
    """The keys of a block that a query sees, one bit each from the lowest, (blocks, WIDTH), int64."""


def blocks(step: Step, *, n_before: int, window: int | None) -> Blocks:
    """The blocks of a packed step: query q sees key k when k <= q < end[k], and every key of the trunk.

    Args:
        step: Of n tokens.
        n_before: Keys of the trunk before the step's own.
        window: Of a layer's attention: keys so far above a query are not seen either; None: all are.
    """
    end, positions = step.end, step.positions
    # A key of the trunk is seen from before the step's first token on, to behind its last.
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
    return Blocks(torch.tensor(first), torch.tensor(starts), torch.from_numpy(np.stack(seen)))


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Blocks, *, rows: int, scale: float | None) -> Tensor:
    """Softmax attention of a packed step, (1, rows, heads, width), bfloat16; zeros behind the n-th row.

    Products and sums are float32; a weight is rounded before it meets its value, as in torch's flash kernel.

    Args:
        query: (1, heads, n, head_dim).
        key: (1, kv_heads, keys, head_dim), the trunk's before the step's own.
        value: (1, kv_heads, keys, width), width a multiple of WIDTH.
        seen: From `blocks`.
        rows: Of the result, at least n.
        scale: Of the scores; None: the usual one over the root of head_dim.
    """
    scale = query.shape[3] ** -0.5 if scale is None else scale
    return torch.ops.drsow.attend(query[0], key[0], value[0], *seen, rows, scale)[None]
