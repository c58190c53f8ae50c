"""The choice of operations: by device, dtype and processor alone, and named for what changes a number."""

import functools
import itertools
import shutil

import pytest
import torch

from bench.scoring.forward import attention, head, kernels, layers, ops, tiles

ZEN_4 = ops.Processor("avx512bf16", onednn_leads=True, fuses_bf16=True, has_kernels=True)
SAPPHIRE_RAPIDS = ops.Processor("amx", onednn_leads=False, fuses_bf16=True, has_kernels=False)
CASCADE_LAKE = ops.Processor("avx512", onednn_leads=False, fuses_bf16=True, has_kernels=False)
HASWELL = ops.Processor("avx2", onednn_leads=False, fuses_bf16=False, has_kernels=False)
BF16, FP32, FP64 = torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize(
    ("cpu", "dtype", "name"),
    [
        (ZEN_4, BF16, "cpu-drsow2-avx512bf16-products"),
        (ZEN_4._replace(has_kernels=False), BF16, "cpu-onednn-avx512bf16-products"),
        (ZEN_4, FP32, "cpu-onednn"),
        (ZEN_4, FP64, "cpu-torch"),
        (SAPPHIRE_RAPIDS, BF16, "cpu-onednn-amx"),
        (SAPPHIRE_RAPIDS._replace(has_kernels=True), BF16, "cpu-drsow2-amx"),
        (SAPPHIRE_RAPIDS, FP32, "cpu-torch"),
        (CASCADE_LAKE, BF16, "cpu-onednn-avx512"),
        (HASWELL, BF16, "cpu-torch-avx2"),
        (HASWELL, FP32, "cpu-torch"),
    ],
)
def test_a_processor_and_a_dtype_have_one_name(cpu, dtype, name):
    assert ops.on_cpu(dtype, cpu).name == name


@pytest.mark.parametrize(
    ("dtype", "capability", "name"),
    [
        (BF16, (9, 0), "cuda-flex-fused-sm90"),
        (BF16, (8, 0), "cuda-flex-fused-sm80"),
        (BF16, (7, 5), "cuda-tiles-sm75"),
        (FP32, (9, 0), "cuda-tiles"),
    ],
)
def test_a_gpu_that_multiplies_bfloat16_has_flexattention(dtype, capability, name):
    assert ops.on_gpu(dtype, capability).name == name


def pieces(function: object) -> object:
    """A function with what is bound to it, so that two of a kind are equal."""
    if isinstance(function, functools.partial):
        return (
            function.func,
            tuple(map(pieces, function.args)),
            tuple((k, pieces(v)) for k, v in function.keywords.items()),
        )
    return function


def test_whatever_has_one_name_is_one_arithmetic():
    flags = itertools.product((False, True), repeat=2)
    isas = ("amx", "avx512bf16", "avx512", "avx2", "default")
    # A processor with kernels has AVX512_BF16, and oneDNN fuses there.
    cpus = [ops.Processor(isa, leads, fuses, False) for isa in isas for leads, fuses in flags]
    cpus += [ops.Processor(isa, leads, True, True) for isa in isas[:2] for leads in (False, True)]
    found = [ops.on_cpu(dtype, cpu) for cpu in cpus for dtype in (BF16, FP32, FP64)]
    found += [ops.on_gpu(dtype, arch) for arch in ((7, 5), (8, 0), (9, 0)) for dtype in (BF16, FP32)]
    found += [record() for each in found for record in each.without.values()]
    by_name: dict[str, set] = {}
    for each in found:
        functions = (each.linear, each.gated, each.log_totals, each.attend, each.rows, each.fuses)
        by_name.setdefault(each.name, set()).add(tuple(map(pieces, functions)))
    assert {name: len(kinds) for name, kinds in by_name.items() if len(kinds) > 1} == {}


def test_what_does_not_compile_on_a_gpu_is_left_out_and_the_name_says_so():
    whole = ops.on_gpu(BF16, (9, 0))
    parts = ("FlexAttention", "The head's sum", "The model's layer")
    tiled, eager, unfused = (whole.without[part]() for part in parts)
    assert tiled.name == "cuda-tiles-fused-sm90" and eager.name == "cuda-flex-fused-eager-sm90"
    assert unfused.name == "cuda-flex-sm90" and not unfused.fuses
    both = tiled.without["The head's sum"]()
    assert both.name == eager.without["FlexAttention"]().name == "cuda-tiles-fused-eager-sm90"
    assert both.without["The model's layer"]().without == {}
    assert tiled.attend.func is tiles.by_tiles and eager.log_totals.keywords["logsumexp"] is head.eager_logsumexp


def test_on_a_processor_nothing_is_compiled_by_torch():
    assert ops.on_cpu(BF16, ZEN_4).without == ops.on_cpu(FP32, ZEN_4).without == {}


def test_the_record_names_what_computes():
    own, plain = ops.on_cpu(BF16, ZEN_4), ops.on_cpu(FP32, SAPPHIRE_RAPIDS)
    assert own.linear is layers.panel_linear and own.attend.func is attention.kernels_or
    assert plain.linear is layers.keep and plain.gated is layers.keep and plain.attend.func is tiles.tile_attention


def test_a_head_that_the_kernels_do_not_fit_is_decided_on_once():
    sums = ops.on_cpu(BF16, ZEN_4).log_totals
    plain, biased = (torch.nn.Linear(8, 70, bias=bias).bfloat16() for bias in (False, True))
    soft = functools.partial(head.rescaled, final_logit_softcapping=3.0)
    found = [
        sums(layer, rescale).args[0] for layer, rescale in ((plain, head.as_is), (biased, head.as_is), (plain, soft))
    ]
    by_kernels = [isinstance(totals, functools.partial) and totals.func is kernels.exp_totals for totals in found]
    assert by_kernels == [True, False, False]


@pytest.mark.parametrize("setting", ["off", "auto"])
def test_a_machine_chooses_the_same_twice_and_heeds_the_setting(setting, monkeypatch):
    monkeypatch.setenv("DRSOW_KERNELS", setting)
    monkeypatch.setattr(kernels, "ready", functools.cache(kernels.ready.__wrapped__))
    names = [ops.choose(torch.device("cpu"), BF16).name for _ in range(2)]
    assert names[0] == names[1]
    assert ("drsow" in names[0]) == kernels.ready() and (setting == "auto" or not kernels.ready())
    assert ops.choose(torch.device("cpu"), FP32).name in {"cpu-torch", "cpu-onednn"}


def test_the_name_is_known_before_anything_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = ops.choose(torch.device("cpu"), BF16, compiles=False).name
    assert ("drsow" in known) == (kernels.suit_here() and shutil.which("g++") is not None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "drsow" not in ops.choose(torch.device("cpu"), BF16, compiles=False).name
    assert list(tmp_path.iterdir()) == []
