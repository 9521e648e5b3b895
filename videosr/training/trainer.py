"""The training loop: Adam, warm-up and cosine, averaged weights, validation, checkpoints that resume to the iteration."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from videosr.archs.paragonsr2 import ParagonSR2
from videosr.errors import InputError, NetworkError
from videosr.evaluate import list_images, read_image
from videosr.metrics import imresize, psnr, to_y
from videosr.training.config import TrainingConfig, load_config
from videosr.training.data import PatchSampler, build_pack
from videosr.training.folding import forward_folded

HALO = 8
"""LR pixels by which a picture is extended (border repeated) before our networks see it; the output is cropped."""


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """sqrt(difference^2 + 1e-3^2), averaged (Lai et al. 2017)."""
    return torch.sqrt((output - target).square() + 1e-6).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": F.l1_loss, "charbonnier": charbonnier, "l2": F.mse_loss}


def learning_rate(iteration: int, config: TrainingConfig) -> float:
    """Of the step that `iteration` (from 0) takes: linear warm-up, then half a cosine to zero."""
    s = config.schedule
    if iteration < s.warmup:
        return s.learning_rate * (iteration + 1) / s.warmup
    return s.learning_rate * 0.5 * (1 + math.cos(math.pi * (iteration - s.warmup) / (s.iterations - s.warmup)))


def upscale_image(network: ParagonSR2, image: NDArray[Any]) -> NDArray[np.float32]:
    """A whole image as our deployed networks do it: border repeated by HALO, output cropped.

    Args:
        network: on any device.
        image: (H, W, 3), RGB in 0..1.

    Returns:
        (scale * H, scale * W, 3), float32, unclamped.
    """
    device = next(network.parameters()).device
    x = torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None].to(device)
    crop = HALO * network.scale
    with torch.no_grad():
        y = forward_folded(network, F.pad(x, (HALO,) * 4, mode="replicate"))[:, :, crop:-crop, crop:-crop]
    return y[0].permute(1, 2, 0).float().cpu().numpy()


class Trainer:
    """One run, from wherever its folder says it is.

    Args:
        config: the whole run.
        device: torch device; bfloat16 autocast is used on CUDA.
        say: called with lines for the user.
    """

    def __init__(self, config: TrainingConfig, device: str, say: Callable[[str], None] = print) -> None:
        self.config, self.device, self.say = config, torch.device(device), say
        self.folder = config.output.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.schedule.seed)
        n = config.network
        self.network = ParagonSR2(
            n.variant, n.scale, upsampler_alpha=n.upsampler_alpha, detail_gain=n.detail_gain, layer_scale=n.layer_scale
        )
        if n.weights:
            load_weights(self.network, n.weights)
        self.network.to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.weights = [p for p in self.network.parameters() if p.requires_grad]
        self.averaged = [
            a for a, p in zip(self.average.parameters(), self.network.parameters(), strict=True) if p.requires_grad
        ]
        self.optimizer = torch.optim.AdamW(self.weights, lr=config.schedule.learning_rate, weight_decay=0.0)
        self.iteration, self.best, self.seconds = 0, -math.inf, 0.0

    # Checkpoints

    @property
    def checkpoint_path(self) -> Path:
        """The run's state."""
        return self.folder / "checkpoint.pt"

    def save_checkpoint(self) -> None:
        """Write the run's whole state; the previous one stays until the new one is complete."""
        state = {
            "iteration": self.iteration,
            "best": self.best,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }
        partial = self.checkpoint_path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint_path)

    def load_checkpoint(self) -> None:
        """Continue exactly where `save_checkpoint` was called.

        Raises:
            InputError: the file is broken or belongs to another network.
        """
        try:
            state = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (OSError, RuntimeError, KeyError, EOFError, ValueError) as exc:
            raise InputError(
                f"{self.checkpoint_path}: not a checkpoint of this run ({exc}): remove it to start over"
            ) from exc
        self.iteration, self.best, self.seconds = state["iteration"], state["best"], state["seconds"]
        torch.set_rng_state(state["torch_rng"].cpu())

    def export(self, path: Path, **extra: str) -> None:
        """The averaged weights as .safetensors with what one has to know of them in the header."""
        n, s = self.config.network, self.config.schedule
        metadata = {
            "name": f"{n.variant}-{n.scale}x",
            "architecture": "ParagonSR2",
            "variant": n.variant,
            "scale": str(n.scale),
            "upsampler_alpha": f"{n.upsampler_alpha:g}",
            "padding": "replicate",
            "iterations": str(self.iteration),
            "license": self.config.output.licence,
            "training": (
                f"{self.iteration} of {s.iterations} iterations of {self.config.data.batch} patches of "
                f"{self.config.data.patch}x{self.config.data.patch} LR pixels, loss {s.loss}, AdamW "
                f"{s.learning_rate:g} to 0 by cosine, EMA {s.ema:g}"
            ),
            **extra,
        }
        state = {name: value.detach().cpu().contiguous() for name, value in self.average.state_dict().items()}
        partial = path.with_suffix(".partial")
        save_file(state, partial, metadata)
        os.replace(partial, path)

    # Work

    def step(self, lr: Tensor, hr: Tensor) -> Tensor:
        """One update; both (N, 3, H, W) in 0..1. Returns the loss, on the device."""
        rate = learning_rate(self.iteration, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            output = forward_folded(self.network, lr)
        border = self.config.schedule.loss_border
        inside = (slice(None), slice(None), slice(border, -border or None), slice(border, -border or None))
        loss = LOSSES[self.config.schedule.loss](output.float()[inside], hr[inside])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        # A young average would be mostly initial weights: its decay grows with the run (as in TensorFlow's EMA).
        decay = min(self.config.schedule.ema, (1 + self.iteration) / (10 + self.iteration))
        torch._foreach_lerp_(self.averaged, [w.detach() for w in self.weights], 1 - decay)
        self.iteration += 1
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """PSNR of luma (dB, border of `scale` pixels left out), averaged over each validation folder."""
        scale, results = self.config.network.scale, {}
        for folder in self.config.data.validation:
            values = []
            for path in list_images(folder):
                hr = read_image(path)
                hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
                sr = upscale_image(self.average, imresize(hr, 1 / scale) / 255)
                sr = np.clip(np.round(sr * 255), 0, 255)
                values.append(psnr(to_y(sr), to_y(hr), border=scale))
            results[folder.name] = float(np.mean(values))
        return results

    def log(self, **values: Any) -> None:
        """One JSON line in `log.jsonl`, with the iteration and the seconds of work so far."""
        record = {"iteration": self.iteration, "seconds": round(self.seconds, 1), **values}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.say(json.dumps(record))

    def _to_tensor(self, images: NDArray[np.uint8]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self.device, non_blocking=True)
        return tensor.permute(0, 3, 1, 2).float() / 255  # NHWC memory: channels_last as it is

    def run(self) -> None:
        """Train to the last iteration."""
        out = self.config.output
        last = self.config.schedule.iterations
        sampler = PatchSampler(self.folder, self.config.data, self.config.network.scale, self.config.schedule.seed)
        total, count = torch.zeros((), device=self.device), 0
        clock = time.monotonic()
        for lr, hr in sampler.batches(self.iteration, last):
            total += self.step(self._to_tensor(lr), self._to_tensor(hr))
            count += 1
            now = time.monotonic()
            self.seconds, clock = self.seconds + now - clock, now
            if self.iteration % out.log_every == 0 or self.iteration == last:
                mean = total.item() / count
                if not math.isfinite(mean):
                    raise InputError(f"{self.folder}: the loss is {mean} at {self.iteration}: lower the learning rate")
                self.log(loss=mean, learning_rate=learning_rate(self.iteration - 1, self.config))
                total.zero_()
                count = 0
            if self.iteration % out.validate_every == 0 or self.iteration == last:
                results = self.validate()
                self.log(psnr_y=results)
                self.export(self.folder / "last.safetensors")
                score = next(iter(results.values()), math.inf)
                if score >= self.best:
                    self.best = score
                    self.export(self.folder / "best.safetensors")
                clock = time.monotonic()
            if self.iteration % out.checkpoint_every == 0 or self.iteration == last:
                self.save_checkpoint()


def load_weights(network: ParagonSR2, path: Path) -> None:
    """Start values from a .safetensors file of the same network.

    Raises:
        NetworkError: not readable, or of another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, ValueError) as exc:
        raise NetworkError(f"{path}: not weights of this network: {exc}") from exc


def run(
    config_path: str | Path, *, resume: bool = True, device: str | None = None, say: Callable[[str], None] = print
) -> Path:
    """Train what a TOML file describes (see `training.config`); the whole of `videosr train`.

    Args:
        config_path: the file.
        resume: continue the run found in the output folder; otherwise such a run is an error.
        device: torch device; None takes CUDA where there is one.
        say: called with lines for the user.

    Returns:
        The best weights, `best.safetensors` in the output folder.

    Raises:
        InputError, UsageError: the configuration or the data cannot be used.
    """
    config = load_config(config_path)
    trainer = Trainer(config, device or ("cuda" if torch.cuda.is_available() else "cpu"), say)
    if trainer.checkpoint_path.exists():
        if not resume:
            raise InputError(f"{trainer.folder}: holds a run already: resume it or choose another folder")
        trainer.load_checkpoint()
        say(f"resuming at iteration {trainer.iteration}")
    # A pair needs its own pixels and those that the LR filter reaches beyond them.
    hr_size = (config.data.patch + 4) * config.network.scale
    build_pack(trainer.folder, config.data, hr_size, say)
    trainer.run()
    return trainer.folder / "best.safetensors"
