"""The page report.html: everything about one experiment in one file, without any request to the network.

May import `evaluation`, `scoring`, `data`, `utils`, `interfaces`, `languages` and `errors`.
"""
