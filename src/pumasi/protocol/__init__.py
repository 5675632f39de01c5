"""Messages between the control plane and a site's agent. JSON over HTTPS; the agent always calls, never listens."""
