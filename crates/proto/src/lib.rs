//! Committed generated gRPC code and descriptors: messages, clients and servers of the protocols in `proto/`. Nothing here
//! is written by hand but this file; `cargo xtask generate proto` makes the rest, and a test compares. No behaviour belongs here.
//!
//! Maps are `BTreeMap` (the same message always encodes to the same bytes) and `bytes` fields are
//! [`bytes::Bytes`](prost::bytes::Bytes) (a payload is passed on without a copy).

/// The size limit of one message in either direction, in bytes: 100 MiB, the published plan's client limit. Servers
/// must set it too: gRPC libraries accept 4 MiB unless told otherwise, and ledgers are larger.
pub const MAX_MESSAGE_BYTES: usize = 100 * 1024 * 1024;

/// The encoded `google.protobuf.FileDescriptorSet` of every protocol here and what it imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");

/// `flowctl`: the control plane as the first flowctl clients speak it ("legacy").
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    reason = "generated code keeps its generator's habits"
)]
#[rustfmt::skip]
pub mod flowctl {
    include!("generated/flowctl.rs");

    /// `flowctl.v1`: the control plane as current flowctl clients speak it.
    pub mod v1 {
        include!("generated/flowctl.v1.rs");
    }

    /// `flowctl.registry`: what the two lack, beside them.
    pub mod registry {
        /// Version 1.
        pub mod v1 {
            include!("generated/flowctl.registry.v1.rs");
        }
    }
}

/// `pipeline.v1`: the protocol between a pipeline and a processor or consumer that runs as its own service.
pub mod pipeline {
    /// Version 1.
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::unwrap_used,
        reason = "generated code keeps its generator's habits"
    )]
    #[rustfmt::skip]
    pub mod v1 {
        include!("generated/pipeline.v1.rs");
    }
}

/// `stellar.v1`: typed messages for processors of Stellar ledgers.
pub mod stellar {
    /// Version 1.
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::unwrap_used,
        reason = "generated code keeps its generator's habits"
    )]
    #[rustfmt::skip]
    pub mod v1 {
        include!("generated/stellar.v1.rs");
    }
}
