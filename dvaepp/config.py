"""Every hyper-parameter, its default and its rule; named presets. Frozen, checked at construction."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

import tyro

from dvaepp.errors import ConfigError

Network = Literal["linear", "nonlinear", "convolutional"]
Prior = Literal["rbm", "directed", "factorial", "normal"]
Smoothing = Literal[
    "exponential", "logistic", "power", "gaussian", "uniform-exponential", "spike-exponential", "concrete"
]
Estimator = Literal[
    "joint", "marginal", "rolfe", "straight-through", "nvil", "muprop", "rebar", "relax", "vimco", "arm", "disarm"
]

#: Estimators that differentiate through a smoothed sample; the others take binary ones.
SMOOTHED = ("joint", "marginal", "rolfe")
#: Smoothings without r(zeta|0) and r(zeta|1) that overlap: nu, what zeta tells about z, is a step or does not exist.
_WITHOUT_NU = ("spike-exponential", "concrete")


@dataclass(frozen=True)
class ModelConfig:
    """The model: latents, networks, prior, and how its gradient is estimated."""

    latents: int = 200
    """Binary latent units; even, for each half is one side of the RBM prior."""
    groups: int = 1
    """Inference groups: 1 is a factorial posterior, 2 infers the second half of z given the first."""
    network: Network = "nonlinear"
    """linear, nonlinear: one linear map each way, or tanh layers with batch normalisation (Tables 1 and 2).
    convolutional: DVAE++, whose latents here are the global ones, with a hierarchy of local ones (Table 3)."""
    hidden: int = 200
    """Width of a hidden layer (not linear; of convolutional, in the networks of the global latents)."""
    layers: int = 2
    """Hidden layers each way (as hidden)."""
    batch_norm: bool = True
    """Batch normalisation in the hidden layers (nonlinear only)."""
    prior: Prior = "rbm"
    """rbm: a restricted Boltzmann machine between the two halves of z. directed: p(z_g | z of earlier groups), each
    group factorial, the first with learned logits. Of convolutional also factorial: learned logits, whatever the
    inference groups; and normal: normal latents in place of binary ones."""
    estimator: Estimator = "joint"
    """Gradient in the posterior. Through smoothed samples: joint (eqs. 4 and 6), marginal (eq. 5, directed prior only),
    rolfe (rbm and spike-exponential only). Through binary samples: straight-through, nvil, muprop, rebar, relax, vimco,
    arm, disarm."""
    smoothing: Smoothing = "exponential"
    """Smoothing of the binary units, for joint, marginal and rolfe."""
    beta: float = 10.0
    """Sharpness of the smoothing; of concrete the inverse temperature."""
    beta_end: float | None = None
    """Sharpness at the end of training, reached linearly from beta; by default beta all along."""
    n_samples: int = 1
    """Samples of the bound that vimco trains, at least 2; one for all others."""

    def __post_init__(self) -> None:
        _positive(self, "latents", "groups", "hidden", "layers", "beta", "n_samples")
        for name in ("beta", "beta_end"):
            value = getattr(self, name)
            if value is not None and not 1e-2 <= value <= 1e3:
                raise ConfigError(f"{name} must lie in [0.01, 1000], where the smoothing was validated; got {value}")
        _one_of(self, "network", get_args(Network))
        _one_of(self, "prior", get_args(Prior))
        _one_of(self, "smoothing", get_args(Smoothing))
        _one_of(self, "estimator", get_args(Estimator))
        if self.prior == "rbm" and self.latents % 2:
            raise ConfigError(f"latents must be even, one half for each side of the RBM prior; got {self.latents}")
        if self.latents % self.groups:
            raise ConfigError(f"groups must divide latents ({self.latents}); got {self.groups}")
        if self.prior in ("factorial", "normal") and self.network != "convolutional":
            raise ConfigError(
                f"prior {self.prior} is for network convolutional; with {self.network} use directed, which is "
                "factorial for one group"
            )
        if self.network == "convolutional" and self.estimator not in SMOOTHED:
            raise ConfigError(
                f"network convolutional is trained through smoothed samples; estimator {self.estimator} takes binary "
                f"ones: use {', '.join(SMOOTHED)}"
            )
        self._check_estimator()

    def _check_estimator(self) -> None:
        """Refuse what does not go together, with the way out."""
        estimator, smoothing, rbm = self.estimator, self.smoothing, self.prior == "rbm"
        if estimator == "rolfe" and not (rbm and smoothing == "spike-exponential"):
            raise ConfigError(
                "estimator rolfe needs prior rbm and smoothing spike-exponential, whose z is a step in the noise; "
                f"got prior {self.prior} and smoothing {smoothing}: use estimator joint"
            )
        if estimator == "marginal" and rbm:
            raise ConfigError(
                "estimator marginal needs a directed prior, for p(zeta) of an RBM has no closed form; got prior rbm: "
                "use estimator joint"
            )
        if estimator == "marginal" and smoothing == "spike-exponential":
            raise ConfigError(
                "estimator marginal needs a smoothing with a density; spike-exponential has an atom at 0: use "
                "estimator joint"
            )
        if estimator == "joint" and rbm and self.groups > 1 and smoothing in _WITHOUT_NU:
            way_out = "estimator rolfe" if smoothing == "spike-exponential" else "groups 1 or another smoothing"
            raise ConfigError(
                "estimator joint with prior rbm and more than one group needs overlapping r(zeta|0) and r(zeta|1); "
                f"got smoothing {smoothing}: use {way_out}"
            )
        if estimator not in SMOOTHED and self.network == "nonlinear" and self.batch_norm:
            raise ConfigError(
                f"estimator {estimator} needs batch_norm off: batch statistics tie each image to the draws of all "
                "others, which is in no such estimate; use --no-batch-norm (batch_norm = false)"
            )
        if estimator not in SMOOTHED and smoothing != "exponential":
            raise ConfigError(
                f"smoothing is for estimators {', '.join(SMOOTHED)}; {estimator} takes binary samples: leave smoothing "
                f"{smoothing} out"
            )
        if estimator not in SMOOTHED and self.beta_end is not None:
            raise ConfigError(f"beta_end is for estimators {', '.join(SMOOTHED)}; {estimator} has no sharpness")
        if (estimator == "vimco") != (self.n_samples > 1):
            raise ConfigError(
                "n_samples must be at least 2 for estimator vimco, whose samples are each other's baseline, and 1 for "
                f"all others; got {self.n_samples} with {estimator}"
            )

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Widths of the hidden layers of each network."""
        return (self.hidden,) * self.layers if self.network != "linear" else ()

    def beta_at(self, done: float) -> float:
        """Sharpness after a fraction ``done`` of the iterations."""
        return self.beta if self.beta_end is None else self.beta + (self.beta_end - self.beta) * done


Local = Literal["normal", "bernoulli"]
Decoder = Literal["unconditional", "conditional"]
Likelihood = Literal["bernoulli", "logistic-mixture"]


@dataclass(frozen=True)
class HierarchyConfig:
    """The local latents of DVAE++, its networks and its likelihood; for network convolutional only."""

    local: Local = "normal"
    """Local latents: normal, or bernoulli, smoothed as the global ones and trained by the marginal KL of eq. (5)."""
    local_groups: int = 16
    """Groups of local latents, each inferred and generated given all earlier ones."""
    local_channels: int = 32
    """Local latents of a group at each position of their map."""
    decoder: Decoder = "unconditional"
    """unconditional: all pixels at once. conditional: a coarse image first, then each finer scale given the coarser."""
    likelihood: Likelihood = "bernoulli"
    """bernoulli: binary pixels (grey images are binarised). logistic-mixture: 256 levels, grey or colour."""
    mixtures: int = 10
    """Components of a mixture (logistic-mixture only)."""
    width: int = 32
    """Channels at full resolution; twice as many after each halving."""
    depth: int = 1
    """Residual blocks at each scale of encoder and decoder."""
    halvings: int = 3
    """Halvings from the image to the coarsest map; images are laid on a canvas whose sides are multiples of
    2**halvings, 28x28 on 32x32."""
    local_halvings: int = 2
    """Halvings from the image to the map of the local latents."""
    balancing: bool = True
    """While the weight of the KL rises, weigh each local group's KL by its share of all."""

    def __post_init__(self) -> None:
        for name, choices in (("local", Local), ("decoder", Decoder), ("likelihood", Likelihood)):
            _one_of(self, name, get_args(choices))
        _positive(self, "local_groups", "local_channels", "mixtures", "width", "depth", "halvings")
        if self.halvings > _MOST_HALVINGS:
            raise ConfigError(f"halvings must lie in 1..{_MOST_HALVINGS}; got {self.halvings}")
        if not 0 <= self.local_halvings <= self.halvings:
            raise ConfigError(f"local_halvings must lie in 0..halvings ({self.halvings}); got {self.local_halvings}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after 0, 1, ... halvings."""
        return tuple(self.width * 2**halvings for halvings in range(self.halvings + 1))


_MOST_HALVINGS = 8  # a map of one position from 256 x 256


@dataclass(frozen=True)
class PriorConfig:
    """Samples of the RBM prior during training."""

    chains: int = 1000
    """Persistent Gibbs chains."""
    sweeps: int = 40
    """Block Gibbs sweeps of every chain per iteration."""
    sampler: str = "gibbs"
    """gibbs (persistent contrastive divergence), tempering, population, or module:object of a dimod sampler."""

    def __post_init__(self) -> None:
        _positive(self, "chains", "sweeps")


@dataclass(frozen=True)
class OptimisationConfig:
    """Adam, its schedule and the KL warm-up."""

    iterations: int = 1_000_000
    """Gradient steps; schedules are fractions of it."""
    batch_size: int = 100
    """Images per step."""
    learning_rate: float = 3e-3
    """Base rate of the schedule."""
    schedule: Literal["steps", "constant"] = "steps"
    """steps: a tenth of the base rate for the first 2 %, then 1, 1/3 from 60 %, 1/10 from 75 %, 1/33 from 95 %."""
    adam_epsilon: float = 1e-3
    """Adam's epsilon."""
    adam_beta2: float = 0.999
    """Decay of Adam's average of squared gradients."""
    control_rate: float = 10.0
    """Learning rate of baselines, temperatures and other control variates, in units of the model's; their Adam has
    torch's own epsilon."""
    weight_decay: float = 1e-4
    """L2 penalty on the weights of the networks and the couplings W; biases are free."""
    kl_warmup: float = 0.3
    """Fraction of the iterations over which the weight of the KL rises from 0 to 1."""
    gradient_clip: float | None = None
    """Largest norm of the gradient of all parameters together; longer ones are shortened to it."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is tested in place of the last ones; 0: none."""
    accumulate: int = 1
    """Pieces in which a batch is worked off, to save memory (network convolutional only)."""

    def __post_init__(self) -> None:
        _positive(self, "iterations", "batch_size", "learning_rate", "adam_epsilon", "control_rate")
        _one_of(self, "schedule", ("steps", "constant"))
        if not 0 <= self.adam_beta2 < 1:
            raise ConfigError(f"adam_beta2 must lie in [0, 1); got {self.adam_beta2}")
        _not_negative(self, "weight_decay")
        if self.gradient_clip is not None:
            _positive(self, "gradient_clip")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must lie in [0, 1); got {self.ema}")
        if not 1 <= self.accumulate <= self.batch_size:
            raise ConfigError(f"accumulate must lie in 1..batch_size ({self.batch_size}); got {self.accumulate}")
        if not 0 <= self.kl_warmup <= 1:
            raise ConfigError(f"kl_warmup must lie in [0, 1], a fraction of the iterations; got {self.kl_warmup}")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size must be at least 2, for batch normalisation; got {self.batch_size}")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the step after ``step`` finished ones (section 7.2's schedule, or constant)."""
        if self.schedule == "constant":
            return self.learning_rate
        done = step / self.iterations
        for until, divisor in ((0.02, 10.0), (0.60, 1.0), (0.75, 3.0), (0.95, 10.0)):
            if done < until:
                return self.learning_rate / divisor
        return self.learning_rate / 33.0

    def kl_weight_at(self, step: int) -> float:
        """Weight of the KL in the step after ``step`` finished ones."""
        warmup = self.kl_warmup * self.iterations
        return min(1.0, step / warmup) if warmup > 0 else 1.0


@dataclass(frozen=True)
class DataConfig:
    """The images."""

    data: str = "digits"
    """Registered name (digits, mnist-static, mnist, omniglot, omniglot-substitute, caltech-silhouettes, cifar10,
    cifar10-subset), or the path of your .npy, .npz, .amat, .tar.gz file or folder of PNGs."""
    data_dir: str | None = None
    """Folder with the files of a registered data set; without it they are downloaded once and cached."""
    binarisation: Literal["dynamic", "static"] = "dynamic"
    """Grey training images: drawn anew in every batch, or once. Validation and test images are drawn once anyway."""
    binarisation_seed: int = 0
    """Seed of the images that are drawn once, and of the split of your own images."""

    def __post_init__(self) -> None:
        _one_of(self, "binarisation", ("dynamic", "static"))
        if not 0 <= self.binarisation_seed < 2**63:
            raise ConfigError(f"binarisation_seed must lie in 0..2**63 - 1; got {self.binarisation_seed}")


@dataclass(frozen=True)
class EvaluationConfig:
    """Validation during training, and the final test."""

    log_every: int = 100
    """Iterations between two rows of training terms in metrics.jsonl."""
    validate_every: int = 500
    """Iterations between two validations; the best one's weights are tested in the end."""
    checkpoint_every: int = 500
    """Iterations between two checkpoints."""
    valid_importance: int = 10
    """Importance samples per validation image."""
    n_importance: int = 1000
    """Importance samples per test image."""
    ais_temperatures: int = 1000
    """Temperatures of annealed importance sampling in the final log Z bracket."""
    ais_chains: int = 1024
    """Chains of annealed importance sampling in the final log Z bracket."""

    def __post_init__(self) -> None:
        _positive(self, *(f.name for f in dataclasses.fields(self)))
        if self.ais_chains < 2:
            raise ConfigError(f"ais_chains must be at least 2, for a standard error; got {self.ais_chains}")


@dataclass(frozen=True)
class ExecutionConfig:
    """How network convolutional is computed; nothing here changes what, but for rounding."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the networks while they train, by automatic casting; the bound's terms, the prior and all tests stay in
    float32."""
    channels_last: bool = False
    """Memory layout of the maps."""
    recompute: bool = False
    """Compute each local group again in the backward pass, to keep less: memory for time."""
    compile: bool = False
    """Have torch.compile fuse the networks before they are trained: a minute or more at first, and on a CPU it needs a
    C++ compiler."""

    def __post_init__(self) -> None:
        _one_of(self, "precision", ("float32", "bfloat16"))


@dataclass(frozen=True)
class CellConfig:
    """The cell of the paper's tables that a run is made for, by the names of ``validation.paper``; or none."""

    table: str = ""
    row: str = ""
    column: str = ""

    def __post_init__(self) -> None:
        named = [name for name in ("table", "row", "column") if getattr(self, name)]
        if len(named) not in (0, 3):
            raise ConfigError(f"experiment must name a table, a row and a column; got {', '.join(named)} alone")


@dataclass(frozen=True)
class Config:
    """All of a run but its name and its device."""

    model: ModelConfig = field(default_factory=ModelConfig)
    hierarchy: HierarchyConfig = field(default_factory=HierarchyConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)
    data: DataConfig = field(default_factory=DataConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    seed: int = 0
    """Seed of everything that is drawn: initial weights, batches, noise, chains."""
    experiment: Annotated[CellConfig, tyro.conf.Suppress] = field(default_factory=CellConfig)
    """What ``dvaepp.experiment`` made the run for; no hyper-parameter."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must lie in 0..2**63 - 1; got {self.seed}")
        if self.optimisation.accumulate > 1 and not self.convolutional:
            raise ConfigError(
                f"accumulate must be 1 for network {self.model.network}, whose batches are normalised as a whole; got "
                f"{self.optimisation.accumulate}"
            )
        if self.execution != ExecutionConfig() and not self.convolutional:
            raise ConfigError(
                f"precision, channels_last, recompute and compile are for network convolutional; got network "
                f"{self.model.network}: leave them out"
            )
        if self.hierarchy != HierarchyConfig() and not self.convolutional:
            changed = [
                f.name for f in dataclasses.fields(self.hierarchy) if getattr(self.hierarchy, f.name) != f.default
            ]
            raise ConfigError(
                f"{', '.join(changed)}: for network convolutional alone; got network {self.model.network}: use "
                "--network convolutional, or leave it out"
            )
        smoothing = self.model.smoothing
        if self.convolutional and self.hierarchy.local == "bernoulli" and smoothing in _WITHOUT_NU:
            raise ConfigError(
                f"local bernoulli is trained by the marginal KL, which needs a mixture with a density; got smoothing "
                f"{smoothing}: use another smoothing, or local normal"
            )

    @property
    def convolutional(self) -> bool:
        """Whether the model is DVAE++, with local latents."""
        return self.model.network == "convolutional"

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, for JSON; without ``experiment`` if the run was made for no cell, without
        ``hierarchy`` and ``execution`` if they are for another kind of model."""
        values = dataclasses.asdict(self)
        if not self.experiment.table:
            del values["experiment"]
        if not self.convolutional:
            del values["hierarchy"], values["execution"]
        return values

    def with_evaluation(self, **changes: Any) -> Config:
        """The same configuration with some of the evaluation's settings replaced."""
        return replace(self, evaluation=replace(self.evaluation, **changes))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Inverse of ``to_dict``.

        Raises   ConfigError for an unknown key (with the nearest name), a value of the wrong type or out of its domain.
        """
        return _from_dict(cls, values, "")

    def differences(self, other: Config) -> list[tuple[str, Any, Any]]:
        """(flag, value here, value there) of every hyper-parameter that differs."""
        mine, theirs = (flat(dataclasses.asdict(replace(config, experiment=CellConfig()))) for config in (self, other))
        return [(name, mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]]


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested tables by the names of their own: no two hyper-parameters share one."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found.update(flat(value) if isinstance(value, Mapping) else {key: value})
    return found


_SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "hierarchy": HierarchyConfig,
    "prior": PriorConfig,
    "optimisation": OptimisationConfig,
    "data": DataConfig,
    "evaluation": EvaluationConfig,
    "execution": ExecutionConfig,
    "experiment": CellConfig,
}


def _from_dict(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        name = where.rstrip(".") or "the configuration"
        raise ConfigError(f"{name} must be a table of names and values; got {values!r}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            raise ConfigError(unknown("hyper-parameter", f"{where}{key}", [f"{where}{name}" for name in known]))
    arguments = {}
    for key, value in values.items():
        if where == "" and key in _SECTIONS:
            arguments[key] = _from_dict(_SECTIONS[key], value, f"{key}.")
        else:
            arguments[key] = _typed(f"{where}{key}", value, str(known[key].type))
    return cls(**arguments)


def _typed(name: str, value: Any, annotation: str) -> Any:
    """The value, an integer widened to float where a float is meant; anything else of the wrong type is refused."""
    if annotation.startswith("float") and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    accepted: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (float,),
        "bool": (bool,),
        "float | None": (float, type(None)),
        "str | None": (str, type(None)),
    }
    types = accepted.get(annotation, (str,))
    if (isinstance(value, bool) and bool not in types) or not isinstance(value, types):
        raise ConfigError(f"{name} must be of type {annotation}; got {value!r}")
    return value


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line for a name nobody knows, with the nearest one that exists."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown {what} {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


_LIMIT = 2**31  # no size or count of ours means anything beyond


def _positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not (value > 0 and value < math.inf):
            raise ConfigError(f"{name} must be positive; got {value}")
        if isinstance(value, int) and value >= _LIMIT:
            raise ConfigError(f"{name} must be below {_LIMIT}; got {value}")


def _not_negative(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not (value >= 0 and value < math.inf):
            raise ConfigError(f"{name} must not be negative; got {value}")


def _one_of(config: Any, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


# ---- presets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preset:
    """A named configuration and one line about it."""

    config: Config
    about: str


def _table2(data: str, groups: int, network: Literal["linear", "nonlinear"]) -> Preset:
    words = f"{groups} group{'s' if groups > 1 else ''}, {network}, RBM {100 * groups}x{100 * groups}"
    config = Config(
        model=ModelConfig(latents=200 * groups, groups=groups, network=network),
        data=DataConfig(data=data),
        evaluation=EvaluationConfig(validate_every=10_000, checkpoint_every=1_000, n_importance=4000),
    )
    return Preset(config, f"as in Table 2, on {data}: {words}; 1,000,000 iterations as published")


def _digits() -> Preset:
    config = Config(
        optimisation=OptimisationConfig(iterations=5_000),
        prior=PriorConfig(chains=200, sweeps=10),
    )
    return Preset(config, "the default: 4,000 real digits shipped with the package, sized for a laptop")


def _dvaepp(about: str, data: str, model: ModelConfig, hierarchy: HierarchyConfig, **optimisation: Any) -> Preset:
    """DVAE++ of a size for a CPU; the sizes of Table 3 are in dvaepp/experiments/table3.toml.

    The KL is warmed up for some hundreds of iterations, a thousand at most: in a longer time at small weights the local
    latents learn to do without the global ones, whose KL was 0.8 nats after 4,500 iterations and 4 after 1,050.
    """
    config = Config(
        model=replace(model, network="convolutional", hidden=128, layers=1),
        hierarchy=hierarchy,
        data=DataConfig(data=data),
        prior=PriorConfig(chains=200, sweeps=10),
        optimisation=OptimisationConfig(
            learning_rate=2e-3, weight_decay=1e-5, gradient_clip=1000.0, ema=0.999, **optimisation
        ),
        evaluation=EvaluationConfig(validate_every=3_000, checkpoint_every=1_000, valid_importance=1, n_importance=100),
    )
    return Preset(config, about)


#: 28x28 halved twice, so without a margin, and few channels.
_NARROW = HierarchyConfig(local_groups=4, local_channels=8, width=8, halvings=2, local_halvings=2)


PRESETS: dict[str, Preset] = {
    "digits": _digits(),
    "digits-dvaepp": _dvaepp(
        "DVAE++ on the digits shipped with the package: RBM 8x8 of global latents, 4 groups of local ones; minutes",
        "digits",
        ModelConfig(latents=16, groups=2),
        _NARROW,
        iterations=2_000,
        batch_size=50,
        kl_warmup=0.25,
    ),
    "mnist-dvaepp": _dvaepp(
        "DVAE++ on dynamically binarised MNIST, as digits-dvaepp, sized for half an hour of two CPU cores",
        "mnist",
        ModelConfig(latents=16, groups=2),
        _NARROW,
        iterations=15_000,
        batch_size=50,
        kl_warmup=0.07,  # see _dvaepp
    ),
    **{
        f"{data}-{groups}-{network}": _table2(data, groups, network)
        for data in ("mnist-static", "mnist")
        for groups in (1, 2)
        for network in ("linear", "nonlinear")
    },
}


def preset(name: str) -> Config:
    """The configuration of a named preset.

    Raises   ConfigError for an unknown name, with the nearest one.
    """
    if name not in PRESETS:
        raise ConfigError(f"{unknown('preset', name, PRESETS)}  (python -m dvaepp.train --list)")
    return PRESETS[name].config


def scaled_intervals(config: Config, defaults: Config) -> Config:
    """The configuration with the intervals of logging, validation and checkpoints shortened where left at ``defaults``.

    A run shortened by --iterations would otherwise have next to no rows; an interval the user asked for is kept.
    """
    limit = max(1, config.optimisation.iterations // 10)
    changes = {}
    for name in ("log_every", "validate_every", "checkpoint_every"):
        wanted = getattr(config.evaluation, name)
        changes[name] = min(wanted, limit) if wanted == getattr(defaults.evaluation, name) else wanted
    return config.with_evaluation(**changes)
