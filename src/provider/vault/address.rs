//! Where a Vault is, parsed once: address, namespace and mount in, URLs and an endpoint's name out. Imports: `provider`.

use std::fmt::Write;

use ureq::http::Uri;
use ureq::http::uri::Scheme;

use crate::provider::ProviderError;

/// A Transit engine's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `https://host:port`, without a path; the port always told.
    pub(super) base: String,
    pub(super) namespace: Option<String>,
    pub(super) mount: String,
    /// For an authority: host, port, namespace and mount, in one word without slashes. No two places share one.
    pub(super) endpoint: String,
}

/// Whether HTTP without TLS is allowed to a host that is not this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Plaintext {
    #[default]
    LoopbackOnly,
    Anywhere,
}

impl Address {
    /// # Errors
    /// `Misconfigured`, saying which part is wrong.
    pub(super) fn parse(
        address: &str,
        namespace: &str,
        mount: &str,
        plaintext: Plaintext,
    ) -> Result<Self, ProviderError> {
        let wrong = ProviderError::misconfigured;
        let uri: Uri = address.parse().map_err(|_| wrong("Vault's address is no URL"))?;
        let authority = uri.authority().ok_or_else(|| wrong("Vault's address has no host"))?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("Vault's address is `https://host:port` and nothing more"));
        }
        let host = authority.host().to_ascii_lowercase();
        let port = written_port(authority.as_str(), &host);
        let (true, Some(port)) = (is_host(&host), port) else {
            return Err(wrong("a host in Vault's address is a name or an IP address, a port a number"));
        };
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(wrong("Vault's address begins with https:// or http://")),
        };
        if !tls && plaintext == Plaintext::LoopbackOnly && !is_loopback(&host) {
            return Err(wrong("without TLS anyone on the way reads AEKs and tokens: use https"));
        }
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let (namespace, mount) = (namespace.trim_matches('/'), mount.trim_matches('/'));
        if !is_path(mount) || !(namespace.is_empty() || is_path(namespace)) {
            return Err(wrong("a mount or namespace has letters, digits, `-`, `_`, `.` and single `/`"));
        }
        let scheme = if tls { "https" } else { "http" };
        // A semicolon stands in none of the parts, and an empty namespace is one like any other.
        let endpoint = format!("{host}:{port};{};{}", escaped(namespace), escaped(mount));
        Ok(Self {
            base: format!("{scheme}://{host}:{port}"),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            mount: mount.to_owned(),
            endpoint,
        })
    }
}

/// Whether `name` is one that a key at Transit can have. It also comes from records, so it must not lead elsewhere.
pub(super) fn is_key_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 256 && name.bytes().all(is_plain) && !name.starts_with('.')
}

/// Names between single slashes, none of which leads upwards.
pub(super) fn is_path(path: &str) -> bool {
    path.len() <= 256 && path.split('/').all(|part| is_key_name(part) && !part.starts_with('.'))
}

/// A name, or an IP address: `http` also takes a bracket in the middle of a name, and then sees no port behind it.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_plain),
    }
}

/// The port behind the host, `Some(None)` where none is written; nothing where what stands there is no port.
fn written_port(authority: &str, host: &str) -> Option<Option<u16>> {
    match authority.get(host.len()..)?.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        Some(_) => None,
        None => (authority.len() == host.len()).then_some(None),
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Slashes as `%2F`: nothing else in a path needs escaping, a percent sign cannot stand in it.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for part in path.chars() {
        match part {
            '/' => out.push_str("%2F"),
            other => out.write_char(other).expect("writing to a string cannot fail"),
        }
    }
    out
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str, namespace: &str, mount: &str) -> Result<Address, ProviderError> {
        Address::parse(address, namespace, mount, Plaintext::LoopbackOnly)
    }

    #[test]
    fn a8_no_two_places_share_an_endpoint() {
        let places = [
            ("https://vault", "", "transit"),
            ("https://vault:8200", "", "transit"),
            ("https://vault:8200", "transit", "transit"),
            ("https://vault:8200", "a", "b/c"),
            ("https://vault:8200", "a/b", "c"),
            ("https://vault:8200", "", "a/b/c"),
            ("https://vault:8200", "a.b", "c"),
            ("https://[::1]:8200", "", "transit"),
        ];
        let mut endpoints: Vec<String> =
            places.iter().map(|(at, ns, mount)| parse(at, ns, mount).unwrap().endpoint).collect();
        assert!(endpoints.iter().all(|endpoint| !endpoint.contains('/')), "{endpoints:?}");
        endpoints.sort();
        endpoints.dedup();
        assert_eq!(endpoints.len(), places.len(), "{endpoints:?}");
        assert_eq!(endpoints.last().unwrap(), "vault:8200;transit;transit");
    }

    #[test]
    fn one_place_has_one_endpoint() {
        let one = parse("https://Vault.Example/", "/team/", "transit/").unwrap();
        let other = parse("https://vault.example:443", "team", "/transit").unwrap();
        assert_eq!(one, other);
        assert_eq!(one.base, "https://vault.example:443");
    }

    #[test]
    fn http_is_for_this_machine_unless_told() {
        for loopback in ["http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost:8200"] {
            parse(loopback, "", "transit").unwrap();
        }
        for remote in ["http://vault:8200", "http://10.0.0.1", "http://127.0.0.1.evil.example"] {
            assert!(parse(remote, "", "transit").is_err(), "{remote}");
            Address::parse(remote, "", "transit", Plaintext::Anywhere).unwrap();
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port_is_a_number() {
        // The first was found by the fuzz target `vault_answers`: its port was taken for part of the host.
        for address in [
            "http://yyyy[:81]",
            "http://[::1",
            "http://[::1]8200",
            "http://[v1.a]",
            "http://[]",
            "http://a:b",
            "http://a:",
            "http://a:65536",
            "http://a:+80",
            "http://a%41",
            "http://:80",
        ] {
            let parsed = Address::parse(address, "", "transit", Plaintext::Anywhere);
            assert!(parsed.is_err(), "{address}: {parsed:?}");
        }
        let base = |address| Address::parse(address, "", "transit", Plaintext::Anywhere).unwrap().base;
        assert_eq!(base("http://Vault_1.example:65535"), "http://vault_1.example:65535");
        assert_eq!(base("http://[::1]:81"), "http://[::1]:81");
        assert_eq!(base("http://[::1]"), "http://[::1]:80");
    }

    #[test]
    fn nothing_leads_elsewhere() {
        for address in ["vault", "https://", "https://a/b", "https://a@b", "https://a?b", "ftp://a", ""] {
            assert!(parse(address, "", "transit").is_err(), "{address}");
        }
        for path in ["", "..", "a/../b", "a//b", "a b", "a?b", "a#b", "a%2Fb", "a;b", ".hidden"] {
            assert!(parse("https://a", "", path).is_err(), "{path}");
            assert!(!is_key_name(path), "{path}");
        }
        assert!(!is_key_name("a/b") && is_key_name("orders-2026_v1.0"));
    }
}
