"""From a batch script or a YAML job, and options, to the jobs the API takes."""
