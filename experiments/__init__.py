"""What made the committed results: scripts that are run by hand, over hours, from the top of the clone."""

FACTORS = ("rotation", "breast", "thickness", "y_position", "z_position", "x_position", "width")  # in the order of the tables
MODELS = {"gan": "GAN", "vae": "VAE"}
