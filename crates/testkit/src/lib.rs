//! Local Kubernetes and fixtures for tests and the demo; never shipped.
