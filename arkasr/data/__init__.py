"""From Lhotse cuts to batches of waveforms and transcripts."""
