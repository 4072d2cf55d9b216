//! Generated code.

/// The API.
pub mod v1 {
    tonic::include_proto!("sessionsidecar.v1");
}

/// The test clock of `serve --dev`.
pub mod dev {
    tonic::include_proto!("sessionsidecar.dev.v1");
}

/// What Envoy asks.
pub mod envoy {
    tonic::include_proto!("envoy.service.auth.v3");
}

/// The descriptors of all of it, encoded.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
