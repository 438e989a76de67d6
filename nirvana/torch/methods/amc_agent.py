"""The agent of `amc`: deep deterministic policy gradient on small networks.

An actor maps a state to an action in [0, 1], a critic a state and an action to their value. Each has a slow
copy (a target network), which the critic's targets come from; transitions are remembered and learned from in
random batches.

Reference: Lillicrap et al. 2015 (arXiv 1509.02971); rates, the reward's baseline and the noise as in He et
al. 2018 (arXiv 1802.03494), section 3.2, but for 64 hidden units instead of 300.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

HIDDEN = 64
ACTOR_RATE, CRITIC_RATE = 1e-4, 1e-3
FOLLOW = 0.01  # share of the way that a slow copy goes at each update
DISCOUNT = 1.0
BATCH, MEMORY = 64, 2000
BASELINE_DECAY = 0.95

State = NDArray[np.float32]


@dataclass(frozen=True)
class Transition:
    """One decision: in `state`, `action` led to `next_state` (the last one: to nothing) and to `reward`."""

    state: State
    action: float
    reward: float
    next_state: State
    is_last: bool


class Agent:
    """Actor and critic. Make and use one inside `deterministic(seed)`: torch's generator draws the networks.

    Args:
        width: length of a state.
        random: draws noise and batches.
    """

    def __init__(self, width: int, random: np.random.Generator) -> None:
        self.random, self.memory = random, deque[Transition](maxlen=MEMORY)
        self.actor, self.slow_actor = _network(width, nn.Sigmoid()), _network(width, nn.Sigmoid())
        self.critic, self.slow_critic = _network(width + 1), _network(width + 1)
        self.slow_actor.load_state_dict(self.actor.state_dict())
        self.slow_critic.load_state_dict(self.critic.state_dict())
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), ACTOR_RATE)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), CRITIC_RATE)
        self.baseline: float | None = None

    @torch.no_grad()
    def act(self, state: State, noise: float) -> float:
        """Return the action for a state, in [0, 1].

        Args:
            noise: sd of the normal law around the actor's choice, cut off at 0 and 1; 0: no noise.
        """
        chosen = float(self.actor(torch.from_numpy(state)[None])[0, 0])
        return truncated_normal(self.random, chosen, noise) if noise else chosen

    def remember(self, episode: list[Transition]) -> None:
        """Keep an episode; the baseline moves towards its reward."""
        reward, before = episode[-1].reward, self.baseline
        self.baseline = reward if before is None else BASELINE_DECAY * before + (1 - BASELINE_DECAY) * reward
        self.memory.extend(episode)

    def learn(self) -> None:
        """Update critic and actor once, by a batch of what is remembered."""
        chosen = self.random.integers(len(self.memory), size=BATCH)
        states, actions, rewards, next_states, last = _tensors([self.memory[i] for i in chosen])
        with torch.no_grad():
            future = self.slow_critic(_both(next_states, self.slow_actor(next_states)))
            target = rewards - (self.baseline or 0.0) + DISCOUNT * (1 - last) * future
        _step(self.critic_optimizer, F.mse_loss(self.critic(_both(states, actions)), target))
        _step(self.actor_optimizer, -self.critic(_both(states, self.actor(states))).mean())
        _follow(self.slow_actor, self.actor)
        _follow(self.slow_critic, self.critic)


def truncated_normal(random: np.random.Generator, mean: float, sd: float) -> float:
    """Draw from the normal law around a mean in [0, 1], until a draw lies in [0, 1]."""
    while not 0 <= (drawn := float(random.normal(mean, sd))) <= 1:
        pass
    return drawn


def _network(width: int, *end: nn.Module) -> nn.Sequential:
    hidden = nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(HIDDEN, 1), *end)


def _both(states: Tensor, actions: Tensor) -> Tensor:
    return torch.cat([states, actions], dim=1)


def _tensors(batch: list[Transition]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return states, shape (n, width), actions, rewards, the next states, and 1 for the last ones."""
    numbers = torch.tensor([[t.action, t.reward, float(t.is_last)] for t in batch])
    states, next_states = (
        torch.from_numpy(np.stack(part))
        for part in zip(*((t.state, t.next_state) for t in batch), strict=True)
    )
    return states, numbers[:, :1], numbers[:, 1:2], next_states, numbers[:, 2:]


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def _follow(slow: nn.Module, fast: nn.Module) -> None:
    for behind, ahead in zip(slow.parameters(), fast.parameters(), strict=True):
        behind.lerp_(ahead, FOLLOW)
