//! Which of this machine's addresses the other hosts can reach it by, and which names are its own. Asks the resolver, ssh's
//! configuration and the kernel's routes; sends nothing.

use crate::machine::Machine;
use crate::nodes::is_name_of;
use crate::options::{HOST_ONLY, SSH_VARIABLE};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::process::{Command, Stdio};

/// A worker tries them one after the other.
const MOST: usize = 8;
/// Hosts of a cluster share their networks: the first ones stand for all.
const ASKED: usize = 32;
/// Any port will do: nothing is sent.
const PORT: u16 = 22;

/// Where to listen for workers on `hosts`: the addresses from which this machine would speak to them, or, where the hosts'
/// names lead nowhere from here, all that are not for this machine alone.
pub fn towards(hosts: &[String]) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in hosts.iter().take(ASKED).flat_map(|host| resolve(host)).filter_map(own_address_towards) {
        if !found.contains(&address) && !is_private_to_host(address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        found = of_this_machine();
    }
    found.truncate(MOST);
    found
}

/// Whether `host` is this machine: by name, or because all that it resolves to are addresses of this machine.
pub fn is_here(host: &str, machine: &Machine) -> bool {
    let own = |address: &IpAddr| UdpSocket::bind((*address, 0)).is_ok();
    let resolved = || resolve(host);
    is_name_of(host, &machine.host) || (!resolved().is_empty() && resolved().iter().all(own))
}

/// The addresses of a host, under the name that ssh's configuration gives it.
fn resolve(host: &str) -> Vec<IpAddr> {
    let name = ssh_name(host).unwrap_or_else(|| host.into());
    (name.as_str(), PORT).to_socket_addrs().map_or_else(|_| Vec::new(), |all| all.map(|a| a.ip()).collect())
}

/// `HostName` in ssh's configuration.
fn ssh_name(host: &str) -> Option<String> {
    if std::env::var_os(SSH_VARIABLE).is_some() {
        return None;
    }
    let out = Command::new("ssh").args(["-G", host]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("hostname ")).map(String::from)
}

/// Connecting a UDP socket only asks the kernel for the route.
fn own_address_towards(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(SocketAddr::new(address, PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn of_this_machine() -> Vec<IpAddr> {
    let up = |flags: InterfaceFlags| flags.contains(InterfaceFlags::IFF_UP);
    let interfaces = getifaddrs().into_iter().flatten();
    let shared = interfaces.filter(|i| up(i.flags) && !HOST_ONLY.contains(&i.interface_name.as_str()));
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    };
    shared.filter_map(|i| i.address.and_then(address)).filter(|a| !is_private_to_host(*a)).collect()
}

/// Loopback; and link-local, which means nothing without the interface's name on the other side.
fn is_private_to_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(host: &str) -> Machine {
        Machine { host: host.into(), ..Machine::look() }
    }

    #[test]
    fn loopback_is_here_and_leads_to_nobody() {
        assert!(is_here("127.0.0.1", &machine("x")) && is_here("localhost", &machine("x")));
        assert!(is_here("gpu01", &machine("gpu01.lab")));
        assert!(!is_here("192.0.2.77", &machine("x")) && !is_here("no.such.host.invalid", &machine("x")));
        assert_eq!(own_address_towards(Ipv4Addr::LOCALHOST.into()), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn hosts_that_lead_nowhere_leave_all_addresses() {
        let all = of_this_machine();
        assert!(all.iter().all(|address| !is_private_to_host(*address)), "{all:?}");
        assert_eq!(towards(&["no.such.host.invalid".into()]), all.into_iter().take(MOST).collect::<Vec<_>>());
    }

    #[test]
    fn scopes_are_told_apart() {
        for (address, private) in
            [("127.0.0.1", true), ("::1", true), ("fe80::1", true), ("10.0.0.1", false), ("fd00::1", false)]
        {
            assert_eq!(is_private_to_host(address.parse().unwrap()), private, "{address}");
        }
    }
}
