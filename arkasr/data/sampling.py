"""The training batches of one rank: bucketed by duration, distributed over ranks, resumable at any batch.

Exact resuming draws the batches again from the start of the epoch, without reading audio. Example: an epoch starts on
4 ranks, stops after 100 batches per rank and resumes on 2 ranks.

1. The first 400 batches are drawn in groups of 4, as before. They are discarded.
2. The rest is drawn in groups of 2, and each rank takes its own batch of every group.

So no clip is lost or repeated within the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from arkasr.config.schema import AugmentConfig, DataConfig
from arkasr.data.batches import Batch
from arkasr.data.dealing import Dealer, Deals
from arkasr.data.loading import loaded
from arkasr.data.order import START
from arkasr.utils.console import log

ORDER = 3  # increase whenever the same seed and epoch would give other batches


class TrainingBatches:
    """An endless iterable of the batches of one rank, epoch after epoch.

    The order within one epoch depends on seed and epoch only, not on global random generators. Batches are drawn in
    groups of `world_size`, and each rank takes its own batch of every group. All ranks therefore get the same number of
    batches. The clips of an incomplete last group are spread over all ranks. If there are fewer clips than ranks, some
    are copied. Ids of copies contain `_dup`.

    `data.resume` selects how `load_state_dict` continues:

    - `exact`: the batches up to the position are drawn again, without reading audio. The batches that follow are the
      same as without interruption.
    - `reseed`: the epoch continues at once with the cuts that were not read, in a new order that depends on seed,
      epoch and position. Clips that had been read but not trained on, at most `data.buffer_clips`, are left out until
      the next epoch.

    Args:
        config: The section `data`.
        seed: Seed of the order.
        rank: Number of this rank.
        world_size: Number of ranks.
        timeout: Seconds to wait for each batch of the loader processes. 0 sets no limit.
        pin: See `arkasr.data.loading.loaded`.
        needs_text: Refuse clips without transcript, see `arkasr.config.schema.Config.needs_text`.
        augment: The section `augment`, for the speeds of clips. None changes no clip.

    Attributes:
        epoch: Number of the epoch, from 0.
        consumed: Batches returned in this epoch since the last change of `world_size`, per rank. Loader processes run
            ahead, so these are batches returned by the iterator, not batches drawn.
        start: Position at which this epoch starts, see `CutStream`.
        read: Position up to which cuts had been read when the last returned batch was drawn. Up to
            `data.buffer_clips` of these cuts are in no batch yet.
        taken: Pairs (number of ranks, batches per rank) of this epoch before the last change of `world_size`.

    Raises:
        UserError: See `arkasr.data.training_cuts.open_manifest`.
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        timeout: float = 0.0,
        pin: bool = False,
        needs_text: bool = True,
        augment: AugmentConfig | None = None,
    ):
        self.config, self.world_size, self.timeout, self.pin = config, world_size, timeout, pin
        self.dealer = Dealer(config, seed, rank, world_size, needs_text, augment)
        self.epoch = self.consumed = 0
        self.start = self.read = START
        self.taken: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[Batch]:
        deals = Deals(self.dealer, self.epoch, self.start, [*self.taken, (self.world_size, self.consumed)])
        for epoch, read, batch in loaded(deals, self.config, self.timeout, self.pin):
            if epoch != self.epoch:
                self.epoch, self.consumed, self.start, self.taken = epoch, 0, START, []
            self.consumed, self.read = self.consumed + 1, read
            yield batch

    @property
    def longest_seconds(self) -> float:
        """Length of the longest of the first clips in seconds, see `arkasr.data.dealing.Dealer`."""
        return self.dealer.longest_seconds

    def epoch_hours(self, exact: bool = True) -> float:
        """Return the hours of audio of one epoch. Manifests that are read line by line may be read once for it.

        Args:
            exact: Whether an estimate is not enough, see `arkasr.data.epochs.Manifest.seconds`.

        Returns:
            Hours.
        """
        return self.dealer.manifest.seconds(exact) / 3600

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned. It is the same on all ranks."""
        taken, start, read = [list(pair) for pair in self.taken], list(self.start), list(self.read)
        own = {"order": ORDER, "epoch": self.epoch, "consumed": self.consumed, "world_size": self.world_size}
        return own | {"taken": taken, "start": start, "read": read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state.

        Args:
            state: Result of `state_dict`, from any rank and any number of ranks.
        """
        if state.get("order") != ORDER:
            log(
                f"warning: epoch {state['epoch']} was begun by another version of arkasr, which draws clips in another "
                "order: in the rest of this epoch some clips come twice and some are left out"
            )
        self.epoch, self.consumed = state["epoch"], 0
        self.start, self.read = tuple(state["start"]), tuple(state["read"])
        self.taken = [tuple(pair) for pair in state["taken"]]
        if self.config.resume == "reseed" and self.read != self.start:
            self._reseed()
        elif state["world_size"] == self.world_size:
            self.consumed = state["consumed"]
        elif state["consumed"]:
            self.taken.append((state["world_size"], state["consumed"]))

    def _reseed(self) -> None:
        self.start, self.taken = self.read, []
        log(
            f"epoch {self.epoch} continues at place {self.start[0] + 1} of {self.dealer.num_shards} in a new order, "
            f"without up to {self.config.buffer_clips} clips read before (data.resume=reseed)"
        )
