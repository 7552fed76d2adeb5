"""Published facts about MedMNIST: the sets, their checksums, sizes and class names.

Source: Yang et al. 2023, *MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical
image classification* (Scientific Data 10:41), and the list in the authors' package `medmnist`.
The two-dimensional sets with one label an image are here, at 28x28 pixels.
"""

from dataclasses import dataclass

SIZE = 28


@dataclass(frozen=True)
class MedmnistSet:
    """One of the sets.

    Attributes:
        md5: the published checksum of its file.
        channels: 1 for grey, 3 for colour.
        examples: numbers of training, validation and test examples.
        classes: the class names, in the order of the labels.
    """

    md5: str
    channels: int
    examples: tuple[int, int, int]
    classes: tuple[str, ...]


_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right"),
    *("liver", "lung-left", "lung-right", "pancreas", "spleen"),
)

SETS: dict[str, MedmnistSet] = {
    "bloodmnist": MedmnistSet(
        "7053d0359d879ad8a5505303e11de1dc",
        3,
        (11959, 1712, 3421),
        (
            *("basophil", "eosinophil", "erythroblast", "immature granulocytes"),
            *("lymphocyte", "monocyte", "neutrophil", "platelet"),
        ),
    ),
    "breastmnist": MedmnistSet(
        "750601b1f35ba3300ea97c75c52ff8f6", 1, (546, 78, 156), ("malignant", "normal or benign")
    ),
    "dermamnist": MedmnistSet(
        "0744692d530f8e62ec473284d019b0c7",
        3,
        (7007, 1003, 2005),
        (
            *("actinic keratoses", "basal cell carcinoma", "benign keratosis", "dermatofibroma"),
            *("melanoma", "melanocytic nevi", "vascular lesions"),
        ),
    ),
    "octmnist": MedmnistSet(
        "c68d92d5b585d8d81f7112f81e2d0842",
        1,
        (97477, 10832, 1000),
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    ),
    "organamnist": MedmnistSet(
        "866b832ed4eeba67bfb9edee1d5544e6", 1, (34581, 6491, 17778), _ORGANS
    ),
    "organcmnist": MedmnistSet("0afa5834fb105f7705a7d93372119a21", 1, (13000, 2392, 8268), _ORGANS),
    "organsmnist": MedmnistSet("e5c39f1af030238290b9557d9503af9d", 1, (13940, 2452, 8829), _ORGANS),
    "pathmnist": MedmnistSet(
        "a8b06965200029087d5bd730944a56c1",
        3,
        (89996, 10004, 7180),
        (
            *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle"),
            *("normal colon mucosa", "cancer-associated stroma"),
            "colorectal adenocarcinoma epithelium",
        ),
    ),
    "pneumoniamnist": MedmnistSet(
        "28209eda62fecd6e6a2d98b1501bb15f", 1, (4708, 524, 624), ("normal", "pneumonia")
    ),
    "retinamnist": MedmnistSet(
        "bd4c0672f1bba3e3a89f0e4e876791e4", 3, (1080, 120, 400), ("0", "1", "2", "3", "4")
    ),
    "tissuemnist": MedmnistSet(
        "ebe78ee8b05294063de985d821c1c34b",
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
