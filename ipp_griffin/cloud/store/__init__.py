"""The door to the object store: Swift, or Ceph's object gateway."""
