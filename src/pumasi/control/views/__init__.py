"""Pure functions from state to the plain rows that callers see. A row's fields are the API's; none is a live object."""
