//! A TCP proxy that is faulty on demand: it delays, stalls, cuts and refuses, on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What is taken from one side before it is given to the other, in bytes.
const PIECE: usize = 16 * 1024;
/// Connections at once; further ones wait in the kernel.
const CONNECTIONS: usize = 1_024;

/// What the proxy does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Passes each piece on after this time.
    Delay(Duration),
    /// Accepts, keeps every connection open and passes nothing on: a half-open link.
    Stall,
    /// Closes every new connection; those that are open go on.
    Refuse,
}

#[derive(Debug, Clone, Copy)]
struct Orders {
    mode: Mode,
    /// Connections made before this count of cuts are over.
    cuts: u64,
}

/// Stands before one address until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    accepted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port for `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (orders, heard) = watch::channel(Orders { mode: Mode::Pass, cuts: 0 });
        let accepted = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(serve(listener, target, heard, Arc::clone(&accepted)));
        Self { address, orders, accepted, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does this from now on.
    pub fn set(&self, mode: Mode) {
        self.orders.send_modify(|orders| orders.mode = mode);
    }

    /// Closes every connection there is.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, orders: watch::Receiver<Orders>, accepted: Arc<AtomicU64>) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else { return };
        accepted.fetch_add(1, Ordering::Relaxed);
        if orders.borrow().mode != Mode::Refuse {
            connections.spawn(connection(stream, target, orders.clone()));
        }
    }
}

async fn connection(client: TcpStream, target: SocketAddr, orders: watch::Receiver<Orders>) {
    let mut cut = orders.clone();
    let made = orders.borrow().cuts;
    let passing = async {
        let Ok(server) = TcpStream::connect(target).await else { return };
        // Fails only on a socket that is gone, which the next read tells.
        let _gone = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::join!(pass(from_client, to_server, orders.clone()), pass(from_server, to_client, orders));
    };
    tokio::select! {
        () = passing => {}
        _ = cut.wait_for(|orders| orders.cuts > made) => {}
    }
}

/// One direction, until one side closes.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut orders: watch::Receiver<Orders>) {
    let mut piece = vec![0; PIECE];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        let Ok(now) = orders.wait_for(|orders| orders.mode != Mode::Stall).await.map(|orders| orders.mode) else {
            return;
        };
        if let Mode::Delay(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::within;
    use std::time::Instant;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that says back what it hears.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 1];
        stream.write_all(b"x").await.is_ok() && matches!(stream.read(&mut answer).await, Ok(1))
    }

    #[tokio::test]
    async fn it_passes_delays_stalls_refuses_and_cuts() {
        let proxy = Proxy::start(echo().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(within("an answer", SOON, ask(&mut stream)).await);
        proxy.set(Mode::Delay(Duration::from_millis(50)));
        let began = Instant::now();
        assert!(within("a late answer", SOON, ask(&mut stream)).await);
        assert!(began.elapsed() >= Duration::from_millis(100), "both ways are delayed");
        proxy.set(Mode::Stall);
        assert!(tokio::time::timeout(Duration::from_millis(200), ask(&mut stream)).await.is_err());
        proxy.set(Mode::Refuse);
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(!within("a refusal", SOON, ask(&mut refused)).await);
        assert_eq!(proxy.accepted(), 2);
        let mut late = [0; 1];
        within("what was held back", SOON, stream.read_exact(&mut late)).await.unwrap();
        proxy.cut();
        let end = within("the cut", SOON, stream.read(&mut late)).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}
