"""Network input from waveforms or images: windows, log-mel spectrograms, masks."""
