"""The memory of one batch of transcripts, and the step that decodes their next tokens.

Every tensor keeps its address, and the step reads nothing on the host and makes no shape that depends on values. So it
can be captured in a CUDA graph.

Shapes: B rows, L slots per row, h key-value heads, d head size, k top-k, V vocabulary size, H hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arkasr.distributions.logits import best_tokens, head_logits
from arkasr.errors import UserError
from arkasr.model.generation.cache import Slots, make_cache
from arkasr.model.generation.choosing import Choice
from arkasr.model.generation.weights import DecoderWeights, cache_argument
from arkasr.model.hotwords import HotwordTables

FINISHED = -(2**40)  # of a row that leaves no hotword unfinished


class DecodingState:
    """B rows of at most L slots.

    Args:
        weights: Decoder and head.
        memory: Tensor [layers, 2, B, h, L, d] for keys and values.
        top_k: k.

    Attributes:
        slots: Slot of each row's present token.
        token: Tensor [B], int64, the token that each row reads next.
        count: Tensor [1], int64, number of tokens chosen so far.
        ids: Tensor [B, L], int64, the tokens chosen.
        topk: Tensor [B, L, k], int64, the k best allowed ids at each step.
        limits: Tensor [B], int64, token cap of each row.
        done: Tensor [B], bool, rows that have chosen a stop id or reached their cap.
        match: Tensor [B], int64, state of each row in the automaton of hotwords.
        matches: Tensor [B, L], int64, this state before each token.
        changed: Tensor [B], bool, rows in which the bonus of the present match has changed a token.
        unfinished: Tensor [B], int64, number of tokens before the hotword that the row has left unfinished, negative
            if it began before the first token. FINISHED in other rows.
    """

    def __init__(self, weights: DecoderWeights, memory: Tensor, top_k: int):
        self.weights, self.memory = weights, memory
        rows, length, device = memory.shape[2], memory.shape[4], memory.device
        self.slots = Slots(rows, length, device)
        zeros = [torch.zeros(n, dtype=torch.long, device=device) for n in (rows, rows, rows, rows, 1)]
        self.token, self.limits, self.match, self.unfinished, self.count = zeros
        self.done, self.changed = (torch.zeros(rows, dtype=torch.bool, device=device) for _ in range(2))
        self.ids, self.matches = (torch.zeros(rows, length, dtype=torch.long, device=device) for _ in range(2))
        self.topk = torch.zeros(rows, length, top_k, dtype=torch.long, device=device)
        argument = cache_argument(weights.decoder)
        self._cached = {argument: make_cache(memory, self.slots), "use_cache": True}

    @property
    def rows(self) -> int:
        """B."""
        return self.memory.shape[2]

    @property
    def length(self) -> int:
        """L."""
        return self.memory.shape[4]

    def prefill(
        self,
        embeds: Tensor,
        lengths: Tensor,
        limits: Tensor,
        choice: Choice,
        resumed: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Read prompts and choose the first token of each row.

        Args:
            embeds: Tensor [B, S, H], prompts padded on the right, where causal attention does not look.
            lengths: Tensor [B], int64, positions of each prompt.
            limits: Tensor [B], int64, token caps.
            choice: How tokens are chosen.
            resumed: For rows that go on where a hotword was left unfinished: tensor [B], int64, their `match`, and
                tensor [B], bool, which rows these are. None: there are none.
        """
        self.slots.span = 0
        self.slots.position.copy_(lengths - 1)
        self.limits.copy_(limits)
        self.done.zero_()
        self.match.zero_()
        self.changed.zero_()
        self.unfinished.fill_(FINISHED)
        if resumed is not None:
            self.match.copy_(resumed[0])
            self.changed.copy_(resumed[1])
        self.count.zero_()
        states = self.weights.decoder(inputs_embeds=embeds, **self._cached).last_hidden_state
        rows = torch.arange(len(embeds), device=embeds.device)
        logits = head_logits(states[rows, lengths - 1], self.weights.head)
        self.choose(logits, choice, None if resumed is None else resumed[1])

    def advance(self, span: int, full: bool = False) -> None:
        """Move to the slot of the present token.

        Args:
            span: Number of slots that attention reads, above the largest position.
            full: Whether every row has a token in each of them, so that no mask is needed.
        """
        self.slots.span, self.slots.full = span, full
        self.slots.position += 1

    def logits(self) -> Tensor:
        """Read the present token of each row, at its slot.

        Returns:
            Logits of the next token, float32 [B, V].
        """
        embeds = self.weights.decoder.get_input_embeddings()(self.token)[:, None]
        states = self.weights.decoder(
            inputs_embeds=embeds,
            attention_mask=self._mask(embeds.dtype),
            position_ids=self.slots.position[:, None],
            **self._cached,
        )
        return head_logits(states.last_hidden_state[:, -1], self.weights.head)

    def _mask(self, dtype: torch.dtype) -> Tensor | None:
        """Return the mask as numbers to add. Attention would convert a boolean one in every layer."""
        kind = self.weights.decoder.config._attn_implementation
        if kind not in ("sdpa", "eager"):
            raise UserError(
                f"attention implementation {kind!r}: cannot generate with preallocated caches; allowed are sdpa and "
                "eager; call hf.set_attn_implementation('sdpa')"
            )
        if self.slots.full:
            return None
        hidden = ~self.slots.mask()
        return torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, -torch.inf)

    def choose(self, logits: Tensor, choice: Choice, plain: Tensor | None = None) -> None:
        """Choose the next token of each row, and keep the top k.

        Args:
            logits: Tensor [B, V], float32. Blocked ids are set to -inf in place.
            choice: How tokens are chosen.
            plain: Tensor [B], bool, rows whose token begins and continues no hotword. None: any may.
        """
        logits.masked_fill_(self.weights.blocked, -torch.inf)
        own = None if choice.hotwords is None else self._add_bonus(logits, choice.hotwords, plain)
        best = best_tokens(logits, max(1, self.topk.shape[-1]))[0]
        chosen = choice(logits, best)
        self.ids.index_copy_(1, self.count, chosen[:, None])
        self.topk.index_copy_(1, self.count, best[:, None, : self.topk.shape[-1]])
        if own is not None:
            self._follow(choice, chosen, own, plain)
        self.token.copy_(chosen)
        self.count += 1
        self.done |= (chosen[:, None] == self.weights.stops).any(-1) | (self.limits <= self.count)

    def _add_bonus(self, logits: Tensor, hotwords: HotwordTables, plain: Tensor | None) -> Tensor:
        """Add the bonus of hotwords in place. Return the tokens [B] that are best without it."""
        own = best_tokens(logits, 1)[0][:, 0]
        hotwords.add_bonus(logits, self.match, plain)
        return own

    def _follow(self, choice: Choice, chosen: Tensor, own: Tensor, plain: Tensor | None) -> None:
        """Move to the next states of the automaton, and end rows that have left a hotword unfinished."""
        hotwords = choice.hotwords
        assert hotwords is not None
        left = hotwords.left(self.match, chosen, plain)
        self.matches.index_copy_(1, self.count, self.match[:, None])
        self.match.copy_(hotwords.next(self.match, chosen, plain))
        self.changed |= chosen != own
        if choice.ends_unfinished:
            ends = self.changed & (left > 0) & ~self.done
            self.unfinished.copy_(torch.where(ends, self.count - left, self.unfinished))
            self.done |= ends
        self.changed &= hotwords.is_open(self.match)

    def take_rows(self, other: DecodingState, rows: Tensor) -> None:
        """Continue rows of another state. Both may use the same memory, from its start on.

        Args:
            other: A state with as many slots and at least as many rows, or with fewer slots and as many rows.
            rows: Tensor [B], int64, rows of `other`.
        """
        self.weights = other.weights
        for name in ("token", "limits", "done", "match", "changed", "unfinished"):
            getattr(self, name).copy_(getattr(other, name)[rows])
        for name in ("ids", "matches", "topk"):
            getattr(self, name)[:, : other.length] = getattr(other, name)[rows]
        self.slots.position.copy_(other.slots.position[rows])
        self.count.copy_(other.count)
        layers = list(zip(self.memory, other.memory))
        # Layers that are yet to be read must not be overwritten: fewer rows move down, more slots move up.
        for mine, theirs in layers if self.length == other.length else reversed(layers):
            mine[..., : other.length, :] = theirs[:, rows]
            mine[..., other.length :, :].zero_()
