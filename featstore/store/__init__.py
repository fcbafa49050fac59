"""The store on disk: annotations, embeddings, patches, where they came from, in Zarr format 3.

Row i of every array of a dataset is the same annotation; row numbers never leave this package.

::

    layout  chunks  seal  lock  inside     what lies where; files that are whole, sealed, and ours
    index  provenance  parts               annotation tables; how rows were made, and of which parts
    reader  rowarray  patchcache  compare  from a store; rows by ID, embeddings or patches
    writer  rowwriter                      into a store: the only way in
    folder  archive  remote                what a store is on: a folder, a zip, S3 or HTTP
    verify  examination  schema.json       every byte checked:
    tablecheck  rowcheck  gridcheck        tables, arrays of rows, chunk files
    transfer  tableplan  rowplan           from store to store
    source  manifest                       chunk files of any store, and lists of sums
    exchange  parcel  untrusted            from and to the files of other tools:
    hdf5  parquet  npy  plainzarr          one of them each
"""
