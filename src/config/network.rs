//! Networks as people write them: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, de::Error};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<IpNet>, D::Error> {
    let networks = super::list::string_or_list(deserializer)?;
    let parsed = networks.iter().map(|text| parse(text));
    parsed.collect::<Result<_, _>>().map_err(D::Error::custom)
}

/// Where to listen: an address and a port.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.trim().parse().map_err(|_| {
        D::Error::custom(format!(
            "`{text}` is no IP address with a port: write for example 127.0.0.1:8080 or [::]:8080"
        ))
    })
}

/// The same where there need not be one.
pub(super) fn some_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    address(deserializer).map(Some)
}

/// Reads one network. One of IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2) is one of IPv4
/// addresses, since that is what addresses are compared as.
///
/// # Errors
/// A sentence that says what is wrong.
fn parse(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| {
            format!(
                "`{text}` is neither an address nor a network: write for example 10.0.0.0/8 or 2001:db8::1"
            )
        })?,
    };
    let network = unmapped(network).trunc();
    if network.prefix_len() == 0 {
        return Err(format!(
            "`{text}` is every address: any client could then choose the address that it counts as"
        ));
    }
    Ok(network)
}

fn unmapped(network: IpNet) -> IpNet {
    /// The bits before the IPv4 address.
    const MAPPED: u8 = 96;
    let IpNet::V6(v6) = network else {
        return network;
    };
    let v4 = v6
        .addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(MAPPED));
    let v4 = v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    v4.map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_network_of_one() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::1", "::1/128"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), network);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_by_name() {
        for text in [
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "10.0.0/8",
            "/8",
            "2001:db8::/129",
            "2001:db8:::/32",
            "[2001:db8::1]",
            "10.0.0.1:80",
            "010.0.0.1",
            "proxy.example.com",
            "*",
            "10.0.0.0/8 10.1.0.0/16",
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(text) && said.contains("10.0.0.0/8"), "{said}");
        }
        for everything in ["0.0.0.0/0", "::/0", "1.2.3.4/0", "::ffff:0:0/96"] {
            let said = parse(everything).unwrap_err();
            assert!(said.contains("every address"), "{said}");
        }
    }
}
