"""The CIFAR ResNet of He et al. 2015 (option A), as one writes it in torch.

`python -m tests.peers.resnet` trains a small one for a step and keeps the numbers.
"""

from functools import partial

import numpy as np

from tests.peers import goldens

NAME = "torch_resnet8"
DEPTH, WIDTH, CLASSES = 8, 4, 5
RATE = 0.1
SHAPE = (6, 8, 8, 3)
data = partial(goldens.images_and_labels, SHAPE, CLASSES)


def build(depth, width, classes):
    """The network, with the names that its best-known implementations have."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(after)
            self.stride, self.new = stride, after - before

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            x = x[:, :, :: self.stride, :: self.stride]
            return torch.relu(y + functional.pad(x, (0, 0, 0, 0, 0, self.new)))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            before = width
            for stage in range(3):
                blocks = []
                for number in range((depth - 2) // 6):
                    stride = 2 if stage > 0 and number == 0 else 1
                    blocks.append(Block(before, width * 2**stage, stride))
                    before = width * 2**stage
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.linear = nn.Linear(before, classes)

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            x = self.layer3(self.layer2(self.layer1(x)))
            return self.linear(x.mean(dim=(2, 3)))

    return ResNet()


def unlike_its_start(model, seed=0):
    """The model, no scale at one and no statistic at its start, so that none is mixed up unseen."""
    import torch

    draw = np.random.default_rng(seed)
    with torch.no_grad():
        for name, values in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                values.fill_(7)
            elif values.ndim == 1:
                new = draw.standard_normal(values.shape) / 4
                positive = name.endswith("running_var") or (
                    "bn" in name and name.endswith("weight")
                )
                values.copy_(torch.tensor(np.exp(new) if positive else new))
    return model


def arrays(model):
    """Its state dict as arrays that later steps do not move."""
    return {name: np.array(values.detach().numpy()) for name, values in model.state_dict().items()}


def channels_first(images):
    import torch

    return torch.tensor(np.moveaxis(np.asarray(images), -1, 1).copy())


def evaluated(model, images):
    import torch

    with torch.no_grad():
        return model.eval()(channels_first(images)).numpy()


def step(model, images, labels):
    """One step of gradient descent on the cross-entropy; the logits before it."""
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    optimizer.zero_grad()
    logits = model.train()(channels_first(images))
    torch.nn.functional.cross_entropy(logits, torch.tensor(np.asarray(labels))).backward()
    optimizer.step()
    return logits.detach().numpy()


def main():
    import torch

    torch.manual_seed(0)
    model = unlike_its_start(build(DEPTH, WIDTH, CLASSES))
    images, labels = data()
    kept = {f"before/{name}": values for name, values in arrays(model).items()}
    kept |= {"images": images, "labels": labels, "evaluated": evaluated(model, images)}
    kept["trained"] = step(model, images, labels)
    kept |= {f"after/{name}": values for name, values in arrays(model).items()}
    goldens.FOLDER.mkdir(exist_ok=True)
    goldens.save(NAME, kept, ("torch",))


if __name__ == "__main__":
    main()
