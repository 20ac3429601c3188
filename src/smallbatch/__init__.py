"""Train image diffusion models well on little compute."""
