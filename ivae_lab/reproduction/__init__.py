"""A paper's figures as data: cells to train, claims to judge, pages to show."""
