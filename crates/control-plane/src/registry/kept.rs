//! A registration in few bytes: what the store writes is also what memory holds, and it is read whole only when somebody
//! asks for the service. Protobuf, so that fields can be added; numbers are never reused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use flowctl_proto::flowctl::ServiceType;
use prost::Message;

use super::endpoint;
use super::model::{Caller, Identity, Origin, Registration};

/// A registration and what the registry adds to it. The id is kept beside it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeptRegistration {
    #[prost(string, tag = "1")]
    component_id: String,
    #[prost(int32, tag = "2")]
    service_type: i32,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(string, tag = "5")]
    version: String,
    #[prost(string, repeated, tag = "6")]
    input_event_types: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    output_event_types: Vec<String>,
    /// As it was sent: with `peer` it is completed when it is read, which costs fewer bytes than to keep the address twice.
    #[prost(string, tag = "8")]
    endpoint: String,
    #[prost(int32, tag = "9")]
    max_inflight: i32,
    #[prost(btree_map = "string, string", tag = "10")]
    metadata: BTreeMap<String, String>,
    /// 0 legacy, 1 v1, 2 adopted.
    #[prost(uint32, tag = "11")]
    origin: u32,
    #[prost(message, optional, tag = "12")]
    identity: Option<KeptIdentity>,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "13")]
    pub(crate) registered_at: i64,
    /// Uids of the pods that this registration's owner has replaced.
    #[prost(string, repeated, tag = "14")]
    pub(crate) superseded: Vec<String>,
    /// The address that the registration came from: 4 bytes or 16, or none.
    #[prost(bytes = "vec", tag = "15")]
    peer: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct KeptIdentity {
    #[prost(string, tag = "1")]
    username: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    pod_name: String,
    #[prost(string, tag = "4")]
    pod_uid: String,
}

/// What the store keeps of a service's life, written in batches.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct KeptLife {
    /// Milliseconds since 1970; unset if it has not beaten since it registered.
    #[prost(int64, optional, tag = "1")]
    pub(crate) last_heartbeat: Option<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) reported: i32,
    #[prost(bool, tag = "3")]
    pub(crate) is_expired: bool,
    #[prost(bool, tag = "4")]
    pub(crate) is_beat_verified: bool,
}

// === impl KeptRegistration ===

impl KeptRegistration {
    pub(super) fn of(
        registration: &Registration,
        caller: Caller<'_>,
        superseded: Vec<String>,
        registered_at: i64,
    ) -> Self {
        let registration = registration.clone();
        let is_own_component = registration.component_id == registration.service_id;
        Self {
            component_id: if is_own_component {
                String::new()
            } else {
                registration.component_id
            },
            service_type: registration.service_type.into(),
            name: registration.name,
            description: registration.description,
            version: registration.version,
            input_event_types: registration.input_event_types,
            output_event_types: registration.output_event_types,
            endpoint: registration.endpoint,
            max_inflight: registration.max_inflight,
            metadata: registration.metadata,
            origin: match registration.origin {
                Origin::Legacy => 0,
                Origin::V1 => 1,
                Origin::Adopted => 2,
            },
            identity: caller.identity.map(KeptIdentity::from),
            registered_at,
            superseded,
            peer: match caller.peer.map(|peer| peer.to_canonical()) {
                None => Vec::new(),
                Some(IpAddr::V4(address)) => address.octets().to_vec(),
                Some(IpAddr::V6(address)) => address.octets().to_vec(),
            },
        }
    }

    pub(super) fn service_type(&self) -> ServiceType {
        ServiceType::try_from(self.service_type).unwrap_or_default()
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        let identity = self.identity.clone()?;
        Some(Identity {
            username: identity.username,
            namespace: identity.namespace,
            pod_name: identity.pod_name,
            pod_uid: identity.pod_uid,
        })
    }

    /// The address that the registration came from, IPv4 where it is one.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        let bytes = self.peer.as_slice();
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    }

    pub(super) fn into_registration(self, service_id: &str) -> Registration {
        let endpoint = endpoint::complete(&self.endpoint, self.peer());
        Registration {
            service_id: service_id.to_owned(),
            component_id: if self.component_id.is_empty() {
                service_id.to_owned()
            } else {
                self.component_id
            },
            service_type: ServiceType::try_from(self.service_type).unwrap_or_default(),
            name: self.name,
            description: self.description,
            version: self.version,
            input_event_types: self.input_event_types,
            output_event_types: self.output_event_types,
            endpoint,
            max_inflight: self.max_inflight,
            metadata: self.metadata,
            origin: match self.origin {
                1 => Origin::V1,
                2 => Origin::Adopted,
                _ => Origin::Legacy,
            },
        }
    }
}

impl From<&Identity> for KeptIdentity {
    fn from(identity: &Identity) -> Self {
        let identity = identity.clone();
        Self {
            username: identity.username,
            namespace: identity.namespace,
            pod_name: identity.pod_name,
            pod_uid: identity.pod_uid,
        }
    }
}
