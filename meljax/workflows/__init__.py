"""One workflow per command: train, evaluate, predict, report, export. Start reading here."""
