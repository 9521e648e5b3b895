"""Network architectures (torch): what is trained and exported, never needed to run a shipped network."""
