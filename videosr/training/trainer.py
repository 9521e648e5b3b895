"""The training loop: warm-up and cosine, averaged weights, validation, exact resumption."""

from __future__ import annotations

import copy
import io
import math
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from videosr.archs import checkpoint
from videosr.archs.exact import exact_float32
from videosr.archs.families import family_of
from videosr.archs.nexus import DropPath
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.errors import InputError, OutputError, UsageError, VideosrError, first_line
from videosr.evaluate import evaluate
from videosr.evaluate.images import check_images
from videosr.files import written
from videosr.training.config import TrainingConfig
from videosr.training.configfile import load_config
from videosr.training.copies import build_copies
from videosr.training.data import PatchSampler
from videosr.training.discriminator import Adversary
from videosr.training.folding import forward_folded
from videosr.training.history import history
from videosr.training.interrupts import held
from videosr.training.journal import Journal
from videosr.training.losses import Objective
from videosr.training.networks import new_network, upscaler
from videosr.training.optimizers import optimizers
from videosr.training.packing import build_pack
from videosr.training.recorded import Recorded
from videosr.training.regularisers import add_frequency_dropout
from videosr.training.reparam import expand, folded_parameters
from videosr.training.rescaling import fit_tail, is_fitted
from videosr.training.resident import ResidentSampler
from videosr.training.start import bias_of, whitening
from videosr.training.taught import TaughtSampler, build_taught
from videosr.training.teacher import Teacher

_OF_DEVICE = ("lr", "capturable", "fused")
"""Options of an optimiser that depend on the device."""
_SEEN = 16
"""Batches of pictures that the first convolution, or the tail for another scale, is made for."""


def learning_rate(iteration: int, config: TrainingConfig) -> float:
    """Of the step that `iteration` (from 0) takes: linear warm-up, then half a cosine, anew each cycle."""
    s = config.schedule
    if iteration < s.warmup:
        return s.learning_rate * (iteration + 1) / s.warmup
    first = iteration // s.cycle * s.cycle if s.cycle else 0
    start, end = max(first, s.warmup), first + (s.cycle or s.iterations)
    passed = (iteration - start) / (end - start)
    return s.least_rate + (s.learning_rate - s.least_rate) * 0.5 * (1 + math.cos(math.pi * passed))


class Trainer:
    """One run, from its start or from its checkpoint.

    Args:
        config: the whole run.
        device: torch device; on CUDA the network computes in bfloat16 where autocast finds that safe.
        say: called with lines for the user.

    Raises:
        UsageError, NetworkError: the configuration names no network, or weights or layers that cannot be used.

    Attributes:
        network: what the optimiser moves.
        average: the exponential average of its folded kernels, a plain network: what is validated and exported.
        iteration: updates done so far.
        validated: the one after which it was last validated; 0: not yet.
        best: the best validation score so far, dB.
        judge: name of the folder that it was measured on; "": there was none.
        seconds: spent training so far, without validation.
    """

    def __init__(self, config: TrainingConfig, device: str, say: Callable[[str], None] = print) -> None:
        self.config, self.device, self.say = config, torch.device(device), say
        if config.network.attention_mode == "flex" and self.device.type == "cpu":
            raise UsageError('network: attention_mode "flex" trains on CUDA only: take "sdpa"')
        self.folder = config.output.folder
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError.writing(self.folder, exc) from exc
        self.journal = Journal(self.folder)
        torch.manual_seed(config.schedule.seed)
        network, self._before = new_network(config.network)
        if config.schedule.window != "off" and not family_of(network.variant).averages:
            raise UsageError(f"schedule: window: {network.variant} takes no average of frames; leave it off")
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        if config.network.expansion:
            expand(self.network, config.network.expansion)
        if config.regularisation.frequency_dropout:
            add_frequency_dropout(self.network, config.regularisation.frequency_dropout)
        self._trained = [p for p in self.network.parameters() if p.requires_grad]
        cuda = self.device.type == "cuda"
        # What changes from step to step lies on the device, where a recorded step finds it.
        self._rate, self._decay = torch.zeros(2, device=self.device)
        rate = self._rate if cuda else config.schedule.learning_rate
        self.optimizers = optimizers(self._trained, config.schedule.optimizer, rate)
        self.objective = Objective(config).to(self.device)
        self.teacher = Teacher(config.teacher, config.network.scale, self.device) if config.teacher else None
        self._taught = config.teacher is not None and config.teacher.regions > 0  # what it says is there already
        self.adversary = Adversary(config.discriminator, self.device) if config.loss_weights.gan else None
        # What the host draws at random in every step, a recorded one would draw once.
        drawn = config.regularisation.frequency_dropout or any(
            isinstance(module, DropPath) and module.rate for module in self.network.modules()
        )
        self._update = self._learn if self.adversary or drawn or not cuda else Recorded(self._learn, say)
        self.iteration, self.validated, self.best, self.seconds = 0, 0, -math.inf, 0.0
        self.judge = next(iter(distinct_names(config.data.validation)), "")

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state is kept."""
        return self.folder / "checkpoint.pt"

    def save_checkpoint(self) -> None:
        """Write the run's whole state; the previous one stays until the new one is complete.

        Raises:
            OutputError: it cannot be written.
            VideosrError: the training diverged; from the previous one it can go on more slowly.
        """
        self._check_sound()
        state = {
            "iteration": self.iteration,
            "validated": self.validated,
            "best": self.best,
            "judge": self.judge,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "torch_rng": torch.get_rng_state(),
        }
        if self.adversary:
            state["adversary"] = self.adversary.state_dict()
        data = io.BytesIO()  # what torch writes by itself hides that the disk is full
        torch.save(state, data)
        with written(self.checkpoint_path, self.checkpoint_path.with_suffix(".partial")) as file:
            file.write(data.getbuffer())

    def load_checkpoint(self) -> None:
        """Continue exactly where `save_checkpoint` was called.

        Raises:
            InputError: the file is broken, or belongs to another network than the configuration names by now.
        """
        what = f"{self.checkpoint_path}: not a checkpoint of this run"
        try:
            state = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
        except (OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as exc:
            raise InputError(f"{what}: {first_line(exc)}: remove it") from exc
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
                # How the device computes the steps is for this run to say: it may go on on another one.
                groups = [
                    saved | {option: group[option] for option in _OF_DEVICE if option in group}
                    for saved, group in zip(values["param_groups"], optimizer.param_groups, strict=True)
                ]
                optimizer.load_state_dict(values | {"param_groups": groups})
            if self.adversary:
                self.adversary.load_state_dict(state["adversary"])
            self.iteration, self.best, self.seconds = state["iteration"], state["best"], state["seconds"]
            self.validated = state.get("validated", self.iteration)  # older checkpoints do not say
            self.judge = state.get("judge", self.judge)
            torch.set_rng_state(state["torch_rng"].cpu())
        except (RuntimeError, LookupError, TypeError, ValueError) as exc:
            reason = "it is of another network" if isinstance(exc, RuntimeError) else first_line(exc)
            undo = "undo what was changed in its configuration, or choose another output folder"
            raise InputError(f"{what}: {reason}: {undo}") from exc

    def export(self, path: Path) -> None:
        """The averaged weights as `.safetensors`, with what one has to know of them in the header."""
        before = self._before.get("training")
        earlier = self._before.get("iterations", "")  # which others may have written
        checkpoint.save(
            path,
            self.average,
            name=f"{self.average.variant}-{self.average.scale}x",
            training=(f"{before}; then " if before else "") + history(self.config, self.iteration),
            # A network that has hardly seen subsampled chroma is not to be trusted with it.
            chroma="network" if self.config.degradation.subsampled >= 0.5 else "interpolated",
            license=self.config.output.licence,
            iterations=str(self.iteration + (int(earlier) if earlier.isdecimal() else 0)),
        )

    def step(self, lr: Tensor, hr: Tensor, average: Tensor | None) -> dict[str, Tensor]:
        """One update; all (N, 3, H, W) in 0..1, HR `scale` times as large.

        Args:
            lr: the network's input.
            hr: what its output should be.
            average: what its detail path is given instead of `lr`.

        Returns:
            "loss", what was minimised; if it is a sum, each weighted term of it as "<name>_loss"; with a discriminator
            "discriminator_loss". On the device.
        """
        rate = learning_rate(self.iteration, self.config)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self._rate.fill_(rate) if self.device.type == "cuda" else rate
        # A young average would be mostly initial weights: its decay grows with the run (as in TensorFlow's EMA).
        self._decay.fill_(min(self.config.schedule.ema, (1 + self.iteration) / (10 + self.iteration)))
        report = self._update(*(x for x in (lr, hr, average) if x is not None))
        self.iteration += 1
        return report

    def _learn(self, lr: Tensor, hr: Tensor, average: Tensor | None = None) -> dict[str, Tensor]:
        """All of `step` that the device does, at the rate and the decay that lie there."""
        schedule = self.config.schedule
        if self.teacher and not self._taught:
            hr = self.teacher.target(lr, hr)
        with (
            parametrize.cached(),  # every kernel is folded once
            torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"),
            exact_float32(),
        ):
            output = forward_folded(self.network, lr, average)
        inside = slice(schedule.loss_border, hr.shape[-1] - schedule.loss_border)
        output, target = output.float()[:, :, inside, inside], hr[:, :, inside, inside]
        terms = self.objective(output, target)
        if self.adversary:
            terms["gan"] = self.config.loss_weights.gan * self.adversary.loss(output)
        loss = torch.stack(list(terms.values())).sum()
        self.network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._trained, schedule.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        averages: list[Tensor] = list(self.average.parameters())
        change = list(torch._foreach_sub(folded_parameters(self.network, self.average), averages))
        torch._foreach_mul_(change, 1 - self._decay)
        torch._foreach_add_(averages, change)
        report = {"loss": loss.detach()}
        if len(terms) > 1:
            report |= {f"{name}_loss": term.detach() for name, term in terms.items()}
        if self.adversary:
            report["discriminator_loss"] = self.adversary.update(output, target)
        return report

    def validate(self) -> dict[str, dict[str, float]]:
        """PSNR of luma and RGB, dB, and SSIM of luma of the averaged weights on each validation folder.

        See `evaluate`; by measure, then by the folder's name.

        Raises:
            InputError: a folder has become unusable.
        """
        upscale, scale, folders = upscaler(self.average), self.config.network.scale, self.config.data.validation
        names = distinct_names(folders)
        means = {name: evaluate(f, upscale, scale).mean for name, f in zip(names, folders, strict=True)}
        return {
            measure: {name: getattr(mean, measure) for name, mean in means.items()}
            for measure in ("psnr_y", "psnr_rgb", "ssim_y")
        }

    def log(self, **values: Any) -> None:
        """One line in the journal and for the user, with the iteration and the seconds of training so far."""
        self.say(self.journal.write(iteration=self.iteration, seconds=round(self.seconds, 1), **values))

    def run(self) -> None:
        """Train to the last iteration; an interruption leaves a checkpoint.

        Raises:
            VideosrError: the training diverged.
        """
        sampler = (TaughtSampler if self._taught else PatchSampler)(self.folder, self.config)
        self.journal.rewind(self.iteration)
        if self.iteration == 0 and isinstance(self.network, ParagonSR2):
            self._look(sampler)
        reports: list[dict[str, Tensor]] = []
        try:
            if self.validated < self.iteration and self._due(self.config.output.validate_every):
                self._validate_and_export()  # in which the run was interrupted
                self.save_checkpoint()
            clock = time.monotonic()
            for lr, hr, average in self._batches(sampler):
                with held():  # half a step is none that could be gone on from
                    reports.append(self.step(lr, hr, average))
                self.seconds, clock = self.seconds + time.monotonic() - clock, time.monotonic()
                if self._due(self.config.output.log_every):
                    self._log_losses(reports)
                if self._due(self.config.output.validate_every):
                    self._validate_and_export()
                    clock = time.monotonic()
                if self._due(self.config.output.checkpoint_every):
                    self.save_checkpoint()
        except (KeyboardInterrupt, InputError):
            self.save_checkpoint()
            raise

    def _batches(self, sampler: PatchSampler) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """What is left of the run: LR and HR patches, and the averages that the detail path sees, for `step`."""
        span = self.iteration, self.config.schedule.iterations
        if self.device.type == "cuda" and not self._taught and ResidentSampler.fits(sampler, self.device):
            yield from ((*pair, None) for pair in ResidentSampler(sampler, self.device).batches(*span))
            return
        for batch in sampler.batches(*span):
            average = None if batch.average is None else self._to_tensor(batch.average)
            yield self._to_tensor(batch.lr), self._to_tensor(batch.hr), average

    @torch.no_grad()
    def _look(self, sampler: PatchSampler) -> None:
        """Begin with what can be had from the pictures at once: `start.whitening`, or `rescaling.fit_tail`."""
        assert isinstance(self.average, ParagonSR2)
        fresh = self.config.network.weights is None
        if not fresh and is_fitted(self.average):
            return
        batches = [sampler.batch(iteration) for iteration in range(_SEEN)]
        lr = torch.cat([self._to_tensor(batch.lr) for batch in batches])
        plain = self.average  # the one whose kernels are not expanded
        if fresh:
            kernel, bias = whitening(lr, plain.conv_in.out_channels)
            plain.conv_in.weight.copy_(kernel)
            bias_of(plain.conv_in).copy_(bias)
        else:
            fit_tail(plain, lr, torch.cat([self._to_tensor(batch.hr) for batch in batches]))
        learned = dict(self.network.named_parameters())
        for name, value in plain.named_parameters():
            module, _, kind = name.rpartition(".")
            expanded = learned.get(f"{module}.parametrizations.{kind}.original")
            (learned[name] if expanded is None else expanded).data.copy_(value)

    def _due(self, every: int) -> bool:
        return self.iteration % every == 0 or self.iteration == self.config.schedule.iterations

    def _log_losses(self, reports: list[dict[str, Tensor]]) -> None:
        """Log their means and forget them."""
        means = {name: torch.stack([report[name] for report in reports]).mean().item() for name in reports[0]}
        reports.clear()
        self._check_sound(all(map(math.isfinite, means.values())))
        self.log(**means, learning_rate=learning_rate(self.iteration - 1, self.config))

    def _check_sound(self, losses: bool = True) -> None:
        """Raises VideosrError: the losses or the weights are not finite; such weights must not replace sound ones."""
        if not losses or not all(bool(weights.isfinite().all()) for weights in self._trained):
            raise VideosrError(f"{self.folder}: diverged before iteration {self.iteration}: lower the learning rate")

    def _validate_and_export(self) -> None:
        self._check_sound()
        results = self.validate()
        self.log(**results)
        self.journal.draw()
        self.export(self.folder / "last.safetensors")
        # Without a validation folder the latest weights are the best known.
        judge, score = next(iter(results["psnr_y"].items()), ("", -math.inf))
        if judge != self.judge:  # the configuration has another folder now: its decibels are not to be compared
            self.judge, self.best = judge, -math.inf
        if score >= self.best:
            self.best = score
            self.export(self.folder / "best.safetensors")
        self.validated = self.iteration

    def _to_tensor(self, images: NDArray[Any]) -> Tensor:
        """(N, H, W, 3) to (N, 3, H, W) in 0..1, which that memory makes channels_last as it is; uint8 is scaled."""
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2)
        return tensor.float() / 255 if images.dtype == np.uint8 else tensor


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of some paths, as many as tell them apart."""
    names: list[str] = []
    for parts in range(1, max((len(folder.parts) for folder in folders), default=0) + 1):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(set(folders)):
            break
    return names


def _usable(device: str | None) -> str:
    """A device, None being the best that is there. Raises UsageError: torch cannot use it."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, NotImplementedError, AssertionError) as exc:
        raise UsageError(f"--device {device}: torch cannot use it: {str(exc).splitlines()[0]}") from exc
    return device


def run(
    config_path: str | Path, *, resume: bool = False, device: str | None = None, say: Callable[[str], None] = print
) -> Path:
    """Train what a TOML file describes (see `training.config`); the whole of `videosr train`.

    Args:
        config_path: the file.
        resume: continue the run found in the output folder; without it such a run is an error.
        device: torch device; None takes CUDA where there is one.
        say: called with lines for the user.

    Returns:
        The best weights, `best.safetensors` in the output folder.

    Raises:
        InputError, UsageError: the configuration, the data or the run to resume cannot be used.
        VideosrError: the training diverged.
    """
    config = load_config(config_path)
    for folder in config.data.validation:
        check_images(folder, config.network.scale)
    trainer = Trainer(config, _usable(device), say)
    if trainer.checkpoint_path.exists():
        if not resume:
            raise InputError(f"{trainer.folder}: holds a run already: resume it or choose another output folder")
        trainer.load_checkpoint()
        say(f"resuming at iteration {trainer.iteration}")
    # A pair needs its own pixels and those that the LR filter reaches beyond them.
    regions = config.teacher.edge if config.teacher and config.teacher.regions else 0
    build_pack(trainer.folder, config.data, (max(config.data.patch, regions) + 4) * config.network.scale, say)
    if config.degradation.copies:
        build_copies(trainer.folder, config, say)
    if trainer.teacher and regions:
        build_taught(trainer.folder, config, trainer.teacher, say)
    trainer.run()
    return trainer.folder / "best.safetensors"
