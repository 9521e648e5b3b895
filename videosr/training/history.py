"""What a run was, in one line, for the header of its weights."""

from __future__ import annotations

from videosr.training.config import TrainingConfig

_OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon and AdamW"}


def history(config: TrainingConfig, iterations: int) -> str:
    """Data, length, degradations, objective and optimiser of a run of which `iterations` are done."""
    n, d, s, t = config.network, config.data, config.schedule, config.teacher
    parts = [
        _pictures(config),
        f"{iterations} of {s.iterations} iterations, {d.batch} patches of {d.patch}x{d.patch} input pixels each",
        _inputs(config),
        f"{_loss(config)} loss" + (f", {t.share:.0%} of what {t.weights.stem} makes of it" if t else ""),
        f"{_OPTIMIZERS[s.optimizer]}, {s.learning_rate:g} to {s.least_rate:g} by cosine"
        + f", anew every {s.cycle} iterations" * (s.cycle > 0),
        f"weights averaged at {s.ema:g}",
        f"convolutions over-parameterised {n.expansion} times" * bool(n.expansion),
    ]
    return "; ".join(filter(None, parts))


def _pictures(config: TrainingConfig) -> str:
    """The folders, and how much of each where it is not the same."""
    data = config.data
    names = [folder.name for folder in data.train]
    if data.shares:
        names = [f"{name} {share / sum(data.shares):.0%}" for name, share in zip(names, data.shares, strict=True)]
    soft = {" of it": data.softness, " of its chroma": data.chroma_softness}
    told = [f"half{what} softened by up to {sigma:g} pixels" for what, sigma in soft.items() if sigma]
    return ", ".join(names + told)


def _inputs(config: TrainingConfig) -> str:
    """What befell the LR patches and features; empty where nothing did."""
    d, r, window = config.degradation, config.regularisation, config.schedule.window
    shares = {"blur": d.blur, "noise": d.noise, "grain": d.grain, "JPEG": d.jpeg, "4:2:0 chroma": d.subsampled}
    shares |= {"CutBlur": r.cutblur, "frequency dropout": r.frequency_dropout}
    shares |= {"patterns": config.data.patterns}
    told = [f"{name} {share:.0%}" for name, share in shares.items() if share]
    if d.video:
        told.append(f"{' and '.join(d.codecs)} {d.video:.0%} at CRF {d.crf[0]:g} to {d.crf[1]:g}")
    return ", ".join(told + [f"{window} temporal window"] * (window != "off"))


def _loss(config: TrainingConfig) -> str:
    """The terms of the objective with their weights."""
    w, s = config.loss_weights, config.schedule
    pixel = f"psnr (from {s.loss_knee:g} dB down)" if s.loss == "psnr" else s.loss
    weights = {
        pixel: w.pixel,
        "luma": w.luma,
        "chroma": w.chroma,
        "SSIM": w.ssim,
        "FFT": w.fft,
        "temporal consistency": w.consistency,
    }
    weights |= {"perceptual": w.perceptual, "GAN": w.gan}
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items() if weight)
