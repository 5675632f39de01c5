"""Pumasi: the control plane of a GPU fleet that belongs to several owners."""

__version__ = "0.1.0"
