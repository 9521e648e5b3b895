"""Weight files: what loads, as what, and what is refused with which words."""

from __future__ import annotations

import os
import pickle
import re

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from videosr.archs import checkpoint  # noqa: E402
from videosr.archs.paragon_blocks import StreamBlock  # noqa: E402
from videosr.archs.paragonsr2 import SCALES, VARIANTS, ParagonSR2  # noqa: E402
from videosr.errors import NetworkError, UsageError  # noqa: E402


def network(variant="realtime", scale=2, **options):
    torch.manual_seed(0)
    return ParagonSR2(variant, scale, **{"upsampler_alpha": 0.0, "detail_gain": 1.0, "layer_scale": 0.1} | options)


def same_function(a, b):
    x = torch.rand(1, 3, 20, 17)
    with torch.no_grad():
        return torch.equal(a.eval()(x), b.eval()(x))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_published_files_load_as_the_variant_they_are(tmp_path, variant, suffix):
    model, path = network(variant, 3, window_size=8), tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save({"params_ema": model.state_dict(), "params": network(variant, 3).state_dict()}, path)
    else:
        save_file(model.state_dict(), path, {"format": "pt"})
    loaded, info = checkpoint.load(path, alpha=0.0, window_size=8)
    assert (loaded.variant, loaded.scale, loaded.training) == (variant, 3, False)
    assert same_function(model, loaded)
    assert info.metadata == {}
    assert info.generation == {"photo": "9 to 11"}.get(variant, "11")


@pytest.mark.parametrize("scale", SCALES)
def test_scale_is_read_off_the_tensors(tmp_path, scale):
    torch.save({"params": network(scale=scale).half().state_dict()}, tmp_path / "net.pth")
    loaded, _ = checkpoint.load(tmp_path / "net.pth", alpha=0.3)
    assert (loaded.scale, loaded.base.alpha) == (scale, 0.3)
    assert loaded.conv_in.weight.dtype == torch.float32


@pytest.mark.parametrize("variant", ["realtime", "stream"])
def test_generations_9_and_10_have_no_layer_scale(tmp_path, variant):
    model = network(variant, layer_scale=1.0)
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("gamma")}
    save_file(state, tmp_path / "net.safetensors")
    loaded, info = checkpoint.load(tmp_path / "net.safetensors", alpha=0.0)
    assert info.generation == "9 or 10"
    assert same_function(model, loaded)


def test_the_limit_of_products_is_in_our_own_header(tmp_path):
    path = tmp_path / "net.safetensors"
    for limit in (65504.0, 3.5):
        checkpoint.save(path, network("stream", product_limit=limit), name="n", training="none", license="MIT")
        loaded, info = checkpoint.load(path)
        assert loaded.product_limit == limit
        assert {module.limit for module in loaded.modules() if isinstance(module, StreamBlock)} == {limit}
        assert ("product_limit" in info.metadata) == (limit == 3.5)  # published files have none
    for wrong in ("0", "nan", "1e6", "tight"):
        save_file(loaded.state_dict(), path, info.metadata | {"product_limit": wrong})
        with pytest.raises(NetworkError, match=f"product_limit='?{re.escape(wrong.removesuffix('e6'))}"):
            checkpoint.load(path)


@pytest.mark.parametrize("variant", ["photo", "pro"])
def test_export_safe_files_have_no_windows(tmp_path, variant):
    model = network(variant, export_safe=True)
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    loaded, _ = checkpoint.load(tmp_path / "net.safetensors", alpha=0.0)  # no window size needed
    assert not loaded.has_windows
    assert same_function(model, loaded)


def old_name(key):
    for new, old in (
        ("base.blur.", "base_upsampler.resample_conv."),
        ("base.sharp.", "base_upsampler.sharpen."),
        ("detail_gain", "global_detail_gain"),
        ("up.0.", "detail_upsampler.up_conv."),
        ("conv_mid.", "conv_fuse."),
        (".conv1.", ".net.0."),
        (".dw.", ".net.2."),
        (".conv2.", ".net.4."),
        (".h.weight", ".conv_h.weight"),
        (".v.weight", ".conv_v.weight"),
    ):
        key = key.replace(new, old)
    return f"module.{key}"


def test_old_names_and_wrappers_are_mapped(tmp_path):
    model = network()
    state = {old_name(key): value for key, value in model.state_dict().items() if not key.endswith(".kernel")}
    assert "module.base_upsampler.resample_conv.conv_h.weight" in state
    assert "module.body.0.blocks.2.net.4.bias" in state
    torch.save({"params": state}, tmp_path / "net.pth")
    loaded, _ = checkpoint.load(tmp_path / "net.pth", alpha=0.0)
    assert same_function(model, loaded)


def test_compiled_networks_and_empty_averages_are_read(tmp_path):
    model = network()
    state = {f"_orig_mod.module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"params": state, "params_ema": {}}, tmp_path / "net.pth")
    loaded, _ = checkpoint.load(tmp_path / "net.pth", alpha=0.0)
    assert same_function(model, loaded)


OLD = {
    "version 8": {"base_upsampler.sharpen.source_kernel": (7,), "body.0.mscf.p1.weight": (16, 16, 1, 1)},
    "version 7": {"body.0.mid_conv.weight": (16, 16, 3, 3)},
    "version 6": {"body.0.blocks.0.context.dwconv_hw.bias": (2,), "content_processor.analyzer.0.bias": (4,)},
    "version 5": {"upsampler_net.up_conv.weight": (64, 16, 3, 3), "body.0.blocks.0.context.dwconv_h.bias": (2,)},
    "version 4": {"body.0.blocks.0.transformer.dw_mixer.0.weight": (32, 1, 3, 3), "hr_conv_in.bias": (16,)},
    "version 0 to 3": {"body.0.blocks.0.transformer.kernel_generator.predictor.1.bias": (9,)},
}


@pytest.mark.parametrize("version", OLD)
def test_older_networks_are_refused_by_name(tmp_path, version):
    state = network().state_dict() | {key: torch.zeros(shape) for key, shape in OLD[version].items()}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(NetworkError, match=rf"net\.pth: .*ParagonSR2 {version}, which is another network"):
        checkpoint.load(tmp_path / "net.pth", alpha=0.0)


def test_realtime_of_version_6_is_refused_though_every_tensor_would_fit(tmp_path):
    state = {old_name(k): v for k, v in network().state_dict().items() if not k.endswith((".kernel", ".gamma"))}
    torch.save({"params_ema": state}, tmp_path / "net.pth")
    with pytest.raises(NetworkError, match="ParagonSR2 version 6, which is another network"):
        checkpoint.load(tmp_path / "net.pth", alpha=0.0)


def test_missing_unexpected_and_misshapen_keys_are_listed(tmp_path):
    state = network().state_dict()
    del state["conv_out.bias"], state["body.0.blocks.1.scale.gamma"]
    state |= {"extra.weight": torch.zeros(1), "conv_mid.bias": torch.zeros(3)}
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(NetworkError) as caught:
        checkpoint.load(tmp_path / "net.safetensors", alpha=0.0)
    assert "missing: body.0.blocks.1.scale.gamma, conv_out.bias;" in str(caught.value)
    assert "unexpected: extra.weight;" in str(caught.value)
    assert "of another shape: conv_mid.bias" in str(caught.value)


def refusal(path, content, match):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(NetworkError, match=match) as caught:
        checkpoint.load(path, alpha=0.0)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_old_format_with_a_storage_under_a_wrong_name_is_refused(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"conv_in.bias": torch.zeros(16)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    named = list(re.finditer(rb"[0-9]{9,}", data))[-1]  # in the list of storages at the end
    refusal(path, data[: named.start()] + b"9" * len(named[0]) + data[named.end() :], "not a checkpoint that can be")


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    state = network().state_dict()
    good = tmp_path / "good.pth"
    torch.save(state, good)
    whole = good.read_bytes()
    refusal(tmp_path / "empty.pth", b"", "not a checkpoint that can be loaded")
    refusal(tmp_path / "text.pth", b"hello", "not a checkpoint that can be loaded")
    refusal(tmp_path / "text.safetensors", b"hello, this is text", "not a checkpoint that can be loaded")
    refusal(tmp_path / "cut.pth", whole[: len(whole) // 2], "not a checkpoint that can be loaded")
    refusal(tmp_path / "net.bin", whole, r"a \.safetensors or a \.pth file, not '\.bin'")
    refusal(tmp_path / "list.pth", [1, 2], "no named tensors")
    refusal(tmp_path / "words.pth", {"conv_in.weight": "hello"}, "conv_in.weight is a str and not a tensor")
    refusal(tmp_path / "other.pth", {"layer.weight": torch.zeros(3)}, "not a ParagonSR2 checkpoint")
    refusal(tmp_path / "nan.pth", state | {"conv_in.bias": torch.full((16,), torch.nan)}, "conv_in.bias .*not finite")
    refusal(tmp_path / "twice.pth", state | {"conv_fuse.bias": torch.zeros(16)}, "conv_mid.bias is there twice")
    refusal(
        tmp_path / "blur.pth", state | {"base.blur.kernel": torch.ones(5)}, "base.blur.kernel is not the fixed filter"
    )
    wide = {"conv_in.weight": torch.zeros(48, 3, 3, 3), "up.0.weight": torch.zeros(192, 48, 3, 3)}
    refusal(tmp_path / "wide.pth", wide, "48 feature channels .* fit none of the variants")
    with pytest.raises(NetworkError, match="cannot read"):
        checkpoint.load(tmp_path / "nowhere.pth", alpha=0.0)


def test_who_saved_a_whole_model_is_told_what_to_save(tmp_path):
    """Not how to have torch run the code in the file."""
    torch.save(network(), tmp_path / "whole.pth")
    with pytest.raises(
        NetworkError, match=r"whole\.pth: .*: it holds more than tensors, .*; save its state_dict\(\) alone$"
    ):
        checkpoint.load(tmp_path / "whole.pth", alpha=0.0)


def test_no_code_in_a_pickle_is_run(tmp_path):
    target = tmp_path / "made by the pickle"
    refusal(
        tmp_path / "evil.pth",
        pickle.dumps({"params": Evil(str(target))}, protocol=2),
        "not a checkpoint that can be loaded",
    )
    refusal(tmp_path / "evil.pth", {"params": Evil(str(target))}, "not a checkpoint that can be loaded")
    assert not target.exists()


def test_settings_that_tensors_do_not_tell_are_asked_for(tmp_path):
    save_file(network("photo").state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(
        UsageError, match=r"does not record its alpha: give --alpha \(published fidelity.*\) to `videosr export`$"
    ):
        checkpoint.load(tmp_path / "net.safetensors")
    with pytest.raises(UsageError, match=r"does not record its window-size: give --window-size"):
        checkpoint.load(tmp_path / "net.safetensors", alpha=0.0)
    for settings in ({"alpha": 1.5}, {"alpha": float("nan")}, {"alpha": 0.0, "window_size": 0}):
        with pytest.raises(UsageError, match="out of range"):
            checkpoint.load(tmp_path / "net.safetensors", **{"window_size": 16} | settings)


def test_our_own_files_say_all(tmp_path):
    model, path = network("photo", window_size=8), tmp_path / "net.safetensors"
    checkpoint.save(path, model, name="photo-2x", training="500 iterations", license="MIT", psnr="30.1")
    loaded, info = checkpoint.load(path)
    assert same_function(model, loaded)
    assert dict(info.metadata) == {
        "architecture": "ParagonSR2",
        "name": "photo-2x",
        "variant": "photo",
        "scale": "2",
        "upsampler_alpha": "0.0",
        "window_size": "8",
        "padding": "replicate",
        "training": "500 iterations",
        "license": "MIT",
        "psnr": "30.1",
    }
    with pytest.raises(UsageError, match=r"--alpha 0\.3 contradicts the 0\.0"):
        checkpoint.load(path, alpha=0.3)
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
