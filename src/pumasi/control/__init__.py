"""The control plane: commands become facts, the cycle turns state into a plan and the plan into facts."""
