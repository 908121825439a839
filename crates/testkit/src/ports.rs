//! Free ports. The kernel gives them out, and they are held until all are chosen, so that no two are the same.

use std::net::{Ipv4Addr, TcpListener};

use crate::{Error, Result};

/// Chooses this many free ports of an address.
pub(crate) fn free<const N: usize>(address: Ipv4Addr) -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((address, 0)).map_err(Error::io(format!("find a free port of {address}")))?;
        *port = listener.local_addr().map_err(Error::io("read a port"))?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// The preferred port of an address if it is free, else any free one.
pub(crate) fn preferably(address: Ipv4Addr, port: u16) -> Result<u16> {
    match TcpListener::bind((address, port)) {
        Ok(_) => Ok(port),
        Err(_) => Ok(free::<1>(address)?[0]),
    }
}
