//! Who may do what: pure lookups over loaded bytes.

pub mod acl_file;
pub mod load;
pub mod password_file;
pub mod password_hash;

pub use acl_file::Acl;
pub use load::{LoadError, Tables, load};
pub use password_file::Passwords;

/// Kinds of access that an ACL file distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Publishing (`write`).
    Write,
    /// Delivery to the client (`read`).
    Read,
    /// SUBSCRIBE: always permitted by an ACL file, as in mosquitto; here so that the rule stands in one place.
    Subscribe,
}
