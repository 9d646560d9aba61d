"""DVAE++: global discrete latents under a Boltzmann prior, a hierarchy of convolutional local latents, and a decoder.

    p(z, zeta, h, x) = p(z) r(zeta|z) prod_j p(h_j | h_<j, zeta) p(x | zeta, h)
    q(z, zeta, h | x) = prod_g q(z_g | x, zeta_<g) r(zeta|z) prod_j q(h_j | x, zeta, h_<j)

z are few and global; the groups h_j are maps of normal or binary variables, all of one size. A state, a map too, goes
through the groups: it begins as what an upsampling network makes of zeta, each group's prior is read from it, and each
group's draw is added to it. The posterior of a group sees the state and the encoder's map of x. After the last group
the state is what the decoder sees.

Source   DVAE++ (arXiv:1802.04920), section 6 and figure 3.
Departs  sizes are ours, and so is that later groups see earlier ones through the state rather than side by side: the
         cost grows with the number of groups, not with its square.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dvaepp.boltzmann import RBM
from dvaepp.config import ExecutionConfig, HierarchyConfig, ModelConfig
from dvaepp.directed import DirectedPrior, joint_kl, marginal_kl
from dvaepp.errors import ConfigError
from dvaepp.estimators import draw
from dvaepp.likelihoods import bernoulli_log_prob
from dvaepp.models.feedforward import prior_energy
from dvaepp.networks.convolutional import Down, ResidualBlock, Up, blocks, convolution
from dvaepp.networks.feedforward import feedforward
from dvaepp.networks.observation import (
    BernoulliPixels,
    Canvas,
    ConditionalDecoder,
    Drawn,
    LogisticMixturePixels,
    UnconditionalDecoder,
)
from dvaepp.normal import kl as normal_kl
from dvaepp.normal import log_prob as normal_log_prob
from dvaepp.normal import sample as normal_sample
from dvaepp.randomness import SMALLEST_UNIFORM
from dvaepp.smoothing import MixtureSmoothing, Smoothing
from reference.boltzmann_kl import group_slices


class Noise(NamedTuple):
    """What a draw of all latents is made from: z (B, N) for the global ones, h (J, B, C, H, W) for the local groups.

    Uniform on (0, 1) for binary variables, standard normal for normal ones.
    """

    z: Tensor
    h: Tensor

    def of(self, rows: slice) -> Noise:
        """The noise of some of the images."""
        return Noise(self.z[rows], self.h[:, rows])


class Normal(NamedTuple):
    """Parameters of independent normal variables, of one shape."""

    mean: Tensor
    log_std: Tensor


#: log_std lies within so many nats of 0: e^5 = 148 either way, and no exponential of it can overflow.
LARGEST_LOG_STD = 5.0


class NormalUnits:
    """Normal variables: what a network says of each is a mean and the logarithm of a standard deviation."""

    per_unit = 2

    @staticmethod
    def read(raw: Tensor, dim: int) -> Normal:
        """Parameters from a network's output, in float32; log_std is bounded smoothly."""
        mean, log_std = raw.float().chunk(2, dim)
        return Normal(mean, LARGEST_LOG_STD * torch.tanh(log_std / LARGEST_LOG_STD))

    @staticmethod
    def draw(noise: Tensor, parameters: Normal, smoothing: Smoothing | None) -> Tensor:
        """mean + std noise; they need no smoothing."""
        return normal_sample(noise, *parameters)

    @staticmethod
    def log_prob(value: Tensor, parameters: Normal) -> Tensor:
        """See ``reference.normal.log_prob``."""
        return normal_log_prob(value, *parameters)

    @staticmethod
    def kl(value: Tensor, q: Normal, p: Normal, smoothing: Smoothing | None) -> Tensor:
        """KL(q || p) of each variable, in closed form; see ``reference.normal.kl``."""
        return normal_kl(*q, *p)

    @staticmethod
    def seen(value: Tensor) -> Tensor:
        """What networks are shown of a draw."""
        return value

    @staticmethod
    def cooled(parameters: Normal, temperature: float) -> Normal:
        """The parameters at a sampling temperature: standard deviations times it."""
        return Normal(parameters.mean, parameters.log_std + math.log(temperature))

    @staticmethod
    def noise(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
        """Standard normal."""
        return torch.randn(tuple(shape), generator=generator, device=device)


class BinaryUnits:
    """Binary variables, smoothed in training: what a network says of each is a logit."""

    per_unit = 1

    @staticmethod
    def read(raw: Tensor, dim: int) -> Tensor:
        """Logits, in float32."""
        return raw.float()

    @staticmethod
    def draw(noise: Tensor, parameters: Tensor, smoothing: Smoothing | None) -> Tensor:
        """zeta by a smoothing, or z in the binary limit."""
        return draw(noise, parameters) if smoothing is None else smoothing.inverse_cdf(noise, parameters)

    @staticmethod
    def log_prob(value: Tensor, parameters: Tensor) -> Tensor:
        """Of z in {0, 1}; see ``reference.bernoulli.log_prob``."""
        return bernoulli_log_prob(value.unsqueeze(-1), parameters.unsqueeze(-1))

    @staticmethod
    def kl(value: Tensor, q: Tensor, p: Tensor, smoothing: Smoothing | None) -> Tensor:
        """KL of the smoothed variables from one draw, eq. (5), or of the binary ones in closed form.

        See ``reference.directed.marginal_kl`` and ``reference.directed.joint_kl``.
        """
        if smoothing is None:
            return joint_kl(q, p)
        assert isinstance(smoothing, MixtureSmoothing)
        return marginal_kl(smoothing, value, q, p)

    @staticmethod
    def seen(value: Tensor) -> Tensor:
        """What networks are shown of a draw."""
        return 2 * value - 1

    @staticmethod
    def cooled(parameters: Tensor, temperature: float) -> Tensor:
        """The logits at a sampling temperature: divided by it."""
        return parameters / temperature

    @staticmethod
    def noise(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
        """Uniform strictly inside (0, 1)."""
        return torch.rand(tuple(shape), generator=generator, device=device).clamp_min_(SMALLEST_UNIFORM)


UNITS: dict[str, type[NormalUnits] | type[BinaryUnits]] = {"normal": NormalUnits, "bernoulli": BinaryUnits}


class LocalGroup(nn.Module):
    """One group of local latents: its prior, its posterior, and how its draw enters the state.

    Shapes   state, features and evidence (B, width, H, W); a draw (B, channels, H, W)
    """

    def __init__(self, width: int, channels: int, units: type[NormalUnits] | type[BinaryUnits]) -> None:
        super().__init__()
        self.units = units
        self.features = ResidualBlock(width)
        self.prior = nn.Sequential(nn.SiLU(), convolution(width, units.per_unit * channels, size=1, zero=True))
        self.posterior = nn.Sequential(
            convolution(2 * width, width, size=1),
            ResidualBlock(width),
            nn.SiLU(),
            convolution(width, units.per_unit * channels, size=1, zero=True),
        )
        self.enter = convolution(channels, width)

    def forward(self, state: Tensor, evidence: Tensor) -> tuple[Tensor, Any, Any]:
        """Features of the state, and the parameters of the group's prior and posterior."""
        features = self.features(state)
        return features, self.p(features), self.q(features, evidence)

    def p(self, features: Tensor) -> Any:
        """Parameters of p(h_j | h_<j, zeta)."""
        return self.units.read(self.prior(features), 1)

    def q(self, features: Tensor, evidence: Tensor) -> Any:
        """Parameters of q(h_j | x, zeta, h_<j)."""
        return self.units.read(self.posterior(torch.cat([features, evidence], dim=1)), 1)

    def extend(self, features: Tensor, h: Tensor) -> Tensor:
        """The state after the group's draw."""
        state: Tensor = features + self.enter(self.units.seen(h))
        return state


class Encoder(nn.Module):
    """From images to the evidence for the local latents and the features for the global ones.

    Shapes   (B, C, *canvas) centred -> evidence (B, widths[local], h, w), features (B, n_features)
    """

    def __init__(self, canvas: Canvas, widths: tuple[int, ...], local: int, depth: int) -> None:
        super().__init__()
        self.stem = convolution(canvas.channels, widths[0])
        steps = [
            nn.Sequential(Down(before, after), blocks(after, depth)) for before, after in itertools.pairwise(widths)
        ]
        self.below = nn.Sequential(blocks(widths[0], depth), *steps[:local])
        self.above = nn.Sequential(*steps[local:])
        rows, columns = (side // 2**canvas.halvings for side in canvas.size)
        self.n_features = widths[-1] * rows * columns

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence and features."""
        evidence = self.below(self.stem(images))
        return evidence, functional.silu(self.above(evidence)).flatten(1)


class Spread(nn.Module):
    """The upsampling network: from the global latents to the first state of the local ones.

    Shapes   (B, N) -> (B, widths[local], h, w)
    """

    def __init__(self, n_latents: int, canvas: Canvas, widths: tuple[int, ...], local: int, depth: int) -> None:
        super().__init__()
        rows, columns = (side // 2**canvas.halvings for side in canvas.size)
        self.coarsest = (widths[-1], rows, columns)
        self.first = nn.Linear(n_latents, widths[-1] * rows * columns)
        nn.init.normal_(self.first.weight, std=1 / math.sqrt(n_latents))
        nn.init.zeros_(self.first.bias)
        self.up = nn.Sequential(
            blocks(widths[-1], depth),
            *(Up(widths[halvings], widths[halvings - 1]) for halvings in range(canvas.halvings, local, -1)),
        )

    def forward(self, seen: Tensor) -> Tensor:
        """The first state."""
        state: Tensor = self.up(self.first(seen).unflatten(1, self.coarsest))
        return state


class Inferred(NamedTuple):
    """A draw of all latents given images, and what it was drawn from.

    zeta (B, N) the global draw, q_z its parameters (logits, or ``Normal``); state the map after the last group;
    h, q_h, p_h the groups' draws and parameters.
    """

    zeta: Tensor
    q_z: Any
    state: Tensor
    h: list[Tensor]
    q_h: list[Any]
    p_h: list[Any]


class HierarchicalVAE(nn.Module):
    """The model of section 6.

    Shapes   images (B, D), D = C H W, planar: binary ones in {0, 1}, others levels 0..255; global latents (B, N); local
             ones J maps (B, channels, h, w)
    Raises   ConfigError for images that do not go with the likelihood.
    """

    train_mean: Tensor

    @property
    def rows_at_a_time(self) -> int:
        """Draws that are decoded at a time in tests: wide maps of so few stay near the cache of a CPU."""
        return 256 if self.train_mean.device.type == "cpu" else 2048

    def images_at_a_time(self, n_importance: int) -> int:
        """Images that are tested at a time: each is encoded but once if its draws fit."""
        return max(1, self.rows_at_a_time // n_importance)

    def __init__(
        self,
        image_shape: tuple[int, int],
        channels: int,
        model: ModelConfig,
        hierarchy: HierarchyConfig,
        execution: ExecutionConfig | None = None,
    ) -> None:
        super().__init__()
        self.execution = ExecutionConfig() if execution is None else execution
        if hierarchy.likelihood == "bernoulli" and channels > 1:
            raise ConfigError(
                f"likelihood bernoulli is for images of one channel; these have {channels}: use logistic-mixture"
            )
        self.n_latents, self.n_groups = model.latents, model.groups
        self.groups = group_slices(model.latents, model.groups)
        self.canvas = Canvas(channels, *image_shape, hierarchy.halvings)
        local, widths, depth = hierarchy.local_halvings, hierarchy.widths, hierarchy.depth
        rows, columns = (side // 2**local for side in self.canvas.size)
        self.local_shape = (hierarchy.local_groups, hierarchy.local_channels, rows, columns)
        self.register_buffer("train_mean", torch.full((channels * image_shape[0] * image_shape[1],), 0.5))

        self.encoder = Encoder(self.canvas, widths, local, depth)
        self.z_units = UNITS["normal" if model.prior == "normal" else "bernoulli"]
        self.posteriors = nn.ModuleList(
            feedforward(
                self.encoder.n_features + group.start,
                self.z_units.per_unit * (group.stop - group.start),
                model.hidden_sizes,
                batch_norm=False,
            )
            for group in self.groups
        )
        self.prior: RBM | DirectedPrior | None = None  # a standard normal has no parameters
        self.prior_groups = self.groups if model.prior == "directed" else group_slices(model.latents, 1)
        if model.prior == "rbm":
            self.prior = RBM(model.latents // 2, model.latents // 2)
        elif model.prior != "normal":
            self.prior = DirectedPrior(self.prior_groups, model.hidden_sizes, batch_norm=False)

        self.spread = Spread(model.latents, self.canvas, widths, local, depth)
        self.h_units = UNITS[hierarchy.local]
        self.locals = nn.ModuleList(
            LocalGroup(widths[local], hierarchy.local_channels, self.h_units) for _ in range(hierarchy.local_groups)
        )
        pixels = (
            BernoulliPixels()
            if hierarchy.likelihood == "bernoulli"
            else LogisticMixturePixels(channels, hierarchy.mixtures)
        )
        decoder = UnconditionalDecoder if hierarchy.decoder == "unconditional" else ConditionalDecoder
        self.decoder = decoder(self.canvas, pixels, widths, local, depth)
        self.levels = pixels.levels
        if self.execution.channels_last:
            for parameter in self.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def initialise(self, train_mean: Tensor) -> None:
        """Fit the data-dependent constants to the mean training image (D,) in [0, 1]."""
        self.train_mean.copy_(train_mean)
        self.decoder.initialise(train_mean)

    def compile_networks(self) -> None:
        """Have torch.compile fuse the parts that repeat for every image; names of parameters stay, copies are plain.

        They are compiled at their first call, the local groups, which are alike, once for all.
        """
        for network in (self.encoder, self.spread, *self.locals, *self.decoder.networks()):
            network.compile()

    def casting(self) -> AbstractContextManager[Any]:
        """Within the block networks compute in the configured precision, if the model is being trained."""
        low = self.training and self.execution.precision == "bfloat16"
        return torch.autocast(self.train_mean.device.type, torch.bfloat16) if low else nullcontext()

    # ---- inference ------------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence for the local latents and features for the global ones, of images (B, D)."""
        result: tuple[Tensor, Tensor] = self.encoder(self.canvas.lay(2 * (x / self.levels - self.train_mean)))
        return result

    def global_posterior(self, features: Tensor, noise: Tensor, smoothing: Smoothing | None) -> tuple[Tensor, Any]:
        """A draw of the global latents group by group, (B, N), and its parameters; binary ones without a smoothing."""
        drawn: list[Tensor] = []
        parameters: list[Any] = []
        for network, group in zip(self.posteriors, self.groups, strict=True):
            seen = torch.cat([features.float(), *map(self.z_units.seen, drawn)], dim=-1)
            q: Any = self.z_units.read(network(seen), -1)
            parameters.append(q)
            drawn.append(self.z_units.draw(noise[:, group], q, smoothing))
        zeta = torch.cat(drawn, dim=-1)
        if self.z_units is NormalUnits:
            return zeta, Normal(*(torch.cat(part, dim=-1) for part in zip(*parameters, strict=True)))
        return zeta, torch.cat(parameters, dim=-1)

    def infer(self, x: Tensor, noise: Noise, smoothing: Smoothing | None) -> Inferred:
        """A draw of all latents given images; without a smoothing binary variables are binary."""
        with self.casting():
            return self._infer(*self.encode(x), noise, smoothing)

    def _infer(self, evidence: Tensor, features: Tensor, noise: Noise, smoothing: Smoothing | None) -> Inferred:
        zeta, q_z = self.global_posterior(features, noise.z, smoothing)
        state = self.spread(self.z_units.seen(zeta))
        drawn, posteriors, priors = [], [], []
        for group, own in zip(self._local_groups(), noise.h, strict=True):
            if self.execution.recompute and self.training:
                seen, p, q = checkpoint(group, state, evidence, use_reentrant=False)
            else:
                seen, p, q = group(state, evidence)
            h = self.h_units.draw(own, q, smoothing)
            state = group.extend(seen, h)
            drawn.append(h)
            posteriors.append(q)
            priors.append(p)
        return Inferred(zeta, q_z, state, drawn, posteriors, priors)

    def local_kl(self, inferred: Inferred, smoothing: Smoothing | None) -> Tensor:
        """KL of each local group, in nats, (B, J): exact for normal variables, of one draw for smoothed ones."""
        terms = [
            self.h_units.kl(h, q, p, smoothing).flatten(1).sum(1)
            for h, q, p in zip(inferred.h, inferred.q_h, inferred.p_h, strict=True)
        ]
        return torch.stack(terms, dim=1)

    # ---- generation -----------------------------------------------------------------------------------------------

    def generate(self, z: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Drawn:
        """Images given global latents (B, N): the local ones from their priors, then the pixels.

        ``temperature`` cools the local latents; 1 is the model.
        """
        state = self.local_prior(z, self.noise(len(z), generator).h, temperature)
        return self.decoder.sample(state, self.pixel_noise(len(z), generator))

    def reconstruct(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """What to show of p(x | z, h) given one draw of all latents from their posteriors, (B, D) in [0, 1]."""
        inferred = self.infer(x, self.noise(len(x), generator), None)
        return self.decoder.sample(inferred.state, self.pixel_noise(len(x), generator)).shown

    def local_prior(self, z: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """The state after the last local group, all drawn from p(h_j | h_<j, z); noise as ``Noise.h``."""
        state: Tensor = self.spread(self.z_units.seen(z))
        for group, own in zip(self._local_groups(), noise, strict=True):
            features = group.features(state)
            p: Any = self.h_units.cooled(group.p(features), temperature)
            state = group.extend(features, self.h_units.draw(own, p, None))
        return state

    def pixel_noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """Uniform noise for the pixels of so many images, (B, 1 + C, *canvas)."""
        shape = (rows, 1 + self.canvas.channels, *self.canvas.size)
        return torch.rand(shape, generator=generator, device=self.train_mean.device)

    def _local_groups(self) -> Iterator[LocalGroup]:
        for group in self.locals:
            assert isinstance(group, LocalGroup)
            yield group

    # ---- likelihood -----------------------------------------------------------------------------------------------

    def noise(self, rows: int, generator: torch.Generator) -> Noise:
        """Noise for so many images."""
        device = self.train_mean.device
        groups, *local = self.local_shape
        return Noise(
            self.z_units.noise((rows, self.n_latents), generator, device),
            self.h_units.noise((groups, rows, *local), generator, device),
        )

    def log_weights(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``count`` draws of log p(x, z, h) / q(z, h | x) for each image, and of log p(x | z, h): (B, count) each.

        In the binary limit, float64, less log Z of an RBM. The images are encoded once.
        """
        evidence, features = (part.repeat_interleave(count, dim=0) for part in self.encode(x))
        inferred = self._infer(evidence, features, self.noise(len(features), generator), None)
        reconstruction = self.decoder.log_prob(inferred.state, x.repeat_interleave(count, dim=0)).double()
        log_ratio = self._global_log_ratio(inferred)
        for h, q, p in zip(inferred.h, inferred.q_h, inferred.p_h, strict=True):
            ratio = self.h_units.log_prob(h, p) - self.h_units.log_prob(h, q)
            log_ratio = log_ratio + ratio.flatten(1).sum(1, dtype=torch.float64)
        return (reconstruction + log_ratio).view(len(x), count), reconstruction.view(len(x), count)

    def _global_log_ratio(self, inferred: Inferred) -> Tensor:
        """log p(z) - log q(z|x), less log Z of an RBM, (B,) float64."""
        z = inferred.zeta
        log_q = self.z_units.log_prob(z, inferred.q_z).sum(1, dtype=torch.float64)
        if self.prior is None:
            standard = torch.zeros_like(z)
            return normal_log_prob(z, standard, standard).sum(1, dtype=torch.float64) - log_q
        return -prior_energy(self.prior, z, self.prior_groups).double() - log_q

    def binary_latents(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of the global z ~ q(z|x) in the binary limit, (B, D) -> (B, N)."""
        return self._global_draw(x, generator)[0]

    def posterior_means(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Means of the global latents given images, one draw of the earlier groups: (B, D) -> (B, N)."""
        _, q = self._global_draw(x, generator)
        return q.mean if isinstance(q, Normal) else q.sigmoid()

    def _global_draw(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Any]:
        """The global latents alone and their parameters; the local ones are not drawn."""
        noise = self.z_units.noise((len(x), self.n_latents), generator, x.device)
        return self.global_posterior(self.encode(x)[1], noise, None)
