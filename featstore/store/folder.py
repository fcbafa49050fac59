"""A local folder as Zarr reads it, without leaving it by a link."""

from zarr.storage import LocalStore

from featstore.store.inside import refuse_outside

__all__ = ["FolderStore"]


class FolderStore(LocalStore):
    """Zarr's local store, whose keys must lie in its folder once links are followed."""

    async def get(self, key, *arguments, **options):
        """Read one file; a link that leads out of the folder is refused."""
        refuse_outside(self.root, key)
        return await super().get(key, *arguments, **options)
