"""From the rows of a data set to examples, and their splits."""
