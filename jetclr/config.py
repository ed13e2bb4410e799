"""A run's settings as frozen dataclasses: loaded from a config file, written to and rebuilt from JSON.

A config file is a page of plain Python that sets `config = Config(...)`; it is the user's own program. A run folder
holds only JSON, and rebuilding a `Config` from it executes nothing: only the settings classes of this package and the
transforms of `augmentations` are ever made. A transform that a user wrote comes back as `Foreign`, which can be
compared and written again, but not called.
"""

import dataclasses
import difflib
import json
import math
import re
import runpy
import traceback
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

import augmentations
from augmentations import Chain, Jets, Transform
from jetclr.data.buckets import GROUPS
from jetclr.encoder import Encoder, Head, Precision, check_irc_safe
from jetclr.errors import UserError
from jetclr.features import Features
from jetclr.objectives import AnyObjective, NTXent, Objective
from jetclr.optim import Optim
from jetclr.sharding import Devices

MOST_SLOTS = 1 << 16
"""More than any jet has; with many more, attention has sizes that end XLA without a word."""


@dataclass(frozen=True)
class Data:
    """Where the jets come from."""

    train: tuple[str, ...] = ()
    """Stores to pretrain on, read as one."""
    validation: tuple[str, ...] = ()
    """Stores with labels for the probe during training; none: the last `holdout` of each block of the train stores."""
    holdout: float = 0.05
    """Share of the train stores that is kept for validation when no validation store is named."""
    constituents: int = 50
    """The hardest constituents of a jet that are read."""
    slots: int = 0
    """Padded length of a training jet: room beyond `constituents` is for splittings. 0: no more than those."""
    window_blocks: int = 16
    """Blocks (of up to 16,384 jets) among which jets are shuffled."""
    where: str = ""
    """Which jets of the train stores: a condition on columns and "multiplicity", as "jet_pt > 500 & label < 2"."""
    fraction: float = 1.0
    """Share of the training jets, the same at every start; a smaller share is part of a larger one."""
    shares: tuple[float, ...] = ()
    """How large a share of the draws each train store gets, as 3 1; none: by their jets."""
    weight: str = ""
    """A formula of columns; a jet's expected draws are proportional to it. Multiplies with shares, balance and flat."""
    balance: str = ""
    """A column, as label, whose values are drawn equally often (with shares: within each store)."""
    flat: str = ""
    """A column, as jet_pt, drawn so that its spectrum is flat, within each value of balance if there is one."""
    extras: tuple[str, ...] = ()
    """Constituent columns read beside pt, eta and phi, as charge d0: for features and for views of your own."""
    buckets: tuple[int, ...] = ()
    """Lengths below `constituents`, as 32 64, to which parts of a batch are padded; none: all to the full length."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"Data.fraction is {self.fraction}; it must lie in (0, 1]")
        if self.shares and not (all(0 <= s < math.inf for s in self.shares) and sum(self.shares) > 0):
            raise ValueError(f"Data.shares is {self.shares}; they may not be negative, nor all be zero")
        if len({*self.extras, "pt", "eta", "phi"}) < len(self.extras) + 3:
            raise ValueError(f"Data.extras is {self.extras}; they are read once each, and pt, eta and phi always are")
        if list(self.buckets) != sorted({b for b in self.buckets if 0 < b < self.constituents}):
            raise ValueError(
                f"Data.buckets is {self.buckets}; they must rise, between 0 and Data.constituents {self.constituents}"
            )
        if not 0 <= self.holdout < 1:
            raise ValueError(f"Data.holdout is {self.holdout}; it must lie in [0, 1)")
        _positive(self, "constituents", "window_blocks")
        if max(self.constituents, self.slots) > MOST_SLOTS:
            raise ValueError(
                f"Data.constituents is {self.constituents} and Data.slots {self.slots}; {MOST_SLOTS} are the most"
            )
        if self.slots and self.slots < self.constituents:
            raise ValueError(f"Data.slots is {self.slots}, fewer than Data.constituents {self.constituents}")


@dataclass(frozen=True)
class Log:
    """What is written while training."""

    every: int = 10
    """Steps between lines of metrics.jsonl and TensorBoard points."""

    def __post_init__(self) -> None:
        _positive(self, "every")


@dataclass(frozen=True)
class Checkpoint:
    """When the state is saved, and which checkpoints stay."""

    every: int = 200
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 2
    """How many of the newest are kept."""
    keep_every: int = 0
    """Keep those of every so many steps as well; 0: none."""
    best: int = 1
    """How many with the highest AUC of the validation probe are kept as well, of those whose step was probed."""

    def __post_init__(self) -> None:
        _positive(self, "every", "keep")
        if self.keep_every < 0 or self.best < 0:
            raise ValueError("Checkpoint.keep_every and Checkpoint.best may not be negative; 0 is none")


@dataclass(frozen=True)
class Probe:
    """The linear probe on validation jets during training."""

    every: int = 200
    """Steps between probes; 0: never."""
    jets: int = 4000
    """Validation jets used, half to fit and half to measure."""
    l2: float = 30.0
    """L2 strength of the logistic regression (1 / C), fixed to keep it quick."""

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"Probe.every is {self.every}; it must be positive, or 0 for never")
        _positive(self, "l2")
        if self.jets < 8:
            raise ValueError(f"Probe.jets is {self.jets}; a probe needs at least 8 jets")


# Views are programs in small; they are written in the config file, and no flag takes them apart.
_NOT_A_FLAG = tyro.constructors.PrimitiveConstructorSpec[Any](
    nargs=1,
    metavar="(in the config file)",
    instance_from_str=lambda text: text,
    is_instance=lambda value: True,
    str_from_instance=lambda value: [" / ".join(map(str, value))],
)


@dataclass(frozen=True)
class Config:
    """Everything that determines a run."""

    data: Data = field(default_factory=Data)
    views: Annotated[tuple[Transform, ...], _NOT_A_FLAG, tyro.conf.Fixed] = (Chain(), Chain())
    """The augmentations, two or more, whose outputs must be recognised as the same jet."""
    anomalies: Annotated[tuple[Transform, ...], _NOT_A_FLAG, tyro.conf.Fixed] = ()
    """Augmentations of which each jet gets one at random, and whose output must not be taken for it; none: no such."""
    features: Features = field(default_factory=Features)
    encoder: Encoder = field(default_factory=Encoder)
    head: Head = field(default_factory=Head)
    objective: Annotated[AnyObjective, tyro.conf.AvoidSubcommands] = field(default_factory=NTXent)
    """What brings the views of a jet together; which kind of objective, the config file says."""
    optim: Optim = field(default_factory=Optim)
    log: Log = field(default_factory=Log)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    probe: Probe = field(default_factory=Probe)
    mesh: Devices = field(default_factory=Devices)
    average: float = 0.0
    """Share of the running mean of all weights that a step keeps at first (0: no mean). With one it is the mean that
    is probed, embedded with and exported, and the teacher of objectives that have one."""
    precision: Precision = "float32"
    """In which numbers the network computes while training; parameters and loss are float32 with each."""
    batch: int = 256
    """Jets a step, over all devices; of each all views are encoded, and with anomalies one more."""
    chunks: int = 1
    """Parts of the batch that are encoded one after another, to save memory; loss and gradient stay those of all."""
    steps: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise ValueError(f"Config.batch is {self.batch}; a contrastive loss needs at least 2 jets")
        _positive(self, "steps", "chunks")
        if self.data.buckets and self.batch % GROUPS:
            raise ValueError(f"Config.batch is {self.batch}; with Data.buckets it must be a multiple of {GROUPS}")
        for name, extra in self.features.needs.items():
            if extra not in self.data.extras:
                raise ValueError(f"the feature {name!r} needs {extra!r} in Data.extras, which is {self.data.extras}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"Config.seed is {self.seed}; it must lie in [0, 2^32)")
        for name in ("views", "anomalies"):
            for view in getattr(self, name):
                if not callable(view):
                    raise ValueError(f"Config.{name} holds {view!r}, which is not a transform")
        check_irc_safe(self.encoder, self.features)
        if len(self.views) < 2:
            raise ValueError(f"Config.views has {len(self.views)}; an objective compares two or more")
        if not 0 <= self.average < 1:
            raise ValueError(f"Config.average is {self.average}; it must lie in [0, 1)")
        kind = type(self.objective).__name__
        if self.objective.anomalies and not self.anomalies:
            raise ValueError(f"Config.objective is {kind}, which needs Config.anomalies; set them, or use NTXent")
        if self.anomalies and not self.objective.takes_anomalies:
            raise ValueError(f"Config.objective is {kind}, which makes nothing of Config.anomalies; leave them out")
        if self.objective.teacher and not self.average:
            raise ValueError(f"Config.objective is {kind}, which has a running mean for a teacher; set Config.average")

    @property
    def views_a_jet(self) -> int:
        """How many views of a jet are encoded in a step."""
        return len(self.views) + bool(self.anomalies)


# Objectives that JSON names; the first of them needs no name, as it had none while it was the only one.
_NAMED = typing.get_args(AnyObjective)[1:]

# What may differ between a run and its resumption: it changes what is written, or where and in which order sums are
# taken, never the trajectory beyond rounding.
NOT_THE_TRAJECTORY = ("log", "checkpoint", "probe", "mesh", "chunks")


@dataclass(frozen=True)
class Foreign:
    """A transform of a class that is not in `augmentations`, read back from JSON: a record, not a program."""

    type: str
    fields: dict[str, Any]

    def __call__(self, key: Any, jets: Jets) -> Jets:
        raise UserError(f"the transform {self.type} is not part of augmentations; give the config file that defines it")


def load(path: Path) -> Config:
    """The `config` that a Python config file defines, or one kept as JSON.

    Raises UserError when the file is missing or defines no Config, or names a field that does not exist (listing the
    nearest ones).
    """
    if not path.is_file():
        raise UserError(f"there is no config file {path}")
    if path.suffix == ".json":
        return from_json(path.read_bytes(), str(path))
    if path.suffix != ".py":
        raise UserError(f"{path} is neither a .py config file nor a config.json")
    try:
        defined = runpy.run_path(str(path))
    except TypeError as error:
        raise UserError(f"{path}: {nearest_field(str(error)) or error}") from None
    except Exception as error:  # the user's own program: whatever it raises is theirs to mend
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UserError(f"{place}: {type(error).__name__}: {error}") from None
    config = defined.get("config")
    if not isinstance(config, Config):
        raise UserError(f"{path} must set `config = Config(...)`; it sets {type(config).__name__}")
    return config


def to_dict(value: Any) -> Any:
    """Settings as plain JSON values; transforms carry their class name under "type"."""
    if isinstance(value, Foreign):
        return {"type": value.type} | value.fields
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        unnamed = type(value).__module__.startswith("jetclr.") and type(value) not in _NAMED
        return fields if unnamed else {"type": _type_name(type(value))} | fields
    if isinstance(value, tuple | list):
        return [to_dict(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{value!r} cannot be kept in a config: use numbers, strings, tuples and frozen dataclasses")


def to_json(config: Config) -> str:
    """The config as JSON text that `from_json` rebuilds."""
    return json.dumps(to_dict(config), indent=2)


def from_json(text: str | bytes, where: str) -> Config:
    """The Config that JSON `text` (from `where`) describes; raises UserError naming what does not fit."""
    try:
        return _build(Config, json.loads(text), "")
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{where} is not a config: {error}") from None


def foreign_transforms(value: Any) -> list[str]:
    """Names of the transforms in views that are only records of somebody's own classes."""
    if isinstance(value, Foreign):
        return [value.type]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return foreign_transforms([getattr(value, f.name) for f in dataclasses.fields(value)])
    return [name for item in value for name in foreign_transforms(item)] if isinstance(value, tuple | list) else []


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Lines "field: old -> new" for every setting that differs, apart from those that do not touch the trajectory."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [n for n in old | new if prefix or n not in NOT_THE_TRAJECTORY]
        return [line for n in names for line in differences(old.get(n), new.get(n), f"{prefix}{n}.")]
    return [] if old == new else [f"{prefix.rstrip('.')}: {json.dumps(old)} -> {json.dumps(new)}"]


def _type_name(kind: type) -> str:
    ours = kind in _NAMED or getattr(augmentations, kind.__name__, None) is kind
    return kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def _build(hint: Any, value: Any, at: str) -> Any:
    """The value of type `hint` that JSON `value` stands for; `at` is the dotted name for errors."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _build(typing.get_args(hint)[0], value, at)
    if hint is Transform:
        return _build_transform(value, at)
    if hint == AnyObjective or hint is Objective:
        return _build_objective(value, at)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return hint(**_build_fields(hint, value, at))
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{at} is {value!r}; known are {', '.join(map(str, typing.get_args(hint)))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{at} is {value!r}; it must be a list")
        kinds = typing.get_args(hint)
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise ValueError(f"{at} has {len(value)} entries; it must have {len(kinds)}")
        return tuple(_build(kind, item, f"{at}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))
    kind = (int, float) if hint is float else hint
    if not isinstance(value, kind) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{at} is {value!r}; it must be of type {hint.__name__}")
    return hint(value)


def _build_fields(kind: type, value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{at or 'the whole'} is {value!r}; it must hold the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [f.name for f in dataclasses.fields(kind)]
    for name in value:
        if name not in names:
            raise ValueError(_unknown(kind.__name__, name, names))
    return {name: _build(hints[name], item, f"{at}.{name}".lstrip(".")) for name, item in value.items()}


def _build_objective(value: Any, at: str) -> AnyObjective:
    kinds = {kind.__name__: kind for kind in typing.get_args(AnyObjective)}
    if not isinstance(value, dict):
        raise ValueError(f"{at} is {value!r}; it must hold the fields of one of {', '.join(kinds)}")
    name = value.get("type", next(iter(kinds)))
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"{at}.type is {name!r}; known are {', '.join(kinds)}")
    fields = {setting: item for setting, item in value.items() if setting != "type"}
    made: AnyObjective = kinds[name](**_build_fields(kinds[name], fields, at))
    return made


def _build_transform(value: Any, at: str) -> Transform:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ValueError(f"{at} is {value!r}; a transform has a 'type'")
    fields = {name: item for name, item in value.items() if name != "type"}
    kind: Any = getattr(augmentations, value["type"], None) if value["type"] in augmentations.__all__ else None
    if kind is Chain:
        return Chain(*(_build_transform(step, f"{at}.steps") for step in fields.get("steps", ())))
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return Foreign(value["type"], fields)
    made: Any = kind(**_build_fields(kind, fields, at))
    return made


def _unknown(kind: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(names)}"
    return f"{kind} has no field {name!r}; {hint}"


def nearest_field(message: str) -> str | None:
    """A clearer text for Python's own "Data.__init__() got an unexpected keyword argument 'trian'"."""
    match = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    if match is None:
        return None
    kinds: dict[str, type] = {k.__name__: k for k in _settings_classes(Config)}
    kinds |= {name: getattr(augmentations, name) for name in augmentations.__all__}
    kind = kinds.get(match[1])
    if kind is None or not dataclasses.is_dataclass(kind):
        return None
    return _unknown(match[1], match[2], [f.name for f in dataclasses.fields(kind)])


def _settings_classes(kind: type) -> list[type]:
    found = [kind]
    for hint in typing.get_type_hints(kind).values():
        for one in typing.get_args(hint) or (hint,):
            if dataclasses.is_dataclass(one) and isinstance(one, type):
                found += _settings_classes(one)
    return found


def _positive(settings: Any, *names: str) -> None:
    for name in names:
        if getattr(settings, name) <= 0:
            raise ValueError(f"{type(settings).__name__}.{name} is {getattr(settings, name)}; it must be positive")
        if getattr(settings, name) >= 2**31:  # sizes and steps are int32 on the device
            raise ValueError(f"{type(settings).__name__}.{name} is {getattr(settings, name)}; it must be below 2^31")
