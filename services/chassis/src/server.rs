//! A gRPC listener with everything that each of ours has: health, reflection, bounded connections and streams,
//! no Nagle delay, a graceful stop with a bound. Where asked to, it also speaks HTTP/1.1.

mod connection;
mod gather;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Semaphore};
use tonic::{service::Routes, transport::Server};
use tonic_health::server::HealthReporter;

use crate::shutdown::Shutdown;

/// Where to listen, and how much to take on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// `host:port`; port 0 takes a free one.
    pub address: String,
    /// Further connections wait in the kernel's queue until one closes.
    pub connections_max: usize,
    /// A connection that has not begun to speak HTTP/2 after this long is closed.
    pub handshake_ms: u64,
    /// Calls in flight on one connection.
    pub streams_per_connection_max: u32,
    /// A connection whose peer does not answer pings is closed after interval plus timeout.
    pub keepalive_interval_ms: u64,
    pub keepalive_timeout_ms: u64,
    /// How long running calls may go on after a stop was asked for.
    pub drain_ms: u64,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:0".to_owned(),
            connections_max: 1_024,
            handshake_ms: 10_000,
            streams_per_connection_max: 256,
            keepalive_interval_ms: 20_000,
            keepalive_timeout_ms: 10_000,
            drain_ms: 30_000,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("the descriptor set is not readable: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("serving failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// A bound listener that does not serve yet.
pub struct GrpcServer {
    config: ListenConfig,
    listener: TcpListener,
    local_addr: SocketAddr,
    http1: bool,
}

impl GrpcServer {
    /// # Errors
    /// When the address is taken or makes no sense.
    pub async fn bind(config: ListenConfig) -> Result<Self, ServerError> {
        let fault = |source| ServerError::Bind { address: config.address.clone(), source };
        let listener = TcpListener::bind(&config.address).await.map_err(fault)?;
        let local_addr = listener.local_addr().map_err(fault)?;
        Ok(Self { config, listener, local_addr, http1: false })
    }

    /// Takes HTTP/1.1 besides HTTP/2: for gRPC-Web and for routes that are no gRPC. A connection whose next request's head
    /// does not come within 30 s (hyper's default) is closed.
    #[must_use]
    pub const fn with_http1(mut self) -> Self {
        self.http1 = true;
        self
    }

    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves `routes` with reflection (v1) over `descriptors` and `grpc.health.v1` next to them, until `shutdown`;
    /// then takes nothing new and lets running calls end within `drain_ms`.
    ///
    /// `health` gets the reporter before the first connection is taken, to say what is serving.
    ///
    /// # Errors
    /// Unreadable descriptors or a failing transport.
    pub async fn serve(
        self,
        routes: Routes,
        descriptors: &'static [u8],
        health: Health,
        shutdown: Shutdown,
    ) -> Result<(), ServerError> {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let routes = routes
            .add_service(tonic_health::pb::health_server::HealthServer::new(health.service))
            .add_service(reflection);
        let handshake = Duration::from_millis(self.config.handshake_ms);
        let connections = Arc::new(Semaphore::new(self.config.connections_max));
        let serving = Server::builder()
            .accept_http1(self.http1)
            .max_concurrent_streams(self.config.streams_per_connection_max)
            .http2_keepalive_interval(Some(Duration::from_millis(self.config.keepalive_interval_ms)))
            .http2_keepalive_timeout(Some(Duration::from_millis(self.config.keepalive_timeout_ms)))
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                connection::bounded(self.listener, connections, handshake),
                shutdown.triggered(),
            );
        let drained = async {
            shutdown.triggered().await;
            tokio::time::sleep(Duration::from_millis(self.config.drain_ms)).await;
        };
        tokio::select! {
            served = serving => Ok(served?),
            () = drained => {
                tracing::warn!(address = %self.local_addr, "calls were still running when the drain time was over");
                Ok(())
            }
        }
    }
}

/// `grpc.health.v1` of one listener: the overall status (service name "") starts as NOT_SERVING.
pub struct Health {
    service: tonic_health::server::HealthService,
    reporter: HealthReporter,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    pub fn new() -> Self {
        let reporter = HealthReporter::new();
        Self { service: tonic_health::server::HealthService::from_health_reporter(reporter.clone()), reporter }
    }

    pub fn reporter(&self) -> HealthReporter {
        self.reporter.clone()
    }
}
