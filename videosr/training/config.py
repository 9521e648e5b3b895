"""What a training run is: the tables of its TOML file (see `configfile`) as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """The network and how it starts (see `archs.paragonsr2.ParagonSR2` and `archs.nexus.Nexus`).

    Attributes:
        variant: "light", "realtime", "fine", "stream", "photo" or "pro"; or "nexus_tiny", "_small", "_medium", "_large"
            or "_extreme".
        scale: 2, 3, 4 or 8; NEXUS: not 8.
        upsampler_alpha: of ParagonSR2's base path; 0 is what our own networks use.
        detail_gain: start value of ParagonSR2's learned gain.
        layer_scale: start value of every LayerScale.
        expansion: how far convolutions are over-parameterised in training (see `reparam`); 0 trains plain kernels.
        weights: a .safetensors file to start from instead of random weights: of the same variant and scale; of the
            same variant of ParagonSR2 at another scale (see `rescaling`); or of that scale a realtime network for fine
            and photo, a fine one for stream and nexus_tiny (see `growing`).
        attention_mode: of the windows of photo and pro; "flex" needs CUDA, "off" leaves them out (`export_safe`): a
            third of the arithmetic.
        checkpointing: recompute blocks in the backward pass: a third more time, memory for one block instead of all.
    """

    variant: str = "realtime"
    scale: int = 2
    upsampler_alpha: float = 0.0
    detail_gain: float = 1.0
    layer_scale: float = 0.1
    expansion: int = 4
    weights: Path | None = None
    attention_mode: Literal["sdpa", "flex", "off"] = "sdpa"
    checkpointing: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What it learns from.

    Attributes:
        train: folders of HR images and videos (read recursively).
        validation: folders of HR images measured during training; the first one decides which weights are the best.
        never_train: folders whose images and videos must not be among the training data, under whatever name or size.
        shares: how often patches come from each folder of `train`, in any unit; none: from all alike.
        factors: every image is packed once for each factor, shrunk by it (Lanczos): shrunk photographs are pixel-sharp.
        softness: if above 0, each of those is packed once more, after a Gaussian blur of random standard deviation, up
            to this many HR pixels: most pictures, and nearly all video, are softer than shrunk photographs.
        chroma_softness: if above 0, every other patch has its chroma blurred, HR and LR, by a Gaussian of random
            standard deviation, up to this many HR pixels: cameras and tape record colour less sharply than light.
        frames: length of the clips that are trained on; of videos as many consecutive frames are kept together, images
            are panned. 1 trains on still pictures; codecs and the temporal window need some 6.
        video_interval: seconds of a video from one kept clip to the next.
        patch: edge of a training patch in LR pixels.
        batch: patches an iteration.
        candidates: patches drawn for each one used, from the same folder; the most textured is taken.
        patterns: share of patches that are noise, stripes, checkerboards or flat fields instead (see `patterns`).
        workers: threads that prepare batches ahead; 0 prepares them in line.
    """

    train: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    never_train: tuple[Path, ...] = ()
    shares: tuple[float, ...] = ()
    factors: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)
    softness: float = 0.0
    chroma_softness: float = 0.0
    frames: int = 1
    video_interval: float = 1.0
    patch: int = 48
    batch: int = 16
    candidates: int = 4
    patterns: float = 0.0
    workers: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DegradationConfig:
    """What befalls the LR pictures besides being small (see `degradations`), in the order in which it happens.

    What is not a range or a choice is the share of clips that suffer it; without the table none does.

    Attributes:
        blur: anisotropic Gaussian blur of the HR picture before it is shrunk.
        blur_sigma: its standard deviation along either axis, HR pixels.
        noise: white Gaussian noise, of each channel or of luma alone.
        noise_sigma: its standard deviation, code values.
        grain: film grain: soft noise of luma, strongest in the mid-tones.
        grain_sigma: its standard deviation there, code values.
        jpeg: JPEG of each picture.
        jpeg_quantiser: FFmpeg's qscale, 2 (best) to 31.
        chroma: 8-bit Y'CbCr with 4:2:0 chroma and back, as videos have it.
        video: real compression of the clip, as `chroma` and then a codec, one setting for all such clips of a batch.
        codecs: encoders, libx264 and libx265.
        crf: their constant rate factor.
        presets: theirs.
        copies: how often every whole picture is degraded, once for the run (see `copies`); patches are then cut from
            those, which is many times faster than 0: patches are degraded as they are drawn.
    """

    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.2, 1.5)
    noise: float = 0.0
    noise_sigma: tuple[float, float] = (1.0, 8.0)
    grain: float = 0.0
    grain_sigma: tuple[float, float] = (1.0, 6.0)
    jpeg: float = 0.0
    jpeg_quantiser: tuple[float, float] = (2.0, 10.0)
    chroma: float = 0.0
    video: float = 0.0
    codecs: tuple[Literal["h264", "hevc"], ...] = ("h264", "hevc")
    crf: tuple[float, float] = (18.0, 36.0)
    presets: tuple[str, ...] = ("ultrafast", "veryfast", "medium")
    copies: int = 0

    @property
    def any(self) -> bool:
        """Whether any clip suffers anything."""
        return any((self.blur, self.noise, self.grain, self.jpeg, self.chroma, self.video))

    @property
    def subsampled(self) -> float:
        """Share of clips whose chroma comes from 4:2:0."""
        return 1 - (1 - self.chroma) * (1 - self.video)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegularisationConfig:
    """What keeps the network from relying on too little.

    Attributes:
        cutblur: share of clips a rectangle of which is exchanged between degraded and undegraded LR (see
            `degradations.cutblur`).
        frequency_dropout: chance of each band of the features' spectra to be left out (see `regularisers`).
    """

    cutblur: float = 0.0
    frequency_dropout: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """How much each term of the objective counts (see `losses`); those at 0 are not computed.

    Attributes:
        pixel: the one named by `schedule.loss`.
        luma: the same of BT.601 luma alone, which is all that a network beside which chroma is interpolated makes of
            4:2:0 video.
        chroma: the same of the chroma that 4:2:0 video keeps; with `psnr` its decibels count to a knee 10 dB higher.
        ssim: 1 - SSIM.
        fft: L1 of the spectra.
        consistency: L1 of the change from one frame to the next; clips then give two outputs each.
        perceptual: see `PerceptualConfig`, which must be given.
        gan: see `DiscriminatorConfig`.
    """

    pixel: float = 1.0
    luma: float = 0.0
    chroma: float = 0.0
    ssim: float = 0.0
    fft: float = 0.0
    consistency: float = 0.0
    perceptual: float = 0.0
    gan: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptualConfig:
    """The perceptual loss.

    Attributes:
        weights: of a VGG19 trained on ImageNet, .safetensors with torchvision's names; the user brings it.
        layers: convolutions whose answers (before ReLU) are compared, and how much each counts.
    """

    weights: Path
    layers: dict[str, float] = field(
        default_factory=lambda: {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscriminatorConfig:
    """The discriminator of the adversarial loss (see `discriminator.MUNet`).

    Attributes:
        num_feat: channels at full size.
        ch_mult: channels of each halved size, in units of `num_feat`.
        learning_rate: of its own optimiser, constant.
    """

    num_feat: int = 64
    ch_mult: tuple[int, ...] = (1, 2, 4, 8)
    learning_rate: float = 1e-4


RIM = 8
"""LR pixels of a region's rim that no patch is cut from: the teacher did not see what lies beyond it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """A trained network to learn from (see `teacher`).

    Attributes:
        weights: its .safetensors, of the run's scale and any variant.
        share: what it says of what is to be learned; the rest is the original.
        regions: of the pictures that it is shown, once; patches are then cut from those. 0: it looks at every patch,
            which takes many times as long where it is the larger one.
        edge: of such a region in LR pixels.
    """

    weights: Path
    share: float = 0.8
    regions: int = 0
    edge: int = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """How it learns.

    Attributes:
        iterations: length of the run.
        learning_rate: at its peak; linear warm-up to it, then half a cosine down.
        optimizer: "adamw", or "muon", which needs fewer iterations (see `optimizers`) and no `expansion`.
        least_rate: where the cosine ends.
        cycle: iterations after which the rate starts from its peak again; 0: never.
        warmup: iterations of the warm-up.
        gradient_clip: longer gradients are shortened to it. Those of squared errors are some 0.003 long in a sound run
            (of absolute ones ten times that); over-parameterised networks diverge at one bad batch without it.
        ema: decay of the exponential average of the weights that is validated and exported.
        loss: of pixels: "l1", "charbonnier" (epsilon 1e-3), "l2" or "psnr" (see `losses.psnr_loss`).
        loss_knee: of "psnr", in dB: a patch above it counts by its squared error, one below by its decibels.
        window: temporal average that the detail path is given, as `--temporal` gives it in use (see `temporal`).
        loss_border: output pixels ignored at each edge of a patch, where zero padding inside the network shows.
        seed: of the initial weights and of every batch.
    """

    iterations: int
    learning_rate: float = 2.5e-3
    optimizer: Literal["adamw", "muon"] = "adamw"
    least_rate: float = 0.0
    cycle: int = 0
    warmup: int = 200
    gradient_clip: float = 0.005
    ema: float = 0.999
    loss: Literal["l1", "charbonnier", "l2", "psnr"] = "l2"
    loss_knee: float = 37.0
    window: Literal["off", "ema", "adaptive"] = "off"
    loss_border: int = 6
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputConfig:
    """Where the run goes and how often it writes.

    Attributes:
        folder: of the pack, the checkpoint, the log and the weights; a run is resumed from what is there.
        log_every: iterations between lines of the log.
        validate_every: iterations between validations (each exports the weights if they are the best so far).
        checkpoint_every: iterations between checkpoints.
        licence: of the weights, written into the exported file.
    """

    folder: Path
    log_every: int = 100
    validate_every: int = 2000
    checkpoint_every: int = 1000
    licence: str = "MIT"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """A whole run: the tables of the TOML file."""

    data: DataConfig
    schedule: ScheduleConfig
    output: OutputConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    regularisation: RegularisationConfig = field(default_factory=RegularisationConfig)
    loss_weights: LossWeights = field(default_factory=LossWeights)
    perceptual: PerceptualConfig | None = None
    teacher: TeacherConfig | None = None
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
