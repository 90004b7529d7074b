"""The weekly report: figures, tables and the HTML around them."""
