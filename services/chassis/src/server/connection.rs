//! Accepts at most a given number of connections at a time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::gather::Gather;

/// Out of file descriptors, say: trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// Connections of `listener`; the next one is accepted when `connections` has a permit. One whose peer has not sent the
/// HTTP/2 preface after `handshake` is closed: until then no keepalive watches over it.
pub fn bounded(
    listener: TcpListener,
    connections: Arc<Semaphore>,
    handshake: Duration,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    futures::stream::unfold((listener, connections), move |(listener, connections)| async move {
        // The semaphore is never closed, so this waits at most for a connection to end.
        let permit = Arc::clone(&connections).acquire_owned().await.ok()?;
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            Ok(Connection {
                stream: Gather::new(stream),
                greeting: Some(Box::pin(sleep(handshake))),
                greeted: 0,
                _permit: permit,
            })
        });
        if let Err(error) = &accepted {
            tracing::warn!(%error, "a connection was not accepted");
            sleep(ACCEPT_PAUSE).await;
        }
        Some((accepted, (listener, connections)))
    })
}

/// A TCP connection that holds its permit until it closes.
pub struct Connection {
    stream: Gather<TcpStream>,
    /// Until the preface has come.
    greeting: Option<Pin<Box<Sleep>>>,
    greeted: usize,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.get_ref().connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(greeting) = &mut self.greeting {
            if read.is_pending() && greeting.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.greeted += buffer.filled().len() - before;
            if self.greeted >= PREFACE_BYTES {
                self.greeting = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
