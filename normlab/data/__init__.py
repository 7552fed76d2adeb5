"""Datasets as arrays, and augmentations as pure functions of a key and images.

>>> from normlab.data import Shapes
>>> Shapes(train_examples=100, test_examples=50).load().train.images.shape
(100, 16, 16, 3)

To add a dataset, mark a frozen dataclass with `@dataset(...)`; `normlab.data.dataset` says what it
must have. To add an augmentation, use `@augmentation` from `normlab.data.augment`.
"""

from typing import TYPE_CHECKING

from normlab.catalogue import AUGMENTATIONS, lazily
from normlab.data.cifar import Cifar10, Cifar100
from normlab.data.cifar10_c import Cifar10C
from normlab.data.csv import Csv
from normlab.data.dataset import (
    Dataset,
    DatasetFacts,
    Outline,
    Split,
    data_root,
    stratified,
)
from normlab.data.folder import Folder
from normlab.data.listing import DatasetStatus, status
from normlab.data.medmnist import Medmnist
from normlab.data.npz import Npz
from normlab.data.parquet import Parquet
from normlab.data.pooling import mean_pool
from normlab.data.shapes import Shapes
from normlab.data.spoken_digits import SpokenDigits

if TYPE_CHECKING:
    from normlab.data.augment import Brightness, Contrast, Crop, Cutout, Flip, apply_all
    from normlab.data.corruptions import FIFTEEN, corruption
    from normlab.data.light import ColourCast, Darkness, Fog, Glare, LowContrast

__all__ = [
    "FIFTEEN",
    "Brightness",
    "Cifar10",
    "Cifar10C",
    "Cifar100",
    "ColourCast",
    "Contrast",
    "Crop",
    "Csv",
    "Cutout",
    "Darkness",
    "Dataset",
    "DatasetFacts",
    "DatasetStatus",
    "Flip",
    "Fog",
    "Folder",
    "Glare",
    "LowContrast",
    "Medmnist",
    "Npz",
    "Outline",
    "Parquet",
    "Shapes",
    "Split",
    "SpokenDigits",
    "apply_all",
    "corruption",
    "data_root",
    "mean_pool",
    "status",
    "stratified",
]

# Augmentations need jax, which is slow to import; listing and fetching do without it.
__getattr__, __dir__ = lazily(
    __name__,
    AUGMENTATIONS,
    FIFTEEN="normlab.data.corruptions",
    apply_all="normlab.data.augment",
    corruption="normlab.data.corruptions",
)
