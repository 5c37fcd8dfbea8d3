"""Many experiments as one: points of a grid and seeds, trained by any number of processes, and the table of all.

May import `reporting`, `evaluation`, `scoring`, `config`, `utils` and `errors`. Trainings are processes of their own.
"""
