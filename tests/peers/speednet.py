"""The airbench94 network and its training rule, as one writes them in torch.

`python -m tests.peers.speednet` trains a small one for some steps and keeps the numbers. The rule
is the published one: SGD with two groups, a triangle by `LambdaLR`, the whitening bias held after
`LEARNING` steps, the weights set back to their slow average every five.
"""

from functools import partial

import numpy as np

from tests.peers import goldens

NAME = "torch_speednet"
WIDTHS, CLASSES, BATCH, PER_EPOCH = (3, 5, 4), 4, 16, 4
STEPS, LEARNING = 11, 8
SHAPE = (BATCH * PER_EPOCH, 10, 10, 3)
data = partial(goldens.images_and_labels, SHAPE, CLASSES)


def build(widths, classes):
    """Modules in the order in which they are used, the scales of the norms frozen."""
    import torch
    from torch import nn

    class Stage(nn.Module):
        def __init__(self, before, after):
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, padding="same", bias=False)
            self.norm1 = nn.BatchNorm2d(after, eps=1e-12, momentum=0.4)
            self.conv2 = nn.Conv2d(after, after, 3, padding="same", bias=False)
            self.norm2 = nn.BatchNorm2d(after, eps=1e-12, momentum=0.4)
            self.norm1.weight.requires_grad = self.norm2.weight.requires_grad = False
            self.act = nn.GELU(approximate="tanh")

        def forward(self, x):
            x = self.act(self.norm1(nn.functional.max_pool2d(self.conv1(x), 2)))
            return self.act(self.norm2(self.conv2(x)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.whiten = nn.Conv2d(3, 24, 2)
            self.whiten.weight.requires_grad = False
            pairs = zip((24, *widths[:-1]), widths, strict=True)
            self.stages = nn.Sequential(*(Stage(*pair) for pair in pairs))
            self.head = nn.Linear(widths[-1], classes, bias=False)

        def forward(self, x):
            x = nn.functional.gelu(self.whiten(x), approximate="tanh")
            return self.head(torch.amax(self.stages(x), dim=(2, 3))) / 9

    return Net()


def train(model, images, labels):
    """The slow weights after `STEPS` steps, in which the images come round in batches."""
    import torch
    from torch.nn.functional import cross_entropy

    unit = 1024 * (1 + 1 / (1 - 0.85))
    rate, decay = 11.5 / unit, 0.0153 * BATCH / unit
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    biases = [p for name, p in named if "norm" in name]
    others = [p for name, p in named if "norm" not in name]
    optimizer = torch.optim.SGD(
        [
            {"params": biases, "lr": 64 * rate, "weight_decay": decay / (64 * rate)},
            {"params": others, "lr": rate, "weight_decay": decay / rate},
        ],
        momentum=0.85,
        nesterov=True,
    )
    warm = int(0.23 * STEPS)

    def share(step):
        if step < warm:
            return 0.2 + 0.8 * step / warm
        return 1 - 0.93 * (step - warm) / (STEPS - warm)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    slow = {name: values.clone() for name, values in model.state_dict().items()}
    for step in range(STEPS):
        model.whiten.bias.requires_grad = step < LEARNING
        at = step % PER_EPOCH * BATCH
        logits = model(images[at : at + BATCH])
        loss = cross_entropy(logits, labels[at : at + BATCH], label_smoothing=0.2, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        if (step + 1) % 5 == 0:
            keep = 0.95**5 * ((step + 1) / STEPS) ** 3
            for name, values in model.state_dict().items():
                if values.dtype.is_floating_point:
                    slow[name].lerp_(values, 1 - keep)
                    values.copy_(slow[name])
    model.load_state_dict(slow)


def arrays(model):
    """Its state dict as arrays, float32, kernels as `(H, W, I, O)` or `(I, O)`."""
    kept = {}
    for name, values in model.state_dict().items():
        if values.dtype.is_floating_point:
            array = values.detach().numpy().astype(np.float32)
            axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, (0,))
            kept[name] = np.ascontiguousarray(array.transpose(axes))
    return kept


def as_variables(found):
    """The names that normlab's model has for them: params and norm_state."""
    params = {"Conv_0": {"kernel": found["whiten.weight"], "bias": found["whiten.bias"]}}
    state = {}
    for stage in range(len(WIDTHS)):
        for half in range(2):
            number = 2 * stage + half
            torch_name = f"stages.{stage}.{{}}{half + 1}".format
            params[f"Conv_{number + 1}"] = {"kernel": found[torch_name("conv") + ".weight"]}
            norm = torch_name("norm")
            moments = {
                "mean": found[f"{norm}.running_mean"],
                "variance": found[f"{norm}.running_var"],
            }
            bias = {"bias": found[f"{norm}.bias"]}
            params[f"NormAct_{number}"] = {"Norm_0": {"norm": bias}}
            state[f"NormAct_{number}"] = {"Norm_0": {"norm": moments}}
    params["Dense_0"] = {"kernel": found["head.weight"]}
    return params, state


def main():
    import torch

    torch.manual_seed(0)
    model = build(WIDTHS, CLASSES).double()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "norm" in name and name.endswith("bias"):
                values.normal_(std=0.2)
    images, labels = data()
    inputs = torch.tensor(images.transpose(0, 3, 1, 2)).double(), torch.tensor(labels)
    kept = {f"before/{name}": values for name, values in arrays(model).items()}
    model.load_state_dict({k: v.float().double() for k, v in model.state_dict().items()})
    with torch.no_grad():
        kept["logits"] = model.eval()(inputs[0]).numpy().astype(np.float32)
    train(model.train(), *inputs)
    kept |= {f"after/{name}": values for name, values in arrays(model).items()}
    kept["count"] = np.array(sum(p.numel() for p in build((64, 256, 256), 10).parameters()))
    goldens.save(NAME, kept, ("torch",))


if __name__ == "__main__":
    main()
