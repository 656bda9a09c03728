"""Tables, figures and one page from the results of a workdir."""
