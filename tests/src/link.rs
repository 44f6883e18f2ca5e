//! A network between two processes that can be cut, that can swallow everything, or be slow: a TCP proxy in between.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What becomes of what goes over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// It arrives.
    Flows,
    /// Connections end, and new ones end at once.
    Cut,
    /// Connections stay and nothing arrives, until it flows again: as packets are lost.
    Swallowed,
    /// It arrives so much later, each way.
    Late(Duration),
}

/// From an address of its own to the target's. Ends with the runtime that it was started on.
pub struct Link {
    address: SocketAddr,
    traffic: watch::Sender<Traffic>,
    target: watch::Sender<SocketAddr>,
}

impl Link {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind a port");
        let address = listener.local_addr().expect("a bound port has an address");
        let (traffic, now) = watch::channel(Traffic::Flows);
        let (target, wanted) = watch::channel(target);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = *wanted.borrow();
                tokio::spawn(join(near, target, now.clone()));
            }
        });
        Self { address, traffic, target }
    }

    /// Where to connect instead of to the target.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there instead; those that there are stay.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    pub fn set(&self, traffic: Traffic) {
        self.traffic.send_replace(traffic);
    }
}

async fn join(near: TcpStream, target: SocketAddr, traffic: watch::Receiver<Traffic>) {
    if *traffic.borrow() == Traffic::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else { return };
    // Small messages both ways; fails only on a connection that is gone.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    // Whichever way ends first ends both.
    tokio::select! {
        () = carry(near_in, far_out, traffic.clone()) => {}
        () = carry(far_in, near_out, traffic) => {}
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut traffic: watch::Receiver<Traffic>) {
    let mut cut = traffic.clone();
    let mut buffer = vec![0; 64 << 10];
    let moving = async {
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let now = *traffic.borrow();
            match now {
                Traffic::Flows | Traffic::Cut => {}
                Traffic::Swallowed => {
                    // What is cut is lost.
                    let again = traffic.wait_for(|traffic| *traffic != Traffic::Swallowed).await;
                    if again.map_or(true, |traffic| *traffic == Traffic::Cut) {
                        return;
                    }
                }
                Traffic::Late(by) => tokio::time::sleep(by).await,
            }
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = moving => {}
        _ = cut.wait_for(|traffic| *traffic == Traffic::Cut) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = peer.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn says(connection: &mut TcpStream, word: u8) -> std::io::Result<u8> {
        connection.write_u8(word).await?;
        connection.read_u8().await
    }

    #[tokio::test]
    async fn a_link_carries_swallows_and_cuts() {
        let link = Link::to(echo().await).await;
        let mut connection = TcpStream::connect(link.address()).await.expect("connect");
        assert_eq!(says(&mut connection, 1).await.expect("it flows"), 1);
        link.set(Traffic::Swallowed);
        let nothing = tokio::time::timeout(Duration::from_millis(50), says(&mut connection, 2)).await;
        assert!(nothing.is_err(), "what is swallowed does not arrive");
        link.set(Traffic::Flows);
        assert_eq!(connection.read_u8().await.expect("it flows again"), 2);
        link.set(Traffic::Cut);
        assert!(says(&mut connection, 3).await.is_err(), "a connection ends with the link");
        let mut new = TcpStream::connect(link.address()).await.expect("connect");
        assert!(says(&mut new, 4).await.is_err(), "a new one ends at once");
        link.set(Traffic::Late(Duration::from_millis(30)));
        let mut new = TcpStream::connect(link.address()).await.expect("connect");
        let asked = std::time::Instant::now();
        assert_eq!(says(&mut new, 5).await.expect("late"), 5);
        assert!(asked.elapsed() >= Duration::from_millis(60), "late both ways");
        link.set(Traffic::Flows);
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind").local_addr().expect("an address");
        link.lead_to(nobody);
        let mut new = TcpStream::connect(link.address()).await.expect("connect");
        assert!(says(&mut new, 6).await.is_err(), "a new one goes elsewhere");
    }
}
