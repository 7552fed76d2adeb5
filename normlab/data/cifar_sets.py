"""Published facts about CIFAR-10 and CIFAR-100: addresses, checksums, layouts, class names.

Source: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images* (2009), and the page
that publishes the archives, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from dataclasses import dataclass
from pathlib import Path

from normlab.errors import UserError

SIZE = 32
CHANNELS = 3
TRAIN_EXAMPLES = 50_000
TEST_EXAMPLES = 10_000


@dataclass(frozen=True)
class CifarSet:
    """One of the two sets, in its published layouts.

    Attributes:
        name: the set's name in a config, and the name of its folder.
        archive: the file name of the official binary archive.
        md5: the archive's published checksum.
        archive_bytes: the archive's size.
        train_members: the files of the archive that hold training records.
        test_members: the files of the archive that hold test records.
        unpacked: the folder that the archive unpacks to.
        python_archive: the file name of the official archive of Python's pickles, which torchvision
            downloads.
        python_archive_bytes: its size.
        python_unpacked: the folder that it unpacks to.
        python_train: the files of that archive that hold training records.
        python_test: the files of it that hold test records.
        python_labels: the key of the classes in these files.
        label_bytes: number of bytes before the pixels of a record; the last is the class.
        label_column: the column of the Parquet files that holds the class.
        classes: the class names, in the order of the labels.
    """

    name: str
    archive: str
    md5: str
    archive_bytes: int
    train_members: tuple[str, ...]
    test_members: tuple[str, ...]
    unpacked: str
    python_archive: str
    python_archive_bytes: int
    python_unpacked: str
    python_train: tuple[str, ...]
    python_test: tuple[str, ...]
    python_labels: str
    label_bytes: int
    label_column: str
    classes: tuple[str, ...]

    @property
    def url(self) -> str:
        """The address of the official archive."""
        return f"https://www.cs.toronto.edu/~kriz/{self.archive}"

    def damaged(self, file: Path, expected: str, found: str) -> UserError:
        """Make the error for a file that differs from what was published."""
        return UserError(
            f"{file}: expected {expected}, found {found}. Fetch the set again: normlab data fetch "
            f"{self.name} (the fetched archive is read in place of other files, which stay)"
        )


CIFAR10 = CifarSet(
    name="cifar10",
    archive="cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    archive_bytes=170_052_171,
    train_members=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test_members=("test_batch.bin",),
    unpacked="cifar-10-batches-bin",
    python_archive="cifar-10-python.tar.gz",
    python_archive_bytes=170_498_071,
    python_unpacked="cifar-10-batches-py",
    python_train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    python_test=("test_batch",),
    python_labels="labels",
    label_bytes=1,
    label_column="label",
    classes=(
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
)

_FINE_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle
    bowl boy bridge bus butterfly camel can castle caterpillar cattle
    chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
    dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket
    rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR100 = CifarSet(
    name="cifar100",
    archive="cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    archive_bytes=168_513_733,
    train_members=("train.bin",),
    test_members=("test.bin",),
    unpacked="cifar-100-binary",
    python_archive="cifar-100-python.tar.gz",
    python_archive_bytes=169_001_437,
    python_unpacked="cifar-100-python",
    python_train=("train",),
    python_test=("test",),
    python_labels="fine_labels",
    label_bytes=2,
    label_column="fine_label",
    classes=tuple(_FINE_CLASSES.split()),
)
