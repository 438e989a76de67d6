"""The methods that find masks: their names, what they do and where they come from. The code is in
`nirvana.lab.methods`, one file each; docs/methods.md says more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """What people choose by name.

    Attributes:
        is_iterative: it trains and prunes level by level, each level a ticket; else one ticket comes out.
        summary: one line.
        reference: paper and arXiv id.
    """

    is_iterative: bool
    summary: str
    reference: str


METHODS: dict[str, Method] = {
    "imp": Method(
        True,
        "iterative magnitude pruning: train, prune the smallest, rewind, again",
        "Frankle & Carbin 2019 (arXiv 1803.03635); Frankle et al. 2020 (arXiv 1912.05671)",
    ),
    "one-shot": Method(
        False,
        "train once, prune the smallest at once, rewind",
        "Frankle & Carbin 2019 (arXiv 1803.03635)",
    ),
    "lr-rewinding": Method(
        True,
        "train, prune globally, go on from the trained weights with the schedule rewound, again",
        "Renda, Frankle & Carbin 2020 (arXiv 2003.02389)",
    ),
    "fine-tuning": Method(
        True,
        "train, prune globally, go on from the trained weights at the last learning rate, again",
        "Renda, Frankle & Carbin 2020 (arXiv 2003.02389)",
    ),
    "gradual-magnitude": Method(
        False,
        "prune a little every few steps of one training",
        "Zhu & Gupta 2017 (arXiv 1710.01878)",
    ),
    "regularised": Method(
        False,
        "train with an L1 penalty, then prune the smallest at once",
        "Han et al. 2015 (arXiv 1506.02626)",
    ),
    "random": Method(
        False,
        "a random mask with the same density in every layer",
        "Frankle & Carbin 2019 (arXiv 1803.03635), appendix",
    ),
    "erk": Method(
        False,
        "a random mask with Erdos-Renyi-kernel layer densities",
        "Mocanu et al. 2018 (arXiv 1707.04780); Evci et al. 2020 (arXiv 1911.11134)",
    ),
    "magnitude-at-init": Method(
        False,
        "keep the largest initial values, without training",
        "Frankle et al. 2021 (arXiv 2009.08576)",
    ),
    "snip": Method(
        False,
        "keep the weights whose removal would change the loss most, by one batch at initialisation",
        "Lee, Ajanthan & Torr 2019 (arXiv 1810.02340)",
    ),
    "grasp": Method(
        False,
        "keep the weights that the flow of gradients needs, at initialisation",
        "Wang, Zhang & Grosse 2020 (arXiv 2002.07376)",
    ),
    "synflow": Method(
        False,
        "keep the weights on strong paths, in 100 rounds, without data",
        "Tanaka et al. 2020 (arXiv 2006.05467)",
    ),
    "early-bird": Method(
        False,
        "cut whole channels as soon as the mask settles early in training",
        "You et al. 2020 (arXiv 1909.11957)",
    ),
    "supermask": Method(
        False,
        "a mask that scores on the untrained weights: each weight is kept with a learned probability",
        "Zhou et al. 2019 (arXiv 1905.01067)",
    ),
    "edge-popup": Method(
        False,
        "a mask that scores on the untrained weights: learned scores, the highest of each layer kept",
        "Ramanujan et al. 2020 (arXiv 1911.13299)",
    ),
    "distilled": Method(
        True,
        "imp with a dense teacher: the student also learns the teacher's outputs",
        "Hinton, Vinyals & Dean 2015 (arXiv 1503.02531)",
    ),
    "amc": Method(
        False,
        "train once; an agent chooses each layer's density, the smallest weights of each layer go",
        "He et al. 2018 (arXiv 1802.03494)",
    ),
}
