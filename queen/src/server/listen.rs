//! Opens the port, and sets up what is accepted there.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the kernel completes before they are accepted. A fleet dials at once when its queen is back, and who finds no
/// place tries again after a second or more, or is reset. The kernel allows at most `net.core.somaxconn` (listen(2)): 4,096 since
/// Linux 5.4.
const BACKLOG: u32 = 65_535;
/// After so much silence the kernel asks a peer whether it is still there …
const KEEPALIVE: Duration = Duration::from_secs(15);
/// … and again after each of these …
const AGAIN: Duration = Duration::from_secs(5);
/// … up to so many times.
const TIMES: u32 = 3;
/// A peer that acknowledges nothing for so long, or whose window stays closed for so long, is gone. The kernel's own patience is a
/// quarter of an hour (`tcp_retries2`), and without end where the window is closed: all that time a watcher of HTTP/1.1,
/// which nobody else asks for a sign of life, would keep its seat and its place.
#[cfg(target_os = "linux")]
const PATIENCE: Duration = Duration::from_secs(30);

/// Listens there, also where connections of a queen that has ended still linger.
///
/// # Errors
/// What the system says: the address is taken, not of this machine, or not for this user.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Sets the options of an accepted connection.
///
/// # Errors
/// What the system says: mostly that the peer has left already.
pub fn set_up(stream: &TcpStream) -> io::Result<()> {
    // Small messages go out at once: Nagle's algorithm costs 40 ms a call.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let asking = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(AGAIN).with_retries(TIMES);
    socket.set_tcp_keepalive(&asking)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(PATIENCE))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use tokio::time::timeout;

    /// Whose first packet was dropped sends it again after a second.
    const AT_ONCE: Duration = Duration::from_millis(900);

    #[tokio::test]
    async fn a_fleet_that_dials_at_once_is_let_in_before_it_is_accepted() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let fleet = allowed.trim().parse::<usize>().unwrap().min(2_000);
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut hives = Vec::new();
        while hives.len() < fleet {
            let dialled = timeout(AT_ONCE, TcpStream::connect(address)).await;
            assert!(dialled.is_ok(), "no place for hive {}", hives.len());
            hives.push(dialled.unwrap().unwrap());
        }
    }
}
