"""Encoders: what each is (spec, registry), how it is built (build) and pooled (pooling)."""
