"""The networks of other people's encoders; MONAI's where MONAI's is the model."""
