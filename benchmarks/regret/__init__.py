"""What choices of each provenance cost: figures from tuning records, and the page that shows them."""
