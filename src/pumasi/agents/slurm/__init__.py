"""The Slurm engine: runs jobs on a site's own Slurm, by its own commands."""
