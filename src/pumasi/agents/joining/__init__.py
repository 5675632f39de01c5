"""Joining a fleet with a cluster that is already there, keeping an eye on it, and leaving again."""
