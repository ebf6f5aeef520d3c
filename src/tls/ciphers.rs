//! OpenSSL's names of ciphers → what rustls has of them.

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite as ring;

use super::fault;
use crate::conf::Tls;
use crate::conf::diagnostic::Diagnostic;

/// TLS 1.2: OpenSSL's name, and the words of its lists that mean the suite too.
const TLS12: &[(&str, &str, SupportedCipherSuite)] = &[
    ("ECDHE-ECDSA-AES256-GCM-SHA384", "aECDSA ECDSA AES256 AESGCM AES SHA384", ring::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", "aRSA RSA AES256 AESGCM AES SHA384", ring::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", "aECDSA ECDSA CHACHA20", ring::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", "aRSA RSA CHACHA20", ring::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", "aECDSA ECDSA AES128 AESGCM AES SHA256", ring::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", "aRSA RSA AES128 AESGCM AES SHA256", ring::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
];

/// Words that mean all of the above.
const ALL: &[&str] = &["ALL", "DEFAULT", "HIGH", "ECDHE", "kECDHE", "EECDH", "kEECDH", "TLSv1.2", "FIPS"];

const TLS13: &[(&str, SupportedCipherSuite)] = &[
    ("TLS_AES_256_GCM_SHA384", ring::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", ring::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_AES_128_GCM_SHA256", ring::TLS13_AES_128_GCM_SHA256),
];

/// What a listener offers: all of TLS 1.2 and 1.3, or what `ciphers` and `ciphers_tls1.3` leave of it.
pub(super) fn suites(tls: &Tls) -> Result<Vec<SupportedCipherSuite>, Diagnostic> {
    let mut suites: Vec<_> = match &tls.ciphers_tls13 {
        None => TLS13.iter().map(|(_, suite)| *suite).collect(),
        Some(list) => {
            let known = list.split(':').filter_map(|name| TLS13.iter().find(|(known, _)| *known == name.trim()));
            let suites: Vec<_> = known.map(|(_, suite)| *suite).collect();
            if suites.is_empty() {
                let names: Vec<_> = TLS13.iter().map(|(name, _)| *name).collect();
                let message = format!("Error: Unable to set TLS 1.3 ciphersuites. Check cipher_tls13 list \"{list}\".");
                return Err(fault(message, format_args!("none of {} is in it", names.join(", "))));
            }
            suites
        }
    };
    let list = tls.ciphers.as_deref().unwrap_or("DEFAULT");
    let chosen = tls12(list);
    if chosen.is_empty() {
        let names: Vec<_> = TLS12.iter().map(|(name, ..)| *name).collect();
        let message = format!("Error: Unable to set TLS ciphers. Check cipher list \"{list}\".");
        return Err(fault(message, format_args!("none of {} is in it", names.join(", "))));
    }
    suites.extend(chosen);
    Ok(suites)
}

/// OpenSSL's list in its order: `NAME`, `A+B` for suites of both, `-` and `!` to take away, `@…` for settings that rustls lacks.
fn tls12(list: &str) -> Vec<SupportedCipherSuite> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut banned: Vec<usize> = Vec::new();
    for word in list.split([':', ',', ' ', ';']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
        let name = word.trim_start_matches(['!', '-', '+']);
        let meant = TLS12.iter().enumerate().filter(|(_, (suite, words, _))| {
            name == *suite || name.split('+').all(|part| ALL.contains(&part) || words.split(' ').any(|word| word == part))
        });
        let meant: Vec<usize> = meant.map(|(index, _)| index).collect();
        match word.as_bytes().first() {
            Some(b'!') => {
                banned.extend(&meant);
                chosen.retain(|index| !meant.contains(index));
            }
            Some(b'-') => chosen.retain(|index| !meant.contains(index)),
            // `+NAME` moves to the end.
            Some(b'+') => chosen.sort_by_key(|index| meant.contains(index)),
            _ => {
                for index in meant {
                    if !chosen.contains(&index) && !banned.contains(&index) {
                        chosen.push(index);
                    }
                }
            }
        }
    }
    chosen.into_iter().filter_map(|index| TLS12.get(index)).map(|(_, _, suite)| *suite).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(ciphers: &str) -> usize {
        tls12(ciphers).len()
    }

    #[test]
    fn openssls_lists_are_understood() {
        assert_eq!(count("DEFAULT"), 6);
        assert_eq!(count("HIGH:!aNULL:!MD5:@SECLEVEL=2"), 6);
        assert_eq!(count("ECDHE+AESGCM:!ECDSA"), 2);
        assert_eq!(tls12("ECDHE-RSA-AES128-GCM-SHA256:AES256-SHA"), [ring::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
        assert_eq!(count("!CHACHA20:ALL:-AES128"), 2);
        assert_eq!(tls12("ALL:+AESGCM").first(), Some(&ring::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256));
    }

    #[test]
    fn a_list_of_nothing_that_rustls_has_is_refused() {
        let refused = |tls: Tls| suites(&tls).err().map(|found| found.message);
        assert_eq!(
            refused(Tls { ciphers: Some("RC4-MD5".into()), ..Tls::default() }).as_deref(),
            Some("Error: Unable to set TLS ciphers. Check cipher list \"RC4-MD5\".")
        );
        assert!(refused(Tls { ciphers_tls13: Some("TLS_AES_128_CCM_SHA256".into()), ..Tls::default() }).is_some());
        assert_eq!(refused(Tls::default()), None);
    }
}
