//! mosquitto's ACL file.

use super::Access;
use crate::conf::diagnostic::Diagnostic;

/// The rules of one ACL file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acl {}

impl Acl {
    /// `Err` holds every error; warnings come with the rules.
    pub fn parse(_path: &std::path::Path, _bytes: &[u8]) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        todo!()
    }

    /// Deny entries first, then any allowing entry; nothing matches: denied.
    pub fn permits(&self, _client_id: &str, _username: Option<&str>, _topic: &str, _access: Access) -> bool {
        todo!()
    }
}
