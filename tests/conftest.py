"""Settings of the whole suite."""

from hypothesis import settings

# The same examples in every run: a failure seen here is a failure seen by everyone. Time is bounded by the number of
# examples, not by a deadline that a busy machine would miss. `--hypothesis-profile=search` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", derandomize=False, deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("same")
