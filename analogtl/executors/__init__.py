"""Where trials run: `local`, `ray`, `slurm`. What they have in common is in `base`."""
