//! The hash of one password as a password file writes it: parse, print, make, verify. Salts come from the caller.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use sha2::{Digest as _, Sha512};
use subtle::ConstantTimeEq as _;

/// Some ten seconds of work: a file must not be able to keep a core busy for hours.
pub const ITERATIONS_MAX: u32 = 10_000_000;
/// KiB that one argon2id check may ask for (mosquitto 2.1 writes 47104): 256 MiB, as an allocation that fails ends the process.
const ARGON2_MEMORY_MAX: u32 = 1 << 18;
/// KiB times passes: a few seconds of work.
const ARGON2_WORK_MAX: u64 = 1 << 24;
const ARGON2_LANES_MAX: u32 = 64;
const HASH_LEN: usize = 64;

/// What a hash is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `$6$`: one SHA-512 of password ‖ salt. Weak; mosquitto up to 1.6 wrote it.
    Sha512,
    /// `$7$`: PBKDF2-HMAC-SHA512.
    Pbkdf2 { iterations: u32 },
    /// `$argon2id$`: memory in KiB, passes, lanes.
    Argon2id { memory: u32, passes: u32, lanes: u32 },
}

/// A salted hash.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    scheme: Scheme,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

/// Why a text is not a hash; mosquitto's sentences, without the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    #[error("Missing password hash")]
    Missing,
    #[error("Invalid password hash")]
    Invalid,
    #[error("Invalid password hash type")]
    Type,
    #[error("Invalid hash iterations")]
    Iterations,
    #[error("Unable to decode password salt")]
    Salt,
    #[error("Unable to decode password")]
    Hash,
}

impl fmt::Debug for PasswordHash {
    /// Without the hash: it does not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl fmt::Display for PasswordHash {
    /// As it stands in a password file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Sha512 => f.write_str("$6$")?,
            Scheme::Pbkdf2 { iterations } => write!(f, "$7${iterations}$")?,
            Scheme::Argon2id { memory, passes, lanes } => {
                let (salt, hash) = (BASE64_STANDARD_NO_PAD.encode(&self.salt), BASE64_STANDARD_NO_PAD.encode(&self.hash));
                return write!(f, "$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}");
            }
        }
        write!(f, "{}${}", BASE64_STANDARD.encode(&self.salt), BASE64_STANDARD.encode(&self.hash))
    }
}

/// `m=47104,t=1,p=1`
fn argon2_scheme(text: &str) -> Option<Scheme> {
    let mut values = text.split(',');
    let mut value = |name: &str| values.next()?.strip_prefix(name)?.strip_prefix('=')?.parse::<u32>().ok();
    let (memory, passes, lanes) = (value("m")?, value("t")?, value("p")?);
    let bounded = memory <= ARGON2_MEMORY_MAX && lanes <= ARGON2_LANES_MAX && u64::from(memory) * u64::from(passes) <= ARGON2_WORK_MAX;
    (values.next().is_none() && bounded).then_some(Scheme::Argon2id { memory, passes, lanes })
}

impl PasswordHash {
    /// Makes the hash of `password`. `None` when the library refuses the scheme's parameters or the salt.
    pub fn new(scheme: Scheme, password: &[u8], salt: &[u8]) -> Option<Self> {
        let mut hash = vec![0; HASH_LEN];
        derive(scheme, password, salt, &mut hash)?;
        Some(Self { scheme, salt: salt.into(), hash: hash.into() })
    }

    /// Reads what follows `user:`.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        if text.is_empty() {
            return Err(HashError::Missing);
        }
        // A hash begins with `$`. mosquitto's strtok() does not insist, so that the plain text password `7` would be half a hash.
        let mut fields = text.strip_prefix('$').ok_or(HashError::Type)?.split('$');
        let scheme = match fields.next() {
            Some("6") => Scheme::Sha512,
            Some("7") => {
                let iterations = fields.next().ok_or(HashError::Invalid)?.parse().map_err(|_| HashError::Iterations)?;
                if !(1..=ITERATIONS_MAX).contains(&iterations) {
                    return Err(HashError::Iterations);
                }
                Scheme::Pbkdf2 { iterations }
            }
            Some("argon2id") => {
                if fields.next() != Some("v=19") {
                    return Err(HashError::Invalid);
                }
                fields.next().and_then(argon2_scheme).ok_or(HashError::Iterations)?
            }
            _ => return Err(HashError::Type),
        };
        let (Some(salt), Some(hash), None) = (fields.next(), fields.next(), fields.next()) else { return Err(HashError::Invalid) };
        let argon2 = matches!(scheme, Scheme::Argon2id { .. });
        let decode = |text: &str| if argon2 { BASE64_STANDARD_NO_PAD.decode(text) } else { BASE64_STANDARD.decode(text) };
        let salt = decode(salt).map_err(|_| HashError::Salt)?;
        let salt_fits = if argon2 { (8..=64).contains(&salt.len()) } else { salt.len() == 12 || salt.len() == 64 };
        if !salt_fits {
            return Err(HashError::Salt);
        }
        let hash = decode(hash).map_err(|_| HashError::Hash)?;
        let hash_fits = if argon2 { (16..=HASH_LEN).contains(&hash.len()) } else { hash.len() == HASH_LEN };
        if !hash_fits {
            return Err(HashError::Hash);
        }
        Ok(Self { scheme, salt: salt.into(), hash: hash.into() })
    }

    /// Whether this is the hash of `password`, compared in constant time.
    pub fn verify(&self, password: &[u8]) -> bool {
        let mut hash = vec![0; self.hash.len()];
        derive(self.scheme, password, &self.salt, &mut hash).is_some() && bool::from(hash.ct_eq(&self.hash))
    }
}

fn derive(scheme: Scheme, password: &[u8], salt: &[u8], out: &mut [u8]) -> Option<()> {
    match scheme {
        Scheme::Sha512 => {
            let digest = Sha512::new().chain_update(password).chain_update(salt).finalize();
            out.get_mut(..HASH_LEN)?.copy_from_slice(&digest);
        }
        Scheme::Pbkdf2 { iterations } => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, out),
        Scheme::Argon2id { memory, passes, lanes } => {
            let params = Params::new(memory, passes, lanes, Some(out.len())).ok()?;
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(password, salt, out).ok()?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Published vectors: FIPS 180-4's "abc" and the PBKDF2-HMAC-SHA512 vectors that follow RFC 6070's inputs.
    #[test]
    fn published_vectors() {
        let mut out = [0; 64];
        derive(Scheme::Sha512, b"ab", b"c", &mut out).unwrap();
        assert!(hex(&out).starts_with("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"));
        derive(Scheme::Pbkdf2 { iterations: 1 }, b"password", b"salt", &mut out).unwrap();
        assert!(hex(&out).starts_with("867f70cf1ade02cff3752599a3a53dc4af34c7a669815ae5d513554e1c8cf252"));
        derive(Scheme::Pbkdf2 { iterations: 4096 }, b"password", b"salt", &mut out).unwrap();
        assert!(hex(&out).starts_with("d197b1b33db0143e018b12f3d1d1479e6cdebdcc97c5c0f87f6902e072f457b5"));
        // The reference implementation's `hashtest(v, 2, 8, 1, "password", "somesalt")` for Argon2id, version 0x13.
        let mut out = [0; 32];
        derive(Scheme::Argon2id { memory: 256, passes: 2, lanes: 1 }, b"password", b"somesalt", &mut out).unwrap();
        assert_eq!(hex(&out), "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
    }

    #[test]
    fn every_scheme_survives_print_and_parse() {
        let argon2 = Scheme::Argon2id { memory: 64, passes: 1, lanes: 1 };
        for (scheme, salt_len) in [
            (Scheme::Sha512, 12),
            (Scheme::Pbkdf2 { iterations: 101 }, 12),
            (Scheme::Pbkdf2 { iterations: 3 }, 64),
            (argon2, 64),
            (argon2, 16),
        ] {
            let hash = PasswordHash::new(scheme, b"secret", &vec![7; salt_len]).unwrap();
            let again = PasswordHash::parse(&hash.to_string()).unwrap();
            assert_eq!(again, hash);
            assert!(again.verify(b"secret") && !again.verify(b"secrets") && !again.verify(b""));
        }
    }

    #[test]
    fn what_is_not_a_hash_says_why() {
        for (text, error) in [
            ("", HashError::Missing),
            ("tiguitto", HashError::Type),
            ("$5$a$b", HashError::Type),
            ("$7", HashError::Invalid),
            ("$7$0$AAAA$AAAA", HashError::Iterations),
            ("$7$99999999999$AAAA$AAAA", HashError::Iterations),
            ("$7$10000001$AAAA$AAAA", HashError::Iterations),
            ("$7$101$AAAA", HashError::Invalid),
            ("$7$101$AAAA$AAAA", HashError::Salt),
            ("$6$!$AAAA", HashError::Salt),
            ("$6$AAAAAAAAAAAAAAAA$AAAA", HashError::Hash),
            ("$argon2id$v=16$m=64,t=1,p=1$AAAAAAAAAAAAAAAA$AAAA", HashError::Invalid),
            ("$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAAAAAAA$AAAA", HashError::Iterations),
            ("$argon2id$v=19$m=47104,t=4294967295,p=1$AAAAAAAAAAAAAAAA$AAAA", HashError::Iterations),
        ] {
            assert_eq!(PasswordHash::parse(text).err(), Some(error), "{text}");
        }
    }
}
