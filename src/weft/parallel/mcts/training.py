# pyright: standard
"""Training of the prior: games of a search with itself, and what the search found out.

A game is one step on one random machine. At each turn the tree search runs some simulations from
where the game stands. What the prior is to say the next time is what it said, bettered by the mean
values q of the simulations; the next turn is drawn from that. Games go on for a quarter of the
groups: later ones have little work. The first games are played with the uniform prior p, then with
what has been learnt.

    wanted = softmax(log p + q / sharpness)      loss = - sum over choices of wanted log(prior)

with the mean of all for choices that no simulation tried. Shares of visits, which AlphaZero and TAG
learn, say next to nothing where there are hardly more simulations than choices.

Source: TAG (arXiv 2302.06126), after AlphaZero (Silver et al. 2017, arXiv 1712.01815); what is
wanted after Danihelka et al., Policy improvement by planning with Gumbel, ICLR 2022, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from weft.parallel.mcts.cluster import cluster_of
from weft.parallel.mcts.features import Observer
from weft.parallel.mcts.geometric import Batch, HeteroData, to_dense_batch
from weft.parallel.mcts.network import PriorNetwork, graph_of
from weft.parallel.mcts.options import Options, State
from weft.parallel.mcts.prior import LearnedPrior
from weft.parallel.mcts.search import Search, Tree, uniform
from weft.parallel.mcts.simulate import Simulator
from weft.parallel.mcts.sketch import Floats, Sketch
from weft.parallel.mcts.topologies import random_machine

__all__ = ["Progress", "Trainer", "TrainingSettings", "bettered"]

_NEVER = -1e9
"""Logit of choices that a graph has not. Chosen: its exponential is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How it is trained.

    Attributes:
        simulations: of a turn.
        sharpness: difference of values that makes a choice e times likelier.
        warm_games: games with the uniform prior.
        games: between updates.
        batch, passes: observations in a gradient step, and times that new ones are seen.
        capacity: observations that are kept.
        learning_rate, clip: of Adam, and of the norm of gradients.
    """

    simulations: int = 64
    sharpness: float = 0.1
    warm_games: int = 60
    games: int = 6
    batch: int = 32
    passes: int = 24
    capacity: int = 2000
    learning_rate: float = 1e-3
    clip: float = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where training stands.

    Attributes:
        games: that were played.
        observations: that are kept.
        loss: mean of the last update.
        speedup: geometric mean of the last games' speed-ups over the baseline.
    """

    games: int
    observations: int
    loss: float
    speedup: float


def bettered(root: Tree[State], sharpness: float) -> Floats:
    """The prior of a tree's root, bettered by what simulations say of its children."""
    tried = root.visits > 0
    mean = float(root.total.sum() / root.visits.sum())
    value = np.where(tried, root.total / np.maximum(root.visits, 1.0), mean)
    logits = np.log(root.prior) + value / sharpness
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


@dataclass(slots=True)
class Trainer:
    """Plays and learns; its state can be saved and taken up again."""

    sketches: Sequence[Sketch]
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    seed: int = 0
    network: PriorNetwork = field(init=False)
    games: int = field(init=False, default=0)
    _optimizer: torch.optim.Adam = field(init=False)
    _generator: np.random.Generator = field(init=False)
    _memory: list[HeteroData] = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.network = PriorNetwork()
        rate = self.settings.learning_rate
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=rate, fused=True)
        self._generator = np.random.default_rng(self.seed)
        self._memory = []

    def run(self, stop: Callable[[], bool]) -> Iterator[Progress]:
        """Play and learn until somebody says stop, which is asked between turns."""
        while not stop():
            gains: list[float] = []
            fresh = 0
            for _ in range(self.settings.games):
                if stop():
                    break
                played, gain = self._game(stop)
                self._memory = (self._memory + played)[-self.settings.capacity :]
                gains.append(gain)
                fresh += len(played)
                self.games += 1
            loss = self._learn(fresh, stop)
            mean = float(np.exp(np.mean(np.log(gains)))) if gains else 1.0
            yield Progress(
                games=self.games, observations=len(self._memory), loss=loss, speedup=mean
            )

    def _game(self, stop: Callable[[], bool]) -> tuple[list[HeteroData], float]:
        sketch = self.sketches[int(self._generator.integers(len(self.sketches)))]
        machine = random_machine(self._generator, float(sketch.group_bytes.sum()))
        cluster = cluster_of(machine, sketch.devices)
        options = Options(sketch, cluster)
        learned = self.games >= self.settings.warm_games
        prior = LearnedPrior(self.network.eval()) if learned else uniform
        search = Search(Simulator(sketch, cluster), options, prior, feedback=True)
        observer = Observer(options)
        root, found = search.root, list[HeteroData]()
        for _ in range(max(1, sketch.num_groups // 4)):
            for _ in range(self.settings.simulations):
                if stop() or not root.is_open:
                    break
                search.play(root)
            if not root.children or not root.visits.sum():
                break
            steps = tuple(child.state for child in root.children)
            shares = bettered(root, self.settings.sharpness)
            seen = graph_of(observer.observe(root.state, search.outcome(root.state), steps))
            seen["choice"].y = torch.from_numpy(shares.astype(np.float32))
            found.append(seen)
            root = root.children[int(self._generator.choice(len(steps), p=shares))]
        return found, search.found().speedup

    def _learn(self, fresh: int, stop: Callable[[], bool]) -> float:
        if not self._memory:
            return float("nan")
        self.network.train()
        losses: list[float] = []
        for _ in range(max(1, self.settings.passes * fresh // self.settings.batch)):
            if stop():
                break
            size = min(self.settings.batch, len(self._memory))
            drawn = self._generator.choice(len(self._memory), size, replace=False)
            losses.append(self._step([self._memory[int(at)] for at in drawn]))
        return float(np.mean(losses)) if losses else float("nan")

    def _step(self, graphs: Sequence[HeteroData]) -> float:
        batch = Batch.from_data_list(list(graphs))
        choices = batch["choice"]
        logits, _ = to_dense_batch(self.network(batch), choices.batch, fill_value=_NEVER)
        wanted, _ = to_dense_batch(choices.y, choices.batch)
        loss = -(wanted * logits.log_softmax(1)).sum(1).mean()
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self._optimizer.step()
        return loss.item()

    def state(self) -> dict[str, object]:
        """Everything that a run needs to go on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.bit_generator.state,
            "memory": Batch.from_data_list(list(self._memory)) if self._memory else None,
            "games": self.games,
        }

    def resume(self, state: dict) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.bit_generator.state = state["generator"]
        memory = state["memory"]
        self._memory = [] if memory is None else memory.to_data_list()
        self.games = state["games"]
