"""What runs between patches and a store: loading, the forward pass, devices, writing."""
