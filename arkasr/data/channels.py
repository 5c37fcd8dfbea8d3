"""The choice of channels of cuts whose recordings have several (`data.channels`)."""

from __future__ import annotations

from lhotse import MonoCut, MultiCut, SupervisionSegment
from lhotse.cut import Cut, MixedCut

from arkasr.data.reasons import CHANNELS, Unusable

MIXED = "have several channels, which are mixed into one (data.channels)"
SELECTED = (
    "use one channel of several, because the manifest selects it; set data.channels to mix or to a channel number to "
    "change this"
)


def choose_channels(cut: Cut, supervision: SupervisionSegment, policy: str, notes: list[str]) -> Cut:
    """Apply the policy for several channels. Cuts of recordings with one channel stay as they are.

    Args:
        cut: The cut.
        supervision: The supervision of the clip. With `auto`, it selects its channel if the supervisions of the cut are
            on different ones, as in a telephone call.
        policy: See `DataConfig.channels`.
        notes: Takes the end of a sentence "<number> clips <note>", if there is something to say.

    Returns:
        The cut with one channel, or with the channels that `arkasr.data.audio.read_waveform` mixes.

    Raises:
        Unusable: The policy refuses the cut, or it has no such channel.
    """
    if isinstance(cut, MixedCut):
        return _mixed_cut(cut, policy, notes)
    present, own = sorted(cut.recording.channel_ids), _listed(cut.channel)
    if len(present) == 1:
        return cut
    if policy == "refuse":
        raise Unusable(CHANNELS, f"{len(present)} channels, and data.channels=refuse")
    if policy == "mix":
        own = own if len(own) > 1 else present
    elif policy == "auto":
        spoken = {tuple(_listed(each.channel)) for each in cut.supervisions}
        own = _listed(supervision.channel) if len(own) > 1 and len(spoken) > 1 else own
    else:
        own = [int(policy)]
    if not set(own) <= set(present):
        missing = ", ".join(map(str, sorted(set(own) - set(present))))
        raise Unusable(CHANNELS, f"no channel {missing}, only {', '.join(map(str, present))}; correct data.channels")
    notes.append(MIXED if len(own) > 1 else SELECTED if policy == "auto" else f"use channel {own[0]} (data.channels)")
    return _on_channels(cut, own)


def _listed(channel: int | list[int]) -> list[int]:
    return list(channel) if isinstance(channel, list | tuple) else [channel]


def _mixed_cut(cut: MixedCut, policy: str, notes: list[str]) -> Cut:
    """Allow mixtures of cuts with several channels if channels are mixed anyway."""
    present = {channel for track in cut.tracks for channel in _listed(getattr(track.cut, "channel", None) or 0)}
    if len(present) > 1:
        if policy not in ("auto", "mix"):
            raise Unusable(CHANNELS, f"a mixture of cuts with {len(present)} channels, and data.channels={policy}")
        notes.append(MIXED)
    return cut


def _on_channels(cut: Cut, channels: list[int]) -> Cut:
    """Return the cut with other channels of its recording."""
    if _listed(cut.channel) == channels:
        return cut
    kind, channel = (MonoCut, channels[0]) if len(channels) == 1 else (MultiCut, channels)
    values = (cut.id, cut.start, cut.duration, channel)
    return kind(*values, supervisions=cut.supervisions, recording=cut.recording, custom=cut.custom)
