//! The contract and nothing else: types and service stubs generated from `proto/banyan/**.proto`.
//! No behaviour lives here.

pub mod banyan {
    /// Public and admin services.
    #[allow(clippy::doc_lazy_continuation, clippy::large_enum_variant, clippy::doc_overindented_list_items)]
    pub mod v1 {
        tonic::include_proto!("banyan.v1");
    }
    pub mod worker {
        /// Gateway to worker.
        #[allow(clippy::doc_lazy_continuation, clippy::large_enum_variant)]
        pub mod v1 {
            tonic::include_proto!("banyan.worker.v1");
        }
    }
}

pub use banyan::v1;
pub use banyan::worker::v1 as worker;

/// Every message and service as an encoded `google.protobuf.FileDescriptorSet`: for reflection, and for tests that
/// walk all RPCs.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
