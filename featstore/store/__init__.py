"""The store on disk: annotations, embeddings and where they came from, in Zarr format 3.

Row i of every array of a dataset is the same annotation; row numbers never leave this package.
"""
