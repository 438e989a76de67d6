"""Search: what a query means, the way that it takes, kept counts, words, and the page that comes out."""
