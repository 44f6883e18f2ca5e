//! The listener under peers that mean no good.

use std::time::Duration;

use chassis::{
    server::{GrpcServer, Health, ListenConfig},
    shutdown::Shutdown,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_closed_and_gives_its_place_to_the_next() {
    let config = ListenConfig { connections_max: 1, handshake_ms: 200, ..ListenConfig::default() };
    let server = GrpcServer::bind(config).await.expect("a free port");
    let address = server.local_addr();
    let shutdown = Shutdown::new();
    let routes = tonic::service::Routes::default();
    let serving =
        tokio::spawn(server.serve(routes, tonic_health::pb::FILE_DESCRIPTOR_SET, Health::new(), shutdown.clone()));

    let mut silent = TcpStream::connect(address).await.expect("connect");
    let answered = async {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let mut client = HealthClient::new(endpoint.connect().await.expect("connect"));
        client.check(HealthCheckRequest::default()).await.expect("an answer")
    };
    tokio::time::timeout(Duration::from_secs(60), answered).await.expect("the only place is free again");
    let mut left = Vec::new();
    // Closed or reset; what a server says first in HTTP/2 may come before.
    let closed = tokio::time::timeout(Duration::from_secs(60), silent.read_to_end(&mut left)).await;
    assert!(closed.is_ok(), "the silent connection is still open");

    shutdown.trigger();
    serving.await.expect("the task").expect("a clean stop");
}
