//! Committed generated gRPC code and descriptors.
