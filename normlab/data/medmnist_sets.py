"""Published facts about MedMNIST: the sets, their checksums, sizes and class names.

Source: Yang et al. 2023, *MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical
image classification* (Scientific Data 10:41), and the list in the authors' package `medmnist`.
The two-dimensional sets with one label an image are here, at 28x28 pixels and at the larger sizes
that are published as MedMNIST+.
"""

from dataclasses import dataclass

SIZES = (28, 64, 128, 224)
"""Height and width of the published images."""

MULTI_LABEL = "chestmnist"
"""The set whose images have up to fourteen labels."""


@dataclass(frozen=True)
class MedmnistSet:
    """One of the sets.

    Attributes:
        md5: the published checksums of its files, by size.
        channels: 1 for grey, 3 for colour.
        examples: numbers of training, validation and test examples.
        classes: the class names, in the order of the labels.
        larger: the numbers of examples at sizes above 28, if they differ.
    """

    md5: dict[int, str]
    channels: int
    examples: tuple[int, int, int]
    classes: tuple[str, ...]
    larger: tuple[int, int, int] | None = None


_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right"),
    *("liver", "lung-left", "lung-right", "pancreas", "spleen"),
)

SETS: dict[str, MedmnistSet] = {
    "bloodmnist": MedmnistSet(
        {
            28: "7053d0359d879ad8a5505303e11de1dc",
            64: "2b94928a2ae4916078ca51e05b6b800b",
            128: "adace1e0ed228fccda1f39692059dd4c",
            224: "b718ff6835fcbdb22ba9eacccd7b2601",
        },
        3,
        (11959, 1712, 3421),
        (
            *("basophil", "eosinophil", "erythroblast", "immature granulocytes"),
            *("lymphocyte", "monocyte", "neutrophil", "platelet"),
        ),
    ),
    "breastmnist": MedmnistSet(
        {
            28: "750601b1f35ba3300ea97c75c52ff8f6",
            64: "742edef2a1fd1524b2efff4bd7ba9364",
            128: "363e4b3f8d712e9b5de15470a2aaadf1",
            224: "b56378a6eefa9fed602bb16d192d4c8b",
        },
        1,
        (546, 78, 156),
        ("malignant", "normal or benign"),
    ),
    "dermamnist": MedmnistSet(
        {
            28: "0744692d530f8e62ec473284d019b0c7",
            64: "b70a2f5635c6199aeaa28c31d7202e1f",
            128: "2defd784463fa5243564e855ed717de1",
            224: "8974907d8e169bef5f5b96bc506ae45d",
        },
        3,
        (7007, 1003, 2005),
        (
            *("actinic keratoses", "basal cell carcinoma", "benign keratosis", "dermatofibroma"),
            *("melanoma", "melanocytic nevi", "vascular lesions"),
        ),
    ),
    "octmnist": MedmnistSet(
        {
            28: "c68d92d5b585d8d81f7112f81e2d0842",
            64: "e229e9440236b774d9f0dfef9d07bdaf",
            128: "0a97e76651ace45c5d943ee3f65b63ae",
            224: "abc493b6d529d5de7569faaef2773ba3",
        },
        1,
        (97477, 10832, 1000),
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    ),
    "organamnist": MedmnistSet(
        {
            28: "866b832ed4eeba67bfb9edee1d5544e6",
            64: "2dcccc29b88e6da5a01161ef20cda288",
            128: "eeae80d0a227a8d099027e1b3cfd3b60",
            224: "50747347e05c87dd3aaf92c49f9f3170",
        },
        1,
        (34581, 6491, 17778),
        _ORGANS,
        larger=(34561, 6491, 17778),
    ),
    "organcmnist": MedmnistSet(
        {
            28: "0afa5834fb105f7705a7d93372119a21",
            64: "3ce34a8724ea6f548e6db4744d03b6a9",
            128: "773c1f009daa3fe5d9a2a201b2a7ed94",
            224: "050f5e875dc056f6768abf94ec9995d1",
        },
        1,
        (13000, 2392, 8268),
        _ORGANS,
        larger=(12975, 2392, 8216),
    ),
    "organsmnist": MedmnistSet(
        {
            28: "e5c39f1af030238290b9557d9503af9d",
            64: "53a6d115339d874c25e309a994ff46d3",
            128: "ded0c5fa01a95dc4978b956f613e9b8e",
            224: "b354719e553fbbb2513d5533f52a4cb1",
        },
        1,
        (13940, 2452, 8829),
        _ORGANS,
        larger=(13932, 2452, 8827),
    ),
    "pathmnist": MedmnistSet(
        {
            28: "a8b06965200029087d5bd730944a56c1",
            64: "55aa9c1e0525abe5a6b9d8343a507616",
            128: "ac42d08fb904d92c244187169d1fd1d9",
            224: "2c51a510bcdc9cf8ddb2af93af1eadec",
        },
        3,
        (89996, 10004, 7180),
        (
            *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle"),
            *("normal colon mucosa", "cancer-associated stroma"),
            "colorectal adenocarcinoma epithelium",
        ),
    ),
    "pneumoniamnist": MedmnistSet(
        {
            28: "28209eda62fecd6e6a2d98b1501bb15f",
            64: "8f4eceb4ccffa70c672198ea285246c6",
            128: "05b46931834c231683c68f40c47b2971",
            224: "d6a3c71de1b945ea11211b03746c1fe1",
        },
        1,
        (4708, 524, 624),
        ("normal", "pneumonia"),
    ),
    "retinamnist": MedmnistSet(
        {
            28: "bd4c0672f1bba3e3a89f0e4e876791e4",
            64: "afda852cc34dcda56f86ad2b2457dbcc",
            128: "e48e916a24454daf90583d4e6efb1a18",
            224: "eae7e3b6f3fcbda4ae613ebdcbe35348",
        },
        3,
        (1080, 120, 400),
        ("0", "1", "2", "3", "4"),
    ),
    "tissuemnist": MedmnistSet(
        {
            28: "ebe78ee8b05294063de985d821c1c34b",
            64: "123ece2eba09d0aa5d698fda57103344",
            128: "61b955355d7425a89687b06cca3ce0c2",
            224: "b077128c4a949f0a4eb01517f9037b9c",
        },
        1,
        (165466, 23640, 47280),
        (
            *("collecting duct", "distal convoluted tubule", "glomerular endothelial cells"),
            *("interstitial endothelial cells", "leukocytes", "podocytes"),
            *("proximal tubule segments", "thick ascending limb"),
        ),
    ),
}
"""By name."""
