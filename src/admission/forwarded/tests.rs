//! What proxies write, what clients pretend that proxies wrote, and that the two are told apart.

use axum::http::HeaderValue;
use proptest::prelude::*;

use super::*;

/// The proxies of these tests.
fn proxies() -> TrustedProxies {
    TrustedProxies::new(vec![
        "10.0.0.0/8".parse().unwrap(),
        "2001:db8:ff::/48".parse().unwrap(),
        "192.0.2.1/32".parse().unwrap(),
    ])
}

/// The client's address from lines of headers, received from `peer`.
fn client(peer: &str, lines: &[(&str, &str)]) -> String {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let peer = peer.parse().unwrap();
    proxies().client(peer, &headers).to_string()
}

const XFF: &str = "X-Forwarded-For";
const FORWARDED: &str = "Forwarded";

#[test]
fn a_peer_that_is_not_trusted_is_the_client_whatever_it_sends() {
    for peer in ["203.0.113.9", "2001:db8::9", "11.0.0.1", "192.0.2.2"] {
        for lines in [
            &[][..],
            &[(XFF, "198.51.100.1")],
            &[(FORWARDED, "for=198.51.100.1")],
            &[(XFF, "198.51.100.1"), (FORWARDED, "for=198.51.100.1")],
            &[(XFF, "10.0.0.1")],
        ] {
            assert_eq!(client(peer, lines), peer, "{lines:?}");
        }
    }
    assert_eq!(client("::ffff:203.0.113.9", &[]), "203.0.113.9");
}

#[test]
fn from_the_right_the_first_that_is_not_trusted_is_the_client() {
    for (line, expected) in [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("1.1.1.1,203.0.113.9 ,\t10.9.9.9,192.0.2.1", "203.0.113.9"),
        ("10.1.1.1, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:db8::9]:4711, 2001:db8:ff::1", "2001:db8::9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:1, ::ffff:10.0.0.3", "203.0.113.9"),
        ("(;\"garbage, 203.0.113.9", "203.0.113.9"),
        // A trusted machine that is itself the client.
        ("10.7.7.7", "10.7.7.7"),
        ("10.7.7.7, 10.8.8.8", "10.7.7.7"),
        // Empty elements of a list are none (RFC 9110 section 5.6.1).
        (", 203.0.113.9,, 10.8.8.8,", "203.0.113.9"),
    ] {
        assert_eq!(client("10.0.0.1", &[(XFF, line)]), expected, "{line}");
    }
}

#[test]
fn nothing_is_known_beyond_a_proxy_that_wrote_no_address() {
    for (line, expected) in [
        ("", "10.0.0.1"),
        ("unknown", "10.0.0.1"),
        ("_hidden", "10.0.0.1"),
        ("203.0.113.9, unknown", "10.0.0.1"),
        ("203.0.113.9, unknown, 10.8.8.8", "10.8.8.8"),
        ("203.0.113.9, 10.8.8.8 10.7.7.7", "10.0.0.1"),
        ("203.0.113.9:99999", "10.0.0.1"),
        ("203.0.113.9:", "10.0.0.1"),
        ("2001:db8::9:port", "10.0.0.1"),
        ("[2001:db8::9", "10.0.0.1"),
        ("[2001:db8::9]4711", "10.0.0.1"),
        ("[203.0.113.9]", "10.0.0.1"),
        ("fe80::1%eth0", "10.0.0.1"),
        ("0xcb.0.113.9", "10.0.0.1"),
        ("203.0.113", "10.0.0.1"),
        ("203.0.113.09", "10.0.0.1"),
        ("localhost", "10.0.0.1"),
        ("for=203.0.113.9", "10.0.0.1"),
    ] {
        assert_eq!(client("10.0.0.1", &[(XFF, line)]), expected, "{line}");
    }
    assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    assert_eq!(client("::ffff:10.0.0.1", &[]), "10.0.0.1");
}

#[test]
fn forwarded_is_read_by_its_grammar() {
    for (line, expected) in [
        ("for=203.0.113.9", "203.0.113.9"),
        ("FOR=\"203.0.113.9:4711\"", "203.0.113.9"),
        ("for=\"203.0.113.9:_port\"", "203.0.113.9"),
        ("for=\"[2001:db8::9]:4711\"", "2001:db8::9"),
        (
            "for=\"[2001:db8::9]\";proto=https;by=10.0.0.1",
            "2001:db8::9",
        ),
        (
            "proto=https; for=203.0.113.9 ;host=\"a,b;c=\\\"d\"",
            "203.0.113.9",
        ),
        ("for=1.1.1.1, for=203.0.113.9, for=10.8.8.8", "203.0.113.9"),
        ("for=\"203\\.0.113.9\"", "203.0.113.9"),
        (";for=203.0.113.9;, ,", "203.0.113.9"),
        ("host=\"\u{e9}\";for=203.0.113.9", "203.0.113.9"),
        // Nothing known beyond the proxy that wrote it.
        ("", "10.0.0.1"),
        ("for=unknown", "10.0.0.1"),
        ("for=1.1.1.1, for=_hidden, for=10.8.8.8", "10.8.8.8"),
        ("for=1.1.1.1, proto=https", "10.0.0.1"),
        // Not the grammar: where an element ends is not known, so none of the line counts.
        ("for=\"203.0.113.9", "10.0.0.1"),
        ("for=203.0.113.9:4711", "10.0.0.1"),
        ("for=[2001:db8::9]", "10.0.0.1"),
        ("for=203.0.113.9 for=1.1.1.1", "10.0.0.1"),
        ("for=203.0.113.9;for=1.1.1.1", "10.0.0.1"),
        ("for =203.0.113.9", "10.0.0.1"),
        ("for=", "10.0.0.1"),
        ("for", "10.0.0.1"),
        ("for=\"a\\", "10.0.0.1"),
        ("203.0.113.9", "10.0.0.1"),
    ] {
        assert_eq!(client("10.0.0.1", &[(FORWARDED, line)]), expected, "{line}");
    }
}

#[test]
fn a_quote_that_a_client_opens_does_not_make_its_address_the_last() {
    for line in [
        "for=6.6.6.6;x=\", for=203.0.113.9",
        "for=6.6.6.6;x=\", for=\"[2001:db8::9]:4711\"",
        "for=\"6.6.6.6, for=\"[2001:db8::9]\"",
        "for=6.6.6.6;x=\"\\, for=203.0.113.9",
    ] {
        assert_eq!(
            client("10.0.0.1", &[(FORWARDED, line)]),
            "10.0.0.1",
            "{line}"
        );
    }
    // In a line of its own it reaches nobody else's.
    let lines = [
        (FORWARDED, "for=6.6.6.6;x=\""),
        (FORWARDED, "for=203.0.113.9"),
    ];
    assert_eq!(client("10.0.0.1", &lines), "203.0.113.9");
}

#[test]
fn lines_are_one_list() {
    let lines = [(XFF, "1.1.1.1, 203.0.113.9"), (XFF, "10.8.8.8")];
    assert_eq!(client("10.0.0.1", &lines), "203.0.113.9");
}

#[test]
fn two_headers_that_differ_say_nothing() {
    let one = (XFF, "203.0.113.9");
    let same = (FORWARDED, "for=\"203.0.113.9:4711\"");
    assert_eq!(client("10.0.0.1", &[one, same]), "203.0.113.9");
    for other in ["for=1.1.1.1", "for=unknown", "", "\"", "for=10.8.8.8"] {
        let lines = [one, (FORWARDED, other)];
        assert_eq!(client("10.0.0.1", &lines), "10.0.0.1", "{other}");
    }
}

/// An address as one of the ways in which proxies write it.
fn written(ip: IpAddr, form: u8) -> String {
    match (ip, form % 3) {
        (ip, 0) => ip.to_string(),
        (IpAddr::V4(v4), 1) => format!("{v4}:4711"),
        (IpAddr::V4(v4), _) => format!("::ffff:{v4}"),
        (IpAddr::V6(v6), 1) => format!("[{v6}]"),
        (IpAddr::V6(v6), _) => format!("[{v6}]:4711"),
    }
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

/// What a client may send before a proxy appends: text of the grammars' own pieces, or anything.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "([0-9a-f.:\\[\\]\",;= \\\\]|for=|6\\.6\\.6\\.6|10\\.0\\.0\\.1|unknown){0,24}",
        "[ -~]{0,40}",
    ]
}

/// The proxies between client and gateway, the one that connects to us last.
fn chain() -> impl Strategy<Value = Vec<IpAddr>> {
    let proxy =
        any::<u16>().prop_map(|low| IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 | u32::from(low))));
    prop::collection::vec(proxy, 1..4)
}

proptest! {
    #[test]
    fn no_input_is_too_odd(
        lines in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..80)), 0..4),
    ) {
        let mut headers = HeaderMap::new();
        for (is_old, bytes) in lines {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.append(if is_old { X_FORWARDED_FOR } else { header::FORWARDED }, value);
            }
        }
        let _ = proxies().client("10.0.0.1".parse().unwrap(), &headers);
    }

    /// Whatever a client sends in the header that the proxies append to, they win.
    #[test]
    fn a_client_cannot_choose_its_address_in_x_forwarded_for(
        real in addresses(), sent in hostile(), chain in chain(), form in any::<u8>(), is_one_line in any::<bool>(),
    ) {
        prop_assume!(!proxies().trust(real));
        let (peer, before) = chain.split_last().unwrap();
        let appended: Vec<String> =
            [real].iter().chain(before).map(|ip| written(*ip, form)).collect();
        let appended = appended.join(", ");
        let one = [(XFF, format!("{sent}, {appended}"))];
        let two = [(XFF, sent), (XFF, appended)];
        let lines: &[_] = if is_one_line { &one } else { &two };
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        prop_assert_eq!(client(&peer.to_string(), &lines), real.to_canonical().to_string());
    }

    /// In `Forwarded` a client can hide behind its proxy at most.
    #[test]
    fn a_client_cannot_choose_its_address_in_forwarded(
        real in addresses(), sent in hostile(), chain in chain(), is_one_line in any::<bool>(),
    ) {
        prop_assume!(!proxies().trust(real));
        let (peer, before) = chain.split_last().unwrap();
        let element = |ip: &IpAddr| match ip {
            IpAddr::V4(v4) => format!("for={v4};proto=https"),
            IpAddr::V6(v6) => format!("proto=https;for=\"[{v6}]:4711\""),
        };
        let appended: Vec<String> = [real].iter().chain(before).map(element).collect();
        let appended = appended.join(", ");
        let one = [(FORWARDED, format!("{sent}, {appended}"))];
        let two = [(FORWARDED, sent), (FORWARDED, appended)];
        let lines: &[_] = if is_one_line { &one } else { &two };
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let client = client(&peer.to_string(), &lines);
        let is_real = client == real.to_canonical().to_string();
        prop_assert!(is_real || (is_one_line && client == peer.to_string()), "{}", client);
    }

    /// The header that the proxies do not write is the client's to send, and gains it nothing.
    #[test]
    fn a_client_cannot_choose_its_address_in_the_other_header(
        real in addresses(), sent in hostile(), chain in chain(),
    ) {
        prop_assume!(!proxies().trust(real));
        let (peer, before) = chain.split_last().unwrap();
        let appended: Vec<String> =
            [real].iter().chain(before).map(|ip| written(*ip, 0)).collect();
        let lines = [(XFF, appended.join(", ")), (FORWARDED, sent)];
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let client = client(&peer.to_string(), &lines);
        prop_assert!(client == real.to_canonical().to_string() || client == peer.to_string());
    }
}
