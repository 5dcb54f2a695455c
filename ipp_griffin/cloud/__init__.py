"""The doors to OpenStack: session, compute and network; `store` for Swift and Ceph. The only SDK imports, loaded when first needed."""
