//! `rbee queen`.

use super::stop_signal;
use crate::args::Queen;
use crate::failure::Failure;
use crate::terminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Runs the control plane until a signal ends it.
pub async fn run(args: Queen) -> Result<(), Failure> {
    let stopping = stop_signal()?;
    super::raise_open_files();
    let queen = bind(&args).await?;
    terminal::put(format!("{}/\n", url(queen.address())))?;
    queen.run(stopping).await.map_err(|error| Failure::failed("the queen ended", &error))
}

/// Takes the port.
pub async fn bind(args: &Queen) -> Result<::queen::Queen, Failure> {
    ::queen::Queen::bind(config(args)).await.map_err(|error| Failure::failed("failed to start the queen", &error))
}

fn config(args: &Queen) -> ::queen::Config {
    let default = ::queen::Config::default();
    ::queen::Config {
        listen: args.listen,
        insecure: args.insecure,
        stale: args.stale_after.unwrap_or(default.stale),
        lost: args.lost_after.unwrap_or(default.lost),
        remove: args.remove_after.unwrap_or(default.remove),
        bookmark: args.bookmark_every.unwrap_or(default.bookmark),
        max_age: args.max_age.unwrap_or(default.max_age),
        allowed_hosts: args.allow_host.clone(),
        ..default
    }
}

/// Where a queen that listens there is reached from this machine.
pub fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queen_on_all_addresses_is_reached_over_loopback() {
        assert_eq!(url("0.0.0.0:7833".parse().unwrap()), "http://127.0.0.1:7833");
        assert_eq!(url("[::]:1".parse().unwrap()), "http://[::1]:1");
        assert_eq!(url("10.0.0.1:1".parse().unwrap()), "http://10.0.0.1:1");
    }
}
