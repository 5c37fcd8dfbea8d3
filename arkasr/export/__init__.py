"""Export of a trained run as a folder for the Hugging Face Hub, with its model card.

May import `evaluation` and every subpackage below it.
"""
