"""Where and how stages run. Nothing in here changes a result."""
