#![doc = include_str!("../README.md")]

/// Administration of the service: `AdminService`.
pub mod admin {
    #[allow(clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("tickets.admin.v1");
    }
}

/// What a failed call says: [`failure::error`] finds it.
pub mod errors {
    #[allow(clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("tickets.errors.v1");
    }
}

/// The tickets that a project's roles hand to each other.
pub mod handoff {
    #[allow(clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("tickets.handoff.v1");
    }
}

/// Support tickets of a tenant, with comments and service levels.
pub mod helpdesk {
    #[allow(clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("tickets.helpdesk.v1");
    }
}

/// IT tickets of a customer account, and webhooks.
pub mod itsm {
    #[allow(clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("tickets.itsm.v1");
    }
}

mod calls;
pub mod failure;

pub use calls::{Credentials, idempotent, replayed};

/// The messages that protobuf itself defines: `Timestamp`, `FieldMask`, `Duration`.
pub use prost_types;
/// The gRPC library that the clients are made for: `Request`, `Status`, `transport::Channel`.
pub use tonic;
