"""p(x | zeta, h) of DVAE++: from the last state of the latents to images, all at once or scale by scale.

Unconditional   all pixels are independent given the latents.
Conditional     a coarse image first, then what is finer given what is coarser:

                    p(x | zeta, h) = p(x_0 | zeta, h) prod_i p(x_i | zeta, h, x_<i),

                where x_i is the image at every 2^(L-i)-th row and column: x_0 the coarsest, 4 x 4 of 32 x 32, and x_L
                the image. Of x_i only the pixels that are not in x_(i-1) are new, so that each pixel counts once and
                the product is a distribution over images.

Images whose sides are no multiples of the coarsest step are laid on a larger canvas, whose margin counts nowhere.

Source   DVAE++ (arXiv:1802.04920), section 6; Reed et al. (2017) for taking scales by subsampling.
Departs  the paper's appendix, which defines its scales, was not at hand.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from dvaepp.likelihoods import (
    bernoulli_log_prob,
    colour_mixture_log_prob,
    colour_mixture_sample,
    mixture_log_prob,
    mixture_sample,
)
from dvaepp.networks.convolutional import Down, ResidualBlock, Up, blocks, convolution


@dataclass(frozen=True)
class Canvas:
    """Images of any size in the middle of a canvas whose sides are multiples of 2^halvings, and the canvas's scales.

    Scale i of ``halvings`` + 1 is every 2^(halvings - i)-th row and column of the canvas.
    """

    channels: int
    height: int
    width: int
    halvings: int

    @property
    def size(self) -> tuple[int, int]:
        """Sides of the canvas."""
        step = 2**self.halvings
        return -(-self.height // step) * step, -(-self.width // step) * step

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the image's first pixel."""
        return (self.size[0] - self.height) // 2, (self.size[1] - self.width) // 2

    def lay(self, images: Tensor, margin: float = 0.0) -> Tensor:
        """(B, C H W) or (B, C, H, W) -> (B, C, *size), with a constant around."""
        (top, left), (rows, columns) = self.corner, self.size
        images = images.view(-1, self.channels, self.height, self.width)
        sides = (left, columns - self.width - left, top, rows - self.height - top)
        return functional.pad(images, sides, value=margin) if any(sides) else images

    def cut(self, canvas: Tensor) -> Tensor:
        """(..., *size) -> (..., H, W)."""
        top, left = self.corner
        return canvas[..., top : top + self.height, left : left + self.width]

    def step(self, scale: int) -> int:
        """Rows and columns of the canvas from one pixel of a scale to the next."""
        return int(2 ** (self.halvings - scale))

    def at(self, scale: int, canvas: Tensor) -> Tensor:
        """The pixels of a scale, (..., *size) -> (..., *size / step)."""
        step = self.step(scale)
        return canvas[..., ::step, ::step]

    def inside(self, scale: int) -> Tensor:
        """1 where a pixel of a scale lies on the image, 0 on the margin; the shape of the scale."""
        return self.at(scale, self.lay(torch.ones(1, self.channels, self.height, self.width))[0, 0]).clone()

    def coarser(self, scale: int) -> Tensor:
        """1 where a pixel of a scale lies on the image and on a coarser scale too; the shape of the scale."""
        grid = torch.zeros_like(self.inside(scale))
        if scale > 0:
            grid[::2, ::2] = self.inside(scale - 1)
        return grid


class PixelDistribution(Protocol):
    """What a pixel is, given the numbers that a network says of it."""

    levels: int
    n_parameters: int

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """(B, C, H, W) levels, (B, n_parameters, H, W) -> (B, H, W) nats."""

    def sample(self, parameters: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """A draw (B, C, H, W) from uniforms (B, 1 + C, H, W), and what to show of the distribution, in [0, 1]."""

    def initialise(self, output: nn.Conv2d) -> None:
        """Fit the biases of the layer that makes the parameters."""


class BernoulliPixels:
    """Binary pixels; a parameter is a logit."""

    levels, n_parameters = 1, 1

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """See ``reference.likelihoods.bernoulli_log_prob``, pixel by pixel."""
        return bernoulli_log_prob(x.movedim(1, -1), parameters.movedim(1, -1))

    def sample(self, parameters: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """1 with probability sigma(logit), and that probability."""
        probability = parameters.sigmoid()
        return (u[:, 1:] < probability).to(parameters.dtype), probability

    def initialise(self, output: nn.Conv2d) -> None:
        """Nothing to do: the logit of the mean image is added to all of it."""


class LogisticMixturePixels:
    """Pixels of 256 levels, grey or of three channels: mixtures of discretised logistics.

    Source   Salimans et al. (2017); ``reference.likelihoods.mixture_log_prob`` and ``colour_mixture_log_prob``.
    """

    levels = 255

    def __init__(self, channels: int, n_components: int) -> None:
        self.channels, self.n_components = channels, n_components
        self.n_parameters = n_components * (3 if channels == 1 else 1 + 3 * channels)

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Of levels 0..255."""
        logits, means, log_scales, coefficients = self._split(parameters)
        if coefficients is None:
            return mixture_log_prob(x[:, 0], logits, means, log_scales)
        return colour_mixture_log_prob(x.movedim(1, -1), logits, means, log_scales, coefficients)

    def sample(self, parameters: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Levels, and the levels over 255: a mixture has no mean worth looking at."""
        logits, means, log_scales, coefficients = self._split(parameters)
        if coefficients is None:
            drawn = mixture_sample(u[:, 0], u[:, 1], logits, means, log_scales).unsqueeze(1)
        else:
            chosen, rest = u[:, 0], u[:, 1:].movedim(1, -1)
            drawn = colour_mixture_sample(chosen, rest, logits, means, log_scales, coefficients).movedim(-1, 1)
        return drawn, drawn / self.levels

    @torch.no_grad()
    def initialise(self, output: nn.Conv2d) -> None:
        """Components side by side over the range of intensities, each as wide as the way to the next."""
        assert output.bias is not None
        _, means, log_scales, _ = self._split(output.bias.view(1, -1, 1, 1))
        means.copy_(torch.linspace(-1, 1, self.n_components + 2)[1:-1])
        log_scales.fill_(math.log(2 / (self.n_components + 1)))

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Views: (B, n_parameters, H, W) -> logits (B, H, W, M), then means, log-scales, coefficients.

        These are (B, H, W, M) of one channel, which has no coefficients, and (B, H, W, 3, M) of three.
        """
        last = parameters.movedim(1, -1)
        if self.channels == 1:
            logits, means, log_scales = last.chunk(3, dim=-1)
            return logits, means, log_scales, None
        logits, others = last[..., : self.n_components], last[..., self.n_components :]
        means, log_scales, coefficients = others.unflatten(-1, (3, self.channels, self.n_components)).unbind(-3)
        return logits, means, log_scales, coefficients


class Drawn(NamedTuple):
    """Images drawn and what to show of their distribution (its mean where there is one), (B, D) each.

    ``x`` are levels, ``shown`` lies in [0, 1].
    """

    x: Tensor
    shown: Tensor


class Observation(nn.Module):
    """What both decoders share: the canvas, the distribution of a pixel, a learned first guess for each binary one."""

    def __init__(self, canvas: Canvas, pixels: PixelDistribution) -> None:
        super().__init__()
        self.canvas, self.pixels = canvas, pixels
        rows, columns = canvas.size
        # A bias for each pixel, so one axis; of many levels there is none, and it would be a parameter never used.
        self.guess = nn.Parameter(torch.zeros(rows * columns)) if pixels.levels == 1 else None

    @torch.no_grad()
    def initialise(self, train_mean: Tensor) -> None:
        """Binary pixels start at the logit of the mean image (C H W,), clipped to [0.001, 0.999]."""
        if self.guess is not None:
            self.guess.copy_(self.canvas.lay(torch.logit(train_mean.clamp(0.001, 0.999))).flatten())

    def networks(self) -> Iterator[nn.Module]:
        """The networks a decoder is made of."""
        for child in self.children():
            yield from child if isinstance(child, nn.ModuleList) else (child,)

    def _output(self, channels: int) -> nn.Sequential:
        """From a state to the parameters of its pixels; says nothing at first."""
        layer = convolution(channels, self.pixels.n_parameters, zero=True)
        self.pixels.initialise(layer)
        return nn.Sequential(nn.SiLU(), layer)

    def _read(self, output: nn.Module, state: Tensor, scale: int) -> Tensor:
        """Parameters of the pixels of a scale, in float32."""
        parameters: Tensor = output(state).float()
        if self.guess is not None:
            parameters = parameters + self.canvas.at(scale, self.guess.view(self.canvas.size))
        return parameters


class UnconditionalDecoder(Observation):
    """All pixels at once.

    Shapes   state (B, widths[local], H / 2^local, W / 2^local) for ``local`` halvings of the canvas; ``widths`` are
             those of a map after 0, 1, ... halvings.
    """

    def __init__(
        self, canvas: Canvas, pixels: PixelDistribution, widths: tuple[int, ...], local: int, depth: int
    ) -> None:
        super().__init__(canvas, pixels)
        steps = [
            layer
            for halvings in range(local, 0, -1)
            for layer in (Up(widths[halvings], widths[halvings - 1]), blocks(widths[halvings - 1], depth - 1))
        ]
        self.up = nn.Sequential(blocks(widths[local], depth), *steps)
        self.output = self._output(widths[0])

    def log_prob(self, state: Tensor, x: Tensor) -> Tensor:
        """log p(x | state) in nats, x (B, C H W) levels -> (B,)."""
        canvas = self.canvas
        parameters = canvas.cut(self._read(self.output, self.up(state), canvas.halvings))
        images = x.view(-1, canvas.channels, canvas.height, canvas.width)
        return self.pixels.log_prob(images, parameters).flatten(1).sum(1)

    def sample(self, state: Tensor, u: Tensor) -> Drawn:
        """A draw of x from uniforms (B, 1 + C, *canvas)."""
        parameters = self._read(self.output, self.up(state), self.canvas.halvings)
        x, shown = self.pixels.sample(parameters, u)
        return Drawn(self.canvas.cut(x).flatten(1), self.canvas.cut(shown).flatten(1))


class ConditionalDecoder(Observation):
    """One scale after the other, each given the latents and all coarser ones.

    Shapes   as ``UnconditionalDecoder``
    """

    def __init__(
        self, canvas: Canvas, pixels: PixelDistribution, widths: tuple[int, ...], local: int, depth: int
    ) -> None:
        super().__init__(canvas, pixels)
        self.local_scale = canvas.halvings - local
        self.coarsest = nn.Sequential(
            *(Down(widths[halvings], widths[halvings + 1]) for halvings in range(local, canvas.halvings))
        )
        own = [widths[canvas.halvings - scale] for scale in range(canvas.halvings + 1)]
        self.seen = nn.ModuleList(convolution(canvas.channels + 1, width) for width in own[1:])
        self.up = nn.ModuleList(Up(before, after) for before, after in itertools.pairwise(own))
        self.blocks = nn.ModuleList(blocks(width, depth) for width in own)
        self.state = ResidualBlock(widths[local])
        self.outputs = nn.ModuleList(self._output(width) for width in own)
        for scale in range(canvas.halvings + 1):
            known = canvas.coarser(scale)
            self.register_buffer(f"known{scale}", known, persistent=False)
            self.register_buffer(f"new{scale}", canvas.inside(scale) - known, persistent=False)

    def log_prob(self, state: Tensor, x: Tensor) -> Tensor:
        """log p(x | state) in nats, x (B, C H W) levels -> (B,)."""
        laid = self.canvas.lay(x)
        total = torch.zeros(len(x), dtype=torch.float32, device=x.device)
        features = None
        for scale in range(self.canvas.halvings + 1):
            features = self._features(scale, features, state, laid)
            parameters = self._read(self.outputs[scale], features, scale)
            log_prob = self.pixels.log_prob(self.canvas.at(scale, laid), parameters)
            total = total + (log_prob * getattr(self, f"new{scale}")).flatten(1).sum(1)
        return total

    def sample(self, state: Tensor, u: Tensor) -> Drawn:
        """A draw of x from uniforms (B, 1 + C, *canvas), scale by scale."""
        canvas = self.canvas
        rows, columns = canvas.size
        laid = torch.zeros(len(u), canvas.channels, rows, columns, device=u.device)
        shown, features = laid.clone(), None
        for scale in range(canvas.halvings + 1):
            features = self._features(scale, features, state, laid)
            parameters = self._read(self.outputs[scale], features, scale)
            x, probability = self.pixels.sample(parameters, canvas.at(scale, u))
            new = getattr(self, f"new{scale}").bool()
            for target, values in ((laid, x), (shown, probability)):
                grid = canvas.at(scale, target)  # a view
                grid.copy_(torch.where(new, values, grid))
        return Drawn(canvas.cut(laid).flatten(1), canvas.cut(shown).flatten(1))

    def _features(self, scale: int, before: Tensor | None, state: Tensor, laid: Tensor) -> Tensor:
        """The decoder's state at a scale: from the one before, the latents' state, and the pixels of coarser scales."""
        if before is None:
            features: Tensor = self.coarsest(state)
        else:
            features = self.up[scale - 1](before) + self.seen[scale - 1](self._coarser(scale, laid))
        if scale == self.local_scale:
            features = features + self.state(state)
        result: Tensor = self.blocks[scale](features)
        return result

    def _coarser(self, scale: int, laid: Tensor) -> Tensor:
        """The pixels of the scale before, where they lie at this one, in [-1, 1], and where that is: (B, C + 1, h, w).

        A pixel of the margin is nowhere, as are pixels that are still to come.
        """
        known = getattr(self, f"known{scale}")
        values = (self.canvas.at(scale, laid) * (2 / self.pixels.levels) - 1) * known
        return torch.cat([values, known.expand(len(laid), 1, -1, -1)], dim=1)
