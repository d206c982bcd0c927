"""What can be said of a collection of images from their embeddings: pure functions of arrays.

N images, F features, K classes.
"""
