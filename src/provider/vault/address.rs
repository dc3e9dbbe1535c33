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
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(wrong("Vault's address begins with https:// or http://")),
        };
        if !tls && plaintext == Plaintext::LoopbackOnly && !is_loopback(&host) {
            return Err(wrong("without TLS anyone on the way reads AEKs and tokens: use https"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
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
