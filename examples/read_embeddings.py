"""What a store holds, and embeddings by annotation ID."""

import sys
from pathlib import Path

import featstore

store = featstore.open(Path(sys.argv[1]) / "demo.zarr")
for info in store.list():
    print(info)

annotations = store.annotations("demo")
embeddings = store.embeddings(store.models("demo")[0], "demo")
mitotic = annotations.ids[annotations.labels == "mitotic figure"]
print(embeddings.read(mitotic[:3]))
print(embeddings.provenance.encoder)
