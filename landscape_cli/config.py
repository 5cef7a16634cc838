"""A dataclass for every configuration node. What values a field allows is its metadata.

:mod:`landscape_cli.validation` merges what Hydra composed into these classes and checks it. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


def bounded(default: Any = dataclasses.MISSING, **limits: Any) -> Any:
    """Return a field with limits: ``minimum``, ``above``, ``maximum``, ``below``, ``choices``, ``pattern``.

    A mutable default is given as ``factory``. The limits of a list or mapping hold for each of its values.
    """
    if "factory" in limits:
        return field(default_factory=limits.pop("factory"), metadata=limits)
    return field(default=default, metadata=limits)


@dataclass
class DatasetConfig:
    """A named set of images and how much of it is used."""

    name: str
    kind: str = bounded("images", choices=("images",))
    train_size: int | None = bounded(None, minimum=1)  # the first so many train objects; null: all that there are
    max_size: int | None = bounded(None, minimum=1)  # never more than this, however many there are (profiles set it)
    normalisation: str = bounded("symmetric", choices=("symmetric", "standard"))  # [-1, 1], or mean 0, deviation 1
    embedded: str = "digits"  # what stands in for it under profile=embedded
    in_place_of: list[str] = field(default_factory=list)  # set by prepare: what it stands in for


@dataclass
class TableConfig:
    """A table: a row an object, a column the target."""

    name: str
    kind: str = bounded("table", choices=("table",))
    path: str | None = None  # of a user's own file; null: a known table
    target: str | None = None  # column; null: the known table's own
    drop: list[str] | None = None  # columns left out; null: the known table's own choice
    encoding: str | None = bounded(None, choices=("ordinal", "one_hot"))  # of text columns; null: the known table's own
    task: str = bounded("auto", choices=("auto", "regression", "classification"))
    train_size: int | None = bounded(None, minimum=1)  # so many complete rows, drawn at random; null: all
    max_size: int | None = bounded(None, minimum=1)  # never more than this, however many there are (profiles set it)
    embedded: str | None = None  # what stands in for it under profile=embedded; null: the known table's own
    in_place_of: list[str] = field(default_factory=list)  # set by prepare: what it stands in for


@dataclass
class CorpusConfig:
    """A parallel corpus: a teacher translates from one language, its student from another, both to the same."""

    name: str
    kind: str = bounded("corpus", choices=("corpus",))
    path: str | None = None  # of a user's own folder of aligned files; null: a known corpus
    teacher_language: str = bounded("de", pattern=r"[a-z]{2,3}", allowed="a language code, such as de")
    student_language: str = bounded("fr", pattern=r"[a-z]{2,3}", allowed="a language code, such as fr")
    target_language: str = bounded("en", pattern=r"[a-z]{2,3}", allowed="a language code, such as en")
    train_size: int | None = bounded(None, minimum=1)  # the first so many aligned train lines; null: all
    max_size: int | None = bounded(None, minimum=1)  # never more than this, however many there are
    embedded: str = "toy_translation"  # what stands in for it under profile=embedded
    in_place_of: list[str] = field(default_factory=list)  # set by prepare: what it stands in for


@dataclass
class OwnDataConfig:
    """Data that a user's function returns; keys that are not here are its arguments."""

    name: str = ""  # set by prepare: the target
    kind: str = bounded("own", choices=("own",))
    _target_: str | None = None  # dotted path of a class or function
    arguments: dict[str, Any] = field(default_factory=dict)  # that it is called with
    train_size: int | None = bounded(None, minimum=1)  # so many train objects, drawn at random; null: all
    max_size: int | None = bounded(None, minimum=1)  # never more than this, however many there are (profiles set it)
    normalisation: str = bounded("none", choices=("none", "standard"))  # standard: each feature mean 0, deviation 1
    in_place_of: list[str] = field(default_factory=list)


DATASETS: dict[str, type] = {
    "images": DatasetConfig,
    "table": TableConfig,
    "corpus": CorpusConfig,
    "own": OwnDataConfig,
}


@dataclass
class MLPConfig:
    """Linear(in, h), ReLU, ``num_layers`` times (Linear(h, h), ReLU), Linear(h, K) (thesis 1.4.1)."""

    kind: str = bounded("mlp", choices=("mlp",))
    hidden_size: int = bounded(16, minimum=1)
    num_layers: int = bounded(5, minimum=0)
    bias: bool = False


@dataclass
class FeedForwardConfig:
    """Linear layers with an activation between them (thesis 4.1); no hidden layer: a linear model."""

    kind: str = bounded("feedforward", choices=("feedforward",))
    hidden: list[int] = bounded(factory=list, minimum=1)  # widths of the hidden layers
    activation: str = bounded("tanh", choices=("tanh", "relu"))
    bias: bool = False


@dataclass
class ConvConfig:
    """L convolutions, a nonlinearity after all but the last, a fully connected head (thesis 1.4.2).

    ``conv2d`` convolves pictures, ``conv1d`` the sequence of a picture's rows.
    """

    kind: str = bounded("conv2d", choices=("conv1d", "conv2d"))
    num_layers: int = bounded(4, minimum=1)
    channels: int = bounded(6, minimum=1)
    kernel_size: int = bounded(3, minimum=1)
    bias: bool = True
    pooling: str = bounded("max", choices=("max", "average"))  # window = stride = 2
    position: int = bounded(0, minimum=0)  # the convolution after which it replaces the ReLU; 0: none
    relu_after_last: bool = False
    head: list[int] = bounded(factory=list, minimum=1)  # sizes of hidden layers before the output layer


@dataclass
class LeNetConfig:
    """Stages of convolution, ReLU and max pooling, then connected layers (thesis 4.4.2, Tables 4.3 and 4.4)."""

    kind: str = bounded("lenet", choices=("lenet",))
    channels: list[int] = bounded(factory=lambda: [24, 48], minimum=1)  # of each stage
    kernel_sizes: list[int] = bounded(factory=lambda: [5, 5], minimum=1)  # of each stage
    hidden: list[int] = bounded(factory=lambda: [120], minimum=1)  # widths of the connected layers before the last
    bias: bool = True


@dataclass
class TransformerConfig:
    """Patches, transformer blocks, the mean over tokens, a linear head (thesis 2.3, 2.4)."""

    kind: str = bounded("vit", choices=("vit",))
    patch_size: int = bounded(4, minimum=1)
    hidden_size: int = bounded(16, minimum=2)  # with one channel a layer norm leaves nothing
    ffn_size: int | None = bounded(None, minimum=1)  # null: four times the hidden size
    num_layers: int = bounded(1, minimum=1)  # blocks
    num_heads: int = bounded(1, minimum=1)  # each of width d_K = hidden_size / num_heads
    bias: bool = False
    output_projection: bool = True  # after the attention; the theory (2.3) has none
    class_token: bool = False  # false: the mean over tokens is classified
    positions: bool = False  # learned ones, added to the tokens
    pre_norm: bool = False  # layer norms before attention and network, and one at the end


@dataclass
class EncoderDecoderConfig:
    """The transformer that translates: an encoder and a decoder of as many blocks each (thesis 4.4.2)."""

    kind: str = bounded("encoder_decoder", choices=("encoder_decoder",))
    hidden_size: int = bounded(128, minimum=2)
    ffn_size: int = bounded(256, minimum=1)
    num_layers: int = bounded(2, minimum=1)  # blocks of the encoder, and of the decoder
    num_heads: int = bounded(4, minimum=1)
    dropout: float = bounded(0.1, minimum=0, below=1)


@dataclass
class OwnModelConfig:
    """A network of the user's; keys that are not here are its arguments."""

    kind: str = bounded("own", choices=("own",))
    _target_: str | None = None  # dotted path of a class or function that returns a torch.nn.Module
    arguments: dict[str, Any] = field(default_factory=dict)  # that it is called with


MODELS: dict[str, type] = {
    "mlp": MLPConfig,
    "feedforward": FeedForwardConfig,
    "conv1d": ConvConfig,
    "conv2d": ConvConfig,
    "lenet": LeNetConfig,
    "vit": TransformerConfig,
    "encoder_decoder": EncoderDecoderConfig,
    "own": OwnModelConfig,
}


@dataclass
class ConvFeaturesConfig:
    """Features: what a convolutional network gives to its head, after a ReLU."""

    kind: str
    num_layers: int = bounded(4, minimum=1)
    channels: int = bounded(12, minimum=1)
    kernel_size: int = bounded(3, minimum=1)
    pooling: str = bounded("max", choices=("max", "average"))
    position: int = bounded(2, minimum=0)
    seed: int = bounded(0, minimum=0, maximum=2**31)
    in_place_of: str | None = None  # set by prepare: the kind that it stands in for


@dataclass
class RandomConvConfig(ConvFeaturesConfig):
    """The network as it was initialised."""

    kind: str = bounded("random_conv", choices=("random_conv",))


@dataclass
class SmallCNNConfig(ConvFeaturesConfig):
    """The network trained on another named data set."""

    kind: str = bounded("small_cnn", choices=("small_cnn",))
    dataset: str | None = None  # null: the one that is named as related to the data set
    train_size: int | None = bounded(10000, minimum=1)  # at most so many of its train objects; null: all
    epochs: int = bounded(5, minimum=0)
    batch_size: int = bounded(64, minimum=1)
    learning_rate: float = bounded(1e-3, above=0)


@dataclass
class ViTConfig:
    """Features: the class token of a vision transformer trained elsewhere, from a checkpoint."""

    kind: str = bounded("vit", choices=("vit",))
    checkpoint: str | None = None  # a folder (transformers) or a .pth file (torchvision); null: where they are cached
    repository: str = "google/vit-base-patch16-224"  # on the Hugging Face hub
    weights: str = "vit_b_16-c867db91.pth"  # file of torchvision's ImageNet weights
    output: str = bounded("class_token", choices=("class_token", "pooled"))
    embedded: str = bounded("random_conv", choices=("random_conv",))  # what stands in for it under profile=embedded


FEATURES: dict[str, type] = {"random_conv": RandomConvConfig, "small_cnn": SmallCNNConfig, "vit": ViTConfig}


@dataclass
class StyleConfig:
    """φ of pictures, from the student's domain to the teacher's: a generator, or a fixed stylisation."""

    kind: str = bounded("style", choices=("style",))
    checkpoint: str | None = None  # of a CycleGAN generator (.pth); null: the stylisation
    levels: int = bounded(4, minimum=3, maximum=64)  # of its brightness
    seed: int = bounded(0, minimum=0, maximum=2**31)  # of its palette


@dataclass
class TranslationConfig:
    """φ of sentences, from the student's language to the teacher's: a translator, or a table of words."""

    kind: str = bounded("translation", choices=("translation",))
    checkpoint: str | None = None  # folder of an NLLB checkpoint (transformers); null: IBM model 1
    source_code: str | None = None  # the translator's names of the languages; null: those of the data set's
    target_code: str | None = None
    pairs: int | None = bounded(None, minimum=1)  # at most so many aligned sentences for IBM model 1; null: all
    iterations: int = bounded(10, minimum=1)  # of its estimation


MAPPINGS: dict[str, type] = {"style": StyleConfig, "translation": TranslationConfig}


@dataclass
class TrainingConfig:
    """Adam on minibatches, cross-entropy."""

    epochs: int = bounded(10, minimum=0)
    batch_size: int = bounded(64, minimum=1)
    learning_rate: float = bounded(1e-3, above=0)
    weight_decay: float = bounded(0.0, minimum=0)  # decoupled (AdamW)
    schedule: str = bounded("constant", choices=("constant", "cosine"))  # of the learning rate, down to zero
    warmup: float = bounded(0.0, minimum=0, below=1)  # share of the steps in which the rate rises from zero
    augmentation: str = bounded("none", choices=("none", "crop_flip"))  # of the pictures in a minibatch


@dataclass
class ProfileConfig:
    """Caps, applied in :func:`prepare` and nowhere else; null: no cap."""

    name: str = "paper"
    objects: int | None = bounded(None, minimum=1)
    epochs: int | None = bounded(None, minimum=0)
    permutations: int | None = bounded(None, minimum=2)
    smoothing: float | None = bounded(None, minimum=0, below=1)
    resamples: int | None = bounded(None, minimum=2)
    sizes: int | None = bounded(None, minimum=2)  # sample sizes at which a statistic is computed
    copies: int | None = bounded(None, minimum=2)  # bootstrap copies of a table
    grid_points: int | None = bounded(None, minimum=1)
    channels: int | None = bounded(None, minimum=1)
    seeds: int | None = bounded(None, minimum=1)
    hessian_objects: int | None = bounded(None, minimum=1)  # that a Hessian is the mean over
    hessian_samples: int | None = bounded(None, minimum=1)  # whose own Hessians are looked at
    networks: int | None = bounded(None, minimum=2)  # that bounds are tried on, of each kind
    ascent_steps: int | None = bounded(None, minimum=0)  # of the adversary that tries them
    train_steps: int | None = bounded(None, minimum=0)  # of their trained networks
    removal_steps: int | None = bounded(None, minimum=1)  # in which a network's parameters are removed
    posterior_iterations: int | None = bounded(None, minimum=1)  # of a variational posterior's fit
    teacher_objects: int | None = bounded(None, minimum=1)  # that a teacher is trained on, in distillation
    student_objects: int | None = bounded(None, minimum=1)  # that its students are trained on
    test_objects: int | None = bounded(None, minimum=1)  # that networks are tested on after each epoch
    pairs: int | None = bounded(None, minimum=1)  # of aligned sentences that a translation is estimated from
    embedded: bool = False


@dataclass
class DataConfig:
    """Where data sets are looked for, and whether a missing public one is fetched."""

    roots: list[str] | None = None  # null: $LANDSCAPE_DATA, ./data, ~/.cache/landscape
    download: bool = True


@dataclass
class PlotConfig:
    """How figures are written."""

    formats: list[str] = bounded(factory=lambda: ["pdf", "png"], choices=("pdf", "png", "svg"))
    dpi: int = bounded(200, minimum=50, maximum=1200)
    language: str = bounded("en", choices=("en", "ru"))  # of every label, title and caption
    size: str = bounded("own", choices=("own", "column", "page", "slide"))  # own: what suits each figure


@dataclass
class ShardConfig:
    """This job's share of the grid: points index, index + count, and so on."""

    count: int = bounded(1, minimum=1)
    index: int = bounded(0, minimum=0)


@dataclass
class Config:
    """The whole configuration of one run."""

    name: str = bounded(pattern=r"[a-z0-9_]+", allowed="a-z, 0-9 and _")  # of the experiment
    title: str  # what it shows, in one line
    family: str  # class path of the experiment class
    thesis: str | None = bounded(None, pattern=r"(figure|table) \d+\.\d+", allowed="figure N.N or table N.N")
    dataset: Any = None  # one of DATASETS, by its ``kind``
    features: Any = None  # one of FEATURES, by its ``kind``; null: the objects themselves
    model: Any = None  # one of MODELS, by its ``kind``
    mapping: Any = None  # one of MAPPINGS, by its ``kind``
    training: TrainingConfig | None = None
    grid: dict[str, list[Any]] = field(default_factory=dict)  # axis -> values
    by_dataset: dict[str, Any] = field(
        default_factory=dict
    )  # data set -> keys of dataset, model, training and measure that differ
    caps: dict[str, Any] = field(default_factory=dict)  # profile -> caps in the place of its own
    sweep: str = bounded("cross", choices=("cross", "full"))  # one axis at a time, or all combinations
    measure: Any = field(default_factory=dict)  # the family's Options
    seeds: int = bounded(5, minimum=1, maximum=10000)
    seed: int = bounded(0, minimum=0, maximum=2**31)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    device: str = bounded("auto", pattern=r"auto|cpu|mps|cuda(:\d+)?", allowed="auto, cpu, cuda, cuda:N or mps")
    threads: int | None = bounded(None, minimum=1)
    workers: int | None = bounded(None, minimum=1)  # processes of this machine that share the points
    max_cpu_hours: float = bounded(3.0, above=0)  # estimated, from which a run on a CPU is refused
    data: DataConfig = field(default_factory=DataConfig)
    plot: PlotConfig = field(default_factory=PlotConfig)
    output_dir: str = bounded("outputs", pattern=r".+", allowed="a path")
    shard: ShardConfig = field(default_factory=ShardConfig)
    keep_parameters: bool = False
    checkpoint: bool = False  # after every epoch, so that a training that was killed goes on
    tracking: str | None = bounded(None, choices=("tensorboard",))  # where points and figures are written too
    submission: str | None = None  # set by what submits a job: its record of the code and the configuration
    allow_changes: bool = False  # of either since then
    dry_run: bool = False
    debug: bool = False
