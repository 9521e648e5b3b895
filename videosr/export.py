"""From a checkpoint to a network file: folded, checked against torch, complete in itself.

The file is written only after the exported network has given what torch gives, on noise and on natural pictures, in
sizes even and odd, inside and on the rim. Its metadata (`METADATA_KEYS`, each with the prefix `videosr.`) is all that
is needed to run it.

Rims. Our own networks pad the picture by replication (a halo) and crop after, so that rim pixels are as good as any.
Published networks were trained with the convolutions' own zero padding; reproducing it, the folded deployment form
differs from the original in the outermost ring of output pixels (two rings at alpha > 0), where the original pads
intermediate maps. The report says by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from videosr.archs import checkpoint, onnx_graph, onnx_nexus
from videosr.archs.families import Network
from videosr.archs.fold import HALO, Deployed
from videosr.archs.nexus import Nexus
from videosr.archs.onnx_writer import Form
from videosr.archs.paragonsr2 import FEATURE_BLEND, ParagonSR2
from videosr.engines.network import PREFIX
from videosr.errors import NetworkError, UsageError
from videosr.files import write_atomically

type Padding = Literal["replicate", "zero"]
type Precision = Literal["fp32", "fp16"]

METADATA_KEYS = {
    "format": "version of this list, 1",
    "name": "of the network",
    "variant": "realtime, stream, photo, pro or one of NEXUS",
    "scale": "output pixels per input pixel and axis",
    "form": "deploy, image or video",
    "precision": "of weights and activations, fp32 or fp16",
    "alpha": "strength of the base path's pre-filter; absent without a base path",
    "window_size": "of window attention; absent without",
    "product_limit": "what stream's products are clamped to; absent in other networks",
    "halo": "input pixels of replicated rim inside the network; 0: zero padding",
    "reach": "how many input pixels away an output pixel sees; absent where that is the whole picture",
    "chroma": "who makes subsampled chroma: network, or interpolated where it has seen only full-resolution chroma",
    "blend": "weight of prev_feat, video form only",
    "training": "one line on data, loss and iterations",
    "license": "of the weights",
    "checkpoint_sha256": "of the file it was made from",
}

TOLERANCE: dict[Precision, float] = {"fp32": 2e-5, "fp16": 2e-3}
"""The largest error allowed against torch in float32, relative to the output's peak but at least to 1 (white): about a
16-bit code, and half an 8-bit code."""

_SIZES = ((48, 64), (37, 53))


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One comparison of the exported network with torch.

    Attributes:
        picture: "noise" or "natural".
        height: of the input.
        width: of the input.
        inside: worst absolute error away from the rim.
        rim: worst absolute error in the two outermost rings of output pixels.
        folded: worst absolute error anywhere against the same folded form in torch, deployment form only.
        state: worst error of `feature_map` relative to its peak, video form only.
    """

    picture: str
    height: int
    width: int
    inside: float
    rim: float
    folded: float | None = None
    state: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was exported, and how well it agrees with torch.

    Attributes:
        output: the network file.
        size: its bytes.
        metadata: as written into it, keys without prefix.
        runtime: what ran the check, with its version.
        tolerance: the largest error allowed.
        rim_is_exact: whether the rim has to meet the tolerance as well.
        checks: every comparison.
    """

    output: Path
    size: int
    metadata: dict[str, str]
    runtime: str
    tolerance: float
    rim_is_exact: bool
    checks: tuple[Check, ...]

    def lines(self) -> list[str]:
        """The report for people."""
        m = self.metadata
        rim = f"replicated, {m['halo']} pixels" if m["halo"] != "0" else "zero padding"
        alpha = f"alpha {m['alpha']}, " if "alpha" in m else ""
        lines = [
            f"{self.output}: {m['name']}, {m['variant']} {m['scale']}x, {m['form']} form, {m['precision']}, "
            f"{alpha}rim: {rim}, {self.size / 1024:.0f} KiB",
            f"checked against torch in {self.runtime}; worst error allowed {self.tolerance:.1e}",
        ]
        for check in self.checks:
            line = f"  {check.picture:8}{check.width}x{check.height}: inside {check.inside:.1e}, rim {check.rim:.1e}"
            if check.folded is not None:
                line += f", against the folded form {check.folded:.1e}"
            lines.append(line if check.state is None else f"{line}, feature_map {check.state:.1e}")
        if not self.rim_is_exact:
            lines.append("  rim: published layers pad intermediate maps with zeros, the folded form has none; expected")
        return lines


def export(
    source: Path,
    output: Path,
    *,
    form: str | None = None,
    precision: Precision = "fp32",
    alpha: float | None = None,
    window_size: int | None = None,
    padding: Padding | None = None,
    blend: float = FEATURE_BLEND,
    name: str | None = None,
) -> Report:
    """Make a checked ONNX network from a checkpoint. An existing `output` is replaced.

    Args:
        source: `.safetensors` or `.pth` (see `archs.checkpoint`).
        output: the network file; it appears complete and checked, or not at all.
        form: "deploy" (ours), "image" or "video" (the published interfaces), see `archs.onnx_graph`; NEXUS has "image"
            alone. None: the first of these that the network has.
        precision: "fp32", or "fp16" with float32 where it matters; inputs and outputs are float32 in both.
        alpha: `upsampler_alpha` of the training, needed where the checkpoint does not record it.
        window_size: of the window attention, likewise.
        padding: how the rim is treated; None: as the checkpoint records, else "zero". The video form has "zero" only.
        blend: weight of the previous features, video form.
        name: of the network; None: as recorded, else the checkpoint's file name.

    Raises:
        NetworkError: the checkpoint cannot be used, or the exported network does not do what torch does.
        UsageError: an option out of range, or needed and not given; or `output` is named like no ONNX file.
        OutputError: `output` cannot be written.
    """
    if form is not None and form not in list(Form):
        raise UsageError(f"form {form!r} is not one of {', '.join(Form)}")
    if precision not in TOLERANCE:
        raise UsageError(f"precision {precision!r} is not one of {', '.join(TOLERANCE)}")
    if output.suffix.lower() != ".onnx":  # it might be the checkpoint itself
        raise UsageError(f"{output}: what is exported is an ONNX network; name it {output.with_suffix('.onnx').name}")
    if not 0 <= blend < 1:
        raise UsageError(f"blend {blend} is out of range: 0 to below 1")
    model, info = checkpoint.load(source, alpha=alpha, window_size=window_size)
    interface = _form(model, form)
    halo = _halo(interface, padding, info.metadata.get("padding", "zero"))
    network = _graph(model, interface, half=precision == "fp16", halo=halo, blend=blend)
    name = name or info.metadata.get("name", source.stem)
    metadata = _metadata(model, info, name, interface, precision, halo)
    if interface is Form.VIDEO:
        metadata["blend"] = repr(float(blend))
    for key, value in metadata.items():
        network.metadata_props.add(key=PREFIX + key, value=value)
    data = network.SerializeToString()
    rim_is_exact = halo > 0 or interface is not Form.DEPLOY
    runtime, run = _runner(data, output)
    report = Report(
        output=output,
        size=len(data),
        metadata=metadata,
        runtime=runtime,
        tolerance=TOLERANCE[precision],
        rim_is_exact=rim_is_exact,
        checks=tuple(_checks(model, interface, halo, blend, run)),
    )
    _accept(report)
    write_atomically(output, data)
    return report


def _metadata(
    model: Network, info: checkpoint.CheckpointInfo, name: str, form: Form, precision: Precision, halo: int
) -> dict[str, str]:
    """What the file says of itself (`METADATA_KEYS`), but for the blend."""
    metadata = {
        "format": "1",
        "name": name,
        "variant": model.variant,
        "scale": str(model.scale),
        "form": form.value,
        "precision": precision,
        "halo": str(halo),
        "chroma": info.metadata.get("chroma", "network"),
        "training": info.metadata.get("training", f"published ParagonSR2 weights, version {info.generation}"),
        "license": info.metadata.get("license", "unknown"),
        "checkpoint_sha256": info.sha256,
    }
    if isinstance(model, ParagonSR2):
        metadata["alpha"] = repr(float(model.base.alpha))
        if model.variant == "stream":
            metadata["product_limit"] = repr(model.product_limit)
    if model.reach is not None:
        metadata["reach"] = str(model.reach)
    if model.has_windows:
        metadata["window_size"] = str(model.window_size)
    return metadata


def _form(model: Network, form: str | None) -> Form:
    if isinstance(model, Nexus):
        if form not in (None, Form.IMAGE):
            raise UsageError(
                f"form {form!r} is for ParagonSR2: {model.variant} has one path and the form 'image' alone"
            )
        return Form.IMAGE
    return Form(form or Form.DEPLOY)


def _graph(model: Network, form: Form, *, half: bool, halo: int, blend: float) -> onnx.ModelProto:
    if isinstance(model, Nexus):
        return onnx_nexus.build(model, half=half, halo=halo)
    return onnx_graph.build(model, form=form, half=half, halo=halo, blend=blend)


def _halo(form: Form, padding: str | None, recorded: str) -> int:
    if padding not in (None, "replicate", "zero"):
        raise UsageError(f"padding {padding!r} is neither 'replicate' nor 'zero'")
    if form is Form.VIDEO:
        if padding == "replicate":
            raise UsageError(
                "the video form's state has the size of the picture: padding 'replicate' has no place in it"
            )
        return 0
    return HALO if (padding or recorded) == "replicate" else 0


def _accept(report: Report) -> None:
    """Raise NetworkError if any error is above the tolerance (a NaN is)."""
    for check in report.checks:
        errors = {
            "inside": check.inside,
            "on the rim": check.rim if report.rim_is_exact else None,
            "from its folded form": check.folded,
            "in feature_map": check.state,
        }
        for where, error in errors.items():
            if error is not None and not error <= report.tolerance:
                raise NetworkError(
                    f"{report.output}: not written: the exported network differs from torch by {error:.2g} {where} "
                    f"({check.picture}, {check.width}x{check.height}; allowed {report.tolerance:.2g})"
                )


type _Run = Callable[[dict[str, NDArray[np.float32]]], list[NDArray[np.float32]]]


def _runner(data: bytes, output: Path) -> tuple[str, _Run]:
    """What the check runs in: ONNX Runtime, or OpenVINO in float32 where that is not installed."""
    try:
        import onnxruntime

        from videosr.engines.onnxruntime import ERRORS
    except ImportError:
        import openvino

        core = openvino.Core()
        try:
            hint = {"INFERENCE_PRECISION_HINT": "f32"}
            compiled = core.compile_model(core.read_model(data), "CPU", hint)
        except RuntimeError as exc:
            raise NetworkError(f"{output}: not written: OpenVINO refuses the network: {exc}") from exc
        return f"OpenVINO {openvino.__version__}", lambda inputs: [np.array(v) for v in compiled(inputs).values()]
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except ERRORS as exc:
        raise NetworkError(f"{output}: not written: ONNX Runtime refuses the network: {exc}") from exc
    return f"ONNX Runtime {onnxruntime.__version__}", lambda inputs: session.run(None, inputs)


def _checks(model: Network, form: Form, halo: int, blend: float, run: _Run) -> Iterator[Check]:
    """Compare on both kinds of pictures in both sizes."""
    generator = torch.Generator().manual_seed(0)
    folded = Deployed(model, halo) if form is Form.DEPLOY and isinstance(model, ParagonSR2) else None
    for height, width in _SIZES:
        for kind, picture in (
            ("noise", torch.rand(1, 3, height, width, generator=generator)),
            ("natural", natural_picture(height, width, generator)),
        ):
            inputs, expected = _expected(model, form, halo, blend, picture, generator)
            got = run({key: value.numpy() for key, value in inputs.items()})
            error = _difference(got[0], expected[0])
            inside = error[:, :, 2:-2, 2:-2].copy()
            error[:, :, 2:-2, 2:-2] = 0
            yield Check(
                picture=kind,
                height=height,
                width=width,
                inside=float(inside.max()),
                rim=float(error.max()),
                folded=None if folded is None else float(_difference(got[0], folded(*inputs.values())).max()),
                state=float(_difference(got[1], expected[1]).max()) if form is Form.VIDEO else None,
            )


def _difference(got: NDArray[np.float32], expected: Tensor) -> NDArray[np.float32]:
    """Absolute errors, relative to the expected peak where that is above 1; infinite if the shapes differ."""
    if got.shape != expected.shape:
        return np.full(tuple(expected.shape), np.inf, np.float32)
    error: NDArray[np.float32] = np.abs(got - expected.numpy()) / max(1.0, float(expected.abs().max()))
    return error


@torch.no_grad()
def _expected(
    model: Network, form: Form, halo: int, blend: float, picture: Tensor, generator: torch.Generator
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Inputs of the exported network, and what torch makes of them."""
    inputs = {"input": picture}
    if form is Form.VIDEO and isinstance(model, ParagonSR2):
        shape = (1, model.conv_in.out_channels, *picture.shape[2:])
        inputs["prev_feat"] = torch.randn(shape, generator=generator)
        return inputs, list(model.forward_video(picture, inputs["prev_feat"], blend))
    if form is Form.DEPLOY:
        inputs["average"] = picture + 0.05 * torch.randn(picture.shape, generator=generator)
    return inputs, [padded_forward(model, halo, *inputs.values())]


@torch.no_grad()
def padded_forward(model: Network, halo: int, frame: Tensor, average: Tensor | None = None) -> Tensor:
    """What a network with a halo computes: replicate `halo` rim pixels, run, crop; shapes as `ParagonSR2.forward`."""
    sides = [halo] * 4
    pictures = [F.pad(picture, sides, mode="replicate") for picture in (frame, average) if picture is not None]
    edge = halo * model.scale
    output: Tensor = model(*pictures)
    return output[:, :, edge : output.shape[2] - edge, edge : output.shape[3] - edge]


def natural_picture(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A picture with the statistics of photographs: a 1/f spectrum, hard edges, flat parts at 0 and 1.

    Returns:
        (1, 3, height, width) float32 in [0, 1].
    """
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    falloff = 1 / (fy**2 + fx**2).sqrt().clamp(min=1 / max(height, width))
    spectrum = torch.fft.rfft2(torch.randn(3, height, width, generator=generator)) * falloff
    clouds = torch.fft.irfft2(spectrum, s=(height, width))
    clouds = 0.5 + 0.2 * (clouds + clouds.mean(0)) / clouds.std()  # colours go together in nature
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    clouds = torch.where(2 * rows + columns > height + width / 2, clouds * 0.5, clouds)  # a slanted edge
    clouds[:, height // 4 : height // 2, width // 8 : width // 4] = 1
    clouds[:, height // 2 : 3 * height // 4, width // 2 : 3 * width // 4] = 0
    return clouds.clamp(0, 1)[None]


__all__ = ["METADATA_KEYS", "TOLERANCE", "Check", "Report", "export", "natural_picture", "padded_forward"]
