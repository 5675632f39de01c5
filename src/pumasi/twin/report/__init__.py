"""What runs of the twin measured, and the pages and pictures made of it."""
