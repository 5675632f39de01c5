"""What stands between the control plane and the world: event logs and clocks. Only `bootstrap` chooses among them."""
