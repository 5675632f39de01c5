"""The `agent` group. The agent is a program of its own that shares this entry point: it is found by name alone."""

import importlib

import click

# The command line knows nothing of agents (import layers), so it does not import them: it only hands over to them.
agent: click.Group = importlib.import_module("pumasi.agents.command").agent
