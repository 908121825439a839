//! The flowctl-compatible registry: register, heartbeat, expire, discover, report. The state machine stands in `registry`
//! and knows no protocol; gRPC, HTTP, the disk and the clock stand around it.

pub mod clock;
pub mod limits;
pub mod registry;
pub mod store;
