"""Writes a trained run as a folder for the Hugging Face Hub, with its model card.

May import `evaluation` and every room below it.
"""
