"""The demo: real jobs of a real trace on the whole Korean fleet, and the village custom happening among its owners."""
