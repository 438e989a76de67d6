"""VGG for small images: groups of 3x3 convolutions with batch norm, and one linear layer."""

from __future__ import annotations

from collections.abc import Callable

from nirvana.ops import Shape
from nirvana.zoo.layers import Nodes, conv_norm, image

_CHANNELS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(depth: int) -> Callable[[Shape, int], Nodes]:
    """VGG-11, -16 and -19 with batch norm: 9,231,114, 14,728,266 and 20,040,522 parameters on (3, 32, 32)
    with 10 classes.

    The variant of open_lth and SynFlow: convolutions keep their biases, max pooling between the groups, the
    mean of the last map (theirs: average pooling of the 2x2 that 32x32 ends in), one linear layer. A pooling
    that would leave less than 2x2 is left out, so that no weight of a 3x3 kernel sees padding alone: digits
    of 8x8 are pooled twice.

    Reference: Simonyan & Zisserman 2014 (arXiv 1409.1556), configurations A, D and E; open_lth,
    models/cifar_vgg.py; Tanaka et al. 2020 (arXiv 2006.05467).
    """

    def nodes(input_shape: Shape, classes: int) -> Nodes:
        fan_in, *sides = image(f"vgg-{depth}", input_shape, 2)
        found: Nodes = []
        for group, (out, convolutions) in enumerate(zip(_CHANNELS, _CONVOLUTIONS[depth], strict=True), 1):
            if group > 1 and min(sides) >= 4:
                found.append({"name": f"pool{group - 1}", "op": "max_pool", "kernel": 2})
                sides = [side // 2 for side in sides]
            for number in range(1, convolutions + 1):
                at = f"group{group}"
                found += conv_norm(f"{at}.conv{number}", f"{at}.norm{number}", fan_in, out, 3, bias=True)
                found.append({"name": f"{at}.relu{number}", "op": "relu"})
                fan_in = out
        pool = {"name": "pool", "op": "global_avg_pool"}
        return [*found, pool, {"name": "fc", "op": "linear", "in": fan_in, "out": classes}]

    return nodes
