"""What both training scripts share: budget, learning rate, averages, checkpoints, tokens."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import T5EncoderModel, T5Tokenizer, UMT5EncoderModel

FIRST_LINES = (5, 20)  # of the log, so that a short run on a slow machine has some; then every 50
ORDER = 4.0  # head start in attention scores for the words that a head of T5 looks at


def log(message: str) -> None:
    """Print with the time of day, at once."""
    print(time.strftime("%H:%M:%S"), message, flush=True)


def save(state: Any, path: Path) -> None:
    """Write a checkpoint so that a reader never sees half of one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


class Budget:
    """This process's processor time to train for, so that other work on the machine costs nothing
    but patience; `spent` is in seconds and carries over a resumed run."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.seconds = minutes * 60
        self._start = time.process_time() - spent

    @property
    def spent(self) -> float:
        return time.process_time() - self._start

    @property
    def progress(self) -> float:
        """0 at the start, 1 when the time is used up."""
        return min(1.0, self.spent / self.seconds)


def rate(progress: float, warmup: float = 0.02) -> float:
    """Fraction of the peak learning rate: linear warm-up, then a cosine down to 0."""
    if progress < warmup:
        return max(progress, 1e-4) / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def set_rate(optimizer: torch.optim.Optimizer, fraction: float) -> None:
    """Set each group's learning rate to a fraction of its own peak."""
    for group in optimizer.param_groups:
        group.setdefault("peak", group["lr"])
        group["lr"] = group["peak"] * fraction


class Average:
    """Exponential moving average of weights; the early average forgets faster."""

    def __init__(self, model: torch.nn.Module, decay: float = 0.999) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)


def finite(loss: torch.Tensor, where: str) -> float:
    """The loss as a number. Raises RuntimeError where it is none, which no later step would mend;
    the last checkpoint is from before."""
    value = loss.item()
    if not math.isfinite(value):
        raise RuntimeError(f"the loss is {value} at {where}")
    return value


class Run:
    """One training run: optimizers, learning rate, averages, and checkpoints to resume from."""

    def __init__(
        self,
        path: Path,
        model: torch.nn.Module,
        optimizers: list[torch.optim.Optimizer],
        minutes: float,
        average: Average,
    ) -> None:
        self.path, self.model, self.optimizers, self.average = path, model, optimizers, average
        self.step, self.budget = 0, Budget(minutes)
        self._losses: list[float] = []  # since the last line of the log
        if path.exists():
            state = torch.load(path)
            model.load_state_dict(state["model"])
            for optimizer, old in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(old)
            average.weights, average.updates = state["average"], state["step"]
            self.step, self.budget = state["step"], Budget(minutes, state["spent"])
            torch.manual_seed(self.step)

    def update(self, loss: torch.Tensor) -> None:
        """One optimizer step down the loss."""
        self._losses.append(finite(loss, f"step {self.step} of {self.path.stem}"))
        self.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            set_rate(optimizer, rate(self.budget.progress))
            optimizer.step()
        self.average.update(self.model)
        self.step += 1
        if self.step % 50 == 0 or self.step in FIRST_LINES:
            mean = math.fsum(self._losses) / len(self._losses)
            log(f"{self.path.stem} {self.step} {self.budget.spent:.0f} s {mean:.4f}")
            self._losses.clear()

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.weights,
            "step": self.step,
            "spent": self.budget.spent,
        }
        save(state, self.path)


def word_t5_tokenizer(words: Sequence[str], max_length: int) -> T5Tokenizer:
    """A unigram tokenizer with one token a word; other words fall apart into letters."""
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [(word if word == "," else "▁" + word, -1.0) for word in words]
    letters = [(piece, -20.0) for piece in ["▁", *"abcdefghijklmnopqrstuvwxyz0123456789.-'"]]
    known = {piece for piece, _ in pieces}
    vocabulary = specials + pieces + [(p, s) for p, s in letters if p not in known]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=max_length)


@torch.no_grad()
def know_order(t5: T5EncoderModel | UMT5EncoderModel) -> None:
    """Let a word's four heads look at the word before, the word after, all before, a few after.

    From T5's usual start, and trained by Muon, a caption was still a bag of words after an hour:
    which colour, shape and place belong together came out at chance. The transformers themselves
    see no order of words.
    """
    for name, bias in t5.named_parameters():
        if name.endswith("relative_attention_bias.weight"):
            nn.init.zeros_(bias)  # [32, heads]: 0 is the word itself, 1.. are before, 17.. after
            bias[1, 0] = bias[17, 1] = ORDER
            bias[1:16, 2] = bias[17:24, 3] = ORDER
