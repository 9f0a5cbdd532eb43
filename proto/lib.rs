//! The wire contract: everything that `proto/rbee/v1/*.proto` defines, as Rust types, clients and servers.

// The generated code is as the generator writes it.
#![allow(clippy::all)]

tonic::include_proto!("rbee.v1");

/// The descriptor set of `rbee.v1` and what it imports, for server reflection and for JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
