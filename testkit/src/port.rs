//! Free ports: a loopback port nobody listens on at the moment of asking.
//!
//! Somebody else may take it before it is used; callers that start a server try again with another.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// Asks the kernel for a free loopback port.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a loopback port")?;
    Ok(listener.local_addr().context("cannot read the port just bound")?.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::free_port;

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free_port().expect("a port");
        assert!(port > 1023);
        TcpListener::bind(("127.0.0.1", port)).expect("nobody listens there");
    }
}
