"""The Python client: the control plane's API over HTTP, with typed errors and safe retries."""
