//! Who is who, by the files: /etc/passwd and /etc/group.
//!
//! Not through the C library's services, which a static binary can only reach by loading libraries of a C library that may be
//! another one than its own: that ended in a crash on hosts whose nsswitch.conf names more than files.

use crate::os::spawn::Identity;

/// The identity of a name in the text of /etc/passwd; `None` where it is not there.
#[must_use]
pub fn find(name: &str, passwd: &str) -> Option<Identity> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        Some(Identity { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    })
}

/// The groups whose lines in the text of /etc/group name this member, in their order.
#[must_use]
pub fn supplementary_groups(name: &str, group: &str) -> Vec<u32> {
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        let gid = fields.nth(2)?.parse().ok()?;
        fields.next()?.split(',').any(|member| member.trim() == name).then_some(gid)
    };
    group.lines().filter_map(of_line).collect()
}

/// The text of /etc/passwd; empty where there is none.
#[must_use]
pub fn passwd_file() -> String {
    std::fs::read_to_string("/etc/passwd").unwrap_or_default()
}

/// The text of /etc/group; empty where there is none.
#[must_use]
pub fn group_file() -> String {
    std::fs::read_to_string("/etc/group").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nbroken\nmosquitto:x:100:101::/var/empty:/sbin/nologin\nmany:x:4294967296:1:::\n";

    #[test]
    fn a_name_has_the_numbers_of_its_line() {
        assert_eq!(find("mosquitto", PASSWD).map(|who| (who.uid, who.gid)), Some((100, 101)));
        assert_eq!(find("mosq", PASSWD), None);
        assert_eq!(find("broken", PASSWD), None);
        assert_eq!(find("many", PASSWD), None, "no number of a user");
    }

    #[test]
    fn a_member_is_in_the_groups_that_name_it() {
        let group = "root:x:0:\ndialout:x:20:pi,mosquitto\nssl-cert:x:112:mosquitto\nmosquitto:x:1883:\nbroken:x:mosquitto\n";
        assert_eq!(supplementary_groups("mosquitto", group), [20, 112]);
        assert!(supplementary_groups("mosq", group).is_empty());
    }
}
