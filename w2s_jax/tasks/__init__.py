"""Tasks: reads rows of data sets, converts them to examples, splits them."""
