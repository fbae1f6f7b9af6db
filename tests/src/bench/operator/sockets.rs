//! Established TCP connections of a process, from /proc. Linux only.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context, Result};

/// The state ESTABLISHED in /proc/net/tcp.
const ESTABLISHED: &str = "01";

/// Number of established connections of the process to one of these addresses.
pub(super) fn connections(pid: u32, to: &[SocketAddr]) -> Result<usize> {
    let own = sockets(pid)?;
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/{pid}/net/{table}");
        // A kernel without IPv6 has no tcp6.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        count += text
            .lines()
            .skip(1)
            .filter_map(established)
            .filter(|(remote, inode)| to.contains(remote) && own.contains(*inode))
            .count();
    }
    Ok(count)
}

/// The inodes of the sockets of a process.
fn sockets(pid: u32) -> Result<HashSet<String>> {
    let path = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
    // A descriptor may be closed meanwhile.
    let links = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(links
        .filter_map(|link| {
            let name = link.to_str()?;
            Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_string())
        })
        .collect())
}

/// The remote address and the inode of an established connection; None for a line about anything else.
fn established(line: &str) -> Option<(SocketAddr, &str)> {
    // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != ESTABLISHED {
        return None;
    }
    Some((address(fields.get(2)?)?, *fields.get(9)?))
}

/// "0100007F:2384": words of the address as the machine stores them, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for start in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(ip) => IpAddr::from(ip),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_of_this_process_are_found_by_their_remote_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = [listener.local_addr().unwrap()];
        let pid = std::process::id();
        assert_eq!(connections(pid, &to).unwrap(), 0);
        let _one = TcpStream::connect(to[0]).unwrap();
        let _other = TcpStream::connect(to[0]).unwrap();
        assert_eq!(connections(pid, &to).unwrap(), 2);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_of_both_families_are_read() {
        let v4 = "127.0.0.1:9092".parse().unwrap();
        assert_eq!(address("0100007F:2384"), Some(v4));
        assert_eq!(address("0000000000000000FFFF00000100007F:2384"), Some(v4));
        let v6 = "[::1]:9092".parse().unwrap();
        assert_eq!(address("00000000000000000000000001000000:2384"), Some(v6));
        assert_eq!(address("0100:2384"), None);
    }
}
