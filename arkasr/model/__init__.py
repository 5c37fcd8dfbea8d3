"""The student, native, and the wrapper through which every recogniser is trained, sampled and scored."""
