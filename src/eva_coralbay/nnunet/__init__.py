"""The bridge to nnU-Net v2: our data and our encoders in its formats. It imports no nnU-Net."""
