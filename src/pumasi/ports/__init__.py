"""The interfaces the control plane needs of the outside world. Adapters implement them; `bootstrap` wires them."""
