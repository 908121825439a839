//! From an observation to objects and status: pure, without I/O, clock or async.
