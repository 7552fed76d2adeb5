"""Placements in residual networks of convolutions (He et al. 2016, and what others moved)."""

from dataclasses import dataclass

from normlab.core import Array
from normlab.placements.contract import ImageBlock, ImagePlacement, Slots, placement


@placement(paper="arXiv:1512.03385", aka=("post-activation", "original"))
@dataclass(frozen=True)
class V1(ImagePlacement):
    """The first ResNet: conv-norm-act-conv-norm, added, then act. The placement of `resnet`.

    Where the shape changes, a shortcut that is a convolution has a normaliser too.
    """

    def start(self, x: Array, at: Slots) -> Array:
        return at.norm_act(x)

    def block(self, x: Array, at: ImageBlock) -> Array:
        y = at.norm_act(at.first(x))
        y = at.norm(at.second(y))
        return at.act(at.shortcut(x, normed=True) + y)


@placement(paper="arXiv:1603.05027", aka=("full pre-activation",))
@dataclass(frozen=True)
class V2(ImagePlacement):
    """The second ResNet: norm-act-conv-norm-act-conv, added. The placement of `resnet_v2`.

    A last normaliser and activation stand before the head. Where the shape changes, the shortcut
    takes the activated input of the branch.
    """

    def block(self, x: Array, at: ImageBlock) -> Array:
        y = at.norm_act(x)
        shortcut = at.shortcut(y, normed=False) if at.changes else x
        return shortcut + at.second(at.norm_act(at.first(y)))

    def end(self, x: Array, at: Slots) -> Array:
        return at.norm_act(x)


@placement(paper="arXiv:1603.05027, figure 4b", aka=("BN after addition",))
@dataclass(frozen=True)
class AfterAddition(ImagePlacement):
    """Norm after the addition: conv-norm-act-conv, added, then norm-act.

    The normaliser stands in the way of every shortcut, as post-norm's does in a transformer. He et
    al. found it to train worse than `v1`.
    """

    def start(self, x: Array, at: Slots) -> Array:
        return at.norm_act(x)

    def block(self, x: Array, at: ImageBlock) -> Array:
        y = at.second(at.norm_act(at.first(x)))
        return at.norm_act(at.shortcut(x, normed=False) + y)


@placement(paper="arXiv:2002.10444, section 3")
@dataclass(frozen=True)
class Branch(ImagePlacement):
    """Norms in the branches only: `v2` without one on a shortcut or before the head.

    The stem, the shortcuts and the head see what no normaliser has touched. Every branch adds about
    the same variance, which therefore grows in proportion to the depth (De & Smith 2020).
    """

    def block(self, x: Array, at: ImageBlock) -> Array:
        y = at.second(at.norm_act(at.first(at.norm_act(x))))
        return at.shortcut(x, normed=False) + y

    def end(self, x: Array, at: Slots) -> Array:
        return at.act(x)


@placement(paper="arXiv:1606.02228, section 3.2, for the order", aka=("norm after activation",))
@dataclass(frozen=True)
class V1ActNorm(ImagePlacement):
    """The first ResNet, with the normaliser after the activation where they are neighbours.

    The last normaliser of a branch keeps its place, because the addition stands between it and the
    activation. No normaliser that contains an activation can stand here.
    """

    def start(self, x: Array, at: Slots) -> Array:
        return at.act_norm(x)

    def block(self, x: Array, at: ImageBlock) -> Array:
        y = at.act_norm(at.first(x))
        y = at.norm(at.second(y))
        return at.act(at.shortcut(x, normed=True) + y)


@placement(paper="arXiv:1606.02228, section 3.2, for the order", aka=("norm after activation",))
@dataclass(frozen=True)
class V2ActNorm(ImagePlacement):
    """The second ResNet, with every normaliser after its activation, just before the convolution.

    No normaliser that contains an activation can stand here.
    """

    def block(self, x: Array, at: ImageBlock) -> Array:
        y = at.act_norm(x)
        shortcut = at.shortcut(y, normed=False) if at.changes else x
        return shortcut + at.second(at.act_norm(at.first(y)))

    def end(self, x: Array, at: Slots) -> Array:
        return at.act_norm(x)
